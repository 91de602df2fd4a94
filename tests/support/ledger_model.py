"""The ledger as one page of pure Python: what the books must be after any history. Knows nothing of ours but the rules."""

from collections import Counter
from dataclasses import dataclass, field

MAX = 2**256
# kind: source, target; straight from the contract.
KINDS = {
    "deposit": ("@custody", "available"),
    "withdrawal": ("available", "@payouts"),
    "withdrawal_cancel": ("@payouts", "available"),
    "payout_paid": ("@payouts", "@custody"),
    "gas_float": ("@custody", "@gas"),
    "gas_spent": ("@gas", "@custody"),
    "stake_reserve": ("available", "reserved"),
    "stake_release": ("reserved", "available"),
    "stake_confirm": ("reserved", "staked"),
    "reward_accrue": ("@lido", "@rewards"),
    "reward_drop": ("@rewards", "@lido"),
    "fee": ("@rewards", "@fees"),
    "reward_compound": ("@rewards", "staked"),
    "reward_loss": ("staked", "@rewards"),
    "unstake_start": ("staked", "unstaking"),
    "unstake_cancel": ("unstaking", "staked"),
    "unstake_cut": ("unstaking", "@rounding"),
    "unstake_settle": ("unstaking", "available"),
    "unstake_shortfall": ("unstaking", "@lido"),
    "rounding_loss": ("@rounding", "@lido"),
    "rounding_gain": ("@lido", "@rounding"),
    "donation": ("@lido", "@fees"),
    "manual_submit": ("@gas", "@fees"),
    "manual_claim": ("@lido", "@gas"),
    "company_claim": ("@fees", "@gas"),
    "eth_lost": ("@gas", "@custody"),
    "fees_lost": ("@fees", "@lido"),
    "steth_lost": ("@losses", "@lido"),
    "steth_found": ("@lido", "@fees"),
    "loss_covered": ("@fees", "@losses"),
    "reward_loss_covered": ("@fees", "@rewards"),
}


@dataclass(frozen=True)
class Request:
    """A movement as a caller asks for it."""

    message_id: str
    kind: str
    user: str | None
    wei: int
    reference: str | None = None

    @property
    def body(self) -> tuple[str, str | None, int, str | None]:
        return self.kind, self.user, self.wei, self.reference


@dataclass
class Model:
    """Accounts are (owner, bucket); an owner of None is a system account."""

    accounts: Counter[tuple[str | None, str]] = field(default_factory=Counter)
    posted: dict[str, Request] = field(default_factory=dict)
    sides: dict[str, tuple[str, str]] = field(default_factory=dict)
    refused: dict[str, tuple[Request, str]] = field(default_factory=dict)

    def post(self, new: Request) -> str:
        """``posted``, ``replayed``, ``reused`` or the code of the refusal; a refusal is remembered."""
        outcome = self._attempt(new)
        if outcome not in {"posted", "replayed", "reused"}:
            self.refused[new.message_id] = (new, outcome)
        return outcome

    def batch(self, items: list[Request]) -> str:
        """All or nothing; a refusal is not remembered."""
        before = (self.accounts.copy(), dict(self.posted), dict(self.sides))
        known = [item for item in items if item.message_id in self.posted or item.message_id in self.refused]
        outcomes = [self._attempt(item) for item in known]
        if "reused" in outcomes:
            return "reused"
        for outcome in outcomes:
            if outcome != "replayed":
                return outcome
        for item in items:
            outcome = self._attempt(item)
            if outcome not in {"posted", "replayed"}:
                self.accounts, self.posted, self.sides = before
                return outcome
        return "replayed" if len(known) == len(items) else "posted"

    def buckets(self, user: str) -> tuple[int, ...]:
        return tuple(self.accounts[user, name] for name in ("available", "reserved", "staked", "unstaking"))

    def system(self) -> dict[str, int]:
        return {name: wei for (owner, name), wei in self.accounts.items() if owner is None}

    def _attempt(self, new: Request) -> str:
        known = self.posted.get(new.message_id)
        if known is not None:
            return "replayed" if known.body == new.body else "reused"
        if new.message_id in self.refused:
            request, code = self.refused[new.message_id]
            return code if request.body == new.body else "reused"
        if new.kind == "reversal":
            original = self.posted.get(new.reference or "")
            if original is None or original.kind == "reversal" or (original.user, original.wei) != (new.user, new.wei):
                return "not_reversible"
            if any(row.kind == "reversal" and row.reference == new.reference for row in self.posted.values()):
                return "already_reversed"
            target, source = self.sides[original.message_id]
        else:
            source, target = KINDS[new.kind]
        where_from, where_to = self._account(source, new.user), self._account(target, new.user)
        if not source.startswith("@") and self.accounts[where_from] < new.wei:
            return "insufficient_balance"
        if not target.startswith("@") and self.accounts[where_to] + new.wei >= MAX:
            return "balance_too_large"
        self.accounts[where_from] -= new.wei
        self.accounts[where_to] += new.wei
        self.posted[new.message_id] = new
        self.sides[new.message_id] = (source, target)
        return "posted"

    @staticmethod
    def _account(name: str, user: str | None) -> tuple[str | None, str]:
        return (None if name.startswith("@") else user), name
