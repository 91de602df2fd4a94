// SPDX-License-Identifier: LicenseRef-Staking
pragma solidity 0.8.37;

import {Permit} from "./Permit.sol";

interface IWithdrawalQueue {
    function prefinalize(uint256 lastId, uint256 maxShareRate) external view returns (uint256 ethToLock, uint256 sharesToBurn);
    function finalize(uint256 lastId, uint256 maxShareRate) external payable;
    function isPaused() external view returns (bool);
    function getLastFinalizedRequestId() external view returns (uint256);
}

/// stETH for a desk: shares, rounding, limits, pauses, events and revert strings as measured on the real protocol.
/// What the real oracle does over a day, `report` does at once; only the owner may call it.
contract Lido is Permit {
    uint256 private constant RATE = 1e27;
    uint256 private constant BP = 10_000;
    uint256 private constant UNLIMITED = type(uint256).max;

    address public immutable owner;
    address public immutable treasury;
    address public queue;
    address public locator;

    uint256 private totalShares_;
    uint256 private buffered_; // ETH held here
    uint256 private beacon_; // ETH with validators, a number only
    mapping(address => uint256) private shares_;

    bool private stopped_;
    bool private stakingPaused_;
    uint256 private maxStakeLimit_; // 0: no limit set
    uint256 private growthBlocks_;
    uint256 private prevStakeLimit_;
    uint256 private prevStakeBlock_;
    uint256 private lastReportAt_;
    uint256 private feeBp_ = 1000; // 10 % of rewards, as shares to the treasury

    event Submitted(address indexed sender, uint256 amount, address referral);
    event Transfer(address indexed from, address indexed to, uint256 value);
    event TransferShares(address indexed from, address indexed to, uint256 sharesValue);
    event ExternalSharesMinted(address indexed recipient, uint256 amountOfShares);
    event SharesBurnt(address indexed account, uint256 preRebaseTokenAmount, uint256 postRebaseTokenAmount, uint256 sharesAmount);
    event TokenRebased(
        uint256 indexed reportTimestamp,
        uint256 timeElapsed,
        uint256 preTotalShares,
        uint256 preTotalEther,
        uint256 postTotalShares,
        uint256 postTotalEther,
        uint256 sharesMintedAsFees
    );
    event InternalShareRateUpdated(
        uint256 indexed reportTimestamp, uint256 postInternalShares, uint256 postInternalEther, uint256 sharesMintedAsFees
    );
    event ETHDistributed(
        uint256 indexed reportTimestamp,
        uint256 preCLBalance,
        uint256 postCLBalance,
        uint256 withdrawalsWithdrawn,
        uint256 executionLayerRewardsWithdrawn,
        uint256 postBufferedEther
    );
    event StakingPaused();
    event StakingResumed();
    event StakingLimitSet(uint256 maxStakeLimit, uint256 stakeLimitIncreasePerBlock);
    event StakingLimitRemoved();
    event Stopped();
    event Resumed();

    modifier onlyOwner() {
        require(msg.sender == owner, "APP_AUTH_FAILED");
        _;
    }

    /// Bootstraps with the value sent: one share a wei, held by the treasury, then `initialRewards` wei on top of it,
    /// so that the share rate is above one from the start, as on mainnet.
    constructor(address treasury_, uint256 initialRewards) payable {
        require(msg.value > 0, "ZERO_DEPOSIT");
        owner = msg.sender;
        treasury = treasury_;
        totalShares_ = msg.value;
        shares_[treasury_] = msg.value;
        buffered_ = msg.value;
        beacon_ = initialRewards;
        lastReportAt_ = block.timestamp;
        emit Transfer(address(0), treasury_, msg.value);
        emit TransferShares(address(0), treasury_, msg.value);
    }

    function initialize(address queue_, address locator_) external onlyOwner {
        require(queue == address(0), "INITIALIZED");
        queue = queue_;
        locator = locator_;
    }

    // ---- token ----

    function symbol() external pure returns (string memory) { return "stETH"; }
    function decimals() external pure returns (uint8) { return 18; }
    function getLidoLocator() external view returns (address) { return locator; }
    function getFee() external view returns (uint16) { return uint16(feeBp_); }
    function getContractVersion() external pure returns (uint256) { return 3; }
    function totalSupply() external view returns (uint256) { return getTotalPooledEther(); }
    function getTotalPooledEther() public view returns (uint256) { return buffered_ + beacon_; }
    function getTotalShares() external view returns (uint256) { return totalShares_; }
    function getBufferedEther() external view returns (uint256) { return buffered_; }
    function sharesOf(address account) external view returns (uint256) { return shares_[account]; }
    function balanceOf(address account) external view returns (uint256) { return getPooledEthByShares(shares_[account]); }

    function getSharesByPooledEth(uint256 amount) public view returns (uint256) {
        require(amount < 2 ** 128, "ETH_TOO_LARGE");
        return (amount * totalShares_) / getTotalPooledEther();
    }

    function getPooledEthByShares(uint256 amount) public view returns (uint256) {
        require(amount < 2 ** 128, "SHARES_TOO_LARGE");
        return (amount * getTotalPooledEther()) / totalShares_;
    }

    function getPooledEthBySharesRoundUp(uint256 amount) external view returns (uint256) {
        return (amount * getTotalPooledEther() + totalShares_ - 1) / totalShares_;
    }

    function transfer(address to, uint256 amount) external returns (bool) {
        _transferShares(msg.sender, to, getSharesByPooledEth(amount), amount);
        return true;
    }

    function transferFrom(address from, address to, uint256 amount) external returns (bool) {
        _spend(from, amount);
        _transferShares(from, to, getSharesByPooledEth(amount), amount);
        return true;
    }

    function transferShares(address to, uint256 amount) external returns (uint256 tokens) {
        tokens = getPooledEthByShares(amount);
        _transferShares(msg.sender, to, amount, tokens);
    }

    function transferSharesFrom(address from, address to, uint256 amount) external returns (uint256 tokens) {
        tokens = getPooledEthByShares(amount);
        _spend(from, tokens);
        _transferShares(from, to, amount, tokens);
    }

    // ---- staking ----

    receive() external payable { _submit(address(0)); }

    fallback() external payable { revert("NON_EMPTY_DATA"); }

    function submit(address referral) external payable returns (uint256) { return _submit(referral); }

    function isStopped() external view returns (bool) { return stopped_; }
    function isStakingPaused() public view returns (bool) { return stakingPaused_; }

    function getCurrentStakeLimit() public view returns (uint256) {
        if (isStakingPaused()) return 0;
        if (maxStakeLimit_ == 0) return UNLIMITED;
        uint256 grown = prevStakeLimit_;
        if (growthBlocks_ > 0) grown += (block.number - prevStakeBlock_) * (maxStakeLimit_ / growthBlocks_);
        return grown < maxStakeLimit_ ? grown : maxStakeLimit_;
    }

    function getStakeLimitFullInfo() external view returns (
        bool isStakingPaused_, bool isStakingLimitSet, uint256 currentStakeLimit, uint256 maxStakeLimit,
        uint256 maxStakeLimitGrowthBlocks, uint256 prevStakeLimit, uint256 prevStakeBlockNumber
    ) {
        return (isStakingPaused(), maxStakeLimit_ != 0, getCurrentStakeLimit(), maxStakeLimit_, growthBlocks_,
            prevStakeLimit_, stakingPaused_ ? 0 : prevStakeBlock_);
    }

    /// What the owner of a staking vault can do through the vault hub: shares minted to anybody's name, against ETH that
    /// never passes here. The recipient is not asked, and there is no Submitted.
    function mintExternalShares(address recipient, uint256 amount) external onlyOwner {
        require(recipient != address(0), "MINT_TO_ZERO_ADDR");
        require(amount > 0, "MINT_ZERO_AMOUNT_OF_SHARES");
        require(!isStakingPaused(), "STAKING_PAUSED");
        uint256 tokens = getPooledEthByShares(amount);
        _useLimit(tokens);
        beacon_ += tokens;
        totalShares_ += amount;
        shares_[recipient] += amount;
        emit Transfer(address(0), recipient, tokens);
        emit TransferShares(address(0), recipient, amount);
        emit ExternalSharesMinted(recipient, amount);
    }

    // ---- oracle and switches, for the owner ----

    /// One oracle report: a signed reward, fee shares when it is positive, and finalization of the queue up to `lastId`
    /// (0: nothing). `maxShareRate` 0 means the rate after the reward. The value sent comes from validators: it becomes
    /// buffered ETH, which is what withdrawals are paid from.
    function report(int256 reward, uint256 lastId, uint256 maxShareRate) external payable onlyOwner {
        require(!stopped_, "CONTRACT_IS_STOPPED");
        uint256 preShares = totalShares_;
        uint256 preEther = getTotalPooledEther();
        uint256 preBeacon = beacon_;
        if (reward >= 0) beacon_ += uint256(reward);
        else _lose(uint256(-reward));
        require(msg.value <= beacon_, "NOT_THAT_MUCH_WITH_VALIDATORS");
        beacon_ -= msg.value;
        buffered_ += msg.value;
        uint256 feeShares = reward > 0 ? _mintFee(uint256(reward)) : 0;
        if (lastId > 0 && !IWithdrawalQueue(queue).isPaused()) _finalize(lastId, maxShareRate);
        emit ETHDistributed(block.timestamp, preBeacon, beacon_ + msg.value, msg.value, 0, buffered_);
        emit TokenRebased(
            block.timestamp, block.timestamp - lastReportAt_, preShares, preEther, totalShares_, getTotalPooledEther(), feeShares
        );
        emit InternalShareRateUpdated(block.timestamp, totalShares_, getTotalPooledEther(), feeShares);
        lastReportAt_ = block.timestamp;
    }

    function setStakingLimit(uint256 max, uint256 blocks) external onlyOwner {
        maxStakeLimit_ = max;
        growthBlocks_ = blocks;
        prevStakeLimit_ = max;
        prevStakeBlock_ = block.number;
        if (max == 0) emit StakingLimitRemoved();
        else emit StakingLimitSet(max, blocks == 0 ? 0 : max / blocks);
    }

    function setFee(uint16 bp) external onlyOwner { feeBp_ = bp; }

    function pauseStaking() external onlyOwner { _pauseStaking(); }

    function resumeStaking() external onlyOwner {
        require(!stopped_, "CONTRACT_IS_STOPPED");
        _resumeStaking();
    }

    /// Stopping pauses staking as well, and resuming resumes it.
    function stop() external onlyOwner {
        stopped_ = true;
        emit Stopped();
        _pauseStaking();
    }

    function resume() external onlyOwner {
        stopped_ = false;
        emit Resumed();
        _resumeStaking();
    }

    // ---- helpers ----

    function _pauseStaking() private {
        stakingPaused_ = true;
        emit StakingPaused();
    }

    /// The limit does not grow over a pause.
    function _resumeStaking() private {
        stakingPaused_ = false;
        prevStakeBlock_ = block.number;
        emit StakingResumed();
    }

    function _submit(address referral) private returns (uint256 minted) {
        require(msg.value != 0, "ZERO_DEPOSIT");
        require(!isStakingPaused(), "STAKING_PAUSED");
        _useLimit(msg.value);
        minted = getSharesByPooledEth(msg.value);
        totalShares_ += minted;
        shares_[msg.sender] += minted;
        buffered_ += msg.value;
        emit Submitted(msg.sender, msg.value, referral);
        emit Transfer(address(0), msg.sender, getPooledEthByShares(minted));
        emit TransferShares(address(0), msg.sender, minted);
    }

    /// One limit for all: stakers, and shares minted for staking vaults.
    function _useLimit(uint256 amount) private {
        if (maxStakeLimit_ == 0) return;
        uint256 limit = getCurrentStakeLimit();
        require(amount <= limit, "STAKE_LIMIT");
        prevStakeLimit_ = limit - amount;
        prevStakeBlock_ = block.number;
    }

    function _transferShares(address from, address to, uint256 amount, uint256 tokens) private {
        require(from != address(0), "TRANSFER_FROM_ZERO_ADDR");
        require(to != address(0), "TRANSFER_TO_ZERO_ADDR");
        require(to != address(this), "TRANSFER_TO_STETH_CONTRACT");
        require(!stopped_, "CONTRACT_IS_STOPPED");
        require(amount <= shares_[from], "BALANCE_EXCEEDED");
        shares_[from] -= amount;
        shares_[to] += amount;
        emit Transfer(from, to, tokens);
        emit TransferShares(from, to, amount);
    }

    /// A slashing takes what validators hold first; beyond that a desk's protocol may lose buffered ETH as well.
    function _lose(uint256 loss) private {
        require(loss < getTotalPooledEther(), "LOSS_TOO_LARGE");
        if (loss <= beacon_) {
            beacon_ -= loss;
        } else {
            uint256 rest = loss - beacon_;
            beacon_ = 0;
            buffered_ -= rest;
            (bool burnt,) = address(0xdead).call{value: rest}("");
            require(burnt, "BURN_FAILED");
        }
    }

    function _mintFee(uint256 reward) private returns (uint256 feeShares) {
        uint256 feeEther = (reward * feeBp_) / BP;
        feeShares = (feeEther * totalShares_) / (getTotalPooledEther() - feeEther);
        if (feeShares == 0) return 0;
        totalShares_ += feeShares;
        shares_[treasury] += feeShares;
        emit Transfer(address(0), treasury, getPooledEthByShares(feeShares));
        emit TransferShares(address(0), treasury, feeShares);
    }

    function _finalize(uint256 lastId, uint256 maxShareRate) private {
        if (lastId <= IWithdrawalQueue(queue).getLastFinalizedRequestId()) return;
        uint256 rate = maxShareRate == 0 ? (getTotalPooledEther() * RATE) / totalShares_ : maxShareRate;
        (uint256 ethToLock, uint256 sharesToBurn) = IWithdrawalQueue(queue).prefinalize(lastId, rate);
        require(ethToLock <= buffered_, "NOT_ENOUGH_ETHER");
        uint256 preTokens = getPooledEthByShares(sharesToBurn);
        buffered_ -= ethToLock;
        shares_[queue] -= sharesToBurn;
        totalShares_ -= sharesToBurn;
        emit SharesBurnt(queue, preTokens, getPooledEthByShares(sharesToBurn), sharesToBurn);
        IWithdrawalQueue(queue).finalize{value: ethToLock}(lastId, rate);
    }
}
