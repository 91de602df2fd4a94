"""The demo's own check of the books against the chain: read directly from contracts and services, without protocols."""

from dataclasses import dataclass

from web3 import Web3

from apps.local.bff import Bff


@dataclass(frozen=True)
class Check:
    """One equality; `expected` from the chain or by conservation, `found` in the books."""

    what: str
    expected: int
    found: int

    @property
    def ok(self) -> bool:
        return self.expected == self.found


def check_books(bff: Bff, users: list[str]) -> list[Check]:
    """Every balance against the chain. Nothing may be in flight; call it when all requests have ended."""
    head = int(bff.oracle.web3.eth.block_number)
    bff.walked_to(head)
    lido = bff.oracle.lido
    at = bff.clients.pool.get("/v1/walk", pool_id=bff.pool_id)["block_number"]
    operator = Web3.to_checksum_address(bff.operator)
    steth = int(lido.functions.balanceOf(operator).call(block_identifier=at))
    held = sum(
        int(bff.oracle.web3.eth.get_balance(Web3.to_checksum_address(address), at))
        for address in {bff.custody, bff.operator}
    )
    totals = bff.clients.ledger.totals(bff.pool_id)
    system = totals.system
    owed_steth = (
        totals.staked_wei
        + totals.unstaking_wei
        + sum(system.get(name, 0) for name in ("@rewards", "@fees", "@rounding", "@losses"))
    )
    owed_eth = totals.available_wei + totals.reserved_wei + system.get("@payouts", 0) + system.get("@gas", 0)
    pool = bff.clients.rewards.pool(bff.pool_id)
    checks = [
        Check("ETH in custody and operator = available + reserved + @payouts + @gas", held, owed_eth),
        Check("operator's stETH = staked + unstaking + @rewards + @fees + @rounding", steth, owed_steth),
        Check(
            "@rewards = accrued - claimed",
            pool.accrued_wei - pool.claimed_wei,
            system.get("@rewards", 0),
        ),
        Check("index weight = staked + unstaking", pool.weight_wei, totals.staked_wei + totals.unstaking_wei),
        Check("sum over all accounts = 0", 0, totals.sum_wei),
    ]
    for user in users:
        found = bff.portfolio(user)
        position, balance = found["position"], found["balance"]
        checks.append(
            Check(f"{user}: index stake = ledger stake", int(position["staked_wei"]), int(balance["staked_wei"]))
        )
    differences = len(bff.clients.ledger.audit(bff.pool_id).differences)
    differences += len(bff.clients.rewards.audit(bff.pool_id).differences)
    checks.append(Check("audits of ledger and reward index: differences", 0, differences))
    return checks
