"""The ring against its naive twin: a list, filtered."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.money import UNITS_MAX
from app.core.summary import EMPTY, Summary
from app.core.window import SLOTS_PER_SPAN, Part, Shape, Window

MINUTE = Shape.covering(60_000, 1000)
START_MS = 1_767_323_045_678


class Twin:
    """What a window is, without any cleverness."""

    def __init__(self, resolution_ms: int) -> None:
        self._resolution_ms = resolution_ms
        self._amounts: list[tuple[int, int]] = []

    def record(self, timestamp_ms: int, amount_units: int) -> None:
        self._amounts.append((timestamp_ms // self._resolution_ms, amount_units))

    def since(self, from_ms: int) -> Summary:
        found = [a for slot, a in self._amounts if slot >= from_ms // self._resolution_ms]
        if not found:
            return EMPTY
        return Summary(len(found), sum(found), min(found), max(found))

    def forget_before(self, from_ms: int) -> None:
        slot = from_ms // self._resolution_ms
        self._amounts = [entry for entry in self._amounts if entry[0] >= slot]


def play(shape: Shape, seed: int, operations: int) -> int:
    """Random histories on window and twin; the number of answers that differ."""
    choose = random.Random(seed)
    window, twin = Window(shape), Twin(shape.resolution_ms)
    now_ms = highest_ms = START_MS + choose.randrange(10**9)
    mismatches = 0
    for _ in range(operations):
        what = choose.random()
        if what < 0.70:
            timestamp_ms = now_ms + choose.choice(
                (
                    shape.ahead_ms,
                    -shape.window_ms,
                    -choose.randrange(shape.window_ms + 1),
                    choose.randrange(shape.ahead_ms + 1),
                    -choose.randrange(10),
                )
            )
            amount_units = choose.choice(
                (0, 1, -1, UNITS_MAX, -UNITS_MAX, choose.randrange(-(10**10), 10**10))
            )
            assert window.record(timestamp_ms, amount_units)
            twin.record(timestamp_ms, amount_units)
        elif what < 0.85:
            step_ms = choose.choice((1, choose.randrange(300), choose.randrange(shape.window_ms)))
            if choose.random() < 0.02:
                step_ms = 3_600_000
            now_ms += step_ms
            highest_ms = max(highest_ms, now_ms)
            twin.forget_before(highest_ms - shape.window_ms - shape.rewind_ms)
        elif what < 0.88:
            now_ms = max(now_ms - choose.randrange(2000), highest_ms - shape.rewind_ms)
        else:
            span_ms = choose.choice((shape.window_ms, 1, choose.randrange(shape.window_ms + 1)))
            mismatches += window.since(now_ms - span_ms) != twin.since(now_ms - span_ms)
    return mismatches


SHAPES = [
    pytest.param(Shape.covering(1000, 0), id="a second, none ahead"),
    pytest.param(MINUTE, id="a minute"),
    pytest.param(Shape.covering(120_000, 4000), id="two minutes, four seconds ahead"),
    pytest.param(Shape.covering(3_600_000, 1000), id="an hour, in slots of 60 ms"),
]


@pytest.mark.parametrize("shape", SHAPES)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_every_answer_is_that_of_a_filtered_list(shape: Shape, seed: int) -> None:
    assert play(shape, seed, operations=400) == 0


@pytest.mark.parametrize("shape", SHAPES)
def test_a_hundred_thousand_operations_on_each_shape_differ_nowhere(shape: Shape) -> None:
    mismatches = sum(play(shape, seed, operations=10_000) for seed in range(10))
    assert mismatches == 0


def test_a_window_to_the_millisecond_old_is_in_and_a_millisecond_more_is_out() -> None:
    window = Window(MINUTE)
    window.record(START_MS, 5)
    assert window.since(START_MS).count == 1
    assert window.since(START_MS + 1).count == 0


def test_an_hour_of_silence_leaves_nothing_behind() -> None:
    window = Window(MINUTE)
    window.record(START_MS, 5)
    # The same slot of the ring, many times round.
    period_ms = MINUTE.spans * SLOTS_PER_SPAN
    later_ms = START_MS + 55 * period_ms
    assert window.since(later_ms - MINUTE.window_ms) == EMPTY
    window.record(later_ms, 7)
    assert window.since(later_ms - MINUTE.window_ms) == Summary.of(7)


def test_what_the_ring_has_moved_past_is_refused_not_misplaced() -> None:
    window = Window(MINUTE)
    window.record(START_MS, 5)
    assert not window.record(START_MS - MINUTE.spans * SLOTS_PER_SPAN, 7)
    assert window.since(0) == Summary.of(5)


def test_sums_pass_64_bits_unharmed() -> None:
    window = Window(MINUTE)
    for _ in range(1000):
        window.record(START_MS, UNITS_MAX)
    assert window.since(START_MS).sum_units == 1000 * UNITS_MAX


def test_what_is_summed_up_before_counts_as_its_amounts_would() -> None:
    one_by_one, at_once = Window(MINUTE), Window(MINUTE)
    for amount_units in (3, -8, 5):
        one_by_one.record(START_MS, amount_units)
    at_once.add([(START_MS, 3, 0, -8, 5)])
    assert at_once.since(START_MS - 10) == one_by_one.since(START_MS - 10)


@pytest.mark.parametrize("seed", range(20))
def test_a_copy_is_the_same_however_often_late_and_disordered_it_is_told(seed: int) -> None:
    """Tellings of slots are lost, repeated and mixed up; the last of each comes at last."""
    choose = random.Random(seed)
    shape = choose.choice((MINUTE, Shape.covering(600_000, 1000)))
    window, copy, merged = Window(shape), Window(shape), Window(shape)
    tellings: list[Part] = []
    times_ms = [START_MS - choose.randrange(shape.window_ms) for _ in range(20)]

    def tell(part: Part) -> None:
        merged.add(copy.lift([part]))

    for _ in range(400):
        timestamp_ms = choose.choice(times_ms) // shape.resolution_ms * shape.resolution_ms
        window.record(timestamp_ms, choose.choice((0, UNITS_MAX, -UNITS_MAX, choose.randrange(10**9))))
        part = window.at(timestamp_ms)
        assert part is not None
        tellings.append(part)
        if choose.random() < 0.5:
            tell(choose.choice(tellings))
    for part in choose.sample(window.parts(), len(window.parts())):
        tell(part)
        tell(choose.choice(tellings))
    assert copy.parts() == merged.parts() == window.parts()
    for from_ms in (*times_ms, START_MS - shape.window_ms):
        assert copy.since(from_ms) == merged.since(from_ms) == window.since(from_ms)


def test_a_slot_that_holds_nothing_or_is_out_of_the_ring_is_no_part() -> None:
    window = Window(MINUTE)
    assert window.at(START_MS) is None
    assert window.parts() == []
    window.record(START_MS, 5)
    assert window.at(START_MS - 1) is None
    assert window.at(START_MS + 3_600_000) is None
    window.record(START_MS + 3_600_000, 7)
    assert window.at(START_MS) is None
    assert window.parts() == [(START_MS + 3_600_000, 1, 7, 7, 7)]


@pytest.mark.parametrize("window_seconds", [1, 59, 60, 61, 119, 120])
def test_up_to_two_minutes_a_slot_is_a_millisecond(window_seconds: int) -> None:
    assert Shape.covering(window_seconds * 1000, 4000).resolution_ms == 1


@pytest.mark.parametrize("window_seconds", [121, 179, 180, 600, 3599, 3600])
def test_above_a_slot_is_at_most_a_60000th_of_the_window(window_seconds: int) -> None:
    shape = Shape.covering(window_seconds * 1000, 4000)
    assert 1 <= shape.resolution_ms <= window_seconds * 1000 / 60_000


@given(st.integers(1, 3600), st.integers(0, 4000))
def test_every_shape_has_room_for_its_window_and_a_clock_that_steps_back(
    window_seconds: int, ahead_ms: int
) -> None:
    shape = Shape.covering(window_seconds * 1000, ahead_ms)
    assert 0 <= shape.rewind_ms < shape.rewind_ms_max


class Counting(list[int]):
    """A list that counts the elements read from it."""

    read = 0

    def __getitem__(self, key: Any) -> Any:  # noqa: ANN401 - list's own is two in one
        found: Any = super().__getitem__(key)
        Counting.read += len(found) if isinstance(key, slice) else 1
        return found


def elements_read(window: Window, from_ms: int) -> int:
    """How many cells a read touches, in the window's own lists replaced by counting ones."""
    window._block_totals = type(window._block_totals)(*map(Counting, window._block_totals))
    window._span_totals = type(window._span_totals)(*map(Counting, window._span_totals))
    window._cells = [cells and type(cells)(*map(Counting, cells)) for cells in window._cells]
    Counting.read = 0
    window.since(from_ms)
    return Counting.read


def test_a_read_touches_as_many_slots_of_ten_million_as_of_ten() -> None:
    def filled(amounts_per_ms: int, every_ms: int) -> Window:
        window = Window(MINUTE)
        for offset_ms in range(0, MINUTE.window_ms, every_ms):
            window.add([(START_MS - offset_ms, amounts_per_ms, amounts_per_ms * 7, 7, 7)])
        return window

    few, many = filled(1, 6000), filled(167, 1)
    edge_ms = START_MS - MINUTE.window_ms + 1
    assert few.since(edge_ms).count == 10
    assert many.since(edge_ms).count == 10_020_000
    bound = 4 * (16 + 15 + 15 + MINUTE.spans)
    assert elements_read(few, edge_ms) <= elements_read(many, edge_ms) <= bound
