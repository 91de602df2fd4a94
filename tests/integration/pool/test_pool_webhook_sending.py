"""One sending, to servers that do anything: what it comes to, and that it always ends."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from apps.pool.webhooks.destination import Found, NameUnknown
from apps.pool.webhooks.sending import MAX_ANSWER_BYTES, Answer, Line
from tests.support.ports import free_port
from tests.support.receiver import Got, Receiver, receiving

BODY = b'{"sequence": 1, "pool_request_id": "r"}'
HEADERS = {"X-Staking-Sequence": "1", "Content-Type": "application/json"}


@pytest.fixture(scope="module")
def server() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture
def receiver(server: Receiver) -> Iterator[Receiver]:
    server.answer, server.headers = lambda _: 200, {}
    server.got.clear()
    server.let_go.clear()
    yield server
    server.let_go.set()


def send(url: str, **options: Any) -> Answer:
    with closing(Line(url, **{"allow_private": True, "total_sec": 5.0, **options})) as line:
        return line.post(BODY, HEADERS)


def code_of(answer: Answer) -> str | None:
    return None if answer.fault is None else answer.fault["code"]


@pytest.mark.parametrize("status", [200, 204, 301, 404, 410, 500])
def test_send__answered__its_status_and_no_redirect_followed(receiver: Receiver, status: int) -> None:
    receiver.answer, receiver.headers = lambda _: status, {"Location": receiver.url, "Retry-After": "9"}
    answer = send(receiver.url)
    assert (answer.status, answer.fault, answer.retry_after) == (status, None, "9")
    assert [one.body for one in receiver.got] == [BODY]


@pytest.mark.parametrize(
    ("rude", "code"),
    [("close", "connection_failed"), ("half", "connection_failed"), ("noise", "not_http")],
)
def test_send__no_whole_answer__fault_in_words(receiver: Receiver, rude: str, code: str) -> None:
    receiver.answer = lambda _: rude
    answer = send(receiver.url)
    assert (answer.status, code_of(answer)) == (None, code)


@pytest.mark.parametrize("rude", ["hang", "drip"])
def test_send__never_ends__given_up_after_its_time_however_slowly_bytes_come(receiver: Receiver, rude: str) -> None:
    receiver.answer = lambda _: rude
    answer = send(receiver.url, total_sec=0.2)
    assert (answer.status, code_of(answer)) == (None, "no_answer")


def test_send__answer_larger_than_is_read__taken_and_the_line_closed(receiver: Receiver) -> None:
    receiver.answer = lambda _: "huge"
    with closing(Line(receiver.url, allow_private=True)) as line:
        assert line.post(BODY, HEADERS).status == 200
        assert line._connection.sock is None
    assert MAX_ANSWER_BYTES < 1_000_000


def test_send__several__one_line_kept_and_made_anew_where_the_server_closed_it(receiver: Receiver) -> None:
    with closing(Line(receiver.url, allow_private=True)) as line:
        assert line.post(BODY, HEADERS).status == 200
        kept = line._connection.sock
        assert line.post(BODY, HEADERS).status == 200
        assert line._connection.sock is kept
        assert kept is not None
        kept.shutdown(socket.SHUT_RDWR)
        assert line.post(BODY, HEADERS).status == 200
    assert len(receiver.got) == 3


def test_send__more_than_an_answer_on_a_kept_line__read_as_no_answer_to_the_next(receiver: Receiver) -> None:
    receiver.answer = lambda _: "surplus"
    with closing(Line(receiver.url, allow_private=True)) as line:
        assert [line.post(BODY, HEADERS).status for _ in range(5)] == [204] * 5


def test_send__nobody_listens__fault() -> None:
    assert code_of(send(f"http://127.0.0.1:{free_port()}/")) == "connection_failed"


def test_send__name_unknown__fault() -> None:
    def nowhere(host: str, port: int) -> Found:
        raise NameUnknown(host)

    assert code_of(send("http://bff.example/", resolve=nowhere)) == "name_unknown"


def test_send__private_address_not_allowed__refused_when_it_connects_and_nothing_comes(receiver: Receiver) -> None:
    port = int(receiver.url.rsplit(":", 1)[1].split("/")[0])
    told = iter(
        ["8.8.8.8", "127.0.0.1"]
    )  # as whoever controls the name would like it: one address to look at, one to use
    asked: list[str] = []

    def rebinding(host: str, _: int) -> Found:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(told), port))]

    assert next(told) == "8.8.8.8"
    assert code_of(send(f"http://bff.example:{port}/", allow_private=False, resolve=rebinding)) == "address_refused"
    assert asked == ["bff.example"]
    assert receiver.got == []


def local(port: int) -> Any:
    def resolve(_host: str, _port: int) -> Found:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    return resolve


def test_send__to_the_address_that_was_checked__asks_once_and_says_the_name(receiver: Receiver) -> None:
    port = int(receiver.url.rsplit(":", 1)[1].split("/")[0])
    assert send("http://bff.example:8080/events?of=pool", resolve=local(port)).status == 200
    got: Got = receiver.got[0]
    assert (got.headers["Host"], got.path) == ("bff.example:8080", "/events?of=pool")


def test_send__over_tls__verifies_the_name_and_not_the_address() -> None:
    asked: list[str | None] = []

    class Watched(ssl.SSLContext):
        def wrap_socket(self, *_: Any, server_hostname: str | bytes | None = None, **__: Any) -> Any:
            asked.append(str(server_hostname))
            raise ssl.SSLCertVerificationError("self-signed")

    trust = Watched(ssl.PROTOCOL_TLS_CLIENT)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answer = send("https://bff.example/", resolve=local(listener.getsockname()[1]), trust=trust)
    assert asked == ["bff.example"]
    assert trust.check_hostname
    assert trust.verify_mode == ssl.CERT_REQUIRED
    assert code_of(answer) == "certificate_refused"


def test_send__tls_handshake_never_ends__given_up_after_its_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        held: list[socket.socket] = []
        thread = threading.Thread(target=lambda: held.append(listener.accept()[0]))
        thread.start()
        answer = send("https://bff.example/", resolve=local(listener.getsockname()[1]), total_sec=0.2)
        thread.join()
        held[0].close()
    assert code_of(answer) == "no_answer"
