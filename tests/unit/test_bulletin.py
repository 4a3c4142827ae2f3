"""Bulletins: what goes in comes out, and whatever else comes is refused, not taken in."""

import math
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.bulletin import BULLETIN_VERSION, Bulletin, Slots, Unreadable
from app.core.money import UNITS_MAX

units = st.integers(-UNITS_MAX, UNITS_MAX)
amounts = st.lists(units, min_size=1, max_size=5)


def bulletin(**changes: Any) -> Bulletin:  # noqa: ANN401 (of many types)
    fields: dict[str, Any] = {
        "version": BULLETIN_VERSION,
        "node": "a",
        "store": b"12345678",
        "is_alone": False,
        "epoch": 3,
        "window_ms": 60_000,
        "resolution_ms": 1,
        "told_ms": 1_767_323_045_678,
        "complete_ms": 1_767_323_045_600,
        "ahead_ms": -1.5,
        "is_last": False,
        "slots": [Slots("EUR", [5, 7], [9, 2, 0, 10, 4, 6])],
    }
    return Bulletin(**{**fields, **changes})


@given(st.dictionaries(st.integers(1, 10**9), amounts, max_size=40), st.sampled_from([1, 60]))
def test_slots_come_out_as_they_went_in(by_slot: dict[int, list[int]], resolution_ms: int) -> None:
    parts = [
        (slot * resolution_ms, len(held), sum(held), min(held), max(held))
        for slot, held in by_slot.items()
    ]
    encoded = bulletin(slots=[Slots.of("EUR", parts, resolution_ms)]).encode()
    (slots,) = Bulletin.decode(encoded).slots
    assert sorted(map(tuple, slots.parts(resolution_ms))) == sorted(parts)


def test_a_slot_of_one_amount_takes_a_few_bytes() -> None:
    parts = [(ms, 1, 12_50000000, 12_50000000, 12_50000000) for ms in range(10_000, 20_000, 10)]
    empty = len(bulletin(slots=[]).encode())
    assert len(bulletin(slots=[Slots.of("EUR", parts, 1)]).encode()) - empty < 7 * len(parts)


@pytest.mark.parametrize(
    "changes",
    [
        {"version": BULLETIN_VERSION + 1},
        {"node": ""},
        {"node": "a" * 65},
        {"node": "a\n"},
        {"node": "a b"},
        {"store": bytes(65)},
        {"epoch": -1},
        {"resolution_ms": 0},
        {"told_ms": -1},
        {"told_ms": 2**63},
        {"complete_ms": -1},
        {"complete_ms": 2**60},
        {"ahead_ms": math.nan},
        {"ahead_ms": math.inf},
        {"slots": [Slots("EUR", [], [])] * 1001},
        *({"slots": [Slots(code, [5, 7], [])]} for code in ("", "eur", "E", 'A":1', "EUR\n", "A" * 13)),
    ],
)
def test_what_no_node_tells_is_unreadable(changes: dict[str, Any]) -> None:
    assert Bulletin.decode(bulletin().encode()) == bulletin()
    with pytest.raises(Unreadable):
        Bulletin.decode(bulletin(**changes).encode())


@pytest.mark.parametrize(
    ("singles", "several"),
    [
        ([5], []),
        ([], [9, 2, 0, 10, 4]),
        ([5, UNITS_MAX + 1], []),
        ([5, -UNITS_MAX - 1], []),
        ([0, 7], []),
        ([5, 7, 0, 8], []),
        ([5, 7, -1, 8], []),
        ([], [9, 0, 0, 0, 0, 0]),
        ([], [9, -2, 0, 10, 4, 6]),
        ([], [9, 2**41, 0, 2**41, 1, 1]),
        ([], [9, 2, 0, 10, 6, 4]),
        ([], [9, 2, 0, 13, 4, 6]),
        ([], [9, 2, 0, 7, 4, 6]),
        ([], [9, 2, 1, 10, 4, 6]),
        ([], [9, 2, 0, 10, 4, 6, 0, 2, 0, 10, 4, 6]),
    ],
)
def test_slots_that_no_window_holds_are_unreadable(singles: list[int], several: list[int]) -> None:
    with pytest.raises(Unreadable):
        list(Slots("EUR", singles, several).parts(1))


def test_whatever_bytes_come_are_read_or_refused() -> None:
    choose = random.Random(7)
    good = bytearray(bulletin().encode())
    for _ in range(3000):
        bad = bytearray(good)
        for _ in range(choose.randrange(1, 4)):
            bad[choose.randrange(len(bad))] = choose.randrange(256)
        if choose.random() < 0.3:
            del bad[choose.randrange(len(bad)) :]
        try:
            for slots in Bulletin.decode(bytes(bad)).slots:
                list(slots.parts(1))
        except Unreadable:
            pass
    for deep in (b"\x91" * 100_000, b"", b"\xc1", msgspec.msgpack.encode({"a": 1})):
        with pytest.raises(Unreadable):
            Bulletin.decode(deep)
