"""Puts transactions into the window through the public door, and knows what the statistics must say."""

import random
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Final, NamedTuple

import msgspec

from loadtest.report.plan import CURRENCIES
from loadtest.report.wire import (
    Address,
    Connection,
    UnexpectedAnswerError,
    expect,
    get_request,
    post_request,
    status,
)

# Some hundred kilobytes, and a few milliseconds of the service's time.
BATCH_ROWS: Final = 2500
_PIPELINED: Final = 64
_CENTS_MAX: Final = 10**7

_BATCH_PATH: Final = "/transactions/batch"
_ITEMS: Final = tuple(
    b'{"amount":%%d.%%02d,"currency":"%b","timestamp":%%d}' % currency.encode()
    for currency in CURRENCIES
)


class Answered(msgspec.Struct):
    """What of `GET /stats` is checked."""

    count: int
    sum: Decimal


class Batched(msgspec.Struct):
    """What of a batch's answer is checked."""

    accepted: int


class Span(NamedTuple):
    """Timestamps to spread the transactions over, in epoch milliseconds."""

    from_ms: int
    to_ms: int


_ANSWERED: Final = msgspec.json.Decoder(Answered)
_BATCHED: Final = msgspec.json.Decoder(Batched)


class Sent:
    """The exact count and sum of everything that was sent and accepted."""

    def __init__(self, choose: random.Random) -> None:
        self.count = 0
        self._cents = 0
        self._choose = choose

    def items(self, rows: int, span: Span) -> list[bytes]:
        """JSON objects of so many transactions, every currency in its turn."""
        cents = self._choose.choices(range(_CENTS_MAX), k=rows)
        times = self._choose.choices(range(span.from_ms, span.to_ms), k=rows)
        first = self.count
        self.count += rows
        self._cents += sum(cents)
        return [
            _ITEMS[number % len(_ITEMS)] % (amount // 100, amount % 100, timestamp_ms)
            for number, amount, timestamp_ms in zip(
                range(first, first + rows), cents, times, strict=True
            )
        ]

    def post_of_now(self) -> bytes:
        """The request that posts one more transaction, of this moment."""
        now_ms = time.time_ns() // 1_000_000
        return post_request("/transactions", self.items(1, Span(now_ms, now_ms + 1))[0])

    def check(self, connection: Connection) -> None:
        """Hold the statistics against it. Raises UnexpectedAnswerError."""
        found = _ANSWERED.decode(expect(connection.exchange(get_request("/stats")), 200))
        if (found.count, found.sum) != (self.count, Decimal(self._cents) / 100):
            raise UnexpectedAnswerError(
                f"sent {self.count} transactions of {Decimal(self._cents) / 100} together, "
                f"the statistics say {found.count} of {found.sum}"
            )


def has_batches(address: Address) -> bool:
    """Whether the service takes batches."""
    with Connection(address) as connection:
        return status(connection.exchange(post_request(_BATCH_PATH, b"[]"))) not in (404, 405)


def fill(
    address: Address,
    sent: Sent,
    rows: int,
    span: Span,
    batched: bool,
    advance: Callable[[int], object],
) -> None:
    """Post so many transactions; all of them are counted when this returns."""
    if batched:
        _fill_batched(address, sent, rows, span, advance)
    else:
        _fill_singly(address, sent, rows, span, advance)


def _fill_batched(
    address: Address, sent: Sent, rows: int, span: Span, advance: Callable[[int], object]
) -> None:
    # Two connections in turn: one batch is made while the service is busy with the other.
    with Connection(address) as one, Connection(address) as other:
        waiting: list[tuple[Connection, int]] = []
        left = rows
        while left or waiting:
            if left:
                size = min(left, BATCH_ROWS)
                left -= size
                items = b",".join(sent.items(size, span))
                one.send(post_request(_BATCH_PATH, b"[%b]" % items))
                waiting.append((one, size))
                one, other = other, one
            if len(waiting) > 1 or not left:
                connection, size = waiting.pop(0)
                accepted = _BATCHED.decode(expect(connection.receive(), 200)).accepted
                if accepted != size:
                    raise UnexpectedAnswerError(f"of a batch of {size}, {accepted} were accepted")
                advance(size)


def _fill_singly(
    address: Address, sent: Sent, rows: int, span: Span, advance: Callable[[int], object]
) -> None:
    with Connection(address) as connection:
        for begin in range(0, rows, _PIPELINED):
            size = min(rows - begin, _PIPELINED)
            items = sent.items(size, span)
            connection.send(b"".join(post_request("/transactions", item) for item in items))
            for _ in range(size):
                expect(connection.receive(), 201)
            advance(size)
