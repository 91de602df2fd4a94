"""What a service would cost that keeps nothing but one row: ``python -m tests.bench.bare_service PORT DATABASE_URL [URL ...]``.

The same web server as ours with the same settings, Flask and SQLAlchemy as their manuals use them, and nothing besides:
no key, no checks, no ids, no log. With URLs it asks each of them in turn and puts their answers together.
"""

import sys
import threading

import requests
from flask import Flask, Response, jsonify, request
from sqlalchemy import create_engine, text

from apps.common.web_server import make_server

TABLE = """
CREATE TABLE IF NOT EXISTS things (id text PRIMARY KEY, user_id text NOT NULL, amount numeric NOT NULL,
                                   created_at timestamptz NOT NULL DEFAULT clock_timestamp())
"""


def create_app(database_url: str, others: list[str]) -> Flask:
    app = Flask("bare")
    engine = create_engine(database_url, pool_size=8)
    own = threading.local()

    @app.post("/things")
    def insert() -> tuple[Response, int]:
        body = request.get_json()
        with engine.begin() as connection:
            connection.execute(
                text("INSERT INTO things (id, user_id, amount) VALUES (:id, :user_id, :amount)"),
                {"id": body["message_id"], "user_id": body["user_id"], "amount": body["amount_wei"]},
            )
        return jsonify(body), 201

    @app.get("/things/<user_id>")
    def find(user_id: str) -> Response:
        with engine.connect() as connection:
            found = connection.execute(
                text("SELECT id, user_id, amount, created_at FROM things WHERE id = :id"), {"id": user_id}
            ).one()
        return jsonify({name: str(value) for name, value in found._mapping.items()})

    @app.get("/all/<user_id>")
    def fan_out(user_id: str) -> Response:
        if not hasattr(own, "session"):
            own.session = requests.Session()
        return jsonify([own.session.get(f"{other}/things/{user_id}", timeout=10).json() for other in others])

    return app


def main(port: str, database_url: str, *others: str) -> None:
    make_server(create_app(database_url, list(others)), "127.0.0.1", int(port)).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
