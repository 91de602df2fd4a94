"""Dead code of production, as vulture finds it: ``python -m apps.local.dead_code`` fails when something is used by nothing.

Tests are not read, so that what only they call shows. Fields of tables, shapes and schemas are left out: a library reads
them by name. What is alive all the same is named here, with its caller; a name that vulture no longer finds has to go.
"""

import sys
from collections.abc import Iterator

from vulture import Vulture
from vulture.core import Item

from apps.local.programs import ROOT

PATHS = ("apps", "relayer", "tasks", "migrations/runner.py", "celeryconfig.py")
CALLED_BY_DECORATORS = [
    "@blueprint.*",
    "@blp.*",
    "@app.*",
    "@celery.*",
    "@*.connect",
    "@main.command",
    "@oracle.command",
    "@keys.command",
    "@_effect",
]
# Called or read by a library, by these very names.
LIBRARIES = [
    # marshmallow and SQLAlchemy
    "Meta", "unknown", "_serialize", "_deserialize", "obj", "impl", "cache_ok", "get_col_spec", "process_bind_param",
    "process_result_value", "is_disconnect", "__table_args__",
    # Flask and webargs
    "merge_slashes", "sort_keys", "load_json", "req", "ARGUMENTS_PARSER", "_openapi_json",
    # requests, and waitress
    "trust_env", "handle_read", "maintenance", "content_length", "error_task_class", "channel_class",
    # urllib3
    "_new_conn",
    # PostgreSQL, out of JSON
    "ago_sec",
    # Celery
    "abstract", "imports", "task_default_queue", "task_routes", "beat_scheduler", "SteadyScheduler", "install_default_entries",
    "_value_",
    # compared with the rest of its tuple
    "reversal",
]  # fmt: skip
# Only tests use them, and they belong where they are.
FOR_TESTS = {
    "pause_queue": "the oracle's buttons: a test presses what an outage of Lido would",
    "resume_queue": "the same",
    "set_bunker": "the same",
    "set_stake_limit": "the same",
    "set_fee": "the same",
    "stranger_submit": "the same",
    "stranger_transfer": "the same",
    "stranger_request": "the same",
    "wait_until_up": "tests stop and start parts of a stack",
    "start_workers": "the same",
    **dict.fromkeys(
        (
            "create_webhook",
            "change_webhook",
            "disable_webhook",
            "enable_webhook",
            "delete_webhook",
            "test_webhook",
            "rotate_webhook_secret",
            "replay_webhook",
            "retry_dead_letters",
        ),
        "what a BFF calls",
    ),
    "round_trips": "tests and benchmarks count what a call costs a node",
}
_FIELDS = ("models.py", "schemas.py", "base.py", "row.py", "lease.py")


def main() -> int:
    found = list(unused())
    dead = [item for item in found if item.name not in FOR_TESTS]
    stale = sorted(set(FOR_TESTS) - {item.name for item in found})
    for item in dead:
        sys.stderr.write(f"{item.filename.relative_to(ROOT)}:{item.first_lineno}: {item.message}\n")
    for name in stale:
        sys.stderr.write(f"apps/local/dead_code.py: {name} is used, or gone: strike it off the list\n")
    return 1 if dead or stale else 0


def unused() -> Iterator[Item]:
    vulture = Vulture(ignore_names=LIBRARIES, ignore_decorators=CALLED_BY_DECORATORS)
    vulture.scavenge([str(ROOT / path) for path in PATHS], exclude=["*/node_modules/*"])
    for item in vulture.get_unused_code():
        is_field = item.typ in {"variable", "attribute"} and (
            item.filename.name in _FIELDS or "shapes" in str(item.filename)
        )
        if not is_field:
            yield item


if __name__ == "__main__":
    raise SystemExit(main())
