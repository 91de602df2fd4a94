"""The kinds of log that make up the operator's history: how a node is asked for them, and how a block's bloom shows them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from eth_utils.crypto import keccak

from apps.ethereum.contracts import LIDO, QUEUE
from apps.ethereum.logs import topic_of
from apps.protocols.chain import Chain


@dataclass(frozen=True)
class Query:
    """One kind of log: by contract and topics, as a node is asked for it, and as it is told from a receipt."""

    address: str
    topics: list[Any]

    @property
    def bloom(self) -> int:
        """The bits that a block's bloom has where such a log is in it."""
        return bloom_of([self.address, *(topic for topic in self.topics if topic is not None)])

    def matches(self, found: Mapping[str, Any]) -> bool:
        topics = found["topics"]
        if found["address"].lower() != self.address.lower() or len(topics) < len(self.topics):
            return False
        return all(
            wanted is None or wanted.lower() == given.lower()
            for wanted, given in zip(self.topics, topics, strict=False)
        )


def queries(chain: Chain) -> dict[str, Query]:
    """Everything that makes up the history, by name."""
    me, steth, queue = topic_of(chain.operator), chain.steth.address, chain.queue.address
    return {
        "out": Query(steth, [LIDO.events["TransferShares"].topic, me]),
        "into": Query(steth, [LIDO.events["TransferShares"].topic, None, me]),
        "rebased": Query(steth, [LIDO.events["TokenRebased"].topic]),
        "submitted": Query(steth, [LIDO.events["Submitted"].topic, me]),
        "sent": Query(steth, [LIDO.events["Transfer"].topic, me]),
        "received": Query(steth, [LIDO.events["Transfer"].topic, None, me]),
        "requested": Query(queue, [QUEUE.events["WithdrawalRequested"].topic, None, None, me]),
        "claimed": Query(queue, [QUEUE.events["WithdrawalClaimed"].topic, None, me]),
    }


def bloom_of(words: Iterable[str]) -> int:
    """The bits of addresses and topics in a bloom: three of 2048 for each."""
    bloom = 0
    for word in words:
        digest = keccak(hexstr=word)
        for place in (0, 2, 4):
            bloom |= 1 << (int.from_bytes(digest[place : place + 2], "big") & 2047)
    return bloom
