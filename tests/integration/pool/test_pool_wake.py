"""The relayer's hint that a transaction has ended: the batch that waits for it looks at once, before its time."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import func, select, text

from apps.common.database import transaction
from apps.pool.context import PoolContext
from apps.pool.models import Batch, BatchTransaction, FlowEvent
from tasks.entry import advance_batches, transaction_ended, worker_context

MESSAGE_ID = "stake-batch:b1:submit:1"


@pytest.fixture
def pool(make_database: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> Iterator[PoolContext]:
    """A batch that looks again in an hour; the relayer that it will ask is not there."""
    monkeypatch.setenv("DATABASE_URL", make_database("pool"))
    monkeypatch.setenv("INTERNAL_API_KEY", "word")
    monkeypatch.setenv("RELAYER_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://127.0.0.1:1/0")
    worker_context.cache_clear()
    context = worker_context()
    later = func.now() + text("interval '1 hour'")
    with transaction(context.sessions) as session:
        values = {"id": "b1", "kind": "stake", "pool_id": "eth_native", "amount_wei": 5, "request_count": 1}
        session.add(Batch(**values, status="confirming", next_run_at=later))
        session.flush()
        session.add(BatchTransaction(message_id=MESSAGE_ID, batch_id="b1", purpose="submit", status="broadcast"))
    yield context
    worker_context.cache_clear()


def steps_run(context: PoolContext) -> int:
    with transaction(context.sessions) as session:
        return session.scalars(select(func.count()).where(FlowEvent.subject_id == "b1")).one()


def test_transaction_ended__of_a_waiting_batch__looks_before_its_time(pool: PoolContext) -> None:
    assert advance_batches("b1") == 0
    assert steps_run(pool) == 0
    assert transaction_ended(MESSAGE_ID) == 1
    assert steps_run(pool) == 1


def test_transaction_ended__unknown_or_forged__nothing(pool: PoolContext) -> None:
    assert transaction_ended("payout:1") == 0
    assert transaction_ended() == 0
    assert steps_run(pool) == 0
