// SPDX-License-Identifier: LicenseRef-Staking
pragma solidity 0.8.37;

interface ISteth {
    function owner() external view returns (address);
    function transferFrom(address from, address to, uint256 amount) external returns (bool);
    function getSharesByPooledEth(uint256 amount) external view returns (uint256);
    function permit(address owner, address spender, uint256 value, uint256 deadline, uint8 v, bytes32 r, bytes32 s) external;
}

/// The withdrawal queue (unstETH) for a desk: one NFT per element, first in first out, claims by the owner alone, and the
/// errors, hints and rounding measured on the real queue.
contract WithdrawalQueue {
    uint256 private constant RATE = 1e27;
    uint256 public constant MIN_STETH_WITHDRAWAL_AMOUNT = 100;
    uint256 public constant MAX_STETH_WITHDRAWAL_AMOUNT = 1000 ether;
    uint256 public constant MAX_BATCHES_LENGTH = 36;
    uint256 public constant PAUSE_INFINITELY = type(uint256).max;
    uint256 public constant BUNKER_MODE_DISABLED_TIMESTAMP = type(uint256).max;

    struct Request {
        uint256 amount;
        uint256 shares;
        address owner;
        uint64 timestamp;
        bool claimed;
    }

    struct Checkpoint {
        uint256 fromId;
        uint256 maxShareRate;
    }

    struct PermitInput {
        uint256 value;
        uint256 deadline;
        uint8 v;
        bytes32 r;
        bytes32 s;
    }

    struct WithdrawalRequestStatus {
        uint256 amountOfStETH;
        uint256 amountOfShares;
        address owner;
        uint256 timestamp;
        bool isFinalized;
        bool isClaimed;
    }

    ISteth public immutable STETH;
    uint256 private lastRequestId_;
    uint256 private lastFinalizedId_;
    uint256 private lastCheckpoint_;
    uint256 private locked_;
    uint256 private resumeSince_;
    uint256 private bunkerSince_ = BUNKER_MODE_DISABLED_TIMESTAMP;
    mapping(uint256 => Request) private requests_;
    mapping(uint256 => Checkpoint) private checkpoints_;
    mapping(address => uint256[]) private owned_;
    mapping(uint256 => uint256) private place_; // 1-based place in owned_
    mapping(uint256 => address) private approvals_;
    mapping(address => mapping(address => bool)) public isApprovedForAll;

    event WithdrawalRequested(
        uint256 indexed requestId, address indexed requestor, address indexed owner, uint256 amountOfStETH, uint256 amountOfShares
    );
    event WithdrawalsFinalized(
        uint256 indexed from, uint256 indexed to, uint256 amountOfETHLocked, uint256 sharesToBurn, uint256 timestamp
    );
    event WithdrawalClaimed(uint256 indexed requestId, address indexed owner, address indexed receiver, uint256 amountOfETH);
    event Transfer(address indexed from, address indexed to, uint256 indexed tokenId);
    event Approval(address indexed owner, address indexed approved, uint256 indexed tokenId);
    event ApprovalForAll(address indexed owner, address indexed operator, bool approved);
    event BatchMetadataUpdate(uint256 fromTokenId, uint256 toTokenId);
    event Paused(uint256 duration);
    event Resumed();
    event BunkerModeEnabled(uint256 sinceTimestamp);
    event BunkerModeDisabled();

    error RequestAmountTooSmall(uint256 amount);
    error RequestAmountTooLarge(uint256 amount);
    error ResumedExpected();
    error RequestNotFoundOrNotFinalized(uint256 id);
    error RequestAlreadyClaimed(uint256 id);
    error NotOwner(address sender, address owner);
    error InvalidRequestId(uint256 id);
    error InvalidRequestIdRange(uint256 startId, uint256 endId);
    error RequestIdsNotSorted();
    error InvalidHint(uint256 hint);
    error ArraysLengthMismatch(uint256 first, uint256 second);
    error ZeroRecipient();
    error CantSendValueRecipientMayHaveReverted();
    error NotEnoughEther();
    error OnlyProtocol();

    modifier whenResumed() {
        if (isPaused()) revert ResumedExpected();
        _;
    }

    modifier onlyProtocol() {
        if (msg.sender != address(STETH) && msg.sender != STETH.owner()) revert OnlyProtocol();
        _;
    }

    constructor(ISteth steth) {
        STETH = steth;
    }

    // ---- requests ----

    function requestWithdrawalsWithPermit(uint256[] calldata amounts, address owner, PermitInput calldata permit_)
        external returns (uint256[] memory ids)
    {
        STETH.permit(msg.sender, address(this), permit_.value, permit_.deadline, permit_.v, permit_.r, permit_.s);
        return requestWithdrawals(amounts, owner);
    }

    function requestWithdrawals(uint256[] calldata amounts, address owner) public whenResumed returns (uint256[] memory ids) {
        if (owner == address(0)) owner = msg.sender;
        ids = new uint256[](amounts.length);
        for (uint256 i = 0; i < amounts.length; ++i) {
            if (amounts[i] < MIN_STETH_WITHDRAWAL_AMOUNT) revert RequestAmountTooSmall(amounts[i]);
            if (amounts[i] > MAX_STETH_WITHDRAWAL_AMOUNT) revert RequestAmountTooLarge(amounts[i]);
            ids[i] = _request(amounts[i], owner);
        }
    }

    function getWithdrawalRequests(address owner) external view returns (uint256[] memory) { return owned_[owner]; }
    function getLastRequestId() external view returns (uint256) { return lastRequestId_; }
    function getLastFinalizedRequestId() external view returns (uint256) { return lastFinalizedId_; }
    function getLastCheckpointIndex() external view returns (uint256) { return lastCheckpoint_; }
    function getLockedEtherAmount() external view returns (uint256) { return locked_; }
    function unfinalizedRequestNumber() external view returns (uint256) { return lastRequestId_ - lastFinalizedId_; }

    function unfinalizedStETH() external view returns (uint256 total) {
        for (uint256 id = lastFinalizedId_ + 1; id <= lastRequestId_; ++id) total += requests_[id].amount;
    }

    function getWithdrawalStatus(uint256[] calldata ids) external view returns (WithdrawalRequestStatus[] memory found) {
        found = new WithdrawalRequestStatus[](ids.length);
        for (uint256 i = 0; i < ids.length; ++i) {
            if (ids[i] == 0 || ids[i] > lastRequestId_) revert InvalidRequestId(ids[i]);
            Request storage r = requests_[ids[i]];
            found[i] = WithdrawalRequestStatus(r.amount, r.shares, r.owner, r.timestamp, ids[i] <= lastFinalizedId_, r.claimed);
        }
    }

    function getClaimableEther(uint256[] calldata ids, uint256[] calldata hints) external view returns (uint256[] memory values) {
        values = new uint256[](ids.length);
        for (uint256 i = 0; i < ids.length; ++i) {
            if (ids[i] == 0 || ids[i] > lastRequestId_) revert InvalidRequestId(ids[i]);
            if (ids[i] > lastFinalizedId_ || requests_[ids[i]].claimed) continue;
            values[i] = _claimable(ids[i], hints[i]);
        }
    }

    function findCheckpointHints(uint256[] calldata ids, uint256 firstIndex, uint256 lastIndex)
        external view returns (uint256[] memory hints)
    {
        hints = new uint256[](ids.length);
        uint256 previous = 0;
        for (uint256 i = 0; i < ids.length; ++i) {
            if (ids[i] < previous) revert RequestIdsNotSorted();
            hints[i] = _findHint(ids[i], firstIndex, lastIndex);
            firstIndex = hints[i]; // a 0 here makes the next look-up revert, as on the real queue
            previous = ids[i];
        }
    }

    // ---- claims ----

    function claimWithdrawal(uint256 id) external {
        _claim(id, _findHint(id, 1, lastCheckpoint_), msg.sender);
    }

    function claimWithdrawals(uint256[] calldata ids, uint256[] calldata hints) external {
        _claimAll(ids, hints, msg.sender);
    }

    function claimWithdrawalsTo(uint256[] calldata ids, uint256[] calldata hints, address recipient) external {
        if (recipient == address(0)) revert ZeroRecipient();
        _claimAll(ids, hints, recipient);
    }

    // ---- NFT ----

    function name() external pure returns (string memory) { return "Lido: stETH Withdrawal NFT"; }
    function symbol() external pure returns (string memory) { return "unstETH"; }
    function balanceOf(address owner) external view returns (uint256) { return owned_[owner].length; }

    function ownerOf(uint256 id) public view returns (address) {
        if (id == 0 || id > lastRequestId_) revert InvalidRequestId(id);
        if (requests_[id].claimed) revert RequestAlreadyClaimed(id);
        return requests_[id].owner;
    }

    function approve(address to, uint256 id) external {
        address owner = ownerOf(id);
        require(msg.sender == owner || isApprovedForAll[owner][msg.sender], "NotOwnerOrApprovedForAll");
        approvals_[id] = to;
        emit Approval(owner, to, id);
    }

    function setApprovalForAll(address operator, bool approved) external {
        isApprovedForAll[msg.sender][operator] = approved;
        emit ApprovalForAll(msg.sender, operator, approved);
    }

    function transferFrom(address from, address to, uint256 id) external {
        address owner = ownerOf(id);
        require(owner == from && to != address(0), "TransferFromIncorrectOwner");
        require(msg.sender == owner || approvals_[id] == msg.sender || isApprovedForAll[owner][msg.sender], "NotOwnerOrApproved");
        delete approvals_[id];
        _remove(from, id);
        _add(to, id);
        requests_[id].owner = to;
        emit Transfer(from, to, id);
    }

    // ---- oracle and switches ----

    function prefinalize(uint256 lastId, uint256 maxShareRate) external view returns (uint256 ethToLock, uint256 sharesToBurn) {
        if (lastId > lastRequestId_ || lastId <= lastFinalizedId_) revert InvalidRequestId(lastId);
        for (uint256 id = lastFinalizedId_ + 1; id <= lastId; ++id) {
            ethToLock += _value(requests_[id], maxShareRate);
            sharesToBurn += requests_[id].shares;
        }
    }

    function finalize(uint256 lastId, uint256 maxShareRate) external payable whenResumed onlyProtocol {
        if (lastId > lastRequestId_ || lastId <= lastFinalizedId_) revert InvalidRequestId(lastId);
        uint256 from = lastFinalizedId_ + 1;
        uint256 burnt = 0;
        for (uint256 id = from; id <= lastId; ++id) burnt += requests_[id].shares;
        lastFinalizedId_ = lastId;
        checkpoints_[++lastCheckpoint_] = Checkpoint(from, maxShareRate);
        locked_ += msg.value;
        emit WithdrawalsFinalized(from, lastId, msg.value, burnt, block.timestamp);
        emit BatchMetadataUpdate(from, lastId);
    }

    function isPaused() public view returns (bool) { return block.timestamp < resumeSince_; }
    function getResumeSinceTimestamp() external view returns (uint256) { return resumeSince_; }
    function isBunkerModeActive() public view returns (bool) { return bunkerSince_ < BUNKER_MODE_DISABLED_TIMESTAMP; }
    function bunkerModeSinceTimestamp() external view returns (uint256) { return bunkerSince_; }

    function pauseFor(uint256 duration) external onlyProtocol {
        resumeSince_ = duration == PAUSE_INFINITELY ? PAUSE_INFINITELY : block.timestamp + duration;
        emit Paused(duration);
    }

    function resume() external onlyProtocol {
        resumeSince_ = 0;
        emit Resumed();
    }

    function setBunkerMode(bool active) external onlyProtocol {
        bunkerSince_ = active ? block.timestamp : BUNKER_MODE_DISABLED_TIMESTAMP;
        if (active) emit BunkerModeEnabled(block.timestamp);
        else emit BunkerModeDisabled();
    }

    // ---- helpers ----

    function _request(uint256 amount, address owner) private returns (uint256 id) {
        STETH.transferFrom(msg.sender, address(this), amount);
        uint256 shares = STETH.getSharesByPooledEth(amount);
        id = ++lastRequestId_;
        requests_[id] = Request(amount, shares, owner, uint64(block.timestamp), false);
        _add(owner, id);
        emit WithdrawalRequested(id, msg.sender, owner, amount, shares);
        emit Transfer(address(0), owner, id);
    }

    function _value(Request storage r, uint256 maxShareRate) private view returns (uint256) {
        if (r.shares == 0) return r.amount;
        return (r.amount * RATE) / r.shares > maxShareRate ? (r.shares * maxShareRate) / RATE : r.amount;
    }

    function _claimable(uint256 id, uint256 hint) private view returns (uint256) {
        if (hint == 0 || hint > lastCheckpoint_) revert InvalidHint(hint);
        if (id < checkpoints_[hint].fromId) revert InvalidHint(hint);
        if (hint < lastCheckpoint_ && checkpoints_[hint + 1].fromId <= id) revert InvalidHint(hint);
        return _value(requests_[id], checkpoints_[hint].maxShareRate);
    }

    function _findHint(uint256 id, uint256 start, uint256 end) private view returns (uint256) {
        if (id == 0 || id > lastRequestId_) revert InvalidRequestId(id);
        if (start == 0 || end > lastCheckpoint_) revert InvalidRequestIdRange(start, end);
        if (lastCheckpoint_ == 0 || id > lastFinalizedId_ || start > end) return 0;
        if (id >= checkpoints_[end].fromId) {
            if (end == lastCheckpoint_ || id < checkpoints_[end + 1].fromId) return end;
            return 0;
        }
        if (id < checkpoints_[start].fromId) return 0;
        uint256 low = start;
        uint256 high = end - 1;
        while (high > low) {
            uint256 middle = (high + low + 1) / 2;
            if (checkpoints_[middle].fromId <= id) low = middle;
            else high = middle - 1;
        }
        return low;
    }

    function _claimAll(uint256[] calldata ids, uint256[] calldata hints, address recipient) private {
        if (ids.length != hints.length) revert ArraysLengthMismatch(ids.length, hints.length);
        for (uint256 i = 0; i < ids.length; ++i) _claim(ids[i], hints[i], recipient);
    }

    function _claim(uint256 id, uint256 hint, address recipient) private {
        if (id == 0) revert InvalidRequestId(id);
        if (id > lastFinalizedId_) revert RequestNotFoundOrNotFinalized(id);
        Request storage r = requests_[id];
        if (r.claimed) revert RequestAlreadyClaimed(id);
        if (r.owner != msg.sender) revert NotOwner(msg.sender, r.owner);
        uint256 value = _claimable(id, hint);
        r.claimed = true;
        _remove(msg.sender, id);
        locked_ -= value;
        if (address(this).balance < value) revert NotEnoughEther();
        (bool sent,) = recipient.call{value: value}("");
        if (!sent) revert CantSendValueRecipientMayHaveReverted();
        emit WithdrawalClaimed(id, msg.sender, recipient, value);
        emit Transfer(msg.sender, address(0), id);
    }

    function _add(address owner, uint256 id) private {
        owned_[owner].push(id);
        place_[id] = owned_[owner].length;
    }

    function _remove(address owner, uint256 id) private {
        uint256[] storage list = owned_[owner];
        uint256 lastId = list[list.length - 1];
        uint256 place = place_[id];
        list[place - 1] = lastId;
        place_[lastId] = place;
        list.pop();
        delete place_[id];
    }
}
