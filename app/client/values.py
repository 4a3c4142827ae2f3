"""What goes to the service and what comes back: exact decimals, never binary floats."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final, TypeVar

import msgspec

Value = TypeVar("Value")


class Transaction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A transaction to be posted. `timestamp` is a datetime with its offset, or epoch milliseconds."""

    amount: Decimal
    timestamp: datetime | int
    currency: str | None = None
    user_id: str | None = None
    idempotency_key: str | None = None
    """Of an item of a batch: whoever sends it again in whatever batch does nothing."""


class Posted(msgspec.Struct, frozen=True):
    """What became of a transaction."""

    id: str | None = None
    """Under which it is kept for good; None where it was older than the window, and is not kept."""
    counted: bool = True
    """Whether it is in the statistics."""


LATE: Final = Posted(None, counted=False)
NOT_ITS_ANSWER: Final = "the answer is not that of the service"


class FieldProblem(msgspec.Struct, frozen=True):
    """What is wrong with a field, named by a JSON pointer."""

    pointer: str
    detail: str


class ItemProblem(msgspec.Struct, frozen=True):
    """Why the item at `index` of a batch is not kept."""

    index: int
    code: str
    detail: str
    field: str | None = None


class BatchPosted(msgspec.Struct, frozen=True):
    """What became of a batch. Each item is one of the four; `ids` has None where nothing is kept."""

    accepted: int
    duplicate: int
    late: int
    rejected: int
    errors: Sequence[ItemProblem] = ()
    ids: Sequence[str | None] = ()


class Figures(msgspec.Struct, frozen=True):
    """Exact statistics over some transactions; zeros over none."""

    sum: Decimal
    avg: Decimal
    max: Decimal
    min: Decimal
    count: int


class Statistics(Figures, frozen=True, kw_only=True):
    """Those over a window. The last three are told by one node of several."""

    window_seconds: Decimal
    resolution_ms: int
    as_of: datetime
    by_currency: dict[str, Figures]
    nodes: int | None = None
    max_lag_ms: int | None = None
    degraded: bool | None = None


class ClientError(Exception):
    """Something did not come about; the message is one line."""


class NotSent(ClientError):
    """The service could not be reached: nothing was kept."""


class FateUnknown(ClientError):
    """It was sent, and nobody said what became of it: it may have been kept.

    To send it again under its idempotency key is safe; without one, nobody does.
    """


class Refused(ClientError):
    """The service said no, with a stable `code` ("" where it was not the service that did)."""

    def __init__(self, status: int, code: str, detail: str, errors: Sequence[FieldProblem] = ()) -> None:
        super().__init__(" ".join(filter(None, (str(status), code, detail))))
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors


class NotNow(Refused):
    """429 or 503, until the bounds of trying again were reached: nothing was kept."""


class ItemRejected(ClientError):
    """An item of a batch is not kept, whatever became of the others."""

    def __init__(self, problem: ItemProblem) -> None:
        super().__init__(f"{problem.code} {problem.detail}")
        self.problem = problem


class _ProblemDetails(msgspec.Struct):
    code: str
    detail: str = ""
    errors: Sequence[FieldProblem] = ()


def decoded(body: bytes, kind: type[Value]) -> Value:
    """Read an answer. Raises FateUnknown where it is not the service's."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeError):
        raise FateUnknown(NOT_ITS_ANSWER) from None


def refusal(status: int, body: bytes, kind: type[Refused] = Refused) -> Refused:
    """The error that an answer of problem details stands for."""
    try:
        problem = msgspec.json.decode(body, type=_ProblemDetails)
    except (msgspec.DecodeError, UnicodeError):
        return kind(status, "", "")
    return kind(status, problem.code, problem.detail, problem.errors)
