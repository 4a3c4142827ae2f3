"""HTTP as the contract has it: bodies, types, paths, methods and ids of requests, over a real socket."""

import json
import socket
import uuid
from collections.abc import Iterator

import pytest

from app.core.windows import Windows
from tests.support.client import NOW_MS, assert_problem, post
from tests.support.thread import ServiceThread


@pytest.fixture(scope="module")
def running(on_each_lane: ServiceThread) -> ServiceThread:
    return on_each_lane


def test_a_transaction_is_answered_with_its_id(service: ServiceThread) -> None:
    answer = post(service)
    assert answer.status_code == 201
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["id"]
    assert uuid.UUID(answer.json()["id"]).version == 7


def test_ids_sort_by_arrival(service: ServiceThread) -> None:
    ids = [post(service).json()["id"] for _ in range(100)]
    assert ids == sorted(set(ids))


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"Hello"', b"null", b'{"amount":1,"timestamp":1,"x":"\xff"}', b"[" * 60_000],
)
def test_what_is_no_json_object_in_utf_8_is_400(service: ServiceThread, body: bytes) -> None:
    assert_problem(service.client.post("/transactions", content=body), 400, "malformed_body")


def test_every_wrong_field_is_named(service: ServiceThread) -> None:
    answer = post(service, amount="NaN", timestamp="yesterday", currency="usd", user_id="")
    details = assert_problem(answer, 422, "invalid_field")
    assert [error["pointer"] for error in details["errors"]] == [
        "/amount",
        "/timestamp",
        "/currency",
        "/user_id",
    ]


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 201),
        ("application/json; charset=utf-8", 201),
        ("Application/JSON", 201),
        ("application/vnd.api+json", 201),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/jsonp", 415),
        ("", 415),
    ],
)
def test_a_content_type_that_is_present_must_be_json(
    service: ServiceThread, content_type: str, status: int
) -> None:
    body = json.dumps({"amount": 1, "timestamp": NOW_MS})
    headers = {"content-type": content_type}
    answer = service.client.post("/transactions", content=body, headers=headers)
    assert answer.status_code == status
    if status == 415:
        assert_problem(answer, 415, "unsupported_media_type")


def test_a_body_of_64_kib_is_taken_and_a_byte_more_is_not(service: ServiceThread) -> None:
    body = json.dumps({"amount": 1, "timestamp": NOW_MS}).encode()
    whole = body + b" " * (65_536 - len(body))
    assert service.client.post("/transactions", content=whole).status_code == 201
    answer = service.client.post("/transactions", content=whole + b" ")
    assert_problem(answer, 413, "body_too_large")
    assert answer.headers["connection"] == "close"


def test_a_body_sent_in_chunks_has_the_same_bound(service: ServiceThread) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"amount":1,"timestamp":'
        yield b"%d}" % NOW_MS

    assert service.client.post("/transactions", content=chunks()).status_code == 201
    answer = service.client.post("/transactions", content=iter([b" " * 50_000] * 2))
    assert_problem(answer, 413, "body_too_large")


def test_a_compressed_body_is_not_taken(service: ServiceThread) -> None:
    body = json.dumps({"amount": 1, "timestamp": NOW_MS})
    answer = service.client.post("/transactions", content=body, headers={"content-encoding": "gzip"})
    assert_problem(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "path",
    [
        "/health%0A",
        "/docs/",
        "/assets",
        "/assets/",
        "/nope",
        "/stats/",
        "/transactions/",
        "/Health",
        "//stats",
    ],
)
def test_a_path_that_does_not_exist_is_404(service: ServiceThread, path: str) -> None:
    assert_problem(service.client.get(str(service.client.base_url) + path), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/transactions", "POST, DELETE, GET, HEAD"),
        ("GET", "/transactions/batch", "POST"),
        ("DELETE", "/transactions/x", "GET, HEAD"),
        ("DELETE", "/api/v1/transactions", "POST, GET, HEAD"),
        ("POST", "/api/v1/transactions/x", "GET, HEAD"),
        ("OPTIONS", "/api/v1/transactions/x", "GET, HEAD"),
        ("POST", "/stats", "GET, HEAD"),
        ("DELETE", "/statistics", "GET, HEAD"),
        ("POST", "/health", "GET, HEAD"),
        ("BREW", "/stats", "GET, HEAD"),
    ],
)
def test_a_method_that_a_path_does_not_have_is_405(
    service: ServiceThread, method: str, path: str, allow: str
) -> None:
    if method == "BREW":
        # No method the parser knows: refused before there is a path.
        assert_problem(service.client.request(method, path), 400, "malformed_request")
        return
    answer = service.client.request(method, path)
    assert_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == allow


@pytest.mark.parametrize("path", ["/health", "/livez", "/readyz"])
def test_probes_answer_ok(service: ServiceThread, path: str) -> None:
    answer = service.client.get(path)
    assert (answer.status_code, answer.content) == (200, b'{"status":"ok"}')


def test_head_is_answered_like_get_without_a_body(service: ServiceThread) -> None:
    answer = service.client.head("/health")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == "15"


def test_a_sane_request_id_is_echoed(service: ServiceThread) -> None:
    for path in ("/health", "/nope"):
        answer = service.client.get(path, headers={"X-Request-ID": "abc-123"})
        assert answer.headers.get_list("x-request-id") == ["abc-123"]


@pytest.mark.parametrize("request_id", ["", "a" * 65, "a b", "caf\xe9"])
def test_a_request_id_that_is_not_sane_is_replaced_on_errors_only(
    service: ServiceThread, request_id: str
) -> None:
    headers = {b"X-Request-ID": request_id.encode("latin-1")}
    assert "x-request-id" not in service.client.get("/health", headers=headers).headers
    made = service.client.get("/nope", headers=headers).headers["x-request-id"]
    assert made != request_id
    assert 1 <= len(made) <= 64


def test_bytes_that_are_no_http_get_an_answer_in_the_same_form(service: ServiceThread) -> None:
    with socket.create_connection(service.address, timeout=30) as connection:
        connection.sendall(b"what is this\r\n\r\n")
        received = b"".join(iter(lambda: connection.recv(65_536), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"content-type: application/problem+json" in head
    assert json.loads(body)["code"] == "malformed_request"


def test_an_error_nobody_foresaw_tells_nothing_of_the_inside(
    service: ServiceThread, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def break_down(*_: object) -> None:
        raise RuntimeError("a secret of the inside")

    monkeypatch.setattr(Windows, "since", break_down)
    answer = service.client.get("/stats")
    assert_problem(answer, 500, "internal_error")
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] in capfd.readouterr().out
