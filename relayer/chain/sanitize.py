"""What strangers say, made fit to be stored: nodes and contracts choose these texts."""


def readable(text: str, limit: int) -> str:
    """`text` without what PostgreSQL refuses (NUL, lone surrogates) or a terminal obeys, cut to `limit` characters.

    Else one such character in an answer would fail the transaction that notes it, at every tick, for ever.
    """
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text[:limit])
