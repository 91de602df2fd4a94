"""Statuses that say what they mean: the words beside each one are what the docs show."""

from enum import StrEnum


class Status(StrEnum):
    """A status whose `meaning` stands beside it."""

    meaning: str

    def __new__(cls, value: str, meaning: str = "") -> "Status":
        made = str.__new__(cls, value)
        made._value_ = value
        made.meaning = meaning
        return made
