"""Texts that nodes and contracts choose, made fit to be stored and shown."""


def readable(text: str, limit: int) -> str:
    """`text` without what PostgreSQL refuses (NUL, lone surrogates) or a terminal obeys, cut to `limit` characters.

    Otherwise one such character in a node's answer would fail the database transaction that notes it, each time anew.
    """
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text[:limit])
