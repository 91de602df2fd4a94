"""PostgreSQL's own load generator, against a server that keeps its promises: fsync on, as in production."""

import re
import subprocess
import tempfile
from pathlib import Path

from apps.local.postgres import unprivileged_account
from tests.support.postgres import Server


def run_pgbench(server: Server, url: str, *options: str, script: str | None = None) -> float:
    """Run pgbench with options, and a script of our own or the built-in one they name; returns transactions a second."""
    account = unprivileged_account()
    with tempfile.TemporaryDirectory(prefix="staking-bench-") as directory:
        Path(directory).chmod(0o755)
        argv = [str(server.postgres.program("pgbench")), *options]
        if script is not None:
            file = Path(directory) / "script.sql"
            file.write_text(script)
            file.chmod(0o644)
            argv += ["-f", str(file)]
        done = subprocess.run(
            [*argv, "-d", url],
            capture_output=True,
            text=True,
            timeout=600,
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
            cwd="/",
        )
    assert done.returncode == 0, done.stderr
    assert "aborted" not in done.stderr, done.stderr
    found = re.search(r"^tps = ([0-9.]+)", done.stdout, re.MULTILINE)
    return float(found.group(1)) if found else 0.0
