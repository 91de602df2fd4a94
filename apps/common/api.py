"""Blueprints whose endpoints take what they declare, and nothing else; their documentation is made when it is read."""

import json
import threading
from collections.abc import Callable
from copy import deepcopy
from typing import Any, TypeVar

import flask_smorest
import marshmallow as ma
from flask import Flask, Request, Response, g
from webargs.flaskparser import FlaskParser

from apps.common.errors import ServiceError
from apps.common.keys import Scope
from apps.common.wire import OpenApi

View = TypeVar("View", bound=Callable[..., Any])


class StrictParser(FlaskParser):
    """Bodies come from the one reader (`apps.common.bodies`), and unknown query parameters are refused."""

    def __init__(self) -> None:
        super().__init__()
        self.DEFAULT_UNKNOWN_BY_LOCATION = {**FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION, "query": ma.RAISE}

    def load_json(self, req: Request, schema: ma.Schema) -> Any:
        return g.body


class Api(flask_smorest.Api):  # type: ignore[misc]  # flask-smorest has no types
    """As flask-smorest's, but the document is made when it is first asked for.

    Making it takes three quarters of the time in which an app is built, and most processes are never asked.
    """

    def __init__(self, app: Flask, complete: Callable[[OpenApi], OpenApi]) -> None:
        """`complete` makes the whole document of what the views alone say."""
        self._complete = complete
        self._document = ""
        self._undocumented: list[Callable[[], None]] = []
        self._documenting = threading.Lock()
        super().__init__(app)

    def document_later(self, document: Callable[[], None]) -> None:
        """Have a part of the document made before it is answered for the first time."""
        self._undocumented.append(document)

    def _register_responses(self) -> None:
        """Describe an answer for every HTTP status, as flask-smorest does."""
        self.document_later(super()._register_responses)

    def _openapi_json(self) -> Response:
        with self._documenting:
            while self._undocumented:
                self._undocumented.pop(0)()
            if not self._document:
                self._document = json.dumps(self._complete(deepcopy(self.spec.to_dict())), indent=1, ensure_ascii=False)
        return Response(self._document + "\n", content_type="application/json")


class Blueprint(flask_smorest.Blueprint):  # type: ignore[misc]  # flask-smorest has no types
    """As flask-smorest's, and each view says where it takes arguments from, see `takes`, what a key needs to call it, see
    `apps.common.auth.scope_of`, and which problems are its own, see `apps.common.refusals`."""

    ARGUMENTS_PARSER = StrictParser()

    def register_views_in_doc(self, api: Api, app: Flask, spec: Any, **names: Any) -> None:
        """Called when the blueprint is registered with an app."""
        register = super().register_views_in_doc
        api.document_later(lambda: register(api, app, spec, **names))

    def add_url_rule(self, rule: str, endpoint: Any = None, view_func: Any = None, *more: Any, **options: Any) -> None:
        if view_func is not None and not hasattr(view_func, "scope"):
            reads = set(options.get("methods") or ["GET"]) <= {"GET", "HEAD"}
            view_func.scope = Scope.READ if reads else Scope.WRITE
        super().add_url_rule(rule, endpoint, view_func, *more, **options)

    @staticmethod
    def ops(view: View) -> View:
        """Mark a view as one for the people who run the system: it takes a key with `Scope.OPS`, and what it changes is
        written into the audit log."""
        view.scope = Scope.OPS  # type: ignore[attr-defined]
        return view

    @staticmethod
    def refuses(*problems: type[ServiceError]) -> Callable[[View], View]:
        """Say which problems a view answers with beyond those that follow from its route. Tests fail where it answers with
        one that is not declared."""

        def decorator(view: View) -> View:
            view.refusals = getattr(view, "refusals", frozenset()) | set(problems)  # type: ignore[attr-defined]
            return view

        return decorator

    def arguments(self, schema: Any, *, location: str = "json", **options: Any) -> Callable[[Any], Any]:
        # An instance: of a class a new one would be made at every request, which costs more than what it reads.
        instance = schema() if isinstance(schema, type) else schema
        decorate = super().arguments(instance, location=location, **options)

        def decorator(view: Any) -> Any:
            decorated = decorate(view)
            decorated.takes = getattr(view, "takes", frozenset()) | {location}
            if location == "json":
                decorated.body_schema = instance
            return decorated

        return decorator


def takes(app: Flask, request: Request) -> frozenset[str]:
    """Where the view of a request takes arguments from: ``json``, ``query``, both or neither."""
    view = app.view_functions.get(request.endpoint or "")
    found: frozenset[str] = getattr(view, "takes", frozenset())
    return found
