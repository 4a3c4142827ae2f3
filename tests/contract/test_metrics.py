"""GET /metrics: every request and every transaction counts once, whichever way it took."""

import contextlib
import json
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from app.settings import Late, Settings, Switch
from tests.support.attacks import NOW_MS as TOKENS_MS
from tests.support.attacks import secret_mint
from tests.support.client import LANES, NOW_MS, WINDOW_MS, assert_problem, protected
from tests.support.events import listening
from tests.support.feed import PATH
from tests.support.issuer import SECRET
from tests.support.metrics import outcomes, requests, samples, scrape
from tests.support.moody_store import Mood, MoodyStore
from tests.support.plain_http import plain_client
from tests.support.thread import Clock, ServiceThread, serve

WHOLE = {"amount": 1, "timestamp": NOW_MS}
LATE = {"amount": 1, "timestamp": NOW_MS - WINDOW_MS - 1}
AHEAD = {"amount": 1, "timestamp": NOW_MS + 1001}
WRONG = {"amount": "x", "timestamp": NOW_MS}
ENTRY = {"amount": 1, "user_id": "u"}
BATCH = "/transactions/batch"


@pytest.fixture(scope="module")
def running(on_each_lane: ServiceThread) -> ServiceThread:
    return on_each_lane


class Told(NamedTuple):
    """What has been counted in the meantime."""

    outcomes: Counter[str]
    requests: Counter[str]


@contextmanager
def counting(client: httpx.Client) -> Iterator[Told]:
    before, told = scrape(client), Told(Counter(), Counter())
    yield told
    after = scrape(client)
    told.outcomes.update(outcomes(after) - outcomes(before))
    told.requests.update(requests(after) - requests(before))


class Case(NamedTuple):
    """Requests that are sent one after another, and what they count as."""

    name: str
    path: str
    bodies: list[Any]
    statuses: list[int]
    outcomes: dict[str, int]
    headers: Mapping[str, str] = MappingProxyType({})
    query: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.path}"


def keyed(key: str, fact: Mapping[str, object]) -> dict[str, object]:
    return {**fact, "idempotency_key": key}


CASES = [
    Case("accepted", "/transactions", [WHOLE] * 3, [201] * 3, {"accepted": 3}),
    Case("late", "/transactions", [LATE], [204], {"late": 1}),
    Case("ahead", "/transactions", [AHEAD], [422], {"rejected": 1}),
    Case("wrong", "/transactions", [WRONG], [422], {"rejected": 1}),
    Case("no object", "/transactions", [[WHOLE]], [400], {"rejected": 1}),
    Case("no JSON", "/transactions", ["{"], [400], {"rejected": 1}),
    Case("other type", "/transactions", [WHOLE], [415], {"rejected": 1}, {"content-type": "text/plain"}),
    Case("too large", "/transactions", ["x" * 65_537], [413], {"rejected": 1}),
    Case("far too large", "/transactions", ["x" * (8 * 2**20 + 1)], [413], {"rejected": 1}),
    Case("no key", "/transactions", [WHOLE], [400], {"rejected": 1}, {"idempotency-key": ""}),
    Case(
        "under a key",
        "/transactions",
        [WHOLE, WHOLE, {**WHOLE, "amount": 2}, WHOLE],
        [201, 201, 409, 201],
        {"accepted": 1, "duplicate": 2, "rejected": 1},
        {"idempotency-key": "a"},
    ),
    Case(
        "late under a key", "/transactions", [LATE] * 2, [204] * 2, {"late": 2}, {"idempotency-key": "b"}
    ),
    Case("of a foreign page", "/transactions", [WHOLE], [403], {"rejected": 1}, {"origin": "http://x"}),
    Case("accepted", PATH, [ENTRY, {**ENTRY, "timestamp": 0}], [201] * 2, {"accepted": 2}),
    Case("wrong", PATH, [{}, [], AHEAD | ENTRY], [422, 400, 422], {"rejected": 3}),
    Case("other type", PATH, [ENTRY], [415], {"rejected": 1}, {"content-type": "text/plain"}),
    Case(
        "under a key",
        PATH,
        [ENTRY, ENTRY, {**ENTRY, "amount": 2}],
        [201, 201, 409],
        {"accepted": 1, "duplicate": 1, "rejected": 1},
        {"idempotency-key": "c"},
    ),
    Case(
        "of all kinds",
        BATCH,
        [[WHOLE, WHOLE, LATE, LATE, LATE, AHEAD, WRONG, 7, keyed("d", WHOLE), keyed("d", WHOLE)]],
        [200],
        {"accepted": 3, "late": 3, "rejected": 3, "duplicate": 1},
    ),
    Case(
        "another item under a key",
        BATCH,
        [[keyed("e", WHOLE), keyed("e", {**WHOLE, "amount": 2})]],
        [200],
        {"accepted": 1, "rejected": 1},
    ),
    Case("empty", BATCH, [[]], [200], {}),
    Case("no array", BATCH, ["{", "{}"], [400] * 2, {"rejected": 2}),
    Case("too many", BATCH, [[0] * 10_001], [413], {"rejected": 1}),
    Case("wrong query", BATCH, [[WHOLE] * 3], [422], {"rejected": 1}, {}, "?atomic=perhaps"),
    Case("atomic", BATCH, [[WHOLE, LATE, {}]], [422], {"rejected": 3}, {}, "?atomic=true"),
    Case(
        "atomic and good", BATCH, [[WHOLE, LATE]], [200], {"accepted": 1, "late": 1}, {}, "?atomic=true"
    ),
    Case(
        "under a key",
        BATCH,
        [[WHOLE, LATE, 7], [WHOLE, LATE, 7], [WHOLE]],
        [200, 200, 409],
        {"accepted": 1, "late": 1, "rejected": 2, "duplicate": 3},
        {"idempotency-key": "f"},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_transaction_counts_once_as_what_became_of_it(running: ServiceThread, case: Case) -> None:
    headers = {"content-type": "application/json", **case.headers}
    with counting(running.client) as told:
        for body, status in zip(case.bodies, case.statuses, strict=True):
            content = body if isinstance(body, str) else json.dumps(body)
            answer = running.client.post(case.path + case.query, content=content, headers=headers)
            assert answer.status_code == status, answer.text
    assert told.outcomes == case.outcomes
    assert told.requests == Counter(f"POST {case.path} {status}" for status in case.statuses)


def test_a_post_that_was_answered_before_its_body_broke_counts_once(running: ServiceThread) -> None:
    with counting(running.client) as told, socket.create_connection(running.address) as connection:
        connection.sendall(
            b"POST /transactions HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\n"
            b"transfer-encoding: chunked\r\n\r\n1\r\nx\r\n"
        )
        assert connection.recv(65_536).startswith(b"HTTP/1.1 415 ")
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"800000\r\n" + b"x" * 0x80_0000)
            while connection.recv(65_536):
                pass
    assert told.outcomes == {"rejected": 1}
    assert told.requests == {"POST /transactions 415": 1}


@pytest.mark.parametrize(
    ("sent", "request_", "transactions"),
    [
        (
            b"POST /transactions HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\n\r\n",
            "POST /transactions 413",
            1,
        ),
        (
            b"POST /transactions/%62atch HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\n\r\n",
            "POST /transactions/batch 413",
            1,
        ),
        (
            b"PUT /transactions HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\n\r\n",
            "PUT /transactions 413",
            0,
        ),
        (b"POST /transactions HTTP/1.1\r\n\r\n", "POST /transactions 400", 0),
        (
            b"POST /transactions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nx",
            "POST /transactions 400",
            0,
        ),
        (b"nothing\r\n\r\n", "other unknown 400", 0),
    ],
)
def test_what_is_refused_before_anyone_reads_it_counts_by_its_head(
    running: ServiceThread, sent: bytes, request_: str, transactions: int
) -> None:
    with counting(running.client) as told, socket.create_connection(running.address) as connection:
        connection.sendall(sent)
        while connection.recv(65_536):
            pass
    assert told.requests == {request_: 1}
    assert told.outcomes == ({"rejected": transactions} if transactions else {})


def test_requests_are_counted_by_route_and_never_by_what_a_client_made_up(
    running: ServiceThread,
) -> None:
    identifier = running.client.post("/transactions", json=WHOLE).json()["id"]
    with counting(running.client) as told:
        for method, target in [
            ("GET", f"/transactions/{identifier}"),
            ("GET", "/transactions/x"),
            ("GET", "/transactions/%7Bid%7D"),
            ("HEAD", "/stats?window=10s"),
            ("GET", "/stats?window=10s"),
            ("GET", "/stats?window=2h"),
            ("GET", "/livez"),
            ("GET", "/nothing/of/the/kind"),
            ("PUT", "/stats"),
            ("MKCOL", "/stats"),
        ]:
            running.client.request(method, target)
    assert told.requests == {
        "GET /transactions/{id} 200": 1,
        "GET /transactions/{id} 400": 2,
        "HEAD /stats 200": 1,
        "GET /stats 200": 1,
        "GET /stats 422": 1,
        "GET /livez 200": 1,
        "GET unknown 404": 1,
        "PUT /stats 405": 1,
        "other /stats 405": 1,
    }
    assert not told.outcomes


def test_pages_and_what_they_load_are_counted_by_route_too(running: ServiceThread) -> None:
    with counting(running.client) as told:
        for method, target, headers in [
            ("GET", "/", {}),
            ("GET", "/", {"if-none-match": "*"}),
            ("HEAD", "/docs", {}),
            ("GET", "/redoc", {}),
            ("GET", "/assets/icon.svg", {}),
            ("GET", "/assets/dashboard.css", {}),
            ("GET", "/assets/none.js", {}),
        ]:
            running.client.request(method, target, headers=headers)
    assert told.requests == {
        "GET / 200": 1,
        "GET / 304": 1,
        "HEAD /docs 200": 1,
        "GET /redoc 200": 1,
        "GET /assets/{name} 200": 2,
        "GET /assets/{name} 404": 1,
    }
    assert not told.outcomes


def test_a_stream_is_counted_once_and_as_it_begins(running: ServiceThread) -> None:
    with counting(running.client) as told, plain_client(str(running.client.base_url)) as other:
        assert other.get("/stats/stream?interval=1ms").status_code == 422
        assert other.head("/stats/stream").status_code == 200
        before = scrape(running.client)
        with listening(other, "?interval=250ms") as events:
            next(events)
            begun = scrape(running.client)
            # Another event is no other answer.
            next(events)
    assert requests(begun) - requests(before) == {"GET /stats/stream 200": 1}
    assert told.requests == {
        "GET /stats/stream 422": 1,
        "HEAD /stats/stream 200": 1,
        "GET /stats/stream 200": 1,
    }


def test_head_answers_the_same_without_the_text(running: ServiceThread) -> None:
    answer = running.client.head("/metrics")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 1000
    assert_problem(running.client.post("/metrics"), 405, "method_not_allowed")


def test_who_prefers_openmetrics_is_given_it(running: ServiceThread) -> None:
    accept = "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5"
    answer = running.client.get("/metrics", headers={"accept": accept})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    told = {family.name for family in text_string_to_metric_families(answer.text)}
    plain = running.client.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain")
    assert {name for name, _ in samples(plain.text)} >= {"millrace_ready", "millrace_transactions_total"}
    assert {"millrace_ready", "millrace_transactions"} <= told


@pytest.mark.parametrize(
    ("accept", "told"),
    [
        ("", "text/plain; version=0.0.4;"),
        ("*/*", "text/plain; version=0.0.4;"),
        ("application/openmetrics-text;version=x", "text/plain; version=0.0.4;"),
        ("application/openmetrics-text;version=1.0.0-rc1", "text/plain; version=0.0.4;"),
        ("application/openmetrics-text;version=x;version=1.0.0", "text/plain; version=0.0.4;"),
        (f"application/openmetrics-text;version={'9' * 5000}", "text/plain; version=0.0.4;"),
        ("application/openmetrics-text;version=99.0.0", "text/plain; version=0.0.4;"),
        ("text/plain;version=1.x", "text/plain; version=0.0.4;"),
        ("application/openmetrics-text;q=x", "text/plain; version=0.0.4;"),
        ("application/openmetrics-text;q=0", "text/plain; version=0.0.4;"),
        (
            "application/openmetrics-text;q=0.1,text/plain;version=0.0.4;q=0.9",
            "text/plain; version=0.0.4;",
        ),
        (
            "text/plain;q=0.1,application/openmetrics-text;q=0.9",
            "application/openmetrics-text; version=1.0.0;",
        ),
        ("x/y;version=x,text/plain;version=1.0.0", "text/plain; version=1.0.0;"),
    ],
)
def test_the_form_is_one_there_is_whatever_is_accepted(
    running: ServiceThread, accept: str, told: str
) -> None:
    answer = running.client.get("/metrics", headers={"accept": accept})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(told)
    assert answer.text.endswith("# EOF\n") == told.startswith("application/openmetrics-text")


@pytest.mark.parametrize("mood", [Mood.REFUSES, Mood.FAILS])
@pytest.mark.parametrize("lane", LANES)
def test_what_the_store_does_not_take_is_refused_each_item_of_it(
    lane: Switch, mood: Mood, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.main.build_store", lambda _, **__: MoodyStore(mood))
    settings = Settings(database_url="memory://", fast_lane=lane)
    with serve(settings, Clock(NOW_MS)) as service, counting(service.client) as told:
        for body in ([WHOLE, WHOLE, LATE, 7], [WHOLE]) if mood is Mood.REFUSES else ([WHOLE, WHOLE, 7],):
            assert service.client.post(BATCH, json=body).status_code == 503
        if mood is Mood.REFUSES:
            for path in ("/transactions", PATH):
                for headers in ({}, {"idempotency-key": "a"}):
                    answer = service.client.post(path, json=ENTRY | WHOLE, headers=headers)
                    assert answer.status_code == 503
        else:
            # From here on nothing is looked at any more.
            for path in ("/transactions", PATH, BATCH):
                assert service.client.post(path, json=ENTRY | WHOLE).status_code == 503
        found = scrape(service.client)
    state = "refusing" if mood is Mood.REFUSES else "failed"
    assert found["millrace_store_state", (("state", state),)] == 1
    assert sum(value for (name, _), value in found.items() if name == "millrace_store_state") == 1
    assert found["millrace_ready", ()] == 0
    assert told.outcomes == {"refused": 9 if mood is Mood.REFUSES else 6}


@pytest.mark.parametrize("lane", LANES)
def test_what_is_kept_though_it_is_late_is_accepted(lane: Switch) -> None:
    settings = Settings(database_url="memory://", fast_lane=lane, late=Late.KEEP)
    with serve(settings, Clock(NOW_MS)) as service, counting(service.client) as told:
        assert service.client.post("/transactions", json=LATE).status_code == 201
        assert service.client.post(BATCH, json=[LATE, WHOLE]).status_code == 200
    assert told.outcomes == {"accepted": 3}


@pytest.mark.parametrize("lane", LANES)
def test_those_who_may_not_are_rejected_and_those_over_their_rate_refused(lane: Switch) -> None:
    settings = protected(lane, jwt_secret=SECRET, rate_limit_per_second=1, rate_limit_burst=3)
    with serve(settings, Clock(TOKENS_MS)) as service, counting(service.client) as told:
        fact = {"amount": 1, "timestamp": TOKENS_MS}
        writes = {
            "authorization": "Bearer " + secret_mint(claims={"sub": "w", "scope": "transactions:write"})
        }
        reads = {"authorization": "Bearer " + secret_mint(claims={"sub": "r", "scope": "stats:read"})}
        for path in ("/transactions", PATH, BATCH):
            for headers, status in (({}, 401), (reads, 403)):
                body = [fact, fact] if path == BATCH else fact
                assert service.client.post(path, json=body, headers=headers).status_code == status
            service.clock.now_ms += 10_000
        statuses = [
            service.client.post(
                "/transactions", json={**fact, "timestamp": service.clock.now_ms}, headers=writes
            )
            for _ in range(5)
        ]
        assert [each.status_code for each in statuses] == [201, 201, 201, 429, 429]
    assert told.outcomes == {"accepted": 3, "rejected": 6, "refused": 2}


@pytest.mark.parametrize("workers", [1, 2])
def test_metrics_are_for_anyone_unless_they_are_guarded(workers: int) -> None:
    for guarded in (False, True):
        settings = protected(jwt_secret=SECRET, metrics_auth=guarded, workers=workers)
        with serve(settings, Clock(TOKENS_MS)) as service:

            def ask(*scope: str, service: ServiceThread = service) -> int:
                token = (
                    {"authorization": f"Bearer {secret_mint(claims={'scope': scope[0]})}"}
                    if scope
                    else {}
                )
                return service.client.get("/metrics", headers=token).status_code

            expected = (401, 403, 200) if guarded else (200, 200, 200)
            assert (ask(), ask("transactions:read"), ask("stats:read")) == expected


@pytest.mark.parametrize("lane", LANES)
def test_whom_there_is_no_room_for_is_refused_and_so_is_what_they_bring(lane: Switch) -> None:
    settings = Settings(database_url="memory://", fast_lane=lane, connections_max=1)
    with serve(settings, Clock(NOW_MS)) as service:
        before = scrape(service.client)
        with httpx.Client(base_url=str(service.client.base_url), trust_env=False) as other:
            assert other.post("/transactions?x=1", json=WHOLE).status_code == 503
            assert other.get("/stats").status_code == 503
            assert other.get("/livez").status_code == 200
        after = scrape(service.client)
    assert outcomes(after) - outcomes(before) == {"refused": 1}
    assert requests(after) - requests(before) == {
        "POST /transactions 503": 1,
        "GET /stats 503": 1,
        "GET /livez 200": 1,
    }
    assert after["millrace_http_connections_refused_total", ()] == 3
    assert after["millrace_http_connections", ()] == 1


def test_how_it_is_is_told_in_numbers(running: ServiceThread) -> None:
    assert running.client.delete("/transactions").status_code == 204
    before = scrape(running.client)
    for body in ([WHOLE] * 30, [{**WHOLE, "user_id": "u"}] * 3, [WHOLE] * 2000):
        assert running.client.post(BATCH, json=body).status_code == 200
    after = scrape(running.client)

    def grown(name: str, **labels: str) -> float:
        key = name, tuple(sorted(labels.items()))
        return after[key] - before[key]

    assert after["millrace_window_transactions", ()] == 2033
    assert after["millrace_user_rows", ()] == 3
    assert after["millrace_commit_queue_rows", ()] == 0
    assert after["millrace_ready", ()] == 1
    assert grown("millrace_commit_batch_rows_count") == 3
    assert grown("millrace_commit_batch_rows_sum") == 2033
    assert grown("millrace_commit_batch_rows_bucket", le="25.0") == 1
    assert grown("millrace_commit_batch_rows_bucket", le="50.0") == 2
    assert grown("millrace_commit_batch_rows_bucket", le="+Inf") == 3
    assert grown("millrace_commit_duration_seconds_count") == 3
    assert grown("millrace_commit_duration_seconds_sum") > 0
    # All of it is of one instant: one block of cells is enough.
    assert before["millrace_window_memory_bytes", ()] == 0
    assert 20_000 < after["millrace_window_memory_bytes", ()] < 100_000
    assert after["process_cpu_seconds_total", ()] > 0
