"""Quotes against the chain, and how good the estimates that were kept turned out to be."""

import pytest
from sqlalchemy import select, text

from apps.clients.shapes.common import PoolQuery
from apps.clients.shapes.pool import QuoteQuery
from apps.common.database import transaction
from apps.common.wei import ETHER
from apps.pool.models import RequestEstimate
from apps.pool.quotes.service import Quotes, record_estimates
from tests.support.flows import Flows


def test_quote__of_a_stake_and_an_unstake__limits_fee_split_and_time_with_what_they_rest_on(flows: Flows) -> None:
    quotes = Quotes(flows.context)
    flows.desk.oracle.set_stake_limit(100 * ETHER, 50)
    flows.stake("ann", ETHER)
    stake = quotes.quote(QuoteQuery(kind="stake", amount_wei=3 * ETHER))
    assert (stake.maximum_wei, stake.split_wei, stake.reward_fee_bps) == (100 * ETHER, [3 * ETHER], 0)
    assert stake.block_number <= flows.desk.web3.eth.block_number
    assert stake.expected_at is not None
    assert stake.quoted_at < stake.expires_at
    assert [part.code for part in stake.basis] == ["batch_window", "confirmation"]
    assert sum(part.seconds or 0 for part in stake.basis) == stake.expected_sec
    flows.desk.oracle.rebase(ETHER)
    unstake = quotes.quote(QuoteQuery(kind="unstake", amount_wei=2500 * ETHER))
    assert unstake.split_wei == [1000 * ETHER, 1000 * ETHER, 500 * ETHER]
    assert [part.code for part in unstake.basis] == ["batch_window", "confirmation", "withdrawal_queue", "claim"]


def test_estimates__of_requests_that_came__kept_once_and_held_against_what_came(flows: Flows) -> None:
    flows.deposit("ann", 5 * ETHER)
    flows.ask("stake", "ann", 2 * ETHER)
    assert record_estimates(flows.context) == 1
    assert record_estimates(flows.context) == 0
    flows.settle()
    with transaction(flows.context.sessions) as session:
        (kept,) = session.scalars(select(RequestEstimate))
        assert kept.kind == "stake"
    stake, unstake = Quotes(flows.context).accuracy(PoolQuery()).items
    assert (stake.requests, unstake.requests) == (1, 0)
    assert stake.median_error_sec == stake.worst_error_sec is not None
    assert unstake.worst_error_sec is None
    refused = pytest.raises(Exception, match="kept for ever")
    with refused, transaction(flows.context.sessions) as session:
        session.execute(text("UPDATE request_estimates SET expected_at = now()"))
