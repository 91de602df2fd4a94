"""When a delivery is tried again, when it is given up, and how long an endpoint that fails is left alone: arithmetic only."""

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from apps.flow.row import Reason, reason

# Between the attempts of a delivery; the last one repeats until it is given up.
PAUSES_SEC = (10, 30, 120, 300, 900, 1800, 3600, 7200, 14400)
# A pause is longer by up to this part, so that what failed together does not come back together.
JITTER = 0.2
GIVE_UP_SEC = 3 * 86_400
# After so many failures in a row an endpoint is left alone for a while, and then tried by one delivery at a time. An
# endpoint that did not answer at all, or asked for a pause, is so at once.
UNWELL_AFTER = 3
UNWELL_PAUSES_SEC = (1, 5, 15, 60, 300)
# What an endpoint may ask for in Retry-After.
MAX_RETRY_AFTER_SEC = 3600
GONE = 410
_UNWELL_STATUSES = frozenset({429, 502, 503, 504})
_ASKS_FOR_PAUSE = frozenset({429, 503})


@dataclass(frozen=True)
class Health:
    """An endpoint's failures in a row."""

    failures: int

    @property
    def is_unwell(self) -> bool:
        return self.failures >= UNWELL_AFTER

    @property
    def pause_sec(self) -> float:
        """How long nothing is sent to it; 0 where it is well."""
        if not self.is_unwell:
            return 0.0
        return float(UNWELL_PAUSES_SEC[min(self.failures - UNWELL_AFTER, len(UNWELL_PAUSES_SEC) - 1)])

    def after(self, status: int | None) -> "Health":
        """Its health after an answer, None for no answer."""
        if taken(status):
            return Health(0)
        at_once = status is None or status in _UNWELL_STATUSES
        return Health(max(self.failures + 1, UNWELL_AFTER) if at_once else self.failures + 1)


def taken(status: int | None) -> bool:
    """Whether an answer says that the event was taken."""
    return status is not None and 200 <= status < 300


def pause_sec(attempts: int, spread: float) -> float:
    """The pause after so many attempts, from 1; `spread` from 0 to 1 places it within its jitter."""
    pause = PAUSES_SEC[min(attempts, len(PAUSES_SEC)) - 1]
    return pause * (1 + JITTER * spread)


def given_up(age_sec: float) -> bool:
    """Whether a delivery that has failed is given up: it has been pending for so long."""
    return age_sec >= GIVE_UP_SEC


def asked_pause_sec(status: int | None, header: str | None, now: datetime) -> float:
    """What a 429 or 503 asks for by Retry-After, in seconds or as a date, within bounds; 0 where it asks for nothing."""
    if status not in _ASKS_FOR_PAUSE or not header:
        return 0.0
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(min(int(text[:9]), MAX_RETRY_AFTER_SEC))
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max((moment - now).total_seconds(), 0.0), float(MAX_RETRY_AFTER_SEC))


def refusal(status: int) -> Reason:
    """An answer that does not take the event, in words."""
    if status == GONE:
        return reason("gone", "Answered 410: the endpoint is gone, and was disabled.")
    if 300 <= status < 400:
        return reason("redirected", f"Answered {status}: redirects are not followed; change the webhook's url.")
    return reason("refused", f"Answered {status}; only 2xx takes an event.")
