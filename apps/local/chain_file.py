"""The file in which anvil keeps the chain, made small again before anvil reads it."""

import json
from pathlib import Path
from typing import Any

# What a contract can ask for; anvil keeps the hash of every block in every state, and so most of the file is hashes.
HASHES_KEPT = 256
SMALL_BYTES = 10_000_000


def trim(path: Path) -> None:
    """Leave out of each state the hashes that nothing can ask for. The file is replaced in one step, or left alone where it
    is small, or is not what this code knows: anvil judges it then."""
    if not path.exists() or path.stat().st_size < SMALL_BYTES:
        return
    try:
        chain = json.loads(path.read_text())
        for _, state in chain["historical_states"]:
            state["block_hashes"] = _newest(state["block_hashes"])
    except (ValueError, KeyError, TypeError):
        return
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(chain, separators=(",", ":")))
    temporary.replace(path)


def _newest(hashes: dict[str, Any]) -> dict[str, Any]:  # as anvil wrote it
    return dict(sorted(hashes.items(), key=lambda item: int(item[0], 0))[-HASHES_KEPT:])
