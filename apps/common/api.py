"""Blueprints whose endpoints take what they declare, and nothing else."""

from collections.abc import Callable
from typing import Any

import flask_smorest
import marshmallow as ma
from flask import Flask, Request, g
from webargs.flaskparser import FlaskParser


class StrictParser(FlaskParser):
    """Bodies come from the one reader (`apps.common.bodies`), and unknown query parameters are refused."""

    def __init__(self) -> None:
        super().__init__()
        self.DEFAULT_UNKNOWN_BY_LOCATION = {**FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION, "query": ma.RAISE}

    def load_json(self, req: Request, schema: ma.Schema) -> Any:
        return g.body


class Blueprint(flask_smorest.Blueprint):  # type: ignore[misc]  # flask-smorest has no types
    """As flask-smorest's, and each view says where it takes arguments from; see `takes`."""

    ARGUMENTS_PARSER = StrictParser()

    def arguments(self, schema: Any, *, location: str = "json", **options: Any) -> Callable[[Any], Any]:
        # An instance: of a class a new one would be made at every request, which costs more than what it reads.
        instance = schema() if isinstance(schema, type) else schema
        decorate = super().arguments(instance, location=location, **options)

        def decorator(view: Any) -> Any:
            decorated = decorate(view)
            decorated.takes = getattr(view, "takes", frozenset()) | {location}
            return decorated

        return decorator


def takes(app: Flask, request: Request) -> frozenset[str]:
    """Where the view of a request takes arguments from: ``json``, ``query``, both or neither."""
    view = app.view_functions.get(request.endpoint or "")
    found: frozenset[str] = getattr(view, "takes", frozenset())
    return found
