"""What docs/webhooks.md shows of the code: which status is told by which event, and when a delivery is tried again."""

from apps.pool import states
from apps.pool.webhooks import retrying

MATRIX = "<!-- matrix: from apps/pool/states.py, by `make docs` -->\n", "<!-- /matrix -->"
RETRIES = "<!-- retries: from apps/pool/webhooks/retrying.py, by `make docs` -->\n", "<!-- /retries -->"


def filled(page: str) -> str:
    """The page with both tables as the code has them."""
    return _between(_between(page, *MATRIX, matrix()), *RETRIES, retries())


def matrix() -> str:
    """Every status of a request, the event that tells of it, and whose it is."""
    transitions = states.request_transitions()
    lines = ["", f"| event type | sent when | {' | '.join(states.RequestKind)} | the last one |"]
    lines.append("|---|---|" + "---|" * (len(states.RequestKind) + 1))
    for status in states.RequestStatus:
        cells = []
        for kind in states.RequestKind:
            reached = {other for (of, _), following in transitions.items() if of == kind for other in following}
            cells.append("yes" if status in reached or (kind, status) in transitions else "")
        end = "yes" if status in states.REQUEST_TERMINAL else ""
        lines.append(f"| `{status.event_type}` | {status.meaning} | {' | '.join(cells)} | {end} |")
    return "\n".join([*lines, "", ""])


def retries() -> str:
    """The pauses between the attempts of a delivery, and when it is over."""
    lines = ["", "| attempt | after the one before | since the first |", "|---|---|---|", "| 1 | | |"]
    since, number = 0, 1
    for pause in retrying.PAUSES_SEC:
        since, number = since + pause, number + 1
        lines.append(f"| {number} | {_span(pause)} | {_span(since)} |")
    last = _span(retrying.PAUSES_SEC[-1])
    lines.append(f"| and so on | {last} | until {_span(retrying.GIVE_UP_SEC)} are over |")
    return "\n".join([*lines, "", ""])


def _span(sec: int) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if sec >= size:
            number, rest = divmod(sec, size)
            return f"{number} {unit}" if not rest else f"{number} {unit} {_span(rest)}"
    return f"{sec} s"


def _between(page: str, start: str, end: str, text: str) -> str:
    before, rest = page.split(start, 1)
    return f"{before}{start}{text}{end}{rest.split(end, 1)[1]}"
