"""Ids: the layout of RFC 9562, their order, and their difference."""

import re
import uuid
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.identifier import IdentifierSource, format_identifier

NOW_MS = 1_767_323_045_678
PROCESS_BITS = 0x1234_5678_9ABC

clock_readings = st.integers(0, 2**47)
process_bits = st.integers(0, 2**48 - 1)

twin = settings(derandomize=False, print_blob=True, deadline=None)


def milliseconds(identifier: int) -> int:
    return identifier >> 80


def counter(identifier: int) -> int:
    """The 26 bits behind the variant."""
    return identifier >> 36 & (1 << 26) - 1


def made(source: IdentifierSource, clock: Iterable[int]) -> list[int]:
    return [source.next(now_ms) for now_ms in clock]


def ascend(identifiers: list[int]) -> bool:
    return all(earlier < later for earlier, later in pairwise(identifiers))


@twin
@given(clock_readings, process_bits)
def test_an_id_is_a_version_7_uuid_of_the_rfcs_variant(now_ms: int, bits: int) -> None:
    identifier = uuid.UUID(int=IdentifierSource(bits).next(now_ms))
    assert (identifier.version, identifier.variant) == (7, uuid.RFC_4122)


@twin
@given(st.integers(1, 2**47), process_bits)
def test_an_id_opens_with_the_milliseconds_since_the_epoch(now_ms: int, bits: int) -> None:
    assert milliseconds(IdentifierSource(bits).next(now_ms)) == now_ms


def test_each_of_the_48_process_bits_makes_another_id() -> None:
    choices = [0, *(1 << position for position in range(48))]
    identifiers = [IdentifierSource(bits).next(NOW_MS) for bits in choices]
    assert len(set(identifiers)) == len(choices)


def test_process_bits_touch_neither_time_nor_counter_nor_version() -> None:
    identifier = IdentifierSource(2**64 - 1).next(NOW_MS)
    assert (milliseconds(identifier), counter(identifier)) == (NOW_MS, 0)
    assert (uuid.UUID(int=identifier).version, uuid.UUID(int=identifier).variant) == (7, uuid.RFC_4122)


def test_the_counter_starts_at_zero_each_millisecond() -> None:
    source = IdentifierSource(PROCESS_BITS)
    clock = [NOW_MS, NOW_MS, NOW_MS, NOW_MS + 1, NOW_MS + 1]
    assert [counter(identifier) for identifier in made(source, clock)] == [0, 1, 2, 0, 1]


def test_ids_ascend_while_the_clock_stands_still() -> None:
    # All 2^26, whose carry goes into the milliseconds, are too many to be reached from outside.
    count = 2**17
    identifiers = made(IdentifierSource(PROCESS_BITS), [NOW_MS] * count)
    assert ascend(identifiers)
    assert [counter(identifier) for identifier in identifiers] == list(range(count))
    assert {milliseconds(identifier) for identifier in identifiers} == {NOW_MS}


@pytest.mark.parametrize("step_ms", [1, 1000, 3_600_000, NOW_MS])
def test_ids_ascend_though_the_clock_steps_back(step_ms: int) -> None:
    clock = [NOW_MS, NOW_MS - step_ms, NOW_MS - step_ms + 1, NOW_MS, NOW_MS + 1]
    assert ascend(made(IdentifierSource(PROCESS_BITS), clock))


@twin
@given(st.lists(st.integers(NOW_MS - 3, NOW_MS + 3) | clock_readings, max_size=100), process_bits)
def test_ids_ascend_whatever_the_clock_does_and_so_do_their_texts(clock: list[int], bits: int) -> None:
    identifiers = made(IdentifierSource(bits), clock)
    assert ascend(identifiers)
    assert sorted(map(format_identifier, identifiers)) == list(map(format_identifier, identifiers))


@twin
@given(st.lists(st.tuples(st.integers(NOW_MS - 3, NOW_MS + 3), st.integers(0, 20)), max_size=20))
def test_many_at_once_are_the_ids_that_would_be_made_one_by_one(calls: list[tuple[int, int]]) -> None:
    at_once, one_by_one = IdentifierSource(PROCESS_BITS), IdentifierSource(PROCESS_BITS)
    for now_ms, count in calls:
        assert list(at_once.take(now_ms, count)) == [one_by_one.next(now_ms) for _ in range(count)]


@pytest.mark.parametrize("left", [0, 1, 2, 3, 4])
def test_many_at_once_borrow_the_next_millisecond_when_the_counter_runs_out(left: int) -> None:
    at_once, one_by_one = IdentifierSource(PROCESS_BITS), IdentifierSource(PROCESS_BITS)
    for source in (at_once, one_by_one):
        source.take(NOW_MS, (1 << 26) - left)
    assert list(at_once.take(NOW_MS, 5)) == [one_by_one.next(NOW_MS) for _ in range(5)]


@twin
@given(
    st.lists(clock_readings, min_size=1, max_size=20), st.lists(process_bits, min_size=2, unique=True)
)
def test_ids_of_two_processes_differ_though_their_clocks_agree(
    clock: list[int], bits: list[int]
) -> None:
    identifiers = [identifier for one in bits for identifier in made(IdentifierSource(one), clock)]
    assert len(set(identifiers)) == len(bits) * len(clock)


@twin
@given(st.integers(0, 2**128 - 1))
def test_an_id_is_written_as_uuid_writes_it_in_small_hexadecimal_with_hyphens(identifier: int) -> None:
    text = format_identifier(identifier)
    assert text == str(uuid.UUID(int=identifier))
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text)
