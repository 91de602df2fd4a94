"""What tests of payouts and deposits share."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from web3 import Web3

from apps.clients.shapes.payouts import NewPayout, NewPayoutAddress
from apps.common.database import transaction
from apps.common.errors import ServiceError
from apps.common.shapes import dump
from tests.support.flows import Flows
from tests.support.protocols import POOL


def payee(user: str) -> str:
    """A wallet of the user's own."""
    return Web3.to_checksum_address(Web3.keccak(text=f"wallet of {user}")[-20:])


def allow(flows: Flows, user: str, address: str) -> str:
    """Put an address on a user's list, usable at once where the settings say so; returns its id."""
    flows.made += 1
    new = NewPayoutAddress(message_id=f"address:{flows.made}", address=address)
    return flows.service.payout_addresses.add(user, new)[0].id


def pay_out(flows: Flows, user: str, wei: int, to: str, by: str | None = None) -> dict[str, Any]:
    """A payout at the pool; raises what it is refused with."""
    flows.made += 1
    body = NewPayout(user_id=user, pool_id=POOL, amount_wei=wei, to=to, by=by)
    return dump(flows.service.payouts.create(f"payout:{flows.made}", body)[0])


def refused(call: Callable[[], object]) -> tuple[int, str]:
    """Status and code of a call that must be refused."""
    with pytest.raises(ServiceError) as error:
        call()
    return error.value.status, error.value.code


def sql(flows: Flows, statement: str, **given: object) -> Any:
    """A statement at the pool's database, and its rows."""
    with transaction(flows.context.sessions) as session:
        found: Any = session.execute(text(statement), given)
        return found.all() if found.returns_rows else None
