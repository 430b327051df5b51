"""Connections as raw bytes: what no client's library would send."""

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from dynlearn.config import ServeConfig
from dynlearn.registry import Registry
from dynlearn_services.server import process, running_server
from dynlearn_services.server.http import limits, protocol

LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
MOST_CONNECTIONS = 20
_ESTABLISHED = 1


@pytest.fixture(scope="module")
def address(walking: Registry) -> Iterator[tuple[str, int]]:
    config = ServeConfig(model="arm", port=0, max_connections=MOST_CONNECTIONS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "_HEAD_SECONDS", 1.0)
        patch.setattr(process, "_KEEP_ALIVE_SECONDS", 2)
        patch.setattr(limits, "_SEND_SECONDS", 1.0)
        with running_server(config, walking.root) as url:
            host, port = url.removeprefix("http://").split(":")
            yield host, int(port)


Connect = Callable[[], socket.socket]


@pytest.fixture
def connect(address: tuple[str, int]) -> Iterator[Connect]:
    """Open connections, and close them in the end."""
    opened: list[socket.socket] = []

    def connect() -> socket.socket:
        opened.append(socket.create_connection(address, timeout=10))
        return opened[-1]

    yield connect
    for one in opened:
        one.close()


def answer(connection: socket.socket) -> tuple[int, bytes]:
    """Read one answer that says its length."""
    file = connection.makefile("rb")
    status = int(file.readline().split()[1])
    length = 0
    while line := file.readline().strip():
        name, _, value = line.partition(b":")
        length = int(value) if name.lower() == b"content-length" else length
    return status, file.read(length)


def body() -> bytes:
    rows = {"observation": [[0.0] * 5], "action": [[0.0, 0.0]]}
    inputs = [
        {"name": name, "datatype": "FP32", "shape": [1, len(data[0])], "data": data}
        for name, data in rows.items()
    ]
    return json.dumps({"inputs": inputs}).encode()


def infer(*headers: str, content: bytes | None = None) -> bytes:
    content = body() if content is None else content
    lines = ["POST /v2/models/arm/infer HTTP/1.1", "Host: 127.0.0.1", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(content)}", "", ""]).encode() + content


@pytest.mark.parametrize(
    "headers",
    [
        # Java's HttpClient, by default; and curl --http2.
        ("Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAEAAEAAAAIAAAAB", "Upgrade: h2c"),
        ("connection: HTTP2-Settings,keep-alive , upgrade", "UPGRADE: h2c, foo"),
        ("Upgrade: h2c",),
    ],
)
def test_an_offer_of_http2_is_left_and_the_body_read(
    connect: Connect, headers: tuple[str, ...]
) -> None:
    connection = connect()
    for _ in range(2):
        connection.sendall(infer(*headers))
        status, content = answer(connection)
        assert status == 200
        assert json.loads(content)["model_name"] == "arm"


def test_an_offer_that_comes_byte_by_byte(connect: Connect) -> None:
    connection = connect()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in infer("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"):
        connection.sendall(bytes([byte]))
    assert answer(connection)[0] == 200


def test_a_body_in_chunks_and_one_that_is_waited_for(connect: Connect) -> None:
    content = body()
    connection = connect()
    head = b"POST /v2/models/arm/infer HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    chunks = [content[i : i + 50] for i in range(0, len(content), 50)]
    connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
    for chunk in (*chunks, b""):
        connection.sendall(b"%x\r\n%s\r\n" % (len(chunk), chunk))
    assert answer(connection)[0] == 200
    connection.sendall(head + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(content))
    assert connection.recv(100).startswith(b"HTTP/1.1 100 Continue")
    connection.sendall(content)
    assert answer(connection)[0] == 200


def test_what_is_sent_ahead_is_answered_in_order(connect: Connect) -> None:
    connection = connect()
    connection.sendall((LIVE + infer()) * 3 + LIVE)
    file = connection.makefile("rb")
    found = []
    for _ in range(7):
        assert file.readline().startswith(b"HTTP/1.1 200")
        headers = {}
        while line := file.readline().strip():
            name, _, value = line.partition(b": ")
            headers[name.lower()] = value
        found.append(b"live" in file.read(int(headers[b"content-length"])))
    assert found == [True, False, True, False, True, False, True]


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v2/health/live HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 70_000,
        b"GET /" + b"x" * 70_000,
        b"GET /v2/health/live HTTP/1.1\r\n" + b"X: y\r\n" * 12_000,
    ],
    ids=["a line", "a path", "lines"],
)
def test_a_head_without_end_is_refused(connect: Connect, head: bytes) -> None:
    connection = connect()
    connection.sendall(head)
    assert connection.recv(100).startswith(b"HTTP/1.1 431 ")


def test_a_head_that_does_not_come_is_not_waited_for(connect: Connect) -> None:
    connection = connect()
    connection.sendall(LIVE[:20])
    assert connection.recv(100).startswith(b"HTTP/1.1 408 ")
    while connection.recv(1000):
        pass


def test_who_connects_long_before_asking_is_waited_for_as_between_requests(
    connect: Connect,
) -> None:
    early, silent = connect(), connect()
    # Longer than a head may take, but no longer than a connection may be idle.
    time.sleep(1.3)
    early.sendall(LIVE)
    assert answer(early)[0] == 200
    assert silent.recv(100) == b""


@pytest.mark.parametrize(
    "junk", [b"\x16\x03\x01\x02\x00", b"{}\r\n\r\n", b"GET\r\n\r\n", b"\0" * 9]
)
def test_what_is_no_request_is_refused(connect: Connect, junk: bytes) -> None:
    connection = connect()
    connection.sendall(junk)
    assert connection.recv(100).startswith(b"HTTP/1.1 400 ")


def test_a_body_that_nobody_wants_is_passed_over_but_not_for_ever(connect: Connect) -> None:
    head = LIVE.replace(b"\r\n\r\n", b"\r\nContent-Length: 300000\r\n\r\n")
    connection = connect()
    connection.sendall(head)
    assert answer(connection)[0] == 200
    connection.sendall(bytes(300_000) + LIVE)
    assert answer(connection)[0] == 200
    connection.sendall(head)
    assert answer(connection)[0] == 200
    began = time.monotonic()
    with contextlib.suppress(ConnectionResetError):
        assert connection.recv(10) == b""
    assert time.monotonic() - began < 5


def test_lines_without_a_request_do_not_keep_a_connection(connect: Connect) -> None:
    connection = connect()
    connection.sendall(LIVE + b"\r\n\r\n")
    assert answer(connection)[0] == 200
    assert connection.recv(100).startswith(b"HTTP/1.1 408 ")


def has_ended(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(10) == b""
    except BlockingIOError:
        return False


def test_idle_connections_make_room_and_without_any_the_next_is_refused(connect: Connect) -> None:
    idle = [connect() for _ in range(MOST_CONNECTIONS)]
    time.sleep(0.1)
    newest = connect()
    newest.sendall(LIVE)
    assert answer(newest)[0] == 200
    # One has gone without a word, if none of the test before was older.
    assert sum(has_ended(one) for one in idle) <= 1
    busy = []
    for _ in range(MOST_CONNECTIONS):
        busy.append(connect())
        # Begun and not ended: its body is waited for.
        busy[-1].sendall(infer()[:-10])
    time.sleep(0.2)
    late = connect()
    assert late.recv(100).startswith(b"HTTP/1.1 503 ")
    for one in busy:
        one.close()
    time.sleep(0.2)
    again = connect()
    again.sendall(LIVE)
    assert answer(again)[0] == 200


def test_a_flood_ahead_of_answers_that_are_not_read_is_not_kept(connect: Connect) -> None:
    connection = connect()
    connection.setblocking(False)
    sent = 0
    ends = time.monotonic() + 3
    while time.monotonic() < ends:
        try:
            sent += connection.send(LIVE * 1000)
        except BlockingIOError:
            time.sleep(0.01)
        except (ConnectionResetError, BrokenPipeError):
            break
    # The system's own buffers take some megabytes; the server does not go on reading.
    assert sent < 40_000_000


def test_a_reader_who_does_not_read_loses_the_connection(connect: Connect) -> None:
    rows = 100_000
    inputs = [
        {"name": "observation", "datatype": "FP32", "shape": [rows, 5], "data": [0.0] * 5 * rows},
        {"name": "action", "datatype": "FP32", "shape": [rows, 2], "data": [0.0] * 2 * rows},
    ]
    outputs = [{"name": "next_observation_covariance"}]
    content = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
    connection = connect()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.sendall(infer(content=content))
    # Nothing is read, so the connection cannot be seen to end but by the system.
    ends = time.monotonic() + 15
    while connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED:
        assert time.monotonic() < ends
        time.sleep(0.05)


@pytest.mark.parametrize(
    "name", ["Inference-Header-Content-Length", "Authorization", "Content-Type", "Host"]
)
def test_a_header_that_is_said_twice_is_refused(connect: Connect, name: str) -> None:
    connection = connect()
    connection.sendall(infer(f"{name}: 10", f"{name}: 11"))
    status, content = answer(connection)
    assert status == 400
    assert json.loads(content)["error"].startswith(f"headers: expected {name.lower()} once, got")
