"""The ledger's operations."""

from dataclasses import replace

from tests.support.endpoints.call import Table, body, reads, span
from tests.support.endpoints.world import ANN, LIFE_DEPOSIT

AUDITS = frozenset({"ledger.audits", "ledger.audit_stretches", "ledger.system_checkpoints"})
AUDIT = replace(body(pool_id="eth_native", full=True), each=AUDITS)

LEDGER: Table = {
    "create_movement": body(
        message_id="{name}", kind="deposit", user_id="bob", amount_wei="5000000000000000000", reference="0x" + "4f" * 32
    ),
    "create_movements": body(
        movements=[
            {"message_id": "{name}:1", "kind": "deposit", "user_id": "bob", "amount_wei": "2000000000000000000"},
            {"message_id": "{name}:2", "kind": "gas_float", "amount_wei": "1000000000000000000"},
        ]
    ),
    "list_movements": reads(user_id=ANN, limit="2"),
    "get_movement": reads({"message_id": LIFE_DEPOSIT}),
    "export_movements": reads(user_id=ANN, kind="deposit"),
    "list_balances": reads(limit="2"),
    "get_balance": reads({"user_id": ANN}),
    "get_statement": span(user_id=ANN),
    "get_totals": reads(),
    "create_audit": AUDIT,
    "list_audits": reads(limit="2"),
}
