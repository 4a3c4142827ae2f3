"""Token buckets, held against the naive one: so many requests in so much time, and no more."""

import random
from fractions import Fraction

import pytest

from app.web import rate_limit
from app.web.rate_limit import RateLimit, address_name
from tests.support.thread import Clock

NOW_MS = 1_767_323_045_000


class Bucket:
    """The bucket of the textbook, with exact fractions."""

    def __init__(self, per_second: int, burst: int, now_ms: int) -> None:
        self._per_ms = Fraction(per_second, 1000)
        self._burst = burst
        self._held = Fraction(burst)
        self._seen_ms = now_ms

    def take(self, now_ms: int) -> bool:
        refilled = self._held + (now_ms - self._seen_ms) * self._per_ms
        self._held = min(Fraction(self._burst), refilled)
        self._seen_ms = now_ms
        if self._held < 1:
            return False
        self._held -= 1
        return True


def test_a_caller_gets_what_a_naive_bucket_would_give() -> None:
    seed = random.SystemRandom().randrange(2**32)
    choose = random.Random(seed)
    for _ in range(50):
        per_second, burst = choose.choice((1, 3, 7, 1000, 9999)), choose.randrange(1, 20)
        clock = Clock(NOW_MS)
        limit = RateLimit(per_second, burst, clock)
        naive = {name: Bucket(per_second, burst, NOW_MS) for name in ("alice", "bob")}
        for _ in range(200):
            clock.now_ms += choose.choice((0, 0, 1, 2, 400, 5000)) * choose.randrange(2)
            name = choose.choice(("alice", "bob"))
            is_let_in = limit.take(name) is None
            assert is_let_in == naive[name].take(clock.now_ms), f"seed {seed}"


def test_a_refusal_says_when_to_come_again_and_that_holds() -> None:
    clock = Clock(NOW_MS)
    limit = RateLimit(2, 5, clock)
    assert [limit.take("alice") is None for _ in range(6)] == [True] * 5 + [False]
    refusal = limit.take("alice")
    assert refusal is not None
    headers = dict(refusal.headers)
    assert refusal.status == 429
    assert headers[b"retry-after"] == b"1"
    assert headers[b"ratelimit-policy"] == b'"caller";q=5;w=3'
    assert headers[b"ratelimit"] == b'"caller";r=0;t=1'
    clock.now_ms += 499
    assert limit.take("alice") is not None
    clock.now_ms += 1
    assert limit.take("alice") is None


def test_a_clock_that_was_set_back_does_not_keep_a_caller_out_until_it_has_caught_up() -> None:
    clock = Clock(NOW_MS)
    limit = RateLimit(1, 3, clock)
    limit.take("alice")
    clock.now_ms -= 3_600_000
    assert [limit.take("alice") is None for _ in range(4)] == [True] * 3 + [False]


def test_idle_callers_are_forgotten_and_the_rest_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "CALLERS_MAX", 100)
    clock = Clock(NOW_MS)
    limit = RateLimit(1, 1, clock)
    for number in range(1000):
        assert limit.take(f"user {number}") is None
        assert len(limit._full_at) <= 100
    assert limit.take("user 999") is not None
    clock.now_ms += 1000
    for _ in range(100):
        limit.take("alice")
        clock.now_ms += 1000
    assert len(limit._full_at) <= 2


@pytest.mark.parametrize(
    ("one", "other", "are_one"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("unknown", "192.0.2.1", False),
    ],
)
def test_addresses_tell_callers_apart_as_far_as_they_can(one: str, other: str, are_one: bool) -> None:
    names = [address_name({"client": (host, 1)}) for host in (one, other)]
    assert (names[0] == names[1]) is are_one


def test_without_an_address_there_is_one_caller() -> None:
    assert address_name({"client": None}) == b""


def test_who_was_idle_longest_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "CALLERS_MAX", 3)
    limit = RateLimit(1, 2, Clock(NOW_MS))
    assert [limit.take(name) is None for name in ("alice", "u-1", "u-2", "alice", "u-3")] == [True] * 5
    assert limit.take("alice") is not None
