"""History: who sees what, and that nobody's questions crowd out the rest."""

import asyncio

import pytest

from app.core.question import Page, Portion, Question
from app.core.transaction import Row, Transaction
from app.ledger import history as history_module
from app.ledger.commit import Verdict
from app.ledger.history import History, NotTheirs, Unreadable, Viewer
from app.store.base import MemoryStore, StoreFailed, StoreRefused

ANYONE = Viewer(None, sees_all=True)
ALICE = Viewer("alice", sees_all=False)
AUDITOR = Viewer("eve", sees_all=True)
FIRST = Portion(10)


def row(number: int, user_id: str | None) -> Row:
    return Row(number, Transaction(1, number, "EUR", user_id))


ROWS = [row(1, "alice"), row(2, "bob"), row(3, None)]


class SlowStore(MemoryStore):
    """Answers questions when it is let to, and notes how many it is asked at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.asked = self.asked_max = 0
        self.trouble: Exception | None = None

    async def get(self, identifier: int) -> Row | None:
        if self.trouble:
            raise self.trouble
        return await super().get(identifier)

    async def page(self, question: Question, portion: Portion) -> Page:
        self.asked += 1
        self.asked_max = max(self.asked, self.asked_max)
        try:
            await self.gate.wait()
            if self.trouble:
                raise self.trouble
            return await super().page(question, portion)
        finally:
            self.asked -= 1


@pytest.mark.parametrize(
    ("viewer", "seen"),
    [(ANYONE, {1, 2, 3}), (ALICE, {1}), (AUDITOR, {1, 2, 3}), (Viewer("carol", sees_all=False), set())],
)
def test_a_viewer_gets_what_they_see(viewer: Viewer, seen: set[int]) -> None:
    async def main() -> None:
        store = MemoryStore()
        await store.append(ROWS)
        history = History(store)
        found = [await history.get(viewer, number) for number in range(5)]
        assert {each.id for each in found if each} == seen

    asyncio.run(main())


@pytest.mark.parametrize(
    ("viewer", "user_id", "asked"),
    [
        (ANYONE, None, None),
        (ANYONE, "bob", "bob"),
        (ALICE, None, "alice"),
        (ALICE, "alice", "alice"),
        (AUDITOR, None, "eve"),
        (AUDITOR, "bob", "bob"),
    ],
)
def test_a_question_is_about_its_viewer_unless_it_may_say_otherwise(
    viewer: Viewer, user_id: str | None, asked: str | None
) -> None:
    question = Question(user_id=user_id, currency="EUR")
    narrowed = History(MemoryStore()).narrow(viewer, question)
    assert narrowed == Question(user_id=asked, currency="EUR")


def test_a_question_about_another_is_not_even_looked_up() -> None:
    async def main() -> None:
        store = SlowStore()
        store.gate.set()
        history = History(store)
        for user_id in ("bob", "Alice", "alice "):
            with pytest.raises(NotTheirs):
                await history.find(ALICE, Question(user_id=user_id), FIRST)
        assert store.asked_max == 0
        assert (await history.find(ALICE, Question(), FIRST)).rows == []

    asyncio.run(main())


def test_few_questions_are_looked_up_at_a_time_and_not_too_many_wait() -> None:
    async def main() -> None:
        store = SlowStore()
        await store.append(ROWS)
        history = History(store)
        waiting = [asyncio.create_task(history.find(ANYONE, Question(), FIRST)) for _ in range(256)]
        await asyncio.sleep(0)
        one_more = asyncio.create_task(history.find(ANYONE, Question(), FIRST))
        await asyncio.sleep(0)
        assert one_more.done()
        with pytest.raises(Unreadable) as refused:
            one_more.result()
        assert refused.value.verdict is Verdict.UNREADY
        # A single row does not wait for them.
        assert await history.get(ANYONE, 1) == ROWS[0]
        store.gate.set()
        assert {len(page.rows) for page in await asyncio.gather(*waiting)} == {3}
        assert store.asked_max == 4
        assert len((await history.find(ANYONE, Question(), FIRST)).rows) == 3

    asyncio.run(main())


def test_nobody_waits_for_long_behind_slow_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "_WAITING_SECONDS_MAX", 0.01)

    async def main() -> None:
        store = SlowStore()
        await store.append(ROWS)
        history = History(store)
        slow = [asyncio.create_task(history.find(ANYONE, Question(), FIRST)) for _ in range(4)]
        await asyncio.sleep(0)
        with pytest.raises(Unreadable) as refused:
            await history.find(ANYONE, Question(), FIRST)
        assert refused.value.verdict is Verdict.UNREADY
        # Those that are looked up have the time they need, and leave their place to others.
        store.gate.set()
        assert {len(page.rows) for page in await asyncio.gather(*slow)} == {3}
        assert len((await history.find(ANYONE, Question(), FIRST)).rows) == 3
        assert store.asked_max == 4

    asyncio.run(main())


@pytest.mark.parametrize(
    ("trouble", "verdict"),
    [(StoreRefused("locked"), Verdict.REFUSED), (StoreFailed("broken"), Verdict.FAILED)],
)
def test_what_the_store_cannot_read_is_said_and_takes_no_place(
    trouble: Exception, verdict: Verdict
) -> None:
    async def main() -> None:
        store = SlowStore()
        store.gate.set()
        store.trouble = trouble
        history = History(store)
        for _ in range(300):
            with pytest.raises(Unreadable) as refused:
                await history.find(ANYONE, Question(), FIRST)
            assert refused.value.verdict is verdict
        with pytest.raises(Unreadable) as refused:
            await history.get(ANYONE, 1)
        assert refused.value.verdict is verdict
        store.trouble = None
        assert (await history.find(ANYONE, Question(), FIRST)).rows == []

    asyncio.run(main())
