"""Shapes that several services answer with."""

from dataclasses import dataclass

from apps.common.shapes import Time


@dataclass(frozen=True)
class Reason:
    """Why something is as it is: `code` is stable and may be acted on, `detail` is for people."""

    code: str
    detail: str


@dataclass(frozen=True)
class Difference:
    """One thing that an audit expected and found otherwise; numbers as decimal strings."""

    subject: str
    field: str
    expected: str
    found: str


@dataclass(frozen=True)
class Audit:
    """The verdict of an audit."""

    id: str
    ok: bool
    differences: list[Difference]
    created_at: Time


@dataclass(frozen=True)
class AuditPage:
    """Audits, newest first; `next` is the cursor of the next page."""

    items: list[Audit]
    next: str | None
