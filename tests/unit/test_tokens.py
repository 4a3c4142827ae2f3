"""What is remembered of tokens, and for how long."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.core.transaction import Invalid, TransactionDecoder
from app.web import token_guard
from app.web.answers import Answer, Problem
from app.web.guard import Caller, Permission
from app.web.token_guard import TokenGuard
from app.web.tokens import SharedSecret, Trusted, Untrusted, Verifier
from tests.support.attacks import NOW_MS, SECRET_ATTACKS, secret_mint
from tests.support.issuer import AUDIENCE, ISSUER, SECRET
from tests.support.thread import Clock

twin = hypothesis_settings(derandomize=False, print_blob=True, deadline=None, max_examples=300)


class CountingVerifier(Verifier):
    """A verifier that says how often it was asked."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(SharedSecret(SECRET), ISSUER, AUDIENCE, clock)
        self.asked = 0

    async def verify(self, token: bytes) -> Trusted:
        self.asked += 1
        return await super().verify(token)


class Bench:
    """A guard, its clock and its verifier."""

    def __init__(self) -> None:
        self.clock = Clock(NOW_MS)
        self.verifier = CountingVerifier(self.clock)
        self.guard = TokenGuard(self.verifier, self.clock)

    def admit(self, token: str) -> Caller | Answer:
        """As a lane asks."""
        value = b"Bearer " + token.encode()
        known = self.guard.recognise(value, Permission.STATS)
        if known is not None:
            return known
        try:
            return asyncio.run(self.guard.admit(value, Permission.STATS))
        except Problem as refusal:
            return refusal.answer


def test_a_verified_token_is_recognised_without_a_second_look() -> None:
    bench = Bench()
    token = secret_mint()
    value = b"Bearer " + token.encode()
    assert bench.guard.recognise(value, Permission.STATS) is None
    first = bench.admit(token)
    assert isinstance(first, Caller)
    assert (first.subject, Permission.READ_ALL in first.permissions) == ("alice", False)
    for _ in range(100):
        assert bench.guard.recognise(value, Permission.STATS) is first
    assert bench.verifier.asked == 1


def test_a_recognised_caller_may_no_more_than_the_token_says() -> None:
    bench = Bench()
    token = secret_mint(claims={"scope": "stats:read"})
    value = b"Bearer " + token.encode()
    assert isinstance(bench.admit(token), Caller)
    assert bench.guard.recognise(value, Permission.WRITE) is None
    with pytest.raises(Problem) as raised:
        asyncio.run(bench.guard.admit(value, Permission.WRITE))
    assert raised.value.answer.status == 403
    assert bench.verifier.asked == 1


def test_a_verified_token_is_looked_at_again_after_a_minute_or_when_the_clock_was_set_back() -> None:
    bench = Bench()
    token = secret_mint()
    for now_ms, asked in [
        *((NOW_MS, 1), (NOW_MS + 59_999, 1), (NOW_MS + 60_000, 2), (NOW_MS + 100_000, 2)),
        *((NOW_MS - 1, 3), (NOW_MS, 3)),
    ]:
        bench.clock.now_ms = now_ms
        assert isinstance(bench.admit(token), Caller)
        assert bench.verifier.asked == asked


def test_what_was_remembered_is_forgotten_when_the_keys_change() -> None:
    bench = Bench()
    for asked in (2, 4):
        for token in (secret_mint(), "a.b.c", secret_mint(), "a.b.c"):
            bench.admit(token)
        assert bench.verifier.asked == asked
        bench.guard.forget()


def test_one_piece_of_garbage_costs_one_verification_however_often_it_is_sent() -> None:
    bench = Bench()
    tokens = [attack for _, attack in SECRET_ATTACKS.values() if not attack.startswith(" ")]
    for _ in range(3):
        for token in tokens:
            assert isinstance(bench.admit(token), Answer)
    passing = sum(
        1 for name in SECRET_ATTACKS if name.startswith(("not valid", "never", "made in", "kid"))
    )
    assert bench.verifier.asked <= len(set(tokens)) + 2 * passing


def test_garbage_makes_the_guard_forget_no_caller() -> None:
    bench = Bench()
    good = [secret_mint(claims={"sub": f"user {number}"}) for number in range(50)]
    for token in good:
        assert isinstance(bench.admit(token), Caller)
    for number in range(3 * token_guard._REFUSED_MAX):
        assert isinstance(bench.admit(f"a.b.{number}"), Answer)
    asked = bench.verifier.asked
    for token in good:
        assert isinstance(bench.admit(token), Caller)
    assert bench.verifier.asked == asked


@pytest.mark.parametrize(("kept", "sized"), [("_KNOWN_MAX", 1), ("_KNOWN_BYTES_MAX", 1000)])
def test_what_is_remembered_is_bounded_and_the_oldest_make_way(
    kept: str, sized: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench()
    tokens = [secret_mint(claims={"sub": f"user {number:03d}"}) for number in range(100)]
    size = len(b"Bearer ") + len(tokens[0])
    monkeypatch.setattr(token_guard, kept, 10 if sized == 1 else 10 * size)
    for token in tokens:
        assert isinstance(bench.admit(token), Caller)
    assert len(bench.guard._known) == 10
    assert bench.guard._known_bytes == 10 * size
    for token in tokens[90:]:
        bench.admit(token)
    assert bench.verifier.asked == 100
    bench.admit(tokens[0])
    assert bench.verifier.asked == 101
    assert len(bench.guard._known) == 10


@twin
@given(st.text(max_size=130) | st.sampled_from(["\x7f", "\x85", "a" * 128, "a" * 129, "\u2028"]))
def test_a_subject_is_what_a_user_id_may_be(subject: str) -> None:
    decoder = TransactionDecoder(currencies=["USD"], default_currency="USD", allow_negative=False)
    verifier = Verifier(SharedSecret(SECRET), ISSUER, AUDIENCE, lambda: NOW_MS)
    body = json.dumps({"amount": 1, "timestamp": NOW_MS, "user_id": subject})
    try:
        decoder.decode(body.encode())
    except Invalid:
        with pytest.raises(Untrusted):
            asyncio.run(verifier.verify(secret_mint(claims={"sub": subject}).encode()))
    else:
        trusted = asyncio.run(verifier.verify(secret_mint(claims={"sub": subject}).encode()))
        assert trusted.caller.subject == subject
