"""Rows posted into the feed as history, and the feed asked whether it has them all.

It is paged through by currency, and for those with the most rows by user; of what it holds besides,
nothing counts. For that the ids of all rows that were accepted are kept: some 100 bytes each.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from decimal import Decimal
from typing import Final
from urllib.parse import urlencode

import msgspec

from app.client.wire import Address, Answer, Client, LostAnswerError, NotConnectedError
from loadtest.rows import HistoryRow, Row
from loadtest.tally import (
    DIFFERENCES_SHOWN_MAX,
    Outcome,
    Running,
    Tally,
    Verdict,
    differences_between,
    exact_amount,
)

POST_PATH: Final = "/api/v1/transactions"
# Here a question needs no user.
_ALL_PATH: Final = "/transactions"
_USER_PATH: Final = POST_PATH
_PAGE_ROWS: Final = 100
_PAGE_SECONDS: Final = 10.0
_USERS_CHECKED: Final = 5

_WITNESS: Final = "the feed has"


class Item(msgspec.Struct, frozen=True, gc=False):
    """A transaction of the feed, as far as it is compared."""

    id: str
    user_id: str | None
    amount: Decimal
    currency: str
    timestamp: str

    @property
    def place(self) -> tuple[str, str]:
        """What the feed is sorted by."""
        return self.timestamp, self.id


class _Page(msgspec.Struct, frozen=True, gc=False):
    items: list[Item]
    next_cursor: str | None


_ITEM: Final = msgspec.json.Decoder(Item)
_PAGE: Final = msgspec.json.Decoder(_Page)


class FeedTally(Tally):
    """Every row that was sent, and what the feed should therefore have."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.by_code: dict[str, Running] = {}
        self.by_user: dict[str, dict[str, Running]] = {}
        self.oldest = self.newest = ""
        self.altered: list[str] = []
        """Answers of 201 that do not say what was posted."""

    def users(self) -> list[str]:
        """The users with the most rows, most first."""
        rows = {user: sum(each.count for each in codes.values()) for user, codes in self.by_user.items()}
        return sorted(rows, key=lambda user: (-rows[user], user))[:_USERS_CHECKED]

    @property
    def to_be_read(self) -> int:
        """How many rows a check finds where all is well."""
        by_user = (each.count for user in self.users() for each in self.by_user[user].values())
        return len(self.ids) + sum(by_user)

    def _accept(self, row: Row, timestamp_ms: int, answer: Answer) -> None:
        assert isinstance(row, HistoryRow)
        self._count(row, timestamp_ms)
        try:
            item = _ITEM.decode(answer.body)
        except ValueError as problem:
            self.altered.append(f"an answer of 201 is no transaction: {problem}")
            return
        user = str(row.user_id)
        is_same = item.amount == exact_amount(row.amount) and item.user_id == user
        # Without a currency of its own it has the service's.
        if not is_same or row.currency not in (b"", b"null", msgspec.json.encode(item.currency)):
            self.altered.append(f"posted {row.amount.decode()} of {user}, answered {item}")
        self.ids.add(item.id)
        self.oldest = min(self.oldest or item.timestamp, item.timestamp)
        self.newest = max(self.newest, item.timestamp)
        users = self.by_user.setdefault(user, {})
        for running in (
            self.by_code.setdefault(item.currency, Running()),
            users.setdefault(item.currency, Running()),
        ):
            running.add(item.amount)


async def find_feed(address: Address) -> None:
    """Look whether the service has a feed. Raises ValueError and the client's errors."""
    async with Client(address, answer_seconds=_PAGE_SECONDS) as client:
        _read_page(await client.get(f"{_ALL_PATH}?limit=1"))


async def check_feed(address: Address, tally: FeedTally, advance: Callable[[], object]) -> Verdict:
    """Page through the feed and compare; `advance` is called for every row of ours that is found."""
    differences = tally.altered[:]
    span = {"start_date": tally.oldest, "end_date": tally.newest}
    users = tally.users()
    try:
        async with Client(address, answer_seconds=_PAGE_SECONDS) as client:
            feed = _Feed(client, tally.ids, advance)
            for code, expected in sorted(tally.by_code.items()):
                query = {"currency": code, **span}
                differences += await feed.differences(_ALL_PATH, query, code, {code: expected})
            for user in users:
                query = {"user_id": user, **span}
                differences += await feed.differences(_USER_PATH, query, user, tally.by_user[user])
    except (NotConnectedError, LostAnswerError, ValueError) as problem:
        return Verdict(Outcome.FAILED, (str(problem),))
    if differences:
        return Verdict(Outcome.DISAGREE, tuple(differences[:DIFFERENCES_SHOWN_MAX]))
    codes = ", ".join(sorted(tally.by_code)) or "no currency"
    return Verdict(Outcome.AGREE, (f"all rows, by currency ({codes}) and of {len(users)} users",))


class _Feed:
    """The feed, read page by page."""

    def __init__(self, client: Client, ids: set[str], advance: Callable[[], object]) -> None:
        self._client = client
        self._ids = ids
        self._advance = advance

    async def differences(
        self, path: str, query: dict[str, str], where: str, expected: dict[str, Running]
    ) -> list[str]:
        """In what the answer to a question is not what was accepted, in words."""
        found: dict[str, Running] = {}
        differences: list[str] = []
        last: tuple[str, str] | None = None
        async with aclosing(self._items(path, query)) as items:
            async for item in items:
                if last is not None and item.place >= last:
                    differences.append(f"{where}: {item.id} stands behind {last[1]}, which is older")
                last = item.place
                if item.id in self._ids:
                    found.setdefault(item.currency, Running()).add(item.amount)
                    self._advance()
        nothing = Running().figures()
        for code in sorted(expected.keys() | found.keys()):
            wanted = expected[code].figures() if code in expected else nothing
            had = found[code].figures() if code in found else nothing
            name = where if where == code else f"{where} {code}"
            differences += differences_between(name, wanted, had, _WITNESS)
        return differences

    async def _items(self, path: str, query: dict[str, str]) -> AsyncGenerator[Item, None]:
        query = {**query, "limit": str(_PAGE_ROWS)}
        while True:
            page = _read_page(await self._client.get(f"{path}?{urlencode(query)}"))
            for item in page.items:
                yield item
            if page.next_cursor is None:
                return
            query["cursor"] = page.next_cursor


def _read_page(answer: Answer) -> _Page:
    """Decode a page of the feed; ValueError says in words why it is none."""
    if answer.status != 200:
        raise ValueError(
            f"the feed answered {answer.status}: {answer.body[:200].decode(errors='replace')}"
        )
    try:
        return _PAGE.decode(answer.body)
    except (ValueError, RecursionError) as problem:
        raise ValueError(f"the feed answered something else than a page: {problem}") from None
