"""What has failed again and again is left alone for a while."""

from app.exchange.breaker import FAILURES_MAX, OPEN_SECONDS, Breaker


class Seconds:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_it_opens_after_some_failures_in_a_row_and_only_then() -> None:
    breaker = Breaker(Seconds())
    for _ in range(3):
        for _ in range(FAILURES_MAX - 1):
            breaker.fail()
            assert (breaker.is_open, breaker.allows) == (False, True)
        breaker.succeed()
    for _ in range(FAILURES_MAX):
        breaker.fail()
    assert (breaker.is_open, breaker.allows) == (True, False)


def test_once_open_it_allows_one_try_after_a_while_and_closes_when_that_goes_well() -> None:
    seconds = Seconds()
    breaker = Breaker(seconds)
    for _ in range(FAILURES_MAX):
        breaker.fail()
    for _ in range(3):
        seconds.now += OPEN_SECONDS - 0.001
        assert not breaker.allows
        seconds.now += 0.001
        assert breaker.allows
        assert breaker.is_open
        breaker.fail()
        assert not breaker.allows
    seconds.now += OPEN_SECONDS
    breaker.succeed()
    assert (breaker.is_open, breaker.allows) == (False, True)
