"""Where the walk stands still until ops have said what happened, and what they may say. Pure.

Going on without an answer would be wrong in each of these: wei would be booked to nobody, or twice. So each code names
the ways out, and `POST /v1/walk/resolve` takes no other.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from apps.clients.shapes.walk import Halt, HaltFacts, WayOut
from apps.common.shapes import load


@dataclass(frozen=True)
class Action:
    """A way out: what it does, and the fields that it needs beside the reason."""

    meaning: str
    needs: tuple[str, ...] = ()


ACTIONS: dict[str, Action] = {
    "adopt_as_company": Action(
        "The company did this with its own money: a submit is paid out of @gas into @fees, a withdrawal belongs to the "
        "company, a claim goes to @gas. No user's wei move."
    ),
    "adopt_as_batch": Action(
        "This is the transaction of the parked batch named: the walk books it as that batch's own.", ("batch_id",)
    ),
    "book_loss": Action(
        "It is gone. stETH is written off against `account`; ETH of a claim that paid somebody else is paid out of @gas, "
        "and the user is credited.",
        ("account",),
    ),
    "book_difference": Action(
        "The difference that the halt shows is real: stETH missing is written off against `account`, stETH found goes to "
        "@fees.",
        ("account",),
    ),
    "repin_block": Action(
        "The chain now holds the same history in other blocks: the walk goes on from the block that stands at its place, "
        "or at `block_number`, once the operator's shares and stETH there are those of the books."
    ),
    "book_missed": Action(
        "A rescan found this item at or before the walk's place: it is booked now, out of order.",
        ("block_number", "log_index"),
    ),
    "rename_effect": Action(
        "The effect that was refused is posted under another message_id; what stands under the old one is for you to "
        "reverse.",
        ("effect",),
    ),
    "cover_loss": Action("The company bears the rest of this loss out of @fees; the user's unstakes stay whole."),
}

WAYS_OUT: dict[str, tuple[str, ...]] = {
    "unknown_submit": ("adopt_as_company", "adopt_as_batch"),
    "unknown_request": ("adopt_as_company", "adopt_as_batch"),
    "unknown_withdrawal": ("adopt_as_company",),
    "submit_mismatch": ("adopt_as_company",),
    "request_mismatch": ("adopt_as_company",),
    "foreign_out": ("book_loss",),
    "claim_paid_elsewhere": ("book_loss",),
    "shares_mismatch": ("book_missed", "book_difference"),
    "dust_out_of_bounds": ("book_missed", "book_difference"),
    "chain_reorganized": ("repin_block",),
    "booking_refused": ("rename_effect",),
    "loss_unplaced": ("cover_loss",),
    # These need no word of ops': the cause is mended where it is, and the next try goes on.
    "receipt_missing": (),
    "reward_source_refused": (),
    "walk_fault": (),
}

# May be said of a walk that is not halted: an item without shares, such as a claim, is missed without a trace.
ALWAYS = ("book_missed",)

# Of every halt: nulls where it has none.
FACTS = ("block_number", "log_index", "tx_hash", "kind", "shares", "amount_wei", "effect")


def halt_facts(halt: Mapping[str, str | int | None]) -> HaltFacts:
    """A halt as it is kept on a row, as the shape that callers see; amounts are kept as digits."""
    return load(HaltFacts, {**dict.fromkeys(FACTS), **halt})


def halt_shown(halt: Mapping[str, str | int | None] | None) -> Halt | None:
    """A halt with its ways out, as `GET /v1/walk` shows it."""
    if halt is None:
        return None
    facts = halt_facts(halt)
    ways = [WayOut(name, ACTIONS[name].meaning, list(ACTIONS[name].needs)) for name in WAYS_OUT.get(facts.code, ())]
    return Halt(**vars(facts), ways_out=ways)
