"""What nodes tell, put together: each node is a Cluster of its own, and a test carries the bulletins."""

import math
from collections.abc import Sequence

import msgspec
import pytest

from app.core.bulletin import Bulletin, Slots, Unreadable
from app.core.summary import Summary
from app.core.window import Part, Shape
from app.ledger.cluster import SKEW_MS_MAX, Cluster
from app.ledger.peer import SILENT_MS_MAX, Source
from app.ledger.statistics import Freshness, Statistics
from app.ledger.users import Users

SHAPE = Shape.covering(60_000, 1000)
NOW_MS = 1_767_323_045_678
A_STORE, B_STORE = b"a-store-", b"b-store-"
WIDTH_MS = 2.0
# What is said to be known is earlier by what both measurements of a clock leave open.
DOUBT_MS = 2 * (math.ceil(WIDTH_MS / 2) + 2)


class Node:
    """A cluster with its total, whose clock has been measured."""

    def __init__(
        self, name: str, store: bytes, *, ahead_ms: float = 0.0, is_alone: bool = False
    ) -> None:
        self.statistics = Statistics(SHAPE, Users(SHAPE, 0))
        self.epochs: list[int] = []
        me = Source(name, store)
        self.cluster = Cluster(me, SHAPE, self.statistics, self._learn, is_alone=is_alone)
        self.cluster.restart(SHAPE, 0, {})
        self.ahead_ms = ahead_ms
        self.cluster.note_clock(ahead_ms, WIDTH_MS, self.now_ms())

    def now_ms(self, after_ms: int = 0) -> int:
        return NOW_MS + after_ms + round(self.ahead_ms)

    def _learn(self, epoch: int) -> None:
        self.epochs.append(epoch)
        self.cluster.begin_epoch(epoch)

    def count(self, *parts: Part, currency: str = "EUR") -> None:
        self.statistics.add({currency: parts})
        self.cluster.count({currency: parts})

    def tell(self, after_ms: int = 0, slots_max: int = 1000, *, is_last: bool = False) -> Bulletin:
        telling = self.cluster.bulletin(self.now_ms(after_ms), slots_max)
        self.cluster.note_told(telling)
        return (telling.as_last() if is_last else telling).bulletin

    def hear(self, *bulletins: Bulletin, after_ms: int = 0) -> None:
        for bulletin in bulletins:
            self.cluster.hear(Bulletin.decode(bulletin.encode()), self.now_ms(after_ms))
        self.cluster.abreast_ms = self.now_ms(after_ms)

    def freshness(self, after_ms: int = 0, *, is_cut_off: bool = False) -> Freshness:
        return self.cluster.freshness(self.now_ms(after_ms), is_cut_off=is_cut_off)

    def counted(self) -> int:
        return self.overall().count

    def overall(self) -> Summary:
        return self.statistics.windows.since(NOW_MS - SHAPE.window_ms).overall


def one(units: int, ago_ms: int = 0) -> Part:
    return (NOW_MS - ago_ms, 1, units, units, units)


def nodes() -> tuple[Node, Node]:
    return Node("a", A_STORE), Node("b", B_STORE)


def sharing() -> tuple[Node, Node]:
    return Node("a", A_STORE), Node("b", A_STORE)


def test_what_one_counts_the_other_counts_however_often_and_late_it_is_told() -> None:
    a, b = nodes()
    a.count(one(5), one(-3, 10))
    first = a.tell()
    a.count(one(9))
    second = a.tell()
    b.hear(second, first, second, first)
    assert b.overall() == a.overall() == Summary(3, 11, -3, 9)


def test_a_node_does_not_hear_itself() -> None:
    a, _ = nodes()
    a.count(one(5))
    a.hear(a.tell())
    assert a.counted() == 1


def test_the_same_name_over_another_store_is_another_node() -> None:
    a, again = Node("a", A_STORE), Node("a", B_STORE)
    a.count(one(5))
    again.count(one(5))
    again.hear(a.tell())
    assert again.counted() == 2


def test_what_was_not_told_is_told_again() -> None:
    a, b = nodes()
    a.count(one(5))
    a.cluster.note_untold(a.cluster.bulletin(a.now_ms(), 1000))
    a.count(one(7))
    b.hear(a.tell())
    assert b.overall() == Summary(2, 12, 5, 7)


def test_after_a_failure_nothing_is_said_to_be_known_until_it_is_clear_what_was_lost() -> None:
    a, b = nodes()
    b.hear(a.tell())
    assert b.freshness().complete_ms == NOW_MS - DOUBT_MS
    a.cluster.note_untold(a.cluster.bulletin(a.now_ms(), 1000))
    b.hear(a.tell(40), after_ms=40)
    assert b.freshness(40).complete_ms == NOW_MS + 40 - SHAPE.window_ms
    b.hear(a.tell(80), after_ms=80)
    assert b.freshness(80).complete_ms == NOW_MS + 80 - DOUBT_MS


def test_what_is_to_be_told_once_more_is_not_known_when_what_was_under_way_is_told() -> None:
    a, b = nodes()
    a.count(one(1), one(2, 1))
    under_way = a.cluster.bulletin(a.now_ms(), 1000)
    a.cluster.tell_all()
    a.cluster.note_told(under_way)
    b.hear(under_way.bulletin, a.tell(40, slots_max=1), after_ms=40)
    assert b.freshness(40).complete_ms == NOW_MS + 40 - SHAPE.window_ms


def test_what_is_told_once_more_is_not_known_until_it_is_told() -> None:
    a, b = nodes()
    a.count(one(1), one(2, 1), one(3, 2))
    a.tell()
    a.cluster.tell_all()
    b.hear(a.tell(40, slots_max=2), after_ms=40)
    assert b.freshness(40).complete_ms == NOW_MS + 40 - SHAPE.window_ms
    b.hear(a.tell(80, slots_max=2), after_ms=80)
    assert b.freshness(80).complete_ms == NOW_MS + 40 - DOUBT_MS
    assert b.counted() == 3


@pytest.mark.parametrize(("ahead_a", "ahead_b"), [(0, 0), (400, 0), (0, 400), (-250, 150)])
def test_clocks_that_differ_do_not_change_what_is_known(ahead_a: int, ahead_b: int) -> None:
    a, b = Node("a", A_STORE, ahead_ms=ahead_a), Node("b", B_STORE, ahead_ms=ahead_b)
    b.hear(a.tell(), after_ms=5)
    assert b.freshness(5).complete_ms == b.now_ms() - DOUBT_MS


def test_a_clock_that_was_never_measured_says_nothing() -> None:
    a, b = nodes()
    bare = Cluster(a.cluster.me, SHAPE, a.statistics, a.cluster.begin_epoch)
    bare.restart(SHAPE, 0, {})
    b.hear(bare.bulletin(NOW_MS + 3_600_000, 1000).bulletin)
    assert b.freshness().complete_ms == NOW_MS - SHAPE.window_ms


def test_what_is_known_is_never_of_the_future() -> None:
    a, b = nodes()
    ahead = msgspec.structs.replace(a.tell(), told_ms=NOW_MS + 10**9, complete_ms=NOW_MS + 10**9)
    b.hear(ahead)
    assert b.freshness().complete_ms == NOW_MS
    assert b.freshness(SILENT_MS_MAX + 1).is_degraded


def test_whoever_came_since_all_was_heard_is_not_known_of() -> None:
    a, b = nodes()
    b.hear(a.tell())
    b.cluster.abreast_ms = NOW_MS - 70
    assert b.freshness().complete_ms == NOW_MS - 70


@pytest.mark.parametrize("by_ms", [-5000, 5000])
def test_a_clock_that_is_set_says_nothing_of_before(by_ms: int) -> None:
    a, b = nodes()
    b.hear(a.tell())
    b.ahead_ms = by_ms
    b.cluster.note_clock(by_ms, WIDTH_MS, b.now_ms(40))
    assert b.freshness(40).complete_ms == b.now_ms(40) - SHAPE.window_ms
    assert not b.cluster.vanished(b.now_ms(40))
    b.hear(a.tell(40), after_ms=45)
    assert b.freshness(45).complete_ms == b.now_ms(40) - DOUBT_MS


def test_a_clock_that_drifts_is_not_one_that_was_set() -> None:
    a, b = nodes()
    b.hear(a.tell())
    for step in range(200):
        b.cluster.note_clock(step * 0.02, WIDTH_MS + step % 7, NOW_MS)
    assert b.freshness().complete_ms == NOW_MS - DOUBT_MS


def test_a_skewed_clock_is_found_and_what_it_missed_is_to_be_heard_again() -> None:
    a, b = nodes()
    a.count(one(5))
    b.hear(a.tell())
    b.ahead_ms = -2000 - SHAPE.ahead_ms
    assert not b.cluster.note_clock(b.ahead_ms, WIDTH_MS, b.now_ms())
    assert b.cluster.is_skewed
    assert b.freshness().is_degraded
    assert b.tell().complete_ms == 0
    a.count(one(7, -100))
    missed = a.tell()
    b.hear(missed)
    assert b.counted() == 1
    b.ahead_ms = 0.0
    assert b.cluster.note_clock(0.0, WIDTH_MS, b.now_ms())
    b.hear(missed)
    assert b.counted() == 2
    # And what this node told meanwhile was perhaps not believed.
    assert not b.cluster.note_clock(SKEW_MS_MAX / 2, WIDTH_MS, b.now_ms())


def test_a_node_whose_clock_differs_from_the_exchanges_alone_is_not_outvoted() -> None:
    """Or nobody would be ready where the exchange's clock is wrong and one node is left."""
    a, b = Node("a", A_STORE), Node("b", B_STORE, ahead_ms=3 * SKEW_MS_MAX)
    assert (b.cluster.is_skewed, b.cluster.is_outvoted) == (True, False)
    b.hear(a.tell())
    assert (b.cluster.is_skewed, b.cluster.is_outvoted) == (True, True)


def test_a_copy_of_the_store_of_a_node_that_has_it_alone_is_not_taken_for_the_node_itself() -> None:
    a, former = Node("a", A_STORE, is_alone=True), Node("former", A_STORE, is_alone=True)
    copy = Node("copy", A_STORE, is_alone=True, ahead_ms=SKEW_MS_MAX)
    last = former.tell()
    a.tell(100)
    a.hear(last, copy.tell(SILENT_MS_MAX), a.tell(2 * SILENT_MS_MAX))
    with pytest.raises(Unreadable, match="'copy' has a copy"):
        a.hear(copy.tell(SILENT_MS_MAX + 200))


def test_a_deletion_that_another_has_begun_is_learned_and_old_tellings_do_not_come_back() -> None:
    a, b = sharing()
    a.count(one(5))
    b.count(one(6))
    old = a.tell()
    b.hear(old)
    assert b.counted() == 2
    a.cluster.begin_epoch(1)
    a.count(one(7))
    b.hear(a.tell(), old)
    assert b.epochs == [1]
    assert b.overall() == a.overall() == Summary.of(7)


def test_a_deletion_in_another_store_leaves_what_is_in_this_one() -> None:
    a, b = nodes()
    a.count(one(5))
    b.count(one(6))
    b.hear(a.tell())
    a.cluster.begin_epoch(1)
    b.hear(a.tell())
    assert b.epochs == []
    assert b.overall() == Summary.of(6)


def test_an_earlier_epoch_than_the_known_one_is_never_begun() -> None:
    a, b = sharing()
    a.cluster.begin_epoch(2)
    a.count(one(5))
    b.hear(a.tell())
    # Its own deletion comes back late.
    b.cluster.begin_epoch(1)
    assert b.counted() == 1


def test_what_was_taken_to_be_told_is_not_put_back_into_a_later_epoch() -> None:
    a, b = sharing()
    a.count(one(5))
    telling = a.cluster.bulletin(a.now_ms(), 1000)
    a.cluster.begin_epoch(1)
    a.cluster.note_untold(telling)
    assert not a.cluster.bulletin(a.now_ms(), 1000).taken
    b.hear(a.tell())
    assert b.counted() == 0


def test_a_node_that_starts_late_takes_the_others_from_the_store_and_counts_nothing_twice() -> None:
    a, late = sharing()
    a.count(one(5), one(6, 1))
    first = a.tell()
    kept = {"a": {"EUR": [one(5), one(6, 1)]}, "b": {"EUR": [one(1)]}, None: {"EUR": [one(2)]}}
    late.cluster.restart(SHAPE, 0, kept)
    assert late.counted() == 4
    late.hear(first)
    a.count(one(7))
    late.hear(a.tell())
    assert late.counted() == 5
    other = Node("c", B_STORE)
    other.hear(late.tell(), a.tell())
    assert other.overall().count == 2


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_window_that_is_read_back_leaves_what_others_told_unless_it_is_deleted(epoch: int) -> None:
    a, b = nodes()
    c = Node("c", B_STORE)
    a.count(one(5))
    b.count(one(6))
    c.count(one(7), one(8, 1))
    b.hear(a.tell(), c.tell())
    # Of another shape, as the clock was set back, and with more than was told of one.
    shape = Shape.covering(SHAPE.window_ms, 30_000)
    b.cluster.restart(
        shape, epoch, {"b": {"EUR": [one(6)]}, "c": {"EUR": [one(7), one(8, 1), one(9, 2)]}}
    )
    assert b.overall() == Summary(5, 35, 5, 9)
    assert b.freshness().complete_ms == NOW_MS - SHAPE.window_ms
    b.cluster.restart(shape, epoch + 1, {"b": {"EUR": [one(6)]}})
    assert b.overall() == Summary(2, 11, 5, 6)


def test_a_node_that_vanished_is_asked_of_its_store_again_and_again() -> None:
    a, b = sharing()
    a.count(one(5))
    b.hear(a.tell())
    silent_ms = SILENT_MS_MAX + 1
    b.cluster.abreast_ms = NOW_MS + silent_ms
    assert b.cluster.vanished(NOW_MS + SILENT_MS_MAX - 10) == []
    assert b.cluster.vanished(NOW_MS + silent_ms) == ["a"]
    assert b.freshness(silent_ms).is_degraded
    asked_ms = NOW_MS + silent_ms
    assert b.cluster.adopt("a", 0, {"EUR": [one(5), one(6, 1)]}, asked_ms)
    assert b.counted() == 2
    assert b.freshness(silent_ms) == Freshness(1, asked_ms, False)
    assert b.cluster.vanished(asked_ms) == []
    # It may be cut off from the exchange alone, and count on.
    again_ms = asked_ms + SILENT_MS_MAX + 1
    assert b.cluster.vanished(again_ms) == ["a"]
    assert b.freshness(again_ms - NOW_MS).complete_ms == asked_ms
    assert not b.cluster.adopt("a", 0, {"EUR": [one(5), one(6, 1), one(7, 2)]}, again_ms)
    assert b.counted() == 3
    b.hear(a.tell(9000), after_ms=9000)
    assert b.freshness(9000).nodes == 2


def test_a_store_that_tells_of_a_later_epoch_is_believed_and_of_an_earlier_one_not() -> None:
    a, b = sharing()
    a.count(one(5))
    b.count(one(6))
    b.hear(a.tell())
    assert b.cluster.adopt("a", 1, {"EUR": [one(7)]}, NOW_MS)
    assert b.epochs == [1]
    assert b.overall() == Summary.of(7)
    assert not b.cluster.adopt("a", 0, {"EUR": [one(5)]}, NOW_MS)
    assert b.overall() == Summary.of(7)


def test_who_took_leave_is_neither_missed_nor_forgotten_at_once() -> None:
    a, b = nodes()
    a.count(one(5))
    b.hear(a.tell(), a.tell(is_last=True))
    b.cluster.abreast_ms = NOW_MS + 10_000
    assert b.freshness(10_000) == Freshness(1, NOW_MS + 10_000, False)
    assert b.counted() == 1


@pytest.mark.parametrize("goes_on", [True, False])
def test_who_was_forgotten_and_is_heard_again_is_counted_once(goes_on: bool) -> None:
    a, b = nodes()
    a.count(one(5))
    b.hear(a.tell())
    far_ms = 200_000
    if goes_on:
        # The ring of the total moves past what is forgotten.
        b.count((NOW_MS + far_ms, 1, 6, 6, 6))
    version = b.statistics.version
    b.cluster.forget(NOW_MS + far_ms)
    assert b.freshness(far_ms).nodes == 1
    # Nothing needs to be counted anew for it, where it is in no ring any more.
    assert (b.statistics.version == version) == goes_on
    a.cluster.tell_all()
    b.hear(a.tell())
    assert b.counted() == 1


def test_a_thousand_nodes_that_come_and_go_leave_nothing_behind() -> None:
    b = Node("b", B_STORE)
    for number in range(1000):
        short = Node(f"n{number}", number.to_bytes(8))
        b.hear(short.tell(number * 1000), after_ms=number * 1000)
        b.cluster.forget(b.now_ms(number * 1000))
        assert len(b.cluster._peers) < 100
        assert len(b.cluster._epochs) < 100


def test_what_lies_too_far_ahead_is_put_by_and_the_rest_is_counted() -> None:
    a, b = nodes()
    a.count(
        one(5), one(6, -SHAPE.ahead_ms - 2 * SKEW_MS_MAX), one(7, -SHAPE.ahead_ms - 2 * SKEW_MS_MAX - 1)
    )
    b.hear(a.tell())
    assert b.counted() == 2
    b.cluster.hear_early(NOW_MS)
    assert b.counted() == 2
    b.hear(a.tell(1), after_ms=1)
    b.cluster.hear_early(NOW_MS + 1)
    assert b.overall() == a.overall() == Summary(3, 18, 5, 7)


def test_what_was_too_early_and_is_deleted_does_not_come_back() -> None:
    a, b = sharing()
    a.count(one(5, -9000))
    b.hear(a.tell())
    b.cluster.begin_epoch(1)
    b.cluster.hear_early(NOW_MS + 9000)
    assert b.counted() == 0


@pytest.mark.parametrize(
    "slots",
    [
        [Slots("EUR", [NOW_MS, 7], []), Slots("EUR", [NOW_MS, 8], [])],
        [Slots("EUR", [NOW_MS, 7], [NOW_MS, 2, 0, 10, 4, 6])],
        [Slots("EUR", [NOW_MS, 7, 0, 8], [])],
        [Slots("USD", [NOW_MS, 7], []), Slots("EUR", [NOW_MS, 7, 1], [])],
    ],
)
def test_a_bulletin_that_is_wrong_is_not_taken_in_at_all(slots: Sequence[Slots]) -> None:
    a, b = nodes()
    with pytest.raises(Unreadable):
        b.hear(msgspec.structs.replace(a.tell(), slots=slots, epoch=7))
    assert b.counted() == 0
    assert b.freshness().nodes == 1


def test_a_node_with_another_window_is_not_read_and_that_is_said() -> None:
    a, b = nodes()
    with pytest.raises(Unreadable):
        b.hear(msgspec.structs.replace(a.tell(), window_ms=30_000))
    b.cluster.note_unreadable(NOW_MS)
    assert b.freshness().is_degraded
    assert not b.freshness(SILENT_MS_MAX + 1).is_degraded


def test_who_is_alone_with_a_store_is_the_same_under_another_name() -> None:
    a, b = Node("a", A_STORE), Node("b", B_STORE, is_alone=True)
    b.count((NOW_MS, 2, 30, 10, 20))
    a.hear(b.tell())
    renamed = Node("c", B_STORE, is_alone=True)
    renamed.count((NOW_MS, 3, 60, 10, 30))
    a.hear(renamed.tell())
    assert a.counted() == 3
    assert [each.node for each in a.cluster.conditions(NOW_MS)] == ["c"]
    renamed.hear(b.tell())
    assert renamed.counted() == 3
