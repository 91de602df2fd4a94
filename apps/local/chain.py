"""The stack's chain: contracts deployed or adopted, gas money given."""

import os
from typing import Any

from web3 import Web3

from apps.devnet.deployment import Deployment, connect, deploy, set_balance
from apps.local.errors import LocalError
from apps.local.home import State

LOCAL_CHAIN_ID = 31337


def deploy_or_adopt(rpc_url: str, state: State, gas_float_wei: int) -> tuple[dict[str, Any], int]:
    """Deploy the devnet's contracts, or take the addresses of a protocol that is there; give each signer gas money.

    Returns the deployment and the wei given to each signer.

    A chain that is not a local one is never written to here: its addresses must be given, and its signers funded by
    hand.
    """
    steth, queue = os.environ.get("LIDO_STETH_ADDRESS"), os.environ.get("LIDO_WITHDRAWAL_QUEUE_ADDRESS")
    web3 = connect(rpc_url)
    chain_id = web3.eth.chain_id
    if steth and queue:
        none = "0x" + "00" * 20
        return Deployment(chain_id, steth, queue, locator=none, owner=none, stranger=none).to_dict(), 0
    if chain_id != LOCAL_CHAIN_ID:
        raise LocalError(
            f"ETH_RPC_URL is chain {chain_id}, where Lido is not ours to deploy.",
            "Set LIDO_STETH_ADDRESS and LIDO_WITHDRAWAL_QUEUE_ADDRESS to the protocol's addresses there.",
        )
    deployment = deploy(rpc_url)
    for address in state.signers():
        set_balance(web3, address, web3.eth.get_balance(Web3.to_checksum_address(address)) + gas_float_wei)
    return deployment.to_dict(), gas_float_wei
