"""Tokens as a client meets them: who is let in, who is not, and what they are told."""

import http.client
import json
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from app.settings import Switch
from tests.support.attacks import (
    GOOD,
    KEY_SET_ATTACKS,
    NOW,
    NOW_MS,
    SECRET_ATTACKS,
    rsa_mint,
    secret_mint,
)
from tests.support.client import LANES, ask, assert_problem, assert_refused, protected
from tests.support.issuer import EVERYTHING, SECRET, KeySetServer, ec_member, rsa_member, rsa_signer
from tests.support.thread import Clock, ServiceThread, serve

# What goes with another scope, transactions:read_all.
READING = {"transactions:read"}


@pytest.fixture(scope="module", params=LANES)
def by_secret(request: pytest.FixtureRequest) -> Iterator[ServiceThread]:
    with serve(protected(request.param, jwt_secret=SECRET), Clock(NOW_MS)) as service:
        yield service


@pytest.fixture(scope="module")
def key_server() -> Iterator[KeySetServer]:
    server = KeySetServer(
        rsa_member("r1", use="sig", alg="RS256"), ec_member("e1"), rsa_member("r2"), ec_member("e2")
    )
    yield server
    server.leave()


@pytest.fixture(scope="module", params=LANES)
def by_key_set(request: pytest.FixtureRequest, key_server: KeySetServer) -> Iterator[ServiceThread]:
    with serve(protected(request.param, jwt_jwks_url=key_server.url), Clock(NOW_MS)) as service:
        yield service


def assert_told_apart(service: ServiceThread, twin: str, attack: str) -> None:
    """The twin is let in whatever the attack does, before it and behind it, and the attack never."""
    for _ in range(2):
        assert ask(service, twin).status_code == 200, twin
        assert_refused(ask(service, attack))


@pytest.mark.parametrize("attack", SECRET_ATTACKS)
def test_an_attack_on_a_secret_is_refused_and_its_twin_is_not(
    by_secret: ServiceThread, attack: str
) -> None:
    assert_told_apart(by_secret, *SECRET_ATTACKS[attack])


@pytest.mark.parametrize("attack", KEY_SET_ATTACKS)
def test_an_attack_on_a_key_set_is_refused_and_its_twin_is_not(
    by_key_set: ServiceThread, attack: str
) -> None:
    assert_told_apart(by_key_set, *KEY_SET_ATTACKS[attack])


def test_whatever_is_in_a_header_the_service_fetches_nothing_but_its_key_set(
    by_key_set: ServiceThread, key_server: KeySetServer
) -> None:
    trap = KeySetServer(rsa_member("mallory"))
    try:
        for name in ("jku", "x5u", "kid", "iss"):
            token = rsa_mint(header={name: trap.url}, sign=rsa_signer("mallory"))
            assert_refused(ask(by_key_set, token))
        assert trap.fetches == 0
        assert set(key_server.paths) == {"/keys?v=1"}
    finally:
        trap.leave()


def test_flipping_any_character_of_a_token_makes_it_invalid(by_secret: ServiceThread) -> None:
    token = secret_mint()
    for place in range(0, len(token), 7):
        other = "A" if token[place] != "A" else "B"
        assert_refused(ask(by_secret, token[:place] + other + token[place + 1 :]))
    assert ask(by_secret, token).status_code == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_the_scheme_is_written_in_any_case(by_secret: ServiceThread, scheme: str) -> None:
    for _ in range(2):
        assert ask(by_secret, secret_mint(), scheme).status_code == 200


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"Bearer",
        b"Basic YWxpY2U6eA==",
        b"Token " + GOOD.encode(),
        GOOD.encode(),
        b"Bearer\t" + GOOD.encode(),
    ],
)
def test_without_a_bearer_token_the_challenge_names_no_error(
    by_secret: ServiceThread, value: bytes | None
) -> None:
    headers = {} if value is None else {b"authorization": value}
    answer = by_secret.client.get("/stats", headers=headers)
    assert_problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"] == 'Bearer realm="millrace"'


def test_a_token_is_looked_for_in_no_other_place(by_secret: ServiceThread) -> None:
    get = by_secret.client.get
    assert get(f"/stats?access_token={GOOD}").status_code == 401
    assert get("/stats", headers={"cookie": f"access_token={GOOD}"}).status_code == 401
    assert get("/stats", headers={"proxy-authorization": f"Bearer {GOOD}"}).status_code == 401


@pytest.mark.parametrize("values", [[GOOD, GOOD], [GOOD, "x"], ["x", GOOD]])
def test_two_authorization_headers_are_refused(by_secret: ServiceThread, values: list[str]) -> None:
    headers = [("authorization", f"Bearer {value}") for value in values]
    assert_refused(by_secret.client.get("/stats", headers=headers))


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/transactions", "transactions:write"),
        ("POST", "/transactions/batch", "transactions:write"),
        ("DELETE", "/transactions", "transactions:delete"),
        ("GET", "/stats", "stats:read"),
        ("HEAD", "/stats", "stats:read"),
        ("GET", "/statistics", "stats:read"),
        ("POST", "/api/v1/transactions", "transactions:write"),
        ("GET", "/transactions", "transactions:read"),
        ("GET", "/api/v1/transactions", "transactions:read"),
        ("HEAD", "/api/v1/transactions", "transactions:read"),
    ],
)
def test_a_token_permits_what_its_scope_says(
    by_secret: ServiceThread, method: str, path: str, scope: str
) -> None:
    body = {"amount": 1, "timestamp": NOW_MS}
    content = json.dumps([body] if path.endswith("batch") else body) if method == "POST" else None

    def send(words: str) -> httpx.Response:
        headers = {"authorization": f"Bearer {secret_mint(claims={'scope': words})}"}
        return by_secret.client.request(method, path, content=content, headers=headers)

    every = set(EVERYTHING.split()) | ({"transactions:read_all"} if scope not in READING else set())
    others = " ".join(sorted(every - {scope}))
    for words in ("", others, scope.upper(), f"{scope}x", scope.replace(":", ""), f"x{scope}"):
        for _ in range(2):
            answer = send(words)
            assert answer.status_code == 403
            assert answer.headers["www-authenticate"] == (
                f'Bearer realm="millrace", error="insufficient_scope", scope="{scope}"'
            )
            if method != "HEAD":
                assert_problem(answer, 403, "forbidden")
    for words in (scope, f"openid {scope}  email", f"{scope} {scope}", f"{others} {scope}"):
        for _ in range(2):
            assert send(words).is_success


def test_whoever_may_read_all_may_read(by_secret: ServiceThread) -> None:
    token = secret_mint(claims={"scope": "transactions:read_all"})
    for _ in range(2):
        assert ask_path(by_secret, "/transactions", token).status_code == 200
        assert ask_path(by_secret, "/stats", token).status_code == 403


@pytest.mark.parametrize("path", ["/health", "/livez", "/readyz"])
def test_probes_need_no_token(by_secret: ServiceThread, path: str) -> None:
    assert by_secret.client.get(path).status_code == 200
    assert ask_path(by_secret, path, "nonsense").status_code == 200


def ask_path(service: ServiceThread, path: str, token: str) -> httpx.Response:
    return service.client.get(path, headers={"authorization": f"Bearer {token}"})


@pytest.mark.parametrize("lane", LANES)
def test_a_token_is_believed_between_its_milliseconds(lane: Switch) -> None:
    token = secret_mint(claims={"nbf": NOW + 31, "exp": NOW + 40})
    with serve(protected(lane, jwt_secret=SECRET), Clock(NOW_MS)) as service:
        for after_ms, is_believed in [
            *((0, False), (999, False), (1000, True), (1001, True), (61_500, True)),
            *((69_999, True), (70_000, False), (70_001, False)),
        ]:
            service.clock.now_ms = NOW_MS + after_ms
            for _ in range(2):
                assert ask(service, token).is_success is is_believed, after_ms


@pytest.mark.parametrize("token", ["", "nonsense", GOOD])
@pytest.mark.parametrize("size", [10, 1000, 60_000])
def test_a_connection_goes_on_behind_a_refusal_whatever_body_came_with_it(
    by_secret: ServiceThread, token: str, size: int
) -> None:
    """The body is sent behind the refusal, which did not wait for it."""
    with socket.create_connection(by_secret.address, timeout=30) as connection:
        reader = connection.makefile("rb")
        lacking = secret_mint(claims={"scope": "stats:read"}) if token == GOOD else token
        for _ in range(3):
            refused = http.client.HTTPResponse(connection)
            connection.sendall(
                b"POST /transactions/batch HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n"
                b"content-length: %d\r\n\r\n" % (lacking.encode(), size)
            )
            refused.begin()
            assert refused.status == (403 if token == GOOD else 401)
            assert refused.headers["connection"] is None
            refused.read()
            connection.sendall(b"x" * size)
            body = b'{"amount":1,"timestamp":%d}' % NOW_MS
            connection.sendall(
                b"POST /transactions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n"
                b"content-length: %d\r\n\r\n%b" % (GOOD.encode(), len(body), body)
            )
            accepted = http.client.HTTPResponse(connection)
            accepted.begin()
            assert accepted.status == 201
            accepted.read()
        reader.close()


def test_a_refusal_pipelined_between_others_keeps_its_place(by_secret: ServiceThread) -> None:
    def get(token: str) -> bytes:
        return b"GET /stats HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n\r\n" % token.encode()

    ask(by_secret, GOOD)
    other = secret_mint(claims={"sub": "bob"})
    with socket.create_connection(by_secret.address, timeout=30) as connection:
        connection.sendall(get(GOOD) + get("x") + get(other) + get(GOOD) + get("y") + get(GOOD))
        statuses = []
        answers = connection.makefile("rb")
        for _ in range(6):
            statuses.append(int(answers.readline().split()[1]))
            length = 0
            while (line := answers.readline().lower()) != b"\r\n":
                if line.startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            answers.read(length)
        answers.close()
    assert statuses == [200, 401, 200, 200, 401, 200]


@pytest.mark.parametrize("lane", LANES)
def test_a_transaction_without_a_user_is_its_subjects(lane: Switch, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    settings = msgspec.structs.replace(
        protected(lane, jwt_secret=SECRET), database_url=f"sqlite:///{path}"
    )
    headers = {"authorization": f"Bearer {secret_mint(claims={'sub': 'alice'})}"}
    with serve(settings, Clock(NOW_MS)) as service:
        for user in ({}, {"user_id": None}, {"user_id": "bob"}, {}):
            body = {"amount": 1, "timestamp": NOW_MS, **user}
            for path_, content in (("/transactions", body), ("/transactions/batch", [body])):
                answer = service.client.post(path_, json=content, headers=headers)
                assert answer.is_success, answer.text
    connection = sqlite3.connect(path)
    kept = [user for (user,) in connection.execute("SELECT user_id FROM transactions ORDER BY seq")]
    connection.close()
    assert kept == ["alice"] * 4 + ["bob"] * 2 + ["alice"] * 2
