"""Real answers of every status, on both lanes, held against the description."""

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import NamedTuple, cast

import httpx
import jsonschema_rs
import pytest

from app.core.windows import Windows
from app.settings import Settings, Switch
from app.web.operations import OPERATIONS
from app.web.pages import ASSETS
from tests.support.attacks import NOW_MS as TOKENS_MS
from tests.support.attacks import rsa_mint, secret_mint
from tests.support.client import LANES, NOW_MS, WINDOW_MS, protected
from tests.support.feed import PATH
from tests.support.issuer import SECRET
from tests.support.moody_store import Mood, MoodyStore
from tests.support.openapi import ENTRY, WHOLE, Json, assert_described, codes, operations, strict
from tests.support.thread import Clock, ServiceThread, serve

EARLIER_MS = NOW_MS - 3_600_000
EARLIER: Json = {"amount": 1, "timestamp": EARLIER_MS}
KEY = (("idempotency-key", "key"),)
TEXT = (("content-type", "text/plain"),)
LINES = (("content-type", "application/x-ndjson"),)


class Case(NamedTuple):
    """A request, and the status it is to have."""

    method: str
    path: str
    status: int
    query: str = ""
    body: object = None
    headers: tuple[tuple[str, str], ...] = ()
    mood: Mood = Mood.WELL
    first: object = None
    """The body of a request that goes before it."""
    at: str = ""
    """The id or name in the path; without one, the id of a transaction there is."""
    is_full: bool = False
    """Whether there are as many streams as there may be."""

    def __str__(self) -> str:
        return f"{self.method} {self.path}{self.query} {self.at} {self.status} {self.mood.name.lower()}"


POST = "POST", "/transactions"
BATCH = "POST", "/transactions/batch"
DELETE = "DELETE", "/transactions"
FEED = "POST", PATH
STREAM = "/stats/stream"
NOBODY = "019b7c8e-0f4e-7000-8000-5f1c3a2b4d6e"

CASES = [
    Case(*POST, 201, body=WHOLE),
    Case(*POST, 204, body={**WHOLE, "timestamp": NOW_MS - WINDOW_MS - 1}),
    Case(*POST, 400, body=[]),
    Case(*POST, 400, body=WHOLE, headers=(("idempotency-key", ""),)),
    Case(*POST, 409, body={**WHOLE, "amount": 2}, headers=KEY, first=WHOLE),
    Case(*POST, 413, body="x" * 65_537),
    Case(*POST, 415, body=WHOLE, headers=TEXT),
    Case(*POST, 422, body={"amount": "x"}),
    Case(*POST, 422, body={**WHOLE, "timestamp": NOW_MS + 1001}),
    Case(*POST, 503, body=WHOLE, mood=Mood.REFUSES),
    Case(*POST, 503, body=WHOLE, mood=Mood.FAILS),
    Case(*POST, 503, body=EARLIER, mood=Mood.CANNOT_READ),
    Case(*BATCH, 200, body=[WHOLE, {**WHOLE, "timestamp": 1}, {"amount": 1}, 7]),
    Case(*BATCH, 200, "?ids=true&atomic=false", body=[WHOLE, {}]),
    Case(*BATCH, 200, body=WHOLE, headers=LINES),
    Case(*BATCH, 400, body={}),
    Case(
        *BATCH, 200, body=[{**WHOLE, "idempotency_key": "1"}] * 2 + [{**EARLIER, "idempotency_key": "1"}]
    ),
    Case(*BATCH, 409, body=[], headers=KEY, first=[WHOLE]),
    Case(*BATCH, 413, body=[0] * 10_001),
    Case(*BATCH, 413, body=" " * (8 * 2**20 + 1)),
    Case(*BATCH, 415, body=[], headers=TEXT),
    Case(*BATCH, 422, "?atomic=true", body=[{}]),
    Case(*BATCH, 422, "?atomic=perhaps", body=[]),
    Case(*BATCH, 503, body=[WHOLE], mood=Mood.REFUSES),
    Case(*BATCH, 503, body=[WHOLE], mood=Mood.FAILS),
    Case(*BATCH, 503, body=[EARLIER], mood=Mood.CANNOT_READ),
    Case(*DELETE, 204),
    Case(*DELETE, 413, body="x" * 65_537),
    Case(*DELETE, 503, mood=Mood.REFUSES),
    Case(*DELETE, 503, mood=Mood.FAILS),
    Case(*DELETE, 503, mood=Mood.CANNOT_READ),
    Case(*FEED, 201, body=ENTRY),
    Case(*FEED, 201, body={**ENTRY, "timestamp": 0, "product": "P2P", "metadata": {"a": {"b": [1]}}}),
    Case(*FEED, 400, body=[]),
    Case(*FEED, 400, body=ENTRY, headers=(("idempotency-key", ""),)),
    Case(*FEED, 409, body={**ENTRY, "amount": 2}, headers=KEY, first=ENTRY),
    Case(*FEED, 413, body="x" * 65_537),
    Case(*FEED, 415, body=ENTRY, headers=TEXT),
    Case(*FEED, 422, body={}),
    Case(*FEED, 422, body={**ENTRY, "timestamp": NOW_MS + 1001}),
    Case(*FEED, 503, body=ENTRY, mood=Mood.REFUSES),
    Case(*FEED, 503, body=ENTRY, mood=Mood.FAILS),
    Case(*FEED, 503, body=ENTRY, mood=Mood.CANNOT_READ),
    Case("GET", "/api/v1/transactions", 400),
    *(
        case
        for path in ("/transactions", "/api/v1/transactions")
        for case in (
            Case("GET", path, 200, "?user_id=u&limit=1"),
            Case("GET", path, 200, "?user_id=u&page=1&page_size=2"),
            Case("GET", path, 422, "?user_id=u&limit=0"),
            Case("GET", path, 422, "?cursor=x"),
            Case("GET", path, 503, "?user_id=u", mood=Mood.REFUSES),
            Case("GET", path, 503, "?user_id=u", mood=Mood.FAILS),
            Case("GET", f"{path}/{{id}}", 200),
            Case("GET", f"{path}/{{id}}", 400, at="x"),
            Case("GET", f"{path}/{{id}}", 404, at=NOBODY),
            Case("GET", f"{path}/{{id}}", 503, at=NOBODY, mood=Mood.REFUSES),
            Case("GET", f"{path}/{{id}}", 503, at=NOBODY, mood=Mood.FAILS),
        )
    ),
    *(
        case
        for path in ("/stats", "/statistics")
        for case in (
            Case("GET", path, 200),
            Case("GET", path, 200, "?window=250ms&currency=EUR"),
            Case("GET", path, 422, "?window=2h"),
            Case("GET", path, 503, mood=Mood.CANNOT_READ),
        )
    ),
    Case("GET", "/health", 200),
    Case("GET", "/livez", 200),
    Case("GET", "/readyz", 200),
    Case("GET", "/readyz", 503, mood=Mood.CANNOT_READ),
    Case("GET", "/api/v1/health", 200),
    Case("GET", "/api/v1/health", 200, mood=Mood.CANNOT_READ),
    Case("GET", "/stats/stream", 200),
    Case("GET", "/stats/stream", 200, "?window=1s&currency=EUR&interval=250ms"),
    Case("GET", "/stats/stream", 200, mood=Mood.CANNOT_READ),
    Case("GET", "/stats/stream", 422, "?interval=1ms"),
    Case("GET", "/stats/stream", 503, is_full=True),
    *(
        case
        for path in ("/", "/docs", "/redoc", "/assets/{name}", "/openapi.json")
        for case in (
            Case("GET", path, 200, at="icon.svg"),
            Case("GET", path, 304, headers=(("if-none-match", "*"),), at="uplot.js"),
        )
    ),
    *(Case("GET", "/assets/{name}", 200, at=name) for name in ASSETS),
    Case("GET", "/assets/{name}", 404, at="..%2findex.html"),
    Case("GET", "/metrics", 200),
    Case("GET", "/metrics", 200, headers=(("accept", "application/openmetrics-text"),)),
    Case("GET", "/metrics", 200, mood=Mood.CANNOT_READ),
]

CASES += [case._replace(method="HEAD") for case in CASES if case.method == "GET"]


@pytest.fixture(scope="module", params=LANES)
def lane(request: pytest.FixtureRequest) -> Switch:
    return cast(Switch, request.param)


@pytest.fixture(scope="module")
def services(lane: Switch) -> Iterator[Mapping[Mood, ServiceThread]]:
    """One in every mood, and showing it."""
    settings = Settings(database_url="memory://", fast_lane=lane)
    with ExitStack() as stack:
        running = {}
        for mood in Mood:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("app.main.build_store", lambda _, mood=mood, **__: MoodyStore(mood))
                running[mood] = stack.enter_context(serve(settings, Clock(NOW_MS)))
        running[Mood.CANNOT_READ].clock.now_ms = EARLIER_MS
        running[Mood.CANNOT_READ].client.get("/stats")
        yield running


@pytest.fixture(scope="module")
def full(lane: Switch) -> Iterator[ServiceThread]:
    """One that has all the streams it may have."""
    settings = Settings(database_url="memory://", fast_lane=lane, connections_max=2)
    with serve(settings, Clock(NOW_MS)) as service, service.client.stream("GET", STREAM) as begun:
        next(begun.iter_raw())
        yield service


@pytest.fixture
def running(services: Mapping[Mood, ServiceThread]) -> ServiceThread:
    """The one that is well."""
    return services[Mood.WELL]


def send(service: ServiceThread, case: Case) -> httpx.Response:
    body = case.body
    content = body if body is None or isinstance(body, str) else json.dumps(body)
    path = case.path
    path = path.replace("{name}", case.at)
    if "{id}" in path:
        there = case.at or service.client.post("/transactions", json=WHOLE).json()["id"]
        path = path.replace("{id}", there)
    with service.client.stream(
        case.method, f"{path}{case.query}", content=content, headers=dict(case.headers)
    ) as answer:
        if case.path != STREAM or answer.status_code != 200:
            answer.read()
            return answer
        # It has no end, so its beginning must do.
        begun = b"" if case.method == "HEAD" else next(answer.iter_raw())
        return httpx.Response(200, headers=answer.headers, content=begun)


def test_every_status_is_produced_below(document: Json) -> None:
    described = {
        (method, path, int(status)): codes(response)
        for (path, method), operation in operations(document).items()
        for status, response in operation["responses"].items()
        if method != "HEAD"
    }
    # What may befall any request is shown once for all, in the tests of limits and of HTTP.
    due = {
        (method, path, status)
        for (method, path, status), found in described.items()
        if not found or found & set(OPERATIONS[path, method].failures)
    }
    due |= {("HEAD", path, status) for method, path, status in due if method == "GET"}
    produced = {(case.method, case.path, case.status) for case in CASES}
    as_described = {("GET" if method == "HEAD" else method, *rest) for method, *rest in produced}
    assert as_described <= set(described)
    assert due - produced == set()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_answers_are_as_described(
    case: Case, document: Json, services: Mapping[Mood, ServiceThread], full: ServiceThread
) -> None:
    service = full if case.is_full else services[case.mood]
    if case.first is not None:
        assert send(service, case._replace(body=case.first)).is_success
    answer = send(service, case)
    assert answer.status_code == case.status, answer.text
    assert_described(document, answer, case.method, case.path)


def test_refusals_of_callers_are_answered_as_described(document: Json, lane: Switch) -> None:
    limited = protected(lane, jwt_secret=SECRET, rate_limit_per_second=1, rate_limit_burst=100)
    away = protected(lane, jwt_jwks_url="http://127.0.0.1:1/keys")
    lacking, signed = secret_mint(claims={"scope": "", "sub": "bob"}), rsa_mint()
    doors = [door for door, told in operations(document).items() if "401" in told["responses"]]
    assert len(doors) > 5
    clock = Clock(TOKENS_MS)
    with serve(limited, clock) as service, serve(away, Clock(TOKENS_MS)) as keyless:

        def assert_answer(asked: ServiceThread, token: str | None, status: int) -> None:
            headers = {} if token is None else {"authorization": f"Bearer {token}"}
            for path, method in doors:
                answer = asked.client.request(method, path, headers=headers)
                assert answer.status_code == status
                assert_described(document, answer, method, path)

        assert_answer(keyless, signed, 503)
        assert_answer(service, None, 401)
        assert_answer(service, "nonsense", 401)
        assert_answer(service, lacking, 403)
        for _ in range(100):
            service.client.get("/stats")
        assert_answer(service, None, 429)


@pytest.mark.parametrize("path", [path for path, _ in OPERATIONS])
def test_bytes_that_are_no_http_are_answered_as_described(
    path: str, document: Json, running: ServiceThread
) -> None:
    method = next(method for each, method in OPERATIONS if each == path)
    with socket.create_connection(running.address, timeout=30) as connection:
        connection.sendall(f"{method} {path} HTTP/1.1\r\nhost: x\r\nbroken\r\n\r\n".encode())
        head, _, body = b"".join(iter(lambda: connection.recv(65_536), b"")).partition(b"\r\n\r\n")
    line, *fields = head.decode().split("\r\n")
    headers = dict(cast(tuple[str, str], tuple(field.split(": ", 1))) for field in fields)
    answer = httpx.Response(int(line.split()[1]), headers=headers, content=body)
    assert answer.status_code == 400
    assert_described(document, answer, method, path)


def test_an_error_nobody_foresaw_is_answered_as_described(
    document: Json, running: ServiceThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Windows, "since", None)
    answer = running.client.get("/stats?window=7ms")
    assert answer.status_code == 500
    assert_described(document, answer, "GET", "/stats")


def test_a_path_and_a_method_that_there_is_not_are_answered_as_described(
    document: Json, running: ServiceThread
) -> None:
    for name, answer in (
        ("NotFound", running.client.get("/nope")),
        ("MethodNotAllowed", running.client.put("/stats")),
    ):
        response = document["components"]["responses"][name]
        schema = response["content"][answer.headers["content-type"]]["schema"]
        jsonschema_rs.validate({**schema, "components": strict(document)}, answer.json())
        assert all(header in answer.headers for header in response["headers"])
