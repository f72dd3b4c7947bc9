"""The server alone, over real sockets, with bounds so small that a test meets them."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serve.answers.errors import AddressUnavailable
from serve.rpc.credentials import TlsFiles
from serve.transport.http_connection import HttpBounds
from serve.transport.http_messages import ALWAYS, HttpAnswer, HttpRequest, Work
from serve.transport.http_server import HttpServer
from tests.kits.authority import Authority

WAIT = 10.0
QUICK = HttpBounds(body_bytes=1000, header_bytes=2000, arrival=0.4, idle=0.4, handshake=0.4, sending=0.4, linger=0.1)
GET = b"GET /quick HTTP/1.1\r\nHost: x\r\n\r\n"


def post(body: bytes, *headers: bytes, target: bytes = b"/quick") -> bytes:
    lengths = [] if any(b"-" in each.split(b":")[0] for each in headers) else [b"Content-Length: %d" % len(body)]
    return b"\r\n".join([b"POST " + target + b" HTTP/1.1", b"Host: x", *lengths, *headers, b"", body])


class Echo:
    """Says what it was asked; /held waits on a thread, /large is a large answer, /defect and /broken are defects."""

    def __init__(self) -> None:
        self.seen: list[HttpRequest] = []
        self.release = threading.Event()

    def begin(self, request: HttpRequest) -> HttpAnswer | Work:
        self.seen.append(request)
        if request.target == "/defect":
            raise RuntimeError("a defect")
        if request.target == "/broken":
            return self.break_down
        if request.target == "/held":
            return lambda: self.hold(request)
        body = b"x" * (8 << 20) if request.target == "/large" else request.verb.encode() + b" " + request.body
        return HttpAnswer(200, ALWAYS, body)

    def hold(self, request: HttpRequest) -> HttpAnswer:
        assert self.release.wait(WAIT)
        return HttpAnswer(200, ALWAYS, b"held")

    def break_down(self) -> HttpAnswer:
        raise RuntimeError("a defect")


class Running:
    """A server, and callers of it."""

    def __init__(self, bounds: HttpBounds, tls: TlsFiles | None = None, address: str = "127.0.0.1:0") -> None:
        self.application = Echo()
        self.server = HttpServer(self.application, bounds, threads=2, tls=tls)
        self.address = self.server.bind(address)
        self.server.start()

    def connect(self) -> socket.socket:
        host, port = self.address.rsplit(":", 1)
        return socket.create_connection((host.strip("[]"), int(port)), timeout=WAIT)

    def talk(self, sent: bytes) -> bytes:
        """Everything that is answered until the server closes."""
        with self.connect() as one:
            one.sendall(sent)
            return read_all(one)


def read_all(one: socket.socket) -> bytes:
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while part := one.recv(65536):
            said += part
    return said


def read_answers(one: socket.socket, count: int) -> list[tuple[int, dict[str, str], bytes]]:
    """So many answers of a connection that stays open."""
    stream, found = one.makefile("rb"), []
    for _ in range(count):
        status = int(stream.readline().split()[1])
        headers = {}
        while (line := stream.readline().strip()) != b"":
            name, _, value = line.decode().partition(": ")
            headers[name.lower()] = value
        found.append((status, headers, stream.read(int(headers.get("content-length", 0)))))
    return found


def problem_of(said: bytes) -> dict[str, Any]:
    """The last answer's failure."""
    head, _, body = said[said.rindex(b"HTTP/1.1 ") :].partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    assert b"application/json" in head
    error: dict[str, Any] = json.loads(body)["error"]
    assert set(error) == {"code", "status", "message", "details"}
    assert error["code"] == int(head.split()[1])
    return error


@contextlib.contextmanager
def running(bounds: HttpBounds = QUICK, **options: Any) -> Iterator[Running]:
    made = Running(bounds, **options)
    try:
        yield made
    finally:
        made.application.release.set()
        made.server.stop(WAIT)


def test_requests_follow_each_other_on_a_connection_pipelined_and_not() -> None:
    with running() as server, server.connect() as one:
        one.sendall(GET * 300)
        assert [body for _, _, body in read_answers(one, 300)] == [b"GET "] * 300
        one.sendall(post(b"first") + post(b"second", target=b"/held")[:30])
        assert read_answers(one, 1)[0][2] == b"POST first"
        server.application.release.set()
        one.sendall(post(b"second", target=b"/held")[30:] + GET)
        assert [body for _, _, body in read_answers(one, 2)] == [b"held", b"GET "]


def test_a_body_in_chunks_is_one_body_and_what_follows_is_another_request() -> None:
    with running() as server, server.connect() as one:
        one.sendall(post(b"4\r\nabcd\r\n3;x=y\r\nefg\r\n0\r\nTrailer: t\r\n\r\n", b"Transfer-Encoding: chunked") + GET)
        assert [body for _, _, body in read_answers(one, 2)] == [b"POST abcdefg", b"GET "]


def test_a_caller_may_ask_whether_to_send_its_body() -> None:
    with running() as server, server.connect() as one:
        one.sendall(post(b"", b"Content-Length: 4", b"Expect: 100-continue"))
        assert one.recv(1000).startswith(b"HTTP/1.1 100 ")
        one.sendall(b"body")
        assert read_answers(one, 1)[0][2] == b"POST body"


def test_head_has_the_length_and_not_the_body() -> None:
    with running() as server, server.connect() as one:
        one.sendall(GET.replace(b"GET", b"HEAD"))
        stream = one.makefile("rb")
        assert stream.readline() == b"HTTP/1.1 200 OK\r\n"
        headers = list(iter(stream.readline, b"\r\n"))
        assert b"Content-Length: 5\r\n" in headers
        one.sendall(GET)
        assert stream.readline() == b"HTTP/1.1 200 OK\r\n", "no body in between"


@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400, "illegal request line"),
        (b"GET /\r\n\r\n", 400, "HTTP"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "Host"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400, "Host"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n", 400, "header"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "HTTP/1.1"),
        (post(b"abcdGET /", b"Content-Length: 4", b"Content-Length: 9"), 400, "Content-Length"),
        (post(b"abcd", b"Content-Length: 4, 5"), 400, "Content-Length"),
        (post(b"abcd", b"Content-Length: -4"), 400, "Content-Length"),
        (post(b"abcd", b"Content-Length: 4x"), 400, "Content-Length"),
        (post(b"0\r\n\r\nGET /", b"Content-Length: 9", b"Transfer-Encoding: chunked"), 400, "send one"),
        (post(b"", b"Transfer-Encoding: gzip, chunked"), 501, "chunked"),
        (post(b"4\r\nabcdefgh", b"Transfer-Encoding: chunked"), 400, "HTTP"),
        (post(b"xyz\r\n", b"Transfer-Encoding: chunked"), 400, "HTTP"),
        (post(b"1\r\na\r\n" * 200 + b"0\r\n\r\n", b"Transfer-Encoding: chunked"), 400, "chunks of less"),
        (post(b"x" * 1001), 413, "1001 bytes; send at most 1000"),
        (post(b"3e9\r\n" + b"x" * 1001, b"Transfer-Encoding: chunked"), 413, "send at most 1000"),
        (post(b"", b"Content-Length: 99999999999999999999"), 413, "send at most"),
        (GET[:-2] + b"X: " + b"x" * 2000 + b"\r\n\r\n", 431, "send at most 2000"),
        (GET[:-2] + b"X: " + b"x" * 30_000, 431, "too long"),
        (b"GET /" + b"x" * 30_000, 431, "too long"),
    ],
)
def test_what_is_no_request_is_refused_in_words_and_nothing_after_it_is_answered(
    sent: bytes, status: int, said: str
) -> None:
    with running() as server:
        answer = server.talk(sent + GET)
        error = problem_of(answer)
        assert answer.count(b"HTTP/1.1 ") == 1
        assert error["code"] == status
        assert error["status"].isupper()
        assert said in error["message"]
        assert server.application.seen == []


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\n", post(b"", b"Content-Length: 500")])
def test_a_request_has_a_time_to_arrive_in_however_it_trickles(start: bytes) -> None:
    with running() as server, server.connect() as one:
        began = time.monotonic()
        one.sendall(start)
        with contextlib.suppress(OSError):
            while time.monotonic() < began + WAIT:
                one.sendall(b"x")
                one.settimeout(0.05)
                with contextlib.suppress(TimeoutError):
                    said = one.recv(10_000)
                    break
        assert problem_of(said)["code"] == 408
        assert server.application.seen == []


def test_who_says_nothing_is_left_alone_and_then_left() -> None:
    with running() as server:
        assert server.talk(b"") == b"", "no word: there was no request"
        assert server.talk(GET).count(b"HTTP/1.1 200") == 1, "and after the last request"


def test_what_a_refused_caller_still_sends_does_not_keep_it_from_reading_why() -> None:
    with running(HttpBounds(body_bytes=1000)) as server, server.connect() as one:
        one.sendall(post(b"", b"Content-Length: 3000000"))
        for _ in range(30):
            one.sendall(b"x" * 100_000)
            time.sleep(0.005)
        assert problem_of(read_all(one))["code"] == 413


def test_threads_work_for_nobody_who_sends_slowly() -> None:
    with running(HttpBounds()) as server:
        slow = [server.connect() for _ in range(50)]
        for each in slow:
            each.sendall(post(b"", b"Content-Length: 100") + b"{")
        with server.connect() as one:
            one.sendall(post(b"", target=b"/held"))
            server.application.release.set()
            assert read_answers(one, 1)[0][2] == b"held"
        for each in slow:
            each.close()


def test_at_the_bound_of_connections_who_waited_longest_makes_room() -> None:
    with running(HttpBounds(connections=4)) as server, contextlib.ExitStack() as stack:
        held = stack.enter_context(server.connect())
        held.sendall(post(b"", target=b"/held"))
        while not server.application.seen:
            time.sleep(0.01)
        slow = [stack.enter_context(server.connect()) for _ in range(12)]
        with server.connect() as one:
            one.sendall(GET)
            assert read_answers(one, 1)[0][0] == 200
        assert read_all(slow[0]) == b"", "dropped"
        server.application.release.set()
        assert read_answers(held, 1)[0][2] == b"held", "whose request is worked on is not dropped"


def test_at_the_bound_of_bytes_who_holds_most_makes_room() -> None:
    with running(HttpBounds(body_bytes=1000, held_bytes=3000)) as server, contextlib.ExitStack() as stack:
        for _ in range(5):
            slow = stack.enter_context(server.connect())
            slow.sendall(post(b"", b"Content-Length: 900") + b"x" * 800)
        one = stack.enter_context(server.connect())
        one.sendall(post(b"y" * 100))
        assert read_answers(one, 1)[0][0] == 200
        assert server.server.held <= 3000


def test_an_answer_that_nobody_reads_is_held_for_a_while_only() -> None:
    with running() as server, server.connect() as one:
        one.sendall(GET.replace(b"/quick", b"/large"))
        give_up = time.monotonic() + WAIT
        while server.server.held == 0 and time.monotonic() < give_up:
            time.sleep(0.01)
        assert server.server.held == 8 << 20
        while server.server.held and time.monotonic() < give_up:
            time.sleep(0.01)
        assert server.server.held == 0
        assert len(read_all(one)) < 8 << 20
        assert server.talk(GET).count(b"HTTP/1.1 200") == 1


def test_who_leaves_is_known_to_have_left() -> None:
    with running() as server:
        with server.connect() as one:
            one.sendall(post(b"", target=b"/held"))
            while not server.application.seen:
                time.sleep(0.01)
            assert server.application.seen[0].is_active()
        give_up = time.monotonic() + WAIT
        while server.application.seen[0].is_active() and time.monotonic() < give_up:
            time.sleep(0.01)
        assert not server.application.seen[0].is_active()


@pytest.mark.parametrize("target", [b"/defect", b"/broken"])
def test_a_defect_is_one_answer_without_a_trace(target: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with running() as server, server.connect() as one:
        one.sendall(post(b"", target=target) + GET)
        (status, _, body), (after, _, _) = read_answers(one, 2)
        assert (status, after) == (500, 200)
        assert json.loads(body)["error"]["message"] == "internal error"
    assert "defect in the gateway" in caplog.text


def test_a_stop_lets_what_is_worked_on_end_and_waits_for_nobody_else() -> None:
    server = Running(HttpBounds())
    with server.connect() as held, server.connect() as slow:
        slow.sendall(post(b"", b"Content-Length: 100") + b"{")
        held.sendall(post(b"", target=b"/held"))
        while not server.application.seen:
            time.sleep(0.01)
        stopping = threading.Thread(target=server.server.stop, args=[WAIT])
        stopping.start()
        assert read_all(slow) == b""
        server.application.release.set()
        (answer,) = read_answers(held, 1)
        assert (answer[0], answer[1]["connection"], answer[2]) == (200, "close", b"held")
        stopping.join(WAIT)
        assert not stopping.is_alive()
    with pytest.raises(ConnectionRefusedError):
        server.connect()


def test_who_never_shakes_hands_keeps_nobody_from_it(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    trust = authority.trusting_context()
    with running(HttpBounds(handshake=1.0), tls=authority.server) as server, contextlib.ExitStack() as stack:
        idle = [stack.enter_context(server.connect()) for _ in range(40)]
        began = time.monotonic()
        plain = stack.enter_context(server.connect())
        with trust.wrap_socket(plain, server_hostname="127.0.0.1") as one:
            one.sendall(GET)
            assert read_answers(one, 1)[0][0] == 200
            assert time.monotonic() - began < 1.0, "before the first of the idle ones was given up"
        assert read_all(idle[0]) == b""


def test_a_large_answer_over_tls_arrives_whole(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    trust = authority.trusting_context()
    with (
        running(HttpBounds(), tls=authority.server) as server,
        trust.wrap_socket(server.connect(), server_hostname="127.0.0.1") as one,
    ):
        one.sendall(GET.replace(b"/quick", b"/large") + GET)
        assert [len(body) for _, _, body in read_answers(one, 2)] == [8 << 20, 4]


def test_only_clients_of_the_authority_get_in_where_tls_is_mutual(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    stranger, known = authority.trusting_context(), authority.trusting_context(with_client=True)
    with running(HttpBounds(), tls=authority.mutual) as server:
        with known.wrap_socket(server.connect(), server_hostname="127.0.0.1") as one:
            one.sendall(GET)
            assert read_answers(one, 1)[0][0] == 200
        # With TLS 1.3 a client learns that it is refused when it reads.
        with stranger.wrap_socket(server.connect(), server_hostname="127.0.0.1") as one:
            with contextlib.suppress(ssl.SSLError):
                one.sendall(GET)
                assert read_all(one) == b""
            assert len(server.application.seen) == 1


def test_it_listens_where_ipv6_and_paths_say(tmp_path: Path) -> None:
    with running(address="[::1]:0") as server:
        assert server.address.startswith("[::1]:")
        assert server.talk(GET).startswith(b"HTTP/1.1 200")
    path = tmp_path / "s"
    with running(address=f"unix:{path}") as server:
        assert server.address == f"unix:{path}"
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(str(path))
            one.sendall(GET)
            assert read_answers(one, 1)[0][0] == 200
    assert not path.exists()


@pytest.mark.parametrize("address", ["nonsense", "256.0.0.1:80", "x" * 70 + ":80"])
def test_an_address_that_cannot_be_bound_is_named(address: str) -> None:
    with pytest.raises(AddressUnavailable, match="--http-address"):
        HttpServer(Echo(), QUICK).bind(address)


def test_connections_leave_descriptors_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (64, 64))
    assert HttpBounds().open_at_most == 16
    monkeypatch.setattr("resource.getrlimit", lambda _: (-1, -1))
    assert HttpBounds().open_at_most == 1000
