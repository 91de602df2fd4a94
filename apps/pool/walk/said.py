"""What ops say about a halt: whether it is about this very halt and says all that is needed, and how it is kept and shown."""

from apps.clients.shapes.walk import HaltFacts, NewRelease, NewResolution
from apps.clients.shapes.walk import Resolution as ShownResolution
from apps.common.errors import InvalidInput
from apps.pool.errors import (
    HaltDiffers,
    NotHalted,
)
from apps.pool.models import Resolution
from apps.pool.states import (
    ResolutionStatus,
)
from apps.pool.walk.halts import ACTIONS, ALWAYS, WAYS_OUT, halt_facts


def check_against(halt: HaltFacts | None, said: NewResolution) -> None:
    """Raise unless what ops say is about this very halt, is one of its ways out, and says all that is needed."""
    if said.action not in ALWAYS:
        if halt is None:
            raise NotHalted
        if said.code != halt.code:
            raise HaltDiffers(f"The walk stands still with {halt.code}, not {said.code}.")
        if said.action not in WAYS_OUT.get(halt.code, ()):
            ways = ", ".join(WAYS_OUT.get(halt.code, ())) or "none: it goes on once the cause is mended"
            raise InvalidInput(errors={"action": [f"Not a way out of {halt.code}. Those are: {ways}."]})
        if halt.tx_hash is not None and (said.block_number, said.log_index) != (halt.block_number, halt.log_index):
            place = f"{halt.block_number}:{halt.log_index}"
            raise HaltDiffers(f"The walk stands still at {place}; name it as block_number and log_index.")
        if said.action == "rename_effect" and said.effect != halt.effect:
            raise HaltDiffers(f"The effect refused is {halt.effect}.")
    missing = [name for name in ACTIONS[said.action].needs if getattr(said, name) is None]
    if missing:
        raise InvalidInput(errors={name: [f"Missing; {said.action} needs it."] for name in missing})


def canonical_of(said: NewRelease, **more: str) -> dict[str, str | None]:
    """What makes a replay recognisable: every field of the body as text, and what the path or the settings add. Rows
    hold it, so it stays as it is."""
    fields = {**vars(said), **more}
    return {name: None if value is None else str(value) for name, value in fields.items() if name != "message_id"}


def shown(row: Resolution) -> ShownResolution:
    return ShownResolution(
        id=row.id,
        message_id=row.message_id,
        pool_id=row.pool_id,
        action=row.action,
        halt=None if row.halt is None else halt_facts(row.halt),
        block_number=row.block_number,
        log_index=row.log_index,
        batch_id=row.batch_id,
        account=row.account,
        effect=row.effect,
        gas_cost_wei=row.gas_cost_wei,
        by=row.by,
        why=row.why,
        evidence=row.evidence,
        status=ResolutionStatus(row.status),
        decided_by=row.decided_by,
        created_at=row.created_at,
        decided_at=row.decided_at,
        applied_at=row.applied_at,
    )
