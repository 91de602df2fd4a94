"""Structured logs: one JSON object a line on standard error, with the request id, and with secrets blotted out."""

import logging
import os
import re
import sys
from typing import Any

import structlog
from structlog.typing import EventDict, WrappedLogger

_SECRET_NAMES = re.compile(r"(key|password|secret|raw_transaction|authorization|token)$", re.IGNORECASE)
_URL_CREDENTIALS = re.compile(r"(\w+://)[^/@\s]+@")
_URL_PATH_KEYS = re.compile(r"(https?://[^/\s]+/)[^\s\"']{16,}")


def configure_logging(service: str) -> None:
    """Send structlog and the standard library's loggers to one place; safe to call again."""
    level = os.environ.get("LOG_LEVEL", "INFO").upper()
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            *shared,
            structlog.processors.format_exc_info,
            redact,
            structlog.processors.JSONRenderer(default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping().get(level, logging.INFO)),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.bind_contextvars(service=service)


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Blot out values named like secrets, and credentials inside URLs, whatever the caller logged."""
    for name, value in event.items():
        if _SECRET_NAMES.search(name):
            event[name] = "[hidden]"
        elif isinstance(value, str):
            event[name] = hide_url_secrets(value)
    return event


def without_secrets(value: Any) -> Any:
    """JSON, with whatever is named like a secret blotted out, at any depth."""
    if isinstance(value, dict):
        return {
            name: "[hidden]" if _SECRET_NAMES.search(name) else without_secrets(item) for name, item in value.items()
        }
    return [without_secrets(item) for item in value] if isinstance(value, list) else value


def hide_url_secrets(text: str) -> str:
    """Remove ``user:password@`` and long path parts (RPC providers put the key into the path) from URLs in a text."""
    return _URL_PATH_KEYS.sub(r"\1[hidden]", _URL_CREDENTIALS.sub(r"\1[hidden]@", text))
