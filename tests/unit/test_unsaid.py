"""What is still to be told: nothing is forgotten, and it is known when all of it was told."""

import random

import pytest

from app.ledger.unsaid import Unsaid


def test_what_has_changed_is_told_once_however_often_it_has() -> None:
    unsaid = Unsaid()
    unsaid.note("EUR", [1, 2, 1])
    unsaid.note("EUR", [2])
    unsaid.note("USD", [1])
    assert unsaid.take(100, 10) == {"EUR": [1, 2], "USD": [1]}
    assert unsaid.complete_then_ms == 100
    assert unsaid.take(140, 10) == {}
    assert unsaid.complete_then_ms == 140


def test_what_does_not_fit_is_told_next_and_only_then_is_all_told() -> None:
    unsaid = Unsaid()
    unsaid.note("EUR", [1, 2, 3])
    assert unsaid.take(100, 2) == {"EUR": [1, 2]}
    assert unsaid.complete_then_ms == 0
    unsaid.note("EUR", [4])
    assert unsaid.take(140, 2) == {"EUR": [3]}
    # What came after the first bulletin was begun is of the next generation.
    assert unsaid.complete_then_ms == 100
    unsaid.complete_ms = 100
    assert unsaid.take(180, 0) == {"EUR": []}
    assert unsaid.complete_then_ms == 100
    assert unsaid.take(220, 2) == {"EUR": [4]}
    assert unsaid.complete_then_ms == 180


def test_what_was_not_told_is_told_again_before_all_is_told() -> None:
    unsaid = Unsaid()
    unsaid.note("EUR", [1, 2])
    taken = unsaid.take(100, 2)
    unsaid.note("EUR", [3])
    unsaid.put_back(taken)
    assert unsaid.take(140, 1) == {"EUR": [1]}
    assert unsaid.complete_then_ms == 0
    assert unsaid.take(180, 5) == {"EUR": [2]}
    assert unsaid.complete_then_ms == 100


def test_a_clock_that_was_set_back_takes_back_what_was_said() -> None:
    unsaid = Unsaid()
    unsaid.take(5000, 1)
    unsaid.complete_ms = unsaid.complete_then_ms
    unsaid.note("EUR", [1, 2])
    unsaid.take(5040, 1)
    # Whatever is counted from here on is counted at instants that were said to be told.
    unsaid.note("EUR", [3])
    unsaid.take(2000, 0)
    assert unsaid.complete_then_ms == 0
    unsaid.take(2040, 9)
    assert unsaid.complete_then_ms == 0
    assert unsaid.take(2080, 9) == {"EUR": [3]}
    assert unsaid.complete_then_ms == 2080


def test_what_is_told_once_more_is_told_when_all_of_it_is() -> None:
    unsaid = Unsaid()
    unsaid.note("EUR", [1, 2])
    assert unsaid.take(100, 1) == {"EUR": [1]}
    unsaid.take_back()
    unsaid.note("EUR", [1, 2])
    assert unsaid.take(140, 5) == {"EUR": [2]}
    # The first one, told before, is still to be told once more.
    assert unsaid.complete_then_ms == 0
    assert unsaid.take(180, 5) == {"EUR": [1]}
    assert unsaid.complete_then_ms == 180


@pytest.mark.parametrize("seed", range(50))
def test_all_that_was_counted_when_it_is_said_was_told(seed: int) -> None:
    """Random changes, bulletins of random length, some of which are lost."""
    choose, unsaid = random.Random(seed), Unsaid()
    changed_ms: dict[tuple[str, int], int] = {}
    told_ms: dict[tuple[str, int], int] = {}
    for now_ms in range(1, 400):
        for _ in range(choose.randrange(4)):
            slot = choose.choice(("EUR", "USD")), choose.randrange(30)
            unsaid.note(slot[0], [slot[1]])
            changed_ms[slot] = now_ms
        if choose.random() < 0.6:
            now_ms += 1
            taken = unsaid.take(now_ms, choose.choice((0, 1, 3, 100)))
            if choose.random() < 0.3:
                unsaid.put_back(taken)
                continue
            unsaid.complete_ms = unsaid.complete_then_ms
            told_ms.update(((code, ms), now_ms) for code, slots_ms in taken.items() for ms in slots_ms)
        for slot, last_ms in changed_ms.items():
            assert last_ms >= unsaid.complete_ms or told_ms.get(slot, 0) >= last_ms, seed
    while taken := unsaid.take(1000, 7):
        told_ms.update(((code, ms), 1000) for code, slots_ms in taken.items() for ms in slots_ms)
    assert all(told_ms[slot] >= last_ms for slot, last_ms in changed_ms.items())
