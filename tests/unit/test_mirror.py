"""A front knows what its back has counted, before anyone is told that it was."""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from app.core.identifier import IdentifierSource
from app.core.transaction import Row, Transaction
from app.core.window import Shape
from app.ledger.ledger import Ledger
from app.ledger.mirror import Mirror
from app.ledger.reading import NotReady, Unready
from app.ledger.statistics import Freshness
from app.main import wall_clock_ms
from app.server import telling
from app.server.hearing import Hearing
from app.server.telling import Line, Telling
from app.store.base import MemoryStore
from tests.support.thread import WAIT_SECONDS, Clock

NOW_MS = 1_767_323_045_678
MINUTE = Shape.covering(60_000, 1000)
LONGER = Shape.covering(60_000, 600_000)
CURRENCIES = ["CZK", "EUR", "JPY", "USD"]
HISTORIES = int(os.environ.get("MILLRACE_MIRROR_HISTORIES", "8"))
SEED = int(os.environ.get("MILLRACE_MIRROR_SEED", "20260102"))


class Copy:
    """A mirror at the end of a pipe."""

    def __init__(self, bench: "Bench") -> None:
        self._bench = bench
        reading, writing = os.pipe()
        self._reading = reading
        self.is_closed = False
        self.cut_off: list[str] = []
        self.ended: list[bool] = []
        self.rewinds: list[int] = []
        self.is_whole = asyncio.Event()
        self.line = Line(writing, self._cut_off)
        self.mirror = Mirror(
            MINUTE, False, bench.clock, lambda: self.hearing.catch_up(), self.rewinds.append
        )
        self.hearing = Hearing(reading, self.mirror, self.is_whole.set, lambda: self.ended.append(True))
        bench.telling.join(self.line)

    def _cut_off(self, reason: str) -> None:
        self.cut_off.append(reason)
        self._bench.telling.leave(self.line)

    def stop_reading(self) -> None:
        """As a process does that was stopped."""
        asyncio.get_running_loop().remove_reader(self._reading)
        if self.hearing._timer is not None:
            self.hearing._timer.cancel()

    def close(self) -> None:
        """End, as a process does."""
        if not self.is_closed:
            self.is_closed = True
            self.hearing.close()


class Bench:
    """A ledger's statistics, and the copies that follow them."""

    def __init__(self) -> None:
        self.clock = Clock(NOW_MS)
        self.ledger = Ledger(MemoryStore(), MINUTE, IdentifierSource(1), self.clock, pytest.fail)
        self.statistics = self.ledger.statistics
        self.released = 0
        self.telling = Telling(self.ledger, self._release)
        self.copies: list[Copy] = []

    def _release(self) -> None:
        self.released += 1

    async def join(self) -> Copy:
        copy = Copy(self)
        self.copies.append(copy)
        async with asyncio.timeout(WAIT_SECONDS):
            await copy.is_whole.wait()
        return copy

    async def answer(self) -> None:
        """Until an answer would have left."""
        before = self.released
        self.telling.hurry()
        async with asyncio.timeout(WAIT_SECONDS):
            while self.released == before:
                await asyncio.sleep(0)

    def assert_same(self, copy: Copy, told: str = "") -> None:
        moment = copy.mirror.moment()
        for window_ms in (1, 20_000, 60_000):
            for currency in (None, "EUR"):
                reading = copy.mirror.read(moment, window_ms, currency)
                expected = self.statistics.windows.since(self.clock.now_ms - window_ms, currency)
                assert reading.figures == expected, told
                assert reading.freshness == self.statistics.freshness, told


def run(body: Callable[[Bench], Awaitable[None]]) -> None:
    async def main() -> None:
        bench = Bench()
        await body(bench)
        for copy in bench.copies:
            copy.close()
            bench.telling.leave(copy.line)

    asyncio.run(main())


def row(timestamp_ms: int, units: int, currency: str = "EUR") -> Row:
    return Row(1, Transaction(units, timestamp_ms, currency, None))


def test_every_copy_counts_what_the_ledger_counts_whenever_it_began() -> None:
    chance = random.Random(SEED)

    async def history(bench: Bench, told: str) -> None:
        statistics = bench.statistics
        for step in range(40):
            match chance.choices(range(6), [12, 2, 1, 1, 2, 4])[0]:
                case 0:
                    statistics.record(
                        [
                            row(
                                bench.clock.now_ms - chance.randint(-1000, 70_000),
                                chance.choice([1, 10**18, 2**63 - 1, -(2**63) + 1]),
                                chance.choice(CURRENCIES),
                            )
                            for _ in range(chance.choice([1, 3, 200]))
                        ]
                    )
                case 1:
                    statistics.restart(chance.choice([MINUTE, LONGER]))
                case 2:
                    statistics.note(Freshness(chance.randint(1, 9), None, chance.random() < 0.5))
                case 3:
                    bench.clock.now_ms += chance.randint(1, 30_000)
                case 4:
                    # While it is told what there is, more comes and goes.
                    copy = Copy(bench)
                    bench.copies.append(copy)
                    for _ in range(chance.randint(0, 6)):
                        await asyncio.sleep(0)
                case _:
                    await bench.answer()
                    for copy in bench.copies:
                        if copy.is_whole.is_set():
                            bench.assert_same(copy, f"{told}, step {step}")
        for copy in bench.copies:
            await copy.is_whole.wait()
        await bench.answer()
        for copy in bench.copies:
            bench.assert_same(copy, told)

    for number in range(HISTORIES):

        async def body(bench: Bench, told: str = f"seed {SEED}, history {number}") -> None:
            async with asyncio.timeout(WAIT_SECONDS):
                await history(bench, told)

        run(body)


def test_no_answer_leaves_before_every_pipe_has_what_it_is_about() -> None:
    async def body(bench: Bench) -> None:
        slow, quick = await bench.join(), await bench.join()
        slow.stop_reading()
        # More than a pipe holds: what nobody reads keeps answers back.
        parts = [(NOW_MS - slot, 1, 10**17, 10**17, 10**17) for slot in range(50_000)]
        for _ in range(3):
            bench.statistics.add({"EUR": parts})
        released = bench.released
        for _ in range(50):
            await asyncio.sleep(0)
        assert slow.line.keeps_back
        assert bench.released == released
        async with asyncio.timeout(WAIT_SECONDS):
            while bench.released == released and not slow.cut_off:
                slow.mirror.moment()
                await asyncio.sleep(0)
        assert not slow.cut_off
        assert not quick.cut_off
        bench.assert_same(slow)
        bench.assert_same(quick)

    run(body)


def test_who_does_not_read_is_cut_off_before_answers_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "_FULL_SECONDS_MAX", 0.3)

    async def body(bench: Bench) -> None:
        stopped, other = await bench.join(), await bench.join()
        stopped.stop_reading()
        parts = [(NOW_MS - slot, 1, 10**17, 10**17, 10**17) for slot in range(50_000)]
        for _ in range(3):
            bench.statistics.add({"EUR": parts})
        released = bench.released
        async with asyncio.timeout(WAIT_SECONDS):
            while not stopped.cut_off:
                other.hearing.catch_up()
                assert bench.released == released
                await asyncio.sleep(0)
        assert stopped.cut_off == ["it does not read"]
        await bench.answer()
        bench.assert_same(other)
        # What it reads now ends behind what it was told: from there on it answers nobody.
        with suppress(NotReady):
            stopped.mirror.moment()
        assert stopped.ended

    run(body)


def test_one_that_goes_before_it_can_be_told_anything_leaves_nothing_behind() -> None:
    async def body(bench: Bench) -> None:
        reading, writing = os.pipe()
        line = Line(writing, pytest.fail)
        bench.telling.leave(line)
        bench.telling.join(line)
        assert os.read(reading, 1) == b""
        os.close(reading)
        bench.statistics.add({"EUR": [(NOW_MS, 1, 1, 1, 1)]})
        await bench.answer()
        assert not line.is_followed

    run(body)


def test_one_that_has_only_begun_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "_FULL_SECONDS_MAX", 0.01)

    async def body(bench: Bench) -> None:
        for currency in CURRENCIES:
            bench.statistics.add(
                {currency: [(NOW_MS - slot, 1, 10**17, 10**17, 10**17) for slot in range(30_000)]}
            )
        copy = Copy(bench)
        bench.copies.append(copy)
        copy.stop_reading()
        for _ in range(5):
            bench.statistics.record([row(NOW_MS, 7)])
            await bench.answer()
            await asyncio.sleep(0.01)
        assert not copy.cut_off
        async with asyncio.timeout(WAIT_SECONDS):
            while not copy.is_whole.is_set():
                copy.hearing.catch_up()
                await asyncio.sleep(0)
        bench.assert_same(copy)

    run(body)


def test_one_whose_end_is_gone_keeps_nobody_waiting() -> None:
    async def body(bench: Bench) -> None:
        gone = await bench.join()
        gone.close()
        bench.statistics.record([row(NOW_MS, 7)])
        await bench.answer()
        assert gone.cut_off == [""]

    run(body)


def test_what_is_forgotten_and_counted_anew_is_seen_together_or_not_at_all() -> None:
    async def body(bench: Bench) -> None:
        copy = await bench.join()
        parts = [(NOW_MS - slot, 1, 10**17, 10**17, 10**17) for slot in range(50_000)]
        bench.statistics.add({"EUR": parts})
        await bench.answer()
        assert copy.mirror.read(copy.mirror.moment()).figures.overall.count == 50_000
        bench.statistics.restart(MINUTE)
        bench.statistics.add({"EUR": parts, "USD": parts})
        seen = set()
        released = bench.released
        while bench.released == released:
            seen.add(copy.mirror.read(copy.mirror.moment()).figures.overall.count)
            await asyncio.sleep(0)
        seen.add(copy.mirror.read(copy.mirror.moment()).figures.overall.count)
        assert seen == {50_000, 100_000}

    run(body)


def test_a_clock_that_was_set_back_makes_it_unready_until_all_is_told_anew() -> None:
    async def body(bench: Bench) -> None:
        copy = await bench.join()
        bench.clock.now_ms += 600_000
        copy.mirror.moment()
        bench.clock.now_ms -= MINUTE.rewind_ms
        copy.mirror.moment()
        bench.clock.now_ms -= 1
        with pytest.raises(NotReady) as error:
            copy.mirror.moment()
        assert error.value.reason is Unready.CLOCK_STEPPED
        assert copy.rewinds == [NOW_MS + 600_000]
        bench.statistics.restart(MINUTE)
        await bench.answer()
        copy.mirror.moment()

    run(body)


def test_a_clock_that_only_the_ledger_has_read_is_no_secret() -> None:
    async def body(bench: Bench) -> None:
        copy = await bench.join()
        bench.ledger.note_clock(NOW_MS + 600_000)
        bench.statistics.record([row(NOW_MS, 7)])
        await bench.answer()
        with pytest.raises(NotReady):
            copy.mirror.moment()

    run(body)


def test_a_ledger_reads_its_window_back_when_another_process_saw_the_clock_set_back() -> None:
    async def body(bench: Bench) -> None:
        await bench.ledger.open()
        copy = await bench.join()
        bench.clock.now_ms += 600_000
        copy.mirror.moment()
        bench.clock.now_ms -= 300_000
        with pytest.raises(NotReady):
            copy.mirror.moment()
        bench.ledger.note_clock(copy.rewinds[-1])
        assert bench.ledger.why_unready() is Unready.CLOCK_STEPPED
        async with asyncio.timeout(WAIT_SECONDS):
            while bench.ledger.why_unready() is not None:
                await asyncio.sleep(0)
            await bench.answer()
        copy.mirror.moment()
        await bench.ledger.close()

    run(body)


def test_the_same_moment_is_the_same() -> None:
    async def body(bench: Bench) -> None:
        copy = await bench.join()
        moment = copy.mirror.moment()
        assert copy.mirror.moment() is moment
        bench.statistics.record([row(NOW_MS, 7)])
        await bench.answer()
        assert copy.mirror.moment() is not moment

    run(body)


def test_it_knows_no_users() -> None:
    mirror = Mirror(MINUTE, True, wall_clock_ms, lambda: None, lambda _: None)
    assert mirror.has_users
    with pytest.raises(ValueError, match="no users"):
        mirror.read(mirror.moment(), user_id="u")
