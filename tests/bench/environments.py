"""Environments of peers: pinned, made once, with nothing of ours in them."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def environment_of(name: str) -> Path:
    """The directory of programs of the environment that ``NAME_requirements.txt`` pins, beside the stack's data."""
    requirements = HERE / f"{name}_requirements.txt"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    home = Path(os.environ.get("STAKING_HOME") or ".staking").resolve() / "bench" / name
    programs, installed = home / "bin", home / "installed"
    if not installed.exists() or installed.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True, timeout=120)
        pip = [str(programs / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "-r", str(requirements)], check=True, timeout=600)
        installed.write_text(wanted)
    return programs
