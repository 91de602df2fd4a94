"""The reward index behind one face, three times: its arithmetic alone, its service on Postgres, its HTTP API.

Every step returns what `rewards_model.Model` returns for it, or raises `Refused` with the code. `Broken` says that the
database went away in the middle; the same step may then be repeated.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from flask import Flask
from sqlalchemy.exc import DBAPIError

from apps.clients.base import CallFailed, CallRefused
from apps.clients.rewards import RewardsClient, stake_delta
from apps.clients.shapes.rewards import (
    NewAccrual,
    NewClaim,
    NewRelease,
    NewStakeDeltas,
    PositionsQuery,
    StakeDelta,
    StakeDeltasAnswer,
)
from apps.common.errors import Conflict
from apps.common.idempotency import Answer
from apps.common.shapes import dump
from apps.common.wire import new_id
from apps.rewards import index_math
from apps.rewards.index_math import PoolState, PositionState
from tests.support.conservation import conserved
from tests.support.raw import raw
from tests.support.rewards_model import Delta, Numbers, Refused

SPREAD = ("fee_wei", "distributed_wei", "parked_wei", "acc_reward_per_share", "weight_wei")
PAGE = 200
NO_NUMBERS = {"pool_id", "user_id", "updated_at", "settling"}


class Broken(Exception):
    """The step did not answer; whether it was done is unknown."""


class Driver(Protocol):
    """A step is named, so that it can be repeated."""

    def accrue(self, name: str, reward: int) -> Numbers: ...
    def release(self, name: str, amount: int) -> Numbers: ...
    def stake(self, name: str, deltas: Sequence[Delta]) -> Numbers: ...
    def claim(self, name: str, user: str) -> Numbers: ...
    def pool(self) -> Numbers: ...
    def positions(self) -> dict[str, Numbers]: ...
    def differences(self) -> list[Any]: ...


class MathDriver:
    """`index_math` with a loss settled position by position, as the service's one statement does it for all."""

    def __init__(self, fee_bps: int) -> None:
        self.fee_bps = fee_bps
        self.state = PoolState()
        self.held: dict[str, PositionState] = {}

    def accrue(self, name: str, reward: int) -> Numbers:
        return self._spread(*index_math.accrue(self.state, reward, self.fee_bps, self._fall()))

    def release(self, name: str, amount: int) -> Numbers:
        try:
            return self._spread(*index_math.release(self.state, amount, self._fall()))
        except index_math.NothingStaked as error:
            raise Refused("nothing_staked") from error
        except index_math.NotParked as error:
            raise Refused("insufficient_parked") from error
        except index_math.LossExceedsPosition as error:
            raise Refused("loss_exceeds_position") from error

    def stake(self, name: str, deltas: Sequence[Delta]) -> Numbers:
        state, held = self.state, dict(self.held)
        for user, staked, exiting in deltas:
            try:
                state, held[user] = index_math.change_stake(state, held.get(user, PositionState()), staked, exiting)
            except index_math.StakeBelowZero as error:
                raise Refused("insufficient_stake") from error
        self.state, self.held = state, held
        return {"applied": len(deltas), "replayed": 0}

    def claim(self, name: str, user: str) -> Numbers:
        try:
            self.state, self.held[user], moved = index_math.claim(self.state, self.held.get(user, PositionState()))
        except index_math.LossExceedsPosition as error:
            raise Refused("loss_exceeds_position") from error
        return {"claimed_wei": moved.claimed}

    def pool(self) -> Numbers:
        state = self.state
        return {
            "weight_wei": state.weight,
            "acc_reward_per_share": state.index,
            "remainder": state.remainder,
            "accrued_wei": state.accrued,
            "claimed_wei": state.claimed,
            "parked_wei": state.parked,
            "deficit_wei": state.deficit,
        }

    def positions(self) -> dict[str, Numbers]:
        return {
            user: {
                "staked_wei": position.staked,
                "exiting_wei": position.exiting,
                "pending_wei": index_math.pending_wei(position, self.state.index),
                "claimed_wei": position.claimed,
                "reward_debt": index_math.reward_debt(position),
            }
            for user, position in self.held.items()
        }

    def differences(self) -> list[Any]:
        return [] if conserved(self.state, self.held.values()) else ["not conserved"]

    def _fall(self) -> int:
        return index_math.bearable_fall(self.held.values(), self.state.index)

    def _spread(self, after: PoolState, parts: index_math.Accrued) -> Numbers:
        weight = self.state.weight
        self.state = after
        if parts.settles:
            for user in sorted(self.held):
                self.state, self.held[user], _ = index_math.claim(self.state, self.held[user])
        numbers = (parts.fee, parts.distributed, parts.parked, after.index, weight)
        return dict(zip(SPREAD, numbers, strict=True))


class ServiceDriver:
    """`RewardsService` and its reads, called directly, on a pool of its own."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.pool_id = new_id()
        self.service = app.extensions["service"]
        self.reads = app.extensions["reads"]

    def accrue(self, name: str, reward: int) -> Numbers:
        return self._spread(
            lambda: self.service.accrue(NewAccrual(**self._id(name), new_rewards_wei=reward, source="model"))
        )

    def release(self, name: str, amount: int) -> Numbers:
        return self._spread(lambda: self.service.release_parked(NewRelease(**self._id(name), amount_wei=amount)))

    def stake(self, name: str, deltas: Sequence[Delta]) -> Numbers:
        items = [
            StakeDelta(
                message_id=f"{self.pool_id}:{name}:{number}",
                user_id=user,
                staked_delta_wei=staked,
                exiting_delta_wei=exiting,
            )
            for number, (user, staked, exiting) in enumerate(deltas)
        ]
        new = NewStakeDeltas(pool_id=self.pool_id, deltas=items)
        return self._call(lambda: self.service.change_stakes(new))

    def claim(self, name: str, user: str) -> Numbers:
        found = self._call(lambda: self.service.claim(NewClaim(**self._id(name), user_id=user)))
        return {"claimed_wei": int(found["claimed_wei"])}

    def pool(self) -> Numbers:
        return _numbers(dump(self.reads.pool(self.pool_id)))

    def positions(self) -> dict[str, Numbers]:
        return _by_user(dump(self.reads.positions(PositionsQuery(pool_id=self.pool_id, limit=PAGE)))["items"])

    def differences(self) -> list[Any]:
        return list(self.service.audit(self.pool_id).differences)

    def _id(self, name: str) -> dict[str, str]:
        return {"message_id": f"{self.pool_id}:{name}", "pool_id": self.pool_id}

    def _spread(self, work: Callable[[], Answer]) -> Numbers:
        found = self._call(work)
        return {name: int(found[name]) for name in SPREAD}

    def _call(self, work: Callable[[], Answer | StakeDeltasAnswer]) -> dict[str, Any]:
        with self.app.app_context():
            try:
                answer = work()
            except Conflict as refusal:
                raise Refused(refusal.code) from refusal
            except DBAPIError as error:
                raise Broken from error
            if not isinstance(answer, Answer):
                return dump(answer)
            body: dict[str, Any] = answer.response().get_json()
        if answer.status >= 400:
            raise Refused(body["code"])
        return body


class HttpDriver:
    """The API over a socket, through the client that the flows use, on a pool of its own."""

    def __init__(self, client: RewardsClient) -> None:
        self.client = client
        self.pool_id = new_id()

    def accrue(self, name: str, reward: int) -> Numbers:
        return self._spread(lambda: raw(self.client).accrue(self._name(name), self.pool_id, reward, "model"))

    def release(self, name: str, amount: int) -> Numbers:
        body = {"message_id": self._name(name), "pool_id": self.pool_id, "amount_wei": str(amount)}
        return self._spread(lambda: self.client.post("/v1/parked/release", body))

    def stake(self, name: str, deltas: Sequence[Delta]) -> Numbers:
        items = [
            stake_delta(self._name(f"{name}:{number}"), user, staked, exiting)
            for number, (user, staked, exiting) in enumerate(deltas)
        ]
        return self._call(lambda: raw(self.client).stake_deltas(self.pool_id, items))

    def claim(self, name: str, user: str) -> Numbers:
        found = self._call(lambda: raw(self.client).claim(self._name(name), self.pool_id, user))
        return {"claimed_wei": int(found["claimed_wei"])}

    def pool(self) -> Numbers:
        return _numbers(raw(self.client).pool(self.pool_id))

    def positions(self) -> dict[str, Numbers]:
        return _by_user(raw(self.client).positions(self.pool_id, limit=PAGE)["items"])

    def differences(self) -> list[Any]:
        return list(raw(self.client).audit(self.pool_id)["differences"])

    def _name(self, name: str) -> str:
        return f"{self.pool_id}:{name}"

    def _spread(self, work: Callable[[], dict[str, Any]]) -> Numbers:
        found = self._call(work)
        return {name: int(found[name]) for name in SPREAD}

    def _call(self, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        try:
            return work()
        except CallRefused as refusal:
            raise Refused(refusal.code) from refusal
        except CallFailed as failure:
            raise Broken from failure


def _numbers(found: dict[str, Any]) -> Numbers:
    return {name: int(value) for name, value in found.items() if name not in NO_NUMBERS}


def _by_user(items: Sequence[dict[str, Any]]) -> dict[str, Numbers]:
    return {item["user_id"]: _numbers(item) for item in items}
