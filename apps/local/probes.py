"""Whether something answers, asked without the libraries that talk to it: they take longer to import than it to answer."""

from typing import Any

import requests

TIMEOUT_SEC = 3


def answers(url: str) -> bool:
    """Whether a GET is answered with 200."""
    try:
        return requests.get(url, timeout=TIMEOUT_SEC).status_code == 200
    except requests.RequestException:
        return False


def chain_answers(rpc_url: str) -> bool:
    """Whether an Ethereum node tells its chain's id."""
    try:
        return bool(ask(rpc_url, "eth_chainId"))
    except (requests.RequestException, KeyError):
        return False


def ask(rpc_url: str, method: str, *parameters: object) -> Any:  # whatever the method answers
    """One call of an Ethereum node; raises `requests.RequestException` without an answer, `KeyError` without a result."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
    return requests.post(rpc_url, json=body, timeout=TIMEOUT_SEC).json()["result"]
