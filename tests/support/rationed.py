"""A service that is cut off in the middle: after so many calls it answers no more until the next attempt."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from apps.clients.base import CallFailed
from apps.clients.rewards import RewardsClient
from tests.support.flows import Flows
from tests.support.protocols import KEY


class RationedRewards(RewardsClient):
    """Rewards as a slow link leaves it: `ration` calls get through, then nothing does until `renew`."""

    def __init__(self, url: str, ration: int) -> None:
        super().__init__(url, KEY, 30.0)
        self.ration = ration
        self.left = ration
        self.calls = 0

    def renew(self) -> None:
        self.left = self.ration

    def _call(self, method: str, path: str, *, timeout: float | None = None, **kwargs: Any) -> dict[str, Any]:
        if self.left <= 0:
            raise CallFailed("rewards did not answer.")
        self.left -= 1
        self.calls += 1
        body: Mapping[str, Any] = super()._call(method, path, timeout=timeout, **kwargs)
        return dict(body)


def ration_rewards(flows: Flows, ration: int) -> RationedRewards:
    """Put a rationed rewards service behind the flows."""
    rewards = RationedRewards(flows.context.settings.rewards_url, ration)
    flows.context = replace(flows.context, rewards=rewards)
    return rewards
