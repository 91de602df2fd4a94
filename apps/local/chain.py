"""The stack's chain: contracts deployed or adopted, gas money given and booked."""

import os
from typing import Any

from web3 import Web3

from apps.clients.ledger import LedgerClient
from apps.devnet.deployment import Deployment, connect, deploy
from apps.devnet.oracle import Oracle
from apps.local.errors import LocalError
from apps.local.home import State

LOCAL_CHAIN_ID = 31337


def answers(rpc_url: str) -> bool:
    """Whether the node answers at all."""
    try:
        return bool(connect(rpc_url).eth.chain_id)
    except Exception:  # noqa: BLE001  # whatever is wrong, it does not answer
        return False


# A deployment is what its own file says, kept as JSON beside the chain.
def is_deployed(rpc_url: str, deployment: dict[str, Any] | None) -> bool:
    """Whether the contracts that this home remembers are on this chain."""
    if deployment is None:
        return False
    return len(connect(rpc_url).eth.get_code(Web3.to_checksum_address(deployment["steth"]))) > 0


def deploy_or_adopt(rpc_url: str, state: State, gas_float_wei: int) -> tuple[dict[str, Any], int]:
    """Deploy the devnet's contracts, or take the addresses of a protocol that is there; give each signer gas money.

    Returns the deployment and the wei given to each signer.

    A chain that is not a local one is never written to here: its addresses must be given, and its signers funded by
    hand.
    """
    steth, queue = os.environ.get("LIDO_STETH_ADDRESS"), os.environ.get("LIDO_WITHDRAWAL_QUEUE_ADDRESS")
    chain_id = connect(rpc_url).eth.chain_id
    if steth and queue:
        none = "0x" + "00" * 20
        return Deployment(chain_id, steth, queue, locator=none, owner=none, stranger=none).to_dict(), 0
    if chain_id != LOCAL_CHAIN_ID:
        raise LocalError(
            f"ETH_RPC_URL is chain {chain_id}, where Lido is not ours to deploy.",
            "Set LIDO_STETH_ADDRESS and LIDO_WITHDRAWAL_QUEUE_ADDRESS to the protocol's addresses there.",
        )
    deployment = deploy(rpc_url)
    oracle = Oracle(rpc_url, deployment)
    for address in signers(state):
        oracle.fund(address, gas_float_wei)
    return deployment.to_dict(), gas_float_wei


def signers(state: State) -> list[str]:
    return [state.operator] + ([state.custody] if state.separate_custody else [])


def post_gas_float(ledger: LedgerClient, pool_id: str, state: State) -> None:
    """Book the gas money given at deployment, once."""
    if not state.gas_float_wei:
        return
    for address in signers(state):
        ledger.post_movement(f"gas-float:genesis:{address}", "gas_float", pool_id, None, state.gas_float_wei, "genesis")
