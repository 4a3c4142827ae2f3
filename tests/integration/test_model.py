"""The real service against a plain list: whatever is done to it, it answers what the list would.

One random history after another over HTTP and a real database: transactions, batches, keys, deletions,
crashes, restarts, and a clock that goes forth and back.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from app import main
from app.ledger import upkeep
from app.ledger.users import Users
from app.settings import Late, Settings, Switch
from tests.support.thread import Clock, ServiceThread, serve

RUNS = int(os.environ.get("MILLRACE_MODEL_RUNS", "8"))
START_MS = 1_767_323_045_678
WINDOW_MS = 60_000
AHEAD_MS = 1000
STEP_BACK_MS_MAX = 1_800_000

Fields = dict[str, Any]
Fact = tuple[int, Decimal, str, str | None]
"""Time, amount, currency and user of a transaction that was accepted."""

amounts = st.decimals("0", "1000", places=2).map(str)
ages_ms = st.one_of(
    st.integers(0, 1000),
    st.integers(-AHEAD_MS, WINDOW_MS),
    st.sampled_from([0, -AHEAD_MS, -AHEAD_MS - 1, WINDOW_MS, WINDOW_MS + 1, 10 * WINDOW_MS]),
)
currencies = st.sampled_from(["EUR", "USD", "JPY"])
keys = st.one_of(st.none(), st.sampled_from("abc"))
users = st.sampled_from(["a", "ж", "a+b"])
facts = st.fixed_dictionaries(
    {"amount": amounts, "age_ms": ages_ms, "currency": currencies, "user_id": st.none() | users}
)


class Model:
    """What has been accepted, and what keys stand for."""

    def __init__(self, *, keeps_late: bool) -> None:
        self._keeps_late = keeps_late
        self.accepted: list[Fact] = []
        self.answers: dict[tuple[str, str], tuple[bytes, bytes]] = {}

    def verdict(self, timestamp_ms: int, now_ms: int) -> int:
        """The status of a transaction of that time."""
        if timestamp_ms < now_ms - WINDOW_MS:
            return 201 if self._keeps_late else 204
        return 422 if timestamp_ms > now_ms + AHEAD_MS else 201

    def figures(
        self, from_ms: int, currency: str | None = None, user_id: str | None = None
    ) -> tuple[int, Decimal, Decimal, Decimal]:
        found = [
            amount
            for timestamp_ms, amount, code, user in self.accepted
            if timestamp_ms >= from_ms and currency in (None, code) and user_id in (None, user)
        ]
        return (
            len(found),
            sum(found, Decimal(0)),
            *((min(found), max(found)) if found else (Decimal(0),) * 2),
        )


class Service(RuleBasedStateMachine):
    """A service in a thread, its model, and what may happen to them."""

    def __init__(self) -> None:
        super().__init__()
        self._resources = ExitStack()
        self._directory = Path(self._resources.enter_context(tempfile.TemporaryDirectory()))
        self._generation = 0

    @initialize(late=st.sampled_from(Late), lane=st.sampled_from(Switch))
    def begin(self, late: Late, lane: Switch) -> None:
        self._late, self._lane = late, lane
        # Few transactions are to be many: users change over to a Window, and are read back step by step.
        patch = self._resources.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(main, "Users", partial(Users, part_rows=4, many_rows=3))
        patch.setattr(upkeep, "_LOAD_ROWS_MAX", 3)
        patch.setattr(upkeep, "_SWEEP_SECONDS", 0.01)
        self.model = Model(keeps_late=late is Late.KEEP)
        self._now_ms = self._latest_ms = START_MS
        self._start()

    def teardown(self) -> None:
        self._resources.close()

    def _start(self) -> None:
        url = f"sqlite:///{self._directory / str(self._generation) / 'ledger.db'}"
        chosen = Settings(database_url=url, late=self._late, fast_lane=self._lane)
        self._running = ExitStack()
        self.service: ServiceThread = self._running.enter_context(serve(chosen, Clock(self._now_ms)))
        self._resources.push(self._running)

    def _ask(self, path: str, **more: Any) -> httpx.Response:  # noqa: ANN401 - what httpx takes
        return self.service.client.request("POST", path, **more)

    @rule(fact=facts, key=keys)
    def post(self, fact: Fields, key: str | None) -> None:
        timestamp_ms = self._now_ms - fact["age_ms"]
        body = self._body(fact, timestamp_ms)
        headers = {} if key is None else {"idempotency-key": key}
        answer = self._ask("/transactions", content=body, headers=headers)
        known = self.model.answers.get(("single", key)) if key else None
        if known is not None:
            self._assert_repeat(answer, known, body, 201)
            return
        status = self.model.verdict(timestamp_ms, self._now_ms)
        assert answer.status_code == status, answer.text
        if status == 201:
            self._accept(fact, timestamp_ms)
            if key:
                self.model.answers["single", key] = body, answer.content

    @rule(chosen=st.lists(st.tuples(facts, keys), max_size=8), key=keys, atomic=st.booleans())
    def post_batch(
        self, chosen: Sequence[tuple[Fields, str | None]], key: str | None, *, atomic: bool
    ) -> None:
        items = [
            {**json.loads(self._body(fact, self._now_ms - fact["age_ms"])), "idempotency_key": item_key}
            for fact, item_key in chosen
        ]
        body = json.dumps(items).encode()
        headers = {} if key is None else {"idempotency-key": key}
        query = "?atomic=true" if atomic else "?atomic=false"
        answer = self._ask(f"/transactions/batch{query}", content=body, headers=headers)
        known = self.model.answers.get(("batch", key)) if key else None
        if known is not None:
            self._assert_repeat(answer, known, query.encode() + body, 200)
            return
        verdicts = list(self._verdicts(chosen))
        rejected = verdicts.count("rejected")
        if atomic and rejected:
            assert answer.status_code == 422, answer.text
            return
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert {name: told[name] for name in ("accepted", "duplicate", "late", "rejected")} == {
            name: verdicts.count(name) for name in ("accepted", "duplicate", "late", "rejected")
        }
        for (fact, item_key), verdict in zip(chosen, verdicts, strict=True):
            if verdict == "accepted":
                self._accept(fact, self._now_ms - fact["age_ms"])
                if item_key:
                    self.model.answers["item", item_key] = self._content(fact), b""
        if key and "accepted" in verdicts:
            self.model.answers["batch", key] = query.encode() + body, answer.content

    def _verdicts(self, chosen: Sequence[tuple[Fields, str | None]]) -> Iterator[str]:
        mine: dict[str, bytes] = {}
        for fact, key in chosen:
            known = self.model.answers.get(("item", key), (mine.get(key), b""))[0] if key else None
            if known is not None:
                yield "duplicate" if known == self._content(fact) else "rejected"
                continue
            status = self.model.verdict(self._now_ms - fact["age_ms"], self._now_ms)
            if status == 201 and key:
                mine[key] = self._content(fact)
            yield {201: "accepted", 204: "late", 422: "rejected"}[status]

    @rule()
    def delete(self) -> None:
        assert self.service.client.delete("/transactions").status_code == 204
        self.model.accepted.clear()

    @rule(
        span_ms=st.one_of(st.none(), st.integers(1, WINDOW_MS)),
        currency=st.none() | currencies,
        user_id=st.none() | users,
    )
    def read(self, span_ms: int | None, currency: str | None, user_id: str | None) -> None:
        query = {} if span_ms is None else {"window": f"{span_ms}ms"}
        query |= {} if currency is None else {"currency": currency}
        query |= {} if user_id is None else {"user_id": user_id}
        answer = self._read(query)
        told = json.loads(answer.content, parse_float=Decimal)
        from_ms = self._now_ms - (span_ms or WINDOW_MS)
        expected = self.model.figures(from_ms, currency, user_id)
        assert (told["count"], told["sum"], told["min"], told["max"]) == expected
        for code, figures in told["by_currency"].items():
            expected = self.model.figures(from_ms, code, user_id)
            assert (figures["count"], figures["sum"], figures["min"], figures["max"]) == expected

    def _read(self, query: dict[str, str]) -> httpx.Response:
        for _ in range(5000):
            answer = self.service.client.get("/stats", params=query)
            # What users have is read back behind the start, and by and by.
            if answer.status_code == 200 or "user_id" not in query:
                return answer
            assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
        raise AssertionError("not read back")

    @invariant()
    def the_whole_window_is_that_of_the_list(self) -> None:
        self.read(None, None, None)

    @rule()
    def restart(self) -> None:
        self._running.close()
        self._start()

    @rule()
    def crash(self) -> None:
        """What a killed process leaves is its files as they are: the next one finds a copy of them."""
        old = self._directory / str(self._generation)
        self._generation += 1
        new = self._directory / str(self._generation)
        new.mkdir()
        for name in ("ledger.db", "ledger.db-wal"):
            shutil.copy(old / name, new / name)
        self._running.close()
        self._start()

    @rule(
        step_ms=st.one_of(
            st.integers(1, 5000),
            st.integers(WINDOW_MS, 10 * WINDOW_MS),
            st.integers(1, 120 * WINDOW_MS),
        )
    )
    def go_forth(self, step_ms: int) -> None:
        self._set_clock(self._now_ms + step_ms)

    @rule(step_ms=st.one_of(st.integers(1, 5000), st.integers(1, STEP_BACK_MS_MAX)))
    def go_back(self, step_ms: int) -> None:
        # Rows more than an hour ahead of the clock are not promised to be counted.
        self._set_clock(max(self._now_ms - step_ms, self._latest_ms - STEP_BACK_MS_MAX))

    @rule(place=st.integers(0, 1000), after_ms=st.integers(0, WINDOW_MS))
    def return_to_something_accepted(self, place: int, after_ms: int) -> None:
        if self.model.accepted:
            timestamp_ms, *_ = self.model.accepted[place % len(self.model.accepted)]
            now_ms = min(timestamp_ms + after_ms, self._latest_ms)
            self._set_clock(max(now_ms, self._latest_ms - STEP_BACK_MS_MAX))

    def _set_clock(self, now_ms: int) -> None:
        self._now_ms = self.service.clock.now_ms = now_ms
        self._latest_ms = max(self._latest_ms, now_ms)
        # After a step back it takes a moment, but it does become ready again by itself.
        for _ in range(5000):
            if self.service.client.get("/readyz").status_code == 200:
                return
        raise AssertionError("not ready again")

    def _accept(self, fact: Fields, timestamp_ms: int) -> None:
        amount, currency, user_id = Decimal(fact["amount"]), fact["currency"], fact["user_id"]
        self.model.accepted.append((timestamp_ms, amount, currency, user_id))

    def _body(self, fact: Fields, timestamp_ms: int) -> bytes:
        fields = {name: fact[name] for name in ("amount", "currency", "user_id")}
        return json.dumps({**fields, "timestamp": timestamp_ms}).encode()

    def _content(self, fact: Fields) -> bytes:
        """What an item says, however it is spelled."""
        timestamp_ms = self._now_ms - fact["age_ms"]
        amount = Decimal(fact["amount"]).normalize()
        return f"{amount} {timestamp_ms} {fact['currency']} {fact['user_id']}".encode()

    def _assert_repeat(
        self, answer: httpx.Response, known: tuple[bytes, bytes], body: bytes, status: int
    ) -> None:
        if known[0] == body:
            assert (answer.status_code, answer.content) == (status, known[1])
        else:
            assert answer.status_code == 409


TestModel = Service.TestCase
TestModel.settings = settings(
    max_examples=RUNS,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
