"""How often an issuer is asked for its keys, and that it is often enough."""

import asyncio
import itertools
import json
import os
import random
from collections.abc import Coroutine
from typing import Any

import pytest

from app.web.fetch import FetchFailed
from app.web.key_set import KeySet
from app.web.tokens import Algorithm, Flaw, KeysUnavailable, Untrusted
from tests.support.attacks import NOW_MS
from tests.support.issuer import Json, rsa_key, rsa_member
from tests.support.thread import Clock

ROTATIONS = int(os.environ.get("MILLRACE_ROTATIONS", "60"))


class Issuer:
    """A key set, and how often it was fetched; None is an issuer that is away."""

    def __init__(self, clock: Clock, *members: Json) -> None:
        self._clock = clock
        self.members: tuple[Json, ...] | None = members
        self.fetched_ms: list[int] = []

    async def __call__(self) -> bytes:
        self.fetched_ms.append(self._clock.now_ms)
        await asyncio.sleep(0)
        if self.members is None:
            raise FetchFailed("away")
        return json.dumps({"keys": self.members}).encode()


class Bench:
    """A key set, its issuer, and the time, which passes when it is told to."""

    def __init__(self, *members: Json) -> None:
        self.clock = Clock(NOW_MS)
        self.issuer = Issuer(self.clock, *members)
        self.keys = KeySet(self.issuer, self.clock, self._sleep)
        self.changes = 0
        self.keys.on_change = self._note_change
        self._sleepers: list[tuple[int, asyncio.Future[None]]] = []

    def _note_change(self) -> None:
        self.changes += 1

    async def _sleep(self, seconds: float) -> None:
        wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.clock.now_ms + round(seconds * 1000), wake))
        await wake

    async def pass_to(self, now_ms: int) -> None:
        """Let time pass, waking whoever sleeps until then."""
        await self._turn()
        while due := [sleeper for sleeper in self._sleepers if sleeper[0] <= now_ms]:
            first = min(due, key=lambda sleeper: sleeper[0])
            self._sleepers.remove(first)
            self.clock.now_ms = max(self.clock.now_ms, first[0])
            first[1].set_result(None)
            await self._turn()
        self.clock.now_ms = now_ms

    async def _turn(self) -> None:
        for _ in range(8):
            await asyncio.sleep(0)

    async def knows(self, name: str) -> bool:
        """Whether the key set has this key."""
        try:
            key: Any = await self.keys.find(Algorithm.RS256, name)
        except Untrusted as refusal:
            if refusal.flaw is not Flaw.UNKNOWN_KEY:
                raise
            return False
        assert key == rsa_key(name).public_key()
        return True


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


@pytest.mark.parametrize("is_kept_fresh", [True, False])
def test_ten_thousand_unknown_keys_cause_a_fetch_in_30_s_at_most(is_kept_fresh: bool) -> None:
    seed = random.SystemRandom().randrange(2**32)
    choose = random.Random(seed)

    async def main() -> None:
        bench = Bench(rsa_member("a"))
        if is_kept_fresh:
            bench.keys.keep_fresh()
        times_ms = sorted(choose.randrange(600_000) for _ in range(10_000))
        for after_ms in times_ms:
            await bench.pass_to(NOW_MS + after_ms)
            assert not await bench.knows(choose.randbytes(8).hex())
        fetched_ms = bench.issuer.fetched_ms
        gaps_ms = [b - a for a, b in itertools.pairwise(fetched_ms)]
        assert min(gaps_ms) >= 30_000, f"seed {seed}"
        assert 600_000 // 45_000 <= len(fetched_ms) <= 600_000 // 30_000 + 1, f"seed {seed}"

    run(main())


def test_many_at_once_share_one_fetch() -> None:
    async def main() -> None:
        bench = Bench(rsa_member("a"))
        known = await asyncio.gather(*(bench.knows(name) for name in ["a", "b"] * 500))
        assert known == [True, False] * 500
        assert len(bench.issuer.fetched_ms) == 1

    run(main())


def test_one_who_goes_away_does_not_take_the_fetch_along() -> None:
    async def main() -> None:
        bench = Bench(rsa_member("a"))
        first = asyncio.create_task(bench.knows("a"))
        second = asyncio.create_task(bench.knows("a"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        first.cancel()
        assert await second
        assert len(bench.issuer.fetched_ms) == 1

    run(main())


@pytest.mark.parametrize("is_kept_fresh", [True, False])
def test_a_rotation_published_a_minute_ahead_loses_no_valid_request(is_kept_fresh: bool) -> None:
    """Whatever else is asked for in the meantime, and however seldom."""
    seed = random.SystemRandom().randrange(2**32)

    async def main(choose: random.Random) -> None:
        bench = Bench(rsa_member("a"))
        if is_kept_fresh:
            bench.keys.keep_fresh()
        published_ms = choose.randrange(300_000)
        busy = choose.choice((0, 3, 300))
        events = sorted(
            [(choose.randrange(600_000), "garbage") for _ in range(busy)]
            + [(choose.randrange(600_000), "valid") for _ in range(choose.choice((1, 30)))]
            + [(published_ms, "publish"), (published_ms + 60_000, "valid")]
        )
        for after_ms, event in events:
            await bench.pass_to(NOW_MS + after_ms)
            if event == "publish":
                bench.issuer.members = (rsa_member("a"), rsa_member("b"))
            elif event == "garbage":
                assert not await bench.knows(choose.randbytes(8).hex())
            else:
                name = "b" if after_ms >= published_ms + 60_000 else "a"
                assert await bench.knows(name), f"{name} at {after_ms} ms"

    for case in range(ROTATIONS):
        try:
            run(main(random.Random(seed + case)))
        except BaseException:
            print(f"seed {seed}, case {case}")
            raise


def test_a_withdrawn_key_is_believed_no_more_within_45_s_without_anyone_asking() -> None:
    async def main() -> None:
        bench = Bench(rsa_member("a"), rsa_member("b"))
        bench.keys.keep_fresh()
        assert await bench.knows("a")
        bench.issuer.members = (rsa_member("b"),)
        await bench.pass_to(NOW_MS + 44_999)
        assert (await bench.knows("a"), bench.changes) == (True, 1)
        await bench.pass_to(NOW_MS + 45_000)
        assert (await bench.knows("a"), bench.changes) == (False, 2)
        assert await bench.knows("b")

    run(main())


def test_a_change_is_told_of_only_where_there_is_one() -> None:
    async def main() -> None:
        bench = Bench(rsa_member("a"))
        bench.keys.keep_fresh()
        await bench.pass_to(NOW_MS + 300_000)
        assert len(bench.issuer.fetched_ms) > 5
        assert bench.changes == 1

    run(main())


def test_while_the_issuer_is_away_known_keys_are_found_and_unknown_ones_cannot_be_judged() -> None:
    async def main() -> None:
        bench = Bench(rsa_member("a"))
        bench.keys.keep_fresh()
        assert await bench.knows("a")
        bench.issuer.members = None
        for after_ms in range(60_000, 3_600_001, 60_000):
            await bench.pass_to(NOW_MS + after_ms)
            assert await bench.knows("a")
            with pytest.raises(KeysUnavailable):
                await bench.knows("b")
        assert len(bench.issuer.fetched_ms) <= 3600 // 10
        bench.issuer.members = (rsa_member("b"),)
        await bench.pass_to(NOW_MS + 3_600_000 + 10_000)
        assert (await bench.knows("a"), await bench.knows("b")) == (False, True)

    run(main())


def test_keys_are_used_for_a_day_without_their_issuer_and_no_longer() -> None:
    async def main() -> None:
        bench = Bench(rsa_member("a"))
        assert await bench.knows("a")
        bench.issuer.members = None
        await bench.pass_to(NOW_MS + 86_400_000)
        assert await bench.knows("a")
        await bench.pass_to(NOW_MS + 86_400_001)
        with pytest.raises(KeysUnavailable):
            await bench.knows("a")

    run(main())


def test_a_clock_that_was_set_back_keeps_nobody_waiting() -> None:
    async def main() -> None:
        bench = Bench(rsa_member("a"))
        assert await bench.knows("a")
        bench.clock.now_ms -= 3_600_000
        bench.issuer.members = (rsa_member("a"), rsa_member("b"))
        assert await bench.knows("b")

    run(main())


def test_an_error_nobody_foresaw_is_no_end() -> None:
    async def main() -> None:
        bench = Bench()
        bench.issuer.members = ({"kid": object()},)
        with pytest.raises(KeysUnavailable):
            await bench.knows("a")
        bench.issuer.members = (rsa_member("a"),)
        await bench.pass_to(NOW_MS + 30_000)
        assert await bench.knows("a")

    run(main())
