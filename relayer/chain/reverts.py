"""Which of Lido's refusals pass by themselves, and the code of each."""

from collections.abc import Mapping

from apps.ethereum.reverts import Revert

# The queue's `ResumedExpected` means that it is paused.
PASSING: Mapping[Revert, str] = {
    Revert("Error", "STAKE_LIMIT"): "stake_limit_exceeded",
    Revert("Error", "STAKING_PAUSED"): "staking_paused",
    Revert("Error", "CONTRACT_IS_STOPPED"): "protocol_stopped",
    Revert("ResumedExpected", "ResumedExpected()"): "queue_paused",
}
_PASSING_DETAILS = {revert.detail: code for revert, code in PASSING.items()}
# The code of a message that was rejected because its simulation reverted; its detail is the revert's.
SIMULATION_REVERTED = "simulation_reverted"


def passing(name: str, detail: str) -> str | None:
    """The code of a decoded revert that passes by itself, or None."""
    return PASSING.get(Revert(name, detail))


def passing_in_simulation(code: str, detail: str) -> str | None:
    """The same for the reason of a rejected message, which keeps a revert's detail and not its name."""
    return _PASSING_DETAILS.get(detail) if code == SIMULATION_REVERTED else None
