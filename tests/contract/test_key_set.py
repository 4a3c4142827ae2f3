"""The issuer's keys as clients meet them: while they change, and while the issuer is away."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPrivateNumbers

from tests.support.attacks import NOW, NOW_MS, RSA_GOOD, ec_mint, rsa_mint
from tests.support.client import ask, assert_problem, assert_refused, protected
from tests.support.issuer import (
    Json,
    KeySetServer,
    ec_key,
    ec_member,
    ec_signer,
    number,
    rsa_key,
    rsa_member,
    rsa_signer,
)
from tests.support.thread import Clock, serve


def test_an_issuer_that_is_away_at_the_start_is_waited_for() -> None:
    server = KeySetServer(rsa_member("r1"))
    server.leave()
    with serve(protected(jwt_jwks_url=server.url), Clock(NOW_MS)) as service:
        for _ in range(2):
            answer = ask(service, RSA_GOOD)
            assert_problem(answer, 503, "keys_unavailable")
            assert int(answer.headers["retry-after"]) > 0
        assert service.client.get("/readyz").status_code == 200
        assert_refused(ask(service, "nonsense"))
        server.come()
        try:
            service.clock.now_ms += 30_000
            assert ask(service, RSA_GOOD).status_code == 200
        finally:
            server.leave()


def test_known_keys_are_used_while_the_issuer_is_away_for_an_hour_and_not_for_ever() -> None:
    server = KeySetServer(rsa_member("r1"), ec_member("e1"))
    with serve(protected(jwt_jwks_url=server.url), Clock(NOW_MS)) as service:
        assert ask(service, RSA_GOOD).status_code == 200
        server.leave()
        long = {"exp": NOW + 3 * 86_400}
        for minutes in range(0, 61, 5):
            service.clock.now_ms = NOW_MS + minutes * 60_000
            assert ask(service, ec_mint(claims={"sub": f"s{minutes}", **long})).status_code == 200
            unknown = rsa_mint(header={"kid": f"k{minutes}"}, claims=long)
            # Before anyone has noticed that the issuer is away, an unknown key is just unknown.
            assert ask(service, unknown).status_code == (503 if minutes else 401)
        service.clock.now_ms = NOW_MS + 86_400_001
        assert ask(service, ec_mint(claims=long)).status_code == 503


def test_a_token_of_a_withdrawn_key_is_not_remembered_past_the_change() -> None:
    server = KeySetServer(rsa_member("r1"), rsa_member("r2"))
    other = rsa_mint(header={"kid": "r2"}, sign=rsa_signer("r2"))
    with serve(protected(jwt_jwks_url=server.url), Clock(NOW_MS)) as service:
        try:
            for token in (RSA_GOOD, other, RSA_GOOD, other):
                assert ask(service, token).status_code == 200
            server.publish(rsa_member("r2"))
            service.clock.now_ms += 30_000
            assert_refused(ask(service, rsa_mint(header={"kid": "r3"})))
            assert_refused(ask(service, RSA_GOOD))
            assert ask(service, other).status_code == 200
        finally:
            server.leave()


def private(member: Json, key: RSAPrivateKey | EllipticCurvePrivateKey) -> Json:
    """A key pair's member with its secret half, which whoever reads the set could sign with."""
    numbers = key.private_numbers()
    secret = numbers.d if isinstance(numbers, RSAPrivateNumbers) else numbers.private_value
    return {**member, "d": number(secret, key.key_size // 8)}


@pytest.mark.parametrize(
    ("body", "status", "headers"),
    [
        (b"", 200, {}),
        (b"[]", 200, {}),
        (b"{}", 200, {}),
        (b'{"keys":{}}', 200, {}),
        (b'{"keys":[]}', 200, {}),
        (b'{"keys":[1,null,[],{},{"kty":[]},{"kty":"RSA","kid":"r1"}]}', 200, {}),
        (b'{"keys":[{"kty":"RSA","kid":"r1","n":"?","e":"AQAB"}]}', 200, {}),
        (b'{"keys":[{"kty":"RSA","kid":"r1","n":7,"e":[]}]}', 200, {}),
        (b'{"keys":[{"kty":"EC","kid":"e1","crv":"P-256","x":"AA","y":"AA"}]}', 200, {}),
        (b"[" * 100_000, 200, {}),
        (json.dumps({"keys": [rsa_member("r1")]}).encode(), 500, {}),
        (json.dumps({"keys": [rsa_member("r1")]}).encode(), 302, {"location": "/"}),
        (json.dumps({"keys": [rsa_member("r1")], "x": "a" * 400_000}).encode(), 200, {}),
        (json.dumps({"keys": [rsa_member("r1", use="enc")]}).encode(), 200, {}),
        (json.dumps({"keys": [rsa_member("r1", alg="RS512")]}).encode(), 200, {}),
        (json.dumps({"keys": [private(ec_member("r9"), ec_key("r9"))]}).encode(), 200, {}),
        (json.dumps({"keys": [private(rsa_member("r9"), rsa_key("r9"))]}).encode(), 200, {}),
        (json.dumps({"keys": [{"kty": "oct", "kid": "r1", "k": "c2VjcmV0"}]}).encode(), 200, {}),
        (json.dumps({"keys": [rsa_member("weak", 1024)]}).encode(), 200, {}),
    ],
)
def test_a_key_set_that_is_none_does_not_replace_the_one_before(
    body: bytes, status: int, headers: Json
) -> None:
    server = KeySetServer(rsa_member("r1"))
    with serve(protected(jwt_jwks_url=server.url), Clock(NOW_MS)) as service:
        try:
            assert ask(service, RSA_GOOD).status_code == 200
            server.answer(body, status, headers)
            service.clock.now_ms += 30_000
            for mint, signer in ((rsa_mint, rsa_signer("r9")), (ec_mint, ec_signer("r9"))):
                token = mint(header={"kid": "r9"}, sign=signer)
                assert ask(service, token).status_code == 503
            assert server.fetches == 2
            assert ask(service, rsa_mint(claims={"sub": "bob"})).status_code == 200
        finally:
            server.leave()
