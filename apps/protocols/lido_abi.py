"""The part of Lido's public interface that is used, and its errors by selector."""

from typing import Any


def _function(name: str, inputs: str, outputs: str = "", mutability: str = "view") -> dict[str, Any]:
    return {
        "type": "function",
        "name": name,
        "stateMutability": mutability,
        "inputs": [{"name": f"a{n}", "type": kind} for n, kind in enumerate(inputs.split()) if kind],
        "outputs": [{"name": f"r{n}", "type": kind} for n, kind in enumerate(outputs.split()) if kind],
    }


def _event(name: str, *inputs: str) -> dict[str, Any]:
    parts = [text.split() for text in inputs]
    return {
        "type": "event",
        "name": name,
        "anonymous": False,
        "inputs": [{"name": part[-1], "type": part[0], "indexed": "indexed" in part} for part in parts],
    }


STETH: list[dict[str, Any]] = [
    _function("submit", "address", "uint256", "payable"),
    _function("approve", "address uint256", "bool", "nonpayable"),
    _function("allowance", "address address", "uint256"),
    _function("balanceOf", "address", "uint256"),
    _function("sharesOf", "address", "uint256"),
    _function("getTotalShares", "", "uint256"),
    _function("getTotalPooledEther", "", "uint256"),
    _function("getPooledEthByShares", "uint256", "uint256"),
    _function("isStakingPaused", "", "bool"),
    _function("isStopped", "", "bool"),
    _function("getStakeLimitFullInfo", "", "bool bool uint256 uint256 uint256 uint256 uint256"),
    _function("getLidoLocator", "", "address"),
    _event("Submitted", "address indexed sender", "uint256 amount", "address referral"),
    _event("Transfer", "address indexed from", "address indexed to", "uint256 value"),
    _event("TransferShares", "address indexed from", "address indexed to", "uint256 sharesValue"),
    _event(
        "TokenRebased",
        "uint256 indexed reportTimestamp",
        "uint256 timeElapsed",
        "uint256 preTotalShares",
        "uint256 preTotalEther",
        "uint256 postTotalShares",
        "uint256 postTotalEther",
        "uint256 sharesMintedAsFees",
    ),
]

LOCATOR: list[dict[str, Any]] = [_function("lido", "", "address"), _function("withdrawalQueue", "", "address")]

_STATUS: dict[str, Any] = {
    "name": "statuses",
    "type": "tuple[]",
    "components": [
        {"name": "amountOfStETH", "type": "uint256"},
        {"name": "amountOfShares", "type": "uint256"},
        {"name": "owner", "type": "address"},
        {"name": "timestamp", "type": "uint256"},
        {"name": "isFinalized", "type": "bool"},
        {"name": "isClaimed", "type": "bool"},
    ],
}

QUEUE: list[dict[str, Any]] = [
    _function("requestWithdrawals", "uint256[] address", "uint256[]", "nonpayable"),
    _function("claimWithdrawalsTo", "uint256[] uint256[] address", "", "nonpayable"),
    {**_function("getWithdrawalStatus", "uint256[]"), "outputs": [_STATUS]},
    _function("getClaimableEther", "uint256[] uint256[]", "uint256[]"),
    _function("findCheckpointHints", "uint256[] uint256 uint256", "uint256[]"),
    _function("getLastCheckpointIndex", "", "uint256"),
    _function("getLastRequestId", "", "uint256"),
    _function("isPaused", "", "bool"),
    _function("isBunkerModeActive", "", "bool"),
    _event(
        "WithdrawalRequested",
        "uint256 indexed requestId",
        "address indexed requestor",
        "address indexed owner",
        "uint256 amountOfStETH",
        "uint256 amountOfShares",
    ),
    _event(
        "WithdrawalClaimed",
        "uint256 indexed requestId",
        "address indexed owner",
        "address indexed receiver",
        "uint256 amountOfETH",
    ),
]

# web3 shows custom errors as raw hex; the selectors are those measured on the queue.
ERRORS = {
    "b89b87c8": "RequestAmountTooSmall",
    "8ebfb78d": "RequestAmountTooLarge",
    "14378398": "ResumedExpected",
    "4ae50228": "RequestNotFoundOrNotFinalized",
    "f0e0cc2d": "RequestAlreadyClaimed",
    "23295f0e": "NotOwner",
    "c969e0f2": "InvalidRequestId",
    "71894257": "InvalidRequestIdRange",
    "374e8bd1": "RequestIdsNotSorted",
    "cee778e2": "InvalidHint",
    "4c59bf28": "ArraysLengthMismatch",
    "d27b4443": "ZeroRecipient",
    "0f0b498d": "CantSendValueRecipientMayHaveReverted",
    "8a0d3779": "NotEnoughEther",
}
