"""A stranger with gas: does to the operator's name on chain what anybody can, again and again, in an order from a seed."""

import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from apps.common.wei import ETHER
from apps.devnet.deployment import Deployment, transact
from apps.devnet.oracle import Oracle
from tests.support.lives import again_and_again

PAUSE_SEC = 0.3


class Stranger:
    """Acts on a node of its own; `done` counts each kind of mischief."""

    def __init__(self, rpc_url: str, deployment: Deployment, operator: str, seed: int) -> None:
        self._oracle = Oracle(rpc_url, deployment)
        self._deployment = deployment
        self._me = list(self._oracle.web3.eth.accounts)[5]  # an unlocked account of the node that nobody else here uses
        self._operator = operator
        self._order = random.Random(seed)
        self.done: dict[str, int] = {}
        lido, queue = self._oracle.lido.functions, self._oracle.queue.functions
        self._mischief: dict[str, Callable[[], Any]] = {
            "nothing from the operator": lambda: lido.transferFrom(operator, self._me, 0),
            "nothing into the queue": lambda: lido.transferFrom(operator, deployment.withdrawal_queue, 0),
            "nothing to itself": lambda: lido.transferSharesFrom(operator, operator, 0),
            "dust": lambda: lido.transfer(operator, self._order.randint(1, 1000)),
            "a gift": lambda: lido.transfer(operator, ETHER // 100),
            "a withdrawal in the operator's name": lambda: queue.requestWithdrawals([ETHER // 10], operator),
            "an approval": lambda: lido.approve(operator, self._order.randint(0, 9)),
        }

    def prepare(self) -> None:
        """Stake and let the queue take it, so that there is something to give away."""
        self._do(self._oracle.lido.functions.submit("0x" + "00" * 20), 50 * ETHER)
        self._do(self._oracle.lido.functions.approve(self._deployment.withdrawal_queue, 50 * ETHER))

    def act(self) -> None:
        """One piece of mischief."""
        name = self._order.choice(sorted(self._mischief))
        self._do(self._mischief[name]())
        self.done[name] = self.done.get(name, 0) + 1

    def at_work(self) -> AbstractContextManager[None]:
        """Act again and again, in a thread, until the block ends."""
        return again_and_again(PAUSE_SEC, self.act)

    def _do(self, call: Any, value: int = 0) -> None:
        transact(self._oracle.web3, call, self._me, value)
