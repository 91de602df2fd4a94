"""A webhook on a whole stack: its workers, queues and settings as `staking up` starts them."""

from apps.common.wei import ETHER
from apps.local.bff import Bff
from tests.support.receiver import receiving, verified


def test_stake__on_a_running_stack__each_of_its_events_comes_signed_and_in_order(bff: Bff) -> None:
    with receiving() as receiver:
        hook = bff.clients.pool.create_webhook("life-hook", receiver.url)
        bff.deposit("hooked", ETHER, "deposit:hooked")
        (done,) = bff.finish([bff.clients.pool.stake("stake:hooked", "hooked", ETHER)])
        told = bff.wait(
            "the last event",
            lambda: receiver.by_request().get(done["id"], []),
            lambda sequences: len(sequences) == len(done["timeline"]),
        )
        receiver.assert_in_order()
        assert told == sorted(told)
        types = {one.sequence: one.event["type"] for one in receiver.got}
        assert [types[sequence] for sequence in told] == [f"request.{entry['status']}" for entry in done["timeline"]]
        assert all(verified(one, hook["secret"]) == 1 for one in receiver.got)
        bff.clients.pool.delete_webhook(hook["id"])
