"""Options about callers: how often they may ask, where they come from, and whose pages may ask."""

from collections.abc import Iterator
from typing import Any

import pytest

from app.settings import Settings, Switch
from tests.support.attacks import NOW_MS, secret_mint
from tests.support.client import LANES, ask, assert_problem, assert_refused, protected
from tests.support.issuer import SECRET
from tests.support.thread import Clock, ServiceThread, serve

PAGE = "https://dashboard.example"
lanes = pytest.mark.parametrize("lane", LANES)


def open_door(lane: Switch, **settings: Any) -> Settings:  # noqa: ANN401 - each of its own type
    return Settings(database_url="memory://", fast_lane=lane, **settings)


@lanes
def test_each_subject_has_a_rate_of_its_own(lane: Switch) -> None:
    settings = protected(lane, jwt_secret=SECRET, rate_limit_per_second=2, rate_limit_burst=4)
    alice, bob = (secret_mint(claims={"sub": name}) for name in ("alice", "bob"))
    with serve(settings, Clock(NOW_MS)) as service:
        assert [ask(service, alice).status_code for _ in range(6)] == [200] * 4 + [429] * 2
        assert ask(service, bob).status_code == 200
        answer = ask(service, alice)
        assert_problem(answer, 429, "rate_limited")
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["ratelimit"] == '"caller";r=0;t=1'
        assert answer.headers["ratelimit-policy"] == '"caller";q=4;w=2'
        service.clock.now_ms += 500
        assert [ask(service, alice).status_code for _ in range(2)] == [200, 429]
        # Another token of hers is no other caller.
        other = secret_mint(claims={"sub": "alice", "jti": "2"})
        assert ask(service, other).status_code == 429
        for _ in range(20):
            assert service.client.get("/readyz").status_code == 200


@lanes
def test_without_tokens_each_address_has_a_rate_of_its_own(lane: Switch) -> None:
    settings = open_door(lane, rate_limit_per_second=3, trusted_proxies="127.0.0.0/8")
    with serve(settings, Clock(NOW_MS)) as service:

        def send(forwarded: str) -> int:
            return service.client.get("/stats", headers={"x-forwarded-for": forwarded}).status_code

        assert [send("192.0.2.1") for _ in range(4)] == [200] * 3 + [429]
        assert send("192.0.2.2") == 200
        # What a client says of itself stands left of what the proxy says of it.
        assert send("198.51.100.7, 192.0.2.1") == 429
        assert send("192.0.2.1, 127.0.0.9") == 429
        assert send("192.0.2.2, 198.51.100.7") == 200
        headers = [("x-forwarded-for", "192.0.2.9"), ("x-forwarded-for", "192.0.2.1")]
        assert service.client.get("/stats", headers=headers).status_code == 429
        posted = service.client.post(
            "/transactions",
            json={"amount": 1, "timestamp": NOW_MS},
            headers={"x-forwarded-for": "192.0.2.1"},
        )
        assert_problem(posted, 429, "rate_limited")


@lanes
def test_a_proxy_that_is_not_trusted_speaks_for_nobody(lane: Switch) -> None:
    settings = open_door(lane, rate_limit_per_second=2, trusted_proxies="10.0.0.0/8")
    with serve(settings, Clock(NOW_MS)) as service:
        statuses = [
            service.client.get("/stats", headers={"x-forwarded-for": f"192.0.2.{number}"}).status_code
            for number in range(3)
        ]
    assert statuses == [200, 200, 429]


@lanes
def test_refusals_are_counted_by_address_and_cost_no_subject_anything(lane: Switch) -> None:
    settings = protected(lane, jwt_secret=SECRET, rate_limit_per_second=2)
    with serve(settings, Clock(NOW_MS)) as service:
        for _ in range(2):
            assert_refused(ask(service, "nonsense"))
        for _ in range(2):
            assert_problem(ask(service, "nonsense"), 429, "rate_limited")
        assert ask(service, secret_mint()).status_code == 200


@lanes
def test_a_batch_counts_as_one_request(lane: Switch) -> None:
    with serve(open_door(lane, rate_limit_per_second=2), Clock(NOW_MS)) as service:
        batch = [{"amount": 1, "timestamp": NOW_MS}] * 100
        answers = [service.client.post("/transactions/batch", json=batch) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]


@pytest.fixture(params=LANES)
def cross_origin(request: pytest.FixtureRequest) -> Iterator[ServiceThread]:
    settings = protected(request.param, jwt_secret=SECRET, cors_origins=f"{PAGE}, http://localhost:3000")
    with serve(settings, Clock(NOW_MS)) as service:
        yield service


@pytest.mark.parametrize("origin", [PAGE, "http://localhost:3000"])
def test_a_page_of_a_named_origin_may_ask_and_read(cross_origin: ServiceThread, origin: str) -> None:
    preflight = cross_origin.client.options(
        "/transactions",
        headers={
            "origin": origin,
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,content-type,idempotency-key,x-request-id",
        },
    )
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == origin
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert "access-control-allow-credentials" not in preflight.headers
    for token, status in ((secret_mint(), 200), ("nonsense", 401)):
        headers = {"origin": origin, "authorization": f"Bearer {token}"}
        for _ in range(2):
            answer = cross_origin.client.get("/stats", headers=headers)
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == origin
            assert "X-Request-ID" in answer.headers["access-control-expose-headers"]
            assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize(
    "origin", [PAGE + ".example", PAGE.upper(), PAGE + ":444", "http://dashboard.example", "null", "*"]
)
def test_a_page_of_another_origin_may_not(cross_origin: ServiceThread, origin: str) -> None:
    headers = {"origin": origin, "access-control-request-method": "POST"}
    preflight = cross_origin.client.options("/transactions", headers=headers)
    assert_problem(preflight, 403, "forbidden")
    assert "access-control-allow-origin" not in preflight.headers
    answer = cross_origin.client.get(
        "/stats", headers={"origin": origin, "authorization": f"Bearer {secret_mint()}"}
    )
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "asked", [{"access-control-request-method": "PUT"}, {"access-control-request-headers": "x-other"}]
)
def test_a_preflight_for_what_there_is_not_is_refused(
    cross_origin: ServiceThread, asked: dict[str, str]
) -> None:
    headers = {"origin": PAGE, "access-control-request-method": "POST", **asked}
    assert_problem(cross_origin.client.options("/transactions", headers=headers), 403, "forbidden")


def test_without_an_origin_nothing_is_said_of_any(cross_origin: ServiceThread) -> None:
    for _ in range(2):
        answer = ask(cross_origin, secret_mint())
        assert not {"vary", "access-control-allow-origin"} & set(answer.headers)


@lanes
def test_without_the_option_no_page_is_let_in(lane: Switch) -> None:
    with serve(open_door(lane), Clock(NOW_MS)) as service:
        headers = {"origin": PAGE, "access-control-request-method": "POST"}
        assert_problem(
            service.client.options("/transactions", headers=headers), 405, "method_not_allowed"
        )
        answer = service.client.get("/stats", headers={"origin": PAGE})
        assert answer.status_code == 200
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("lane", list(Switch))
@pytest.mark.parametrize("listed", ["", PAGE])
def test_a_page_that_is_not_listed_changes_nothing_though_whoever_connects_may(
    lane: Switch, listed: str
) -> None:
    settings = Settings(database_url="memory://", fast_lane=lane, cors_origins=listed)
    with serve(settings, Clock(NOW_MS)) as service:
        own = str(service.client.base_url).rstrip("/")
        transaction = {"amount": 1, "timestamp": NOW_MS}

        def ask(method: str, path: str, origin: str, body: object = None) -> int:
            headers = {"origin": origin}
            return service.client.request(method, path, json=body, headers=headers).status_code

        for origin in ("https://evil.example", "null", own + "1", "http://localhost"):
            assert ask("POST", "/transactions", origin, transaction) == 403
            assert ask("POST", "/transactions/batch", origin, [transaction]) == 403
            assert ask("DELETE", "/transactions", origin) == 403
            assert ask("GET", "/stats", origin) == 200
        assert service.client.get("/stats").json()["count"] == 0
        assert ask("POST", "/transactions", own, transaction) == 201
        assert ask("POST", "/transactions", PAGE, transaction) == (201 if listed else 403)
