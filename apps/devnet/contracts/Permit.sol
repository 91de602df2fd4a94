// SPDX-License-Identifier: LicenseRef-Staking
pragma solidity 0.8.37;

/// Allowances in stETH (not shares), by transaction or by signature (EIP-2612, domain and errors as on the real token).
abstract contract Permit {
    bytes32 private constant PERMIT =
        keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");
    bytes32 private constant DOMAIN =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
    string private constant NAME = "Liquid staked Ether 2.0";
    string private constant VERSION = "2";

    mapping(address => mapping(address => uint256)) public allowance;
    mapping(address => uint256) public nonces;

    event Approval(address indexed owner, address indexed spender, uint256 value);

    function name() external pure returns (string memory) { return NAME; }

    function approve(address spender, uint256 amount) external returns (bool) {
        _approve(msg.sender, spender, amount);
        return true;
    }

    function increaseAllowance(address spender, uint256 added) external returns (bool) {
        _approve(msg.sender, spender, allowance[msg.sender][spender] + added);
        return true;
    }

    function decreaseAllowance(address spender, uint256 taken) external returns (bool) {
        uint256 allowed = allowance[msg.sender][spender];
        require(allowed >= taken, "ALLOWANCE_BELOW_ZERO");
        _approve(msg.sender, spender, allowed - taken);
        return true;
    }

    function permit(address owner_, address spender, uint256 value, uint256 deadline, uint8 v, bytes32 r, bytes32 s) external {
        require(block.timestamp <= deadline, "DEADLINE_EXPIRED");
        bytes32 content = keccak256(abi.encode(PERMIT, owner_, spender, value, nonces[owner_]++, deadline));
        address signer = ecrecover(keccak256(abi.encodePacked("\x19\x01", DOMAIN_SEPARATOR(), content)), v, r, s);
        require(signer != address(0) && signer == owner_, "INVALID_SIGNATURE");
        _approve(owner_, spender, value);
    }

    function DOMAIN_SEPARATOR() public view returns (bytes32) {
        bytes32 names = keccak256(bytes(NAME));
        return keccak256(abi.encode(DOMAIN, names, keccak256(bytes(VERSION)), block.chainid, address(this)));
    }

    function eip712Domain() external view returns (string memory, string memory, uint256, address) {
        return (NAME, VERSION, block.chainid, address(this));
    }

    function _spend(address from, uint256 amount) internal {
        uint256 allowed = allowance[from][msg.sender];
        if (allowed == type(uint256).max) return;
        require(allowed >= amount, "ALLOWANCE_EXCEEDED");
        _approve(from, msg.sender, allowed - amount);
    }

    function _approve(address from, address spender, uint256 amount) private {
        require(spender != address(0), "APPROVE_TO_ZERO_ADDR");
        allowance[from][spender] = amount;
        emit Approval(from, spender, amount);
    }
}
