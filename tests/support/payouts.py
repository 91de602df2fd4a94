"""What tests of payouts and deposits share."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from web3 import Web3

from apps.common.database import transaction
from apps.common.errors import ServiceError
from tests.support.flows import Flows


def payee(user: str) -> str:
    """A wallet of the user's own."""
    return Web3.to_checksum_address(Web3.keccak(text=f"wallet of {user}")[-20:])


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
