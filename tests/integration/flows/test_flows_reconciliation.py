"""What a reconciliation sees beyond its lines: the reward index against its own log."""

import psycopg2
import pytest

from apps.common.wei import ETHER
from apps.pool.reconcile.audits import audit_books
from apps.pool.reconcile.run import reconcile
from tests.support.flows import Flows
from tests.support.protocols import POOL


@pytest.mark.parametrize("flows_settings", [{"pause_on_drift": True}], indirect=True)
def test_reconcile__a_fraction_of_a_wei_slipped_into_the_index__drift_though_every_line_agrees(flows: Flows) -> None:
    flows.stake("ann", 5 * ETHER)
    assert flows.reconcile()["verdict"] == "ok"
    assert flows.walk().batches_paused is None
    connection = psycopg2.connect(flows.databases["rewards"])
    with connection, connection.cursor() as cursor:
        cursor.execute("UPDATE reward_positions SET pending_scaled = pending_scaled + 1")
    connection.close()
    assert reconcile(flows.context, POOL) == "drift"
    assert flows.reconcile()["verdict"] == "ok"  # the run's own lines do not see it
    why = flows.walk().batches_paused
    assert why is not None
    assert "rewards_audit" in why["detail"]


def rewards_sql(flows: Flows, statement: str) -> None:
    connection = psycopg2.connect(flows.databases["rewards"])
    with connection, connection.cursor() as cursor:
        cursor.execute(statement)
    connection.close()


@pytest.mark.parametrize("flows_settings", [{"pause_on_drift": True}], indirect=True)
def test_audits__of_their_own_schedule__tell_what_is_wrong_and_pause_batches(flows: Flows) -> None:
    flows.stake("ann", 5 * ETHER)
    assert audit_books(flows.context, POOL, full=True) is True
    assert audit_books(flows.context, POOL, full=False) is True
    assert flows.walk().batches_paused is None
    rewards_sql(flows, "UPDATE reward_positions SET claimed_wei = claimed_wei + 1")
    assert audit_books(flows.context, POOL, full=False) is False
    why = flows.walk().batches_paused
    assert why is not None
    assert "rewards_audit" in why["detail"]


def test_reconcile__while_a_loss_is_being_settled__waits_and_settles_on(flows: Flows) -> None:
    """Its settlements would be booked between the reads, and a drift be told that is none."""
    flows.stake("ann", 5 * ETHER)
    rewards_sql(flows, "UPDATE reward_pools SET settling_prefix = 'some-loss:settle:'")
    answer = flows.context.rewards.settle(POOL)
    assert answer.settling is False
    assert flows.reconcile()["verdict"] == "ok"
