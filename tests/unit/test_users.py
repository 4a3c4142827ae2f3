"""Windows of single users against their naive twin: a list, filtered."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.money import UNITS_MAX
from app.core.summary import EMPTY, Figures, Summary
from app.core.transaction import Row, Transaction
from app.core.window import SLOTS_PER_SPAN, Shape
from app.ledger.statistics import Statistics
from app.ledger.users import Missing, Users

MINUTE = Shape.covering(60_000, 1000)
HOUR = Shape.covering(3_600_000, 1000)
START_MS = 1_767_323_045_678
USERS = ["a", "b" * 36, "b" * 37, "ж" * 128]
PLENTY = 10**4


class Twin:
    """What the users' windows are, without any cleverness."""

    def __init__(self, resolution_ms: int) -> None:
        self._resolution_ms = resolution_ms
        self.facts: list[Transaction] = []

    def since(self, user_id: str, from_ms: int, currency: str | None) -> Figures:
        slot = from_ms // self._resolution_ms
        found: dict[str, list[int]] = {}
        for fact in self.facts:
            if fact.user_id == user_id and fact.timestamp_ms // self._resolution_ms >= slot:
                found.setdefault(fact.currency, []).append(fact.amount_units)
        by_currency = {
            code: Summary(len(units), sum(units), min(units), max(units))
            for code, units in sorted(found.items())
            if currency in (None, code)
        }
        overall = EMPTY
        for summary in by_currency.values():
            overall = overall.merge(summary)
        return Figures(overall, by_currency)


class History:
    """A random history of users' windows and their twin."""

    def __init__(
        self, shape: Shape, seed: int, rows_max: int = PLENTY, part_rows: int = 8, many_rows: int = 4
    ) -> None:
        self.shape = shape
        self.choose = random.Random(seed)
        self.users = Users(shape, rows_max, part_rows=part_rows, many_rows=many_rows)
        self._statistics = Statistics(shape, self.users)
        self.twin = Twin(shape.resolution_ms)
        self.now_ms = self._latest_ms = START_MS + self.choose.randrange(10**9)
        self.refusals = 0

    def transaction(self) -> Transaction:
        choose, shape = self.choose, self.shape
        age_ms = choose.choice(
            (
                -shape.ahead_ms,
                shape.window_ms,
                choose.randrange(shape.window_ms + 1),
                -choose.randrange(shape.ahead_ms + 1),
                *(choose.randrange(10) for _ in range(4)),
            )
        )
        amount_units = choose.choice(
            (0, 1, -1, UNITS_MAX, -UNITS_MAX, choose.randrange(-(10**10), 10**10))
        )
        user_id = choose.choices([*USERS, None], [20, 6, 3, 1, 3])[0]
        return Transaction(amount_units, self.now_ms - age_ms, choose.choice(["EUR", "JPY"]), user_id)

    def record(self) -> None:
        facts = [self.transaction() for _ in range(self.choose.choice((1, 1, 3, 20)))]
        if self.choose.random() < 0.8:
            self._statistics.record([Row(0, fact) for fact in facts])
        else:
            self.users.record(facts)
        self.twin.facts += facts

    def go_forth(self, step_ms: int) -> None:
        self.now_ms += step_ms
        self._latest_ms = max(self._latest_ms, self.now_ms)

    def go_back(self) -> None:
        back_ms = self.choose.randrange(2000)
        self.now_ms = max(self.now_ms - back_ms, self._latest_ms - self.shape.rewind_ms)

    def clear(self) -> None:
        self.users.clear()
        self.twin.facts.clear()

    @property
    def oldest_ms(self) -> int:
        """What is older can be asked for by nobody, even after a small step back."""
        return self._latest_ms - self.shape.window_ms - self.shape.rewind_ms

    def sweep(self) -> None:
        self.users.sweep(self.oldest_ms)
        self.twin.facts = [
            fact
            for fact in self.twin.facts
            if fact.timestamp_ms >= self.oldest_ms - self.shape.resolution_ms
        ]

    def read(self) -> None:
        span_ms = self.choose.choice((self.shape.window_ms, 1, self.choose.randrange(60_000) + 1))
        user_id, currency = self.choose.choice(USERS), self.choose.choice((None, "EUR", "GBP"))
        from_ms = self.now_ms - span_ms
        try:
            figures = self.users.since(user_id, from_ms, currency)
        except Missing:
            self.refusals += 1
            return
        assert figures == self.twin.since(user_id, from_ms, currency)

    def play(self, operations: int) -> None:
        choose = self.choose
        for _ in range(operations):
            what = choose.random()
            if what < 0.5:
                self.record()
            elif what < 0.7:
                self.read()
            elif what < 0.8:
                self.sweep()
            elif what < 0.9:
                self.go_forth(choose.choice((1, choose.randrange(300), choose.randrange(20_000))))
            elif what < 0.95:
                self.go_back()
            elif what < 0.97:
                self.go_forth(2 * self.shape.window_ms)
            elif what < 0.98:
                self.clear()


HISTORIES: list[tuple[Shape, int, int]] = [
    (MINUTE, 8, 4),
    (MINUTE, 100, 20),
    (MINUTE, 1, 1),
    (MINUTE, 1 << 20, 1 << 20),
    (HOUR, 8, 4),
]


@pytest.mark.parametrize(("shape", "part_rows", "many_rows"), HISTORIES)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=25, deadline=None, print_blob=True)
def test_figures_of_a_user_are_those_of_a_filtered_list(
    shape: Shape, part_rows: int, many_rows: int, seed: int
) -> None:
    history = History(shape, seed, part_rows=part_rows, many_rows=many_rows)
    history.play(200)
    assert history.refusals == 0


@pytest.mark.parametrize("rows_max", [1, 20, 100])
@given(seed=st.integers(0, 2**32))
@settings(max_examples=25, deadline=None, print_blob=True)
def test_past_the_bound_no_figure_is_wrong_and_all_come_back(rows_max: int, seed: int) -> None:
    history = History(MINUTE, seed, rows_max=rows_max, part_rows=4)
    for _ in range(4):
        history.play(50)
        history.go_forth(MINUTE.window_ms + MINUTE.ahead_ms + 2 * MINUTE.rewind_ms + 1)
        history.sweep()
        assert history.users.rows == 0
        refusals = history.refusals
        fact = history.transaction()
        history.users.record([fact])
        history.twin.facts.append(fact)
        history.read()
        assert history.refusals == refusals


def fact(user_id: str, timestamp_ms: int = START_MS, amount_units: int = 1) -> Transaction:
    return Transaction(amount_units, timestamp_ms, "EUR", user_id)


def test_what_is_missing_is_missed_until_it_has_left_the_window_and_no_longer() -> None:
    users = Users(MINUTE, 2)
    users.record([fact("a"), fact("b"), fact("a", START_MS + 5)])
    for from_ms in (START_MS - 60_000, START_MS + 5):
        for user_id in ("a", "b", "c"):
            with pytest.raises(Missing) as raised:
                users.since(user_id, from_ms)
            assert raised.value.for_ms == START_MS + 5 - from_ms + 1
    assert users.since("a", START_MS + 6).overall == EMPTY


def test_what_is_being_read_back_is_missing() -> None:
    users = Users(MINUTE, 2)
    users.is_loading = True
    with pytest.raises(Missing) as raised:
        users.since("a", START_MS)
    assert raised.value.for_ms is None
    users.clear()
    assert users.since("a", START_MS).overall == EMPTY


def test_users_without_anything_in_the_window_are_forgotten() -> None:
    users = Users(MINUTE, 1000, part_rows=50)
    users.record([fact(f"u-{number % 50}", START_MS + number) for number in range(50)])
    users.record([fact(f"u-{number % 50}", START_MS + number) for number in range(50, 200)])
    assert users.rows == 200
    users.sweep(START_MS + 50)
    assert users.rows == 150
    users.sweep(START_MS + 199)
    assert users.rows == 150
    users.sweep(START_MS + 200)
    assert users.rows == 0


def test_what_trickles_in_goes_in_time_too() -> None:
    """By parts that are closed after an eighth of a window, though they are not full."""
    users = Users(MINUTE, 1000)
    for second in range(300):
        users.sweep(START_MS + 1000 * second - MINUTE.window_ms)
        users.record([fact("a", START_MS + 1000 * second)])
        assert users.rows <= 60 + 60 / 8 + 2


def test_who_has_many_is_known_to_have_them_until_they_are_idle() -> None:
    users = Users(MINUTE, 10**6)
    many = [fact("many", START_MS + number) for number in range(10_000)]
    few = [fact(f"u-{number}", START_MS + number) for number in range(10_000)]
    for place in range(0, 10_000, 100):
        users.record(many[place : place + 100] + few[place : place + 100])
    assert len(users._windows) == 1
    assert users.since("many", START_MS).overall == Summary(10_000, 10_000, 1, 1)
    assert users.since("u-7", START_MS).overall == Summary(1, 1, 1, 1)
    users.sweep(START_MS + 10_000)
    assert users.rows == 0
    assert not users._windows


def test_who_has_more_takes_the_place_of_who_has_least() -> None:
    users = Users(MINUTE, 1000, part_rows=1, many_rows=3)
    for number, rows in enumerate((3, 10, 4, 50)):
        users.record([fact(f"u-{number}") for _ in range(rows)])
    for asked, who in ((0, 0), (1, 1), (2, 1), (3, 3), (1, 3)):
        assert users.since(f"u-{asked}", START_MS).overall.count == (3, 10, 4, 50)[asked]
        assert [user.name.rstrip(b"\0") for user in users._windows] == [f"u-{who}".encode()]


@pytest.mark.parametrize("forget", [Users.clear, lambda users: users.restart(MINUTE, START_MS)])
def test_what_is_forgotten_is_forgotten_at_once(forget: Callable[[Users], None]) -> None:
    users = Users(MINUTE, 1000)
    users.record([fact(f"u-{number}") for number in range(100)])
    forget(users)
    assert users.since("u-1", START_MS).overall == EMPTY
    assert users.rows == 0
    users.record([fact("u-1")])
    assert users.since("u-1", START_MS).overall.count == 1


def test_windows_are_bounded_however_many_currencies_there_are() -> None:
    rows_max = 3 * MINUTE.spans * SLOTS_PER_SPAN
    users = Users(MINUTE, rows_max, part_rows=16, many_rows=8)
    facts = [
        Transaction(1, START_MS + number, f"C{number % currencies}", f"u-{currencies}")
        for currencies in (2, 5, 1, 3)
        for number in range(200)
    ]
    for place, each in enumerate(facts):
        users.record([each])
        assert sum(map(len, users._windows.values())) <= 3
        if place % 50 == 49:
            told = users.since(str(each.user_id), START_MS)
            assert told.overall.count == place % 200 + 1
    for currencies in (2, 5, 1, 3):
        assert users.since(f"u-{currencies}", START_MS).overall.count == 200


def test_a_batch_fills_what_room_there_is_and_never_more() -> None:
    users = Users(MINUTE, 200, part_rows=16, many_rows=8)
    for number in range(20):
        facts = [fact(f"u-{number % 3}", START_MS + number) for _ in range(30)]
        Statistics(MINUTE, users).record([Row(0, each) for each in facts])
        assert users.rows <= 200
    assert users.rows == 200
    with pytest.raises(Missing):
        users.since("u-0", START_MS + 19)
    assert users.since("u-0", START_MS + 20).overall == EMPTY


def test_rows_older_than_anyone_asks_for_take_no_room() -> None:
    users = Users(MINUTE, 3)
    users.record([fact("a")])
    users.sweep(START_MS)
    Statistics(MINUTE, users).record([Row(0, fact("a", START_MS - 1)) for _ in range(10)])
    assert users.rows == 1
    assert users.since("a", START_MS).overall.count == 1


def test_nothing_is_held_where_nothing_may_be() -> None:
    users = Users(MINUTE, 0)
    Statistics(MINUTE, users).record([Row(0, fact("a"))])
    users.sweep(START_MS - 1)
    users.restart(MINUTE, START_MS - 1)
    Statistics(MINUTE, users).record([Row(0, fact("a"))])
    users.record([fact("a")])
    assert users.rows == 0
