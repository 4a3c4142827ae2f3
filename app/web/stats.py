"""GET /stats: a question in the query string, exact figures in the answer."""

import re
from decimal import Decimal
from http import HTTPStatus
from typing import Final, NamedTuple, Protocol
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope

from app.core.money import format_amount
from app.core.summary import Summary
from app.core.timestamp import format_timestamp
from app.core.transaction import USER_ID, FieldError
from app.core.window import Shape
from app.ledger.ledger import Ledger
from app.ledger.reading import Moment, NotReady, Reading
from app.ledger.statistics import Freshness
from app.ledger.users import Missing
from app.web.answers import (
    Answer,
    Code,
    Problem,
    invalid_parameters,
    json_answer,
    pointer,
    unavailable,
)
from app.web.guard import FORBIDDEN, Caller, Permission
from app.web.ingest import NOT_READY
from app.web.resource import Handler

_SPAN: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,3})?)(ms|s|m|h)?")
# In one millisecond hardly anyone asks more different questions; who does is answered all the same.
_ANSWERS_MAX: Final = 64
_UNIT_MS: Final = {None: 1000, "ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}

_LOADING: Final = unavailable(
    Code.NOT_READY, "Not ready: reading back what single users have in the window"
)


class Question(NamedTuple):
    """What figures are asked for: of a part of the window, one currency, one user, or of all."""

    window_ms: int | None = None
    currency: str | None = None
    user_id: str | None = None


class Counting(Protocol):
    """What has the figures: a ledger, or a mirror of one."""

    shape: Shape

    @property
    def has_users(self) -> bool:
        """Whether there are figures of single users at all."""

    def moment(self) -> Moment:
        """Now, and what has been counted by now. Raises NotReady."""

    def read(
        self,
        moment: Moment,
        window_ms: int | None = None,
        currency: str | None = None,
        user_id: str | None = None,
    ) -> Reading:
        """The figures of a part of the window. Raises Missing."""


class Stats:
    """Answers statistics over the window, or a part of it, from memory alone.

    `of_users` answers what is about single users where their figures are not in this memory.
    """

    def __init__(
        self, counting: Counting, currencies: frozenset[str], of_users: Handler | None = None
    ) -> None:
        self._counting = counting
        self._currencies = currencies
        self._of_users = of_users
        self._moment: Moment | None = None
        self._answers: dict[bytes, Answer] = {}
        """The answers of this moment, by query. They are as true as when they were made.

        None is about one user, so that nobody is given one that is not for them.
        """

    async def get(self, scope: Scope, receive: Receive, caller: Caller) -> Answer:
        """Answer the figures the query asks for."""
        query = scope["query_string"]
        if self._of_users is not None and self.question(query).user_id is not None:
            return await self._of_users(scope, receive, caller)
        return self.answer(query, caller)

    def may_be_elsewhere(self, query: bytes) -> bool:
        """Whether the query may be about one user, and only `get` can answer that."""
        return self._of_users is not None and (b"user_id" in query or b"%" in query)

    def answer(self, query: bytes, caller: Caller) -> Answer:
        """The figures a query asks for. Raises Problem."""
        moment = self._now()
        if moment is not self._moment:
            self._moment = moment
            self._answers.clear()
        answer = self._answers.get(query)
        if answer is None:
            question = self.question(query)
            user_id = question.user_id
            if user_id is not None and not caller.may_see(user_id):
                raise Problem(FORBIDDEN[Permission.READ_ALL])
            answer = json_answer(HTTPStatus.OK, self._figures(moment, question))
            if user_id is None and len(self._answers) < _ANSWERS_MAX:
                self._answers[query] = answer
        return answer

    def figures(self, question: Question) -> tuple[int, bytes]:
        """The figures of now, as they are answered, and when that is, in ms. Raises Problem."""
        moment = self._now()
        return moment.now_ms, self._figures(moment, question)

    def _now(self) -> Moment:
        try:
            return self._counting.moment()
        except NotReady as error:
            raise Problem(NOT_READY[error.reason]) from error

    def _figures(self, moment: Moment, question: Question) -> bytes:
        try:
            reading = self._counting.read(moment, *question)
        except Missing as error:
            if error.for_ms is None:
                raise Problem(_LOADING) from None
            raise Problem(_word_missing(error.for_ms)) from None
        return self._encode(reading)

    def question(self, query: bytes) -> Question:
        """What a query asks for. Raises Problem."""
        if not query:
            return Question()
        window_ms = currency = user_id = None
        seen: set[str] = set()
        errors: list[FieldError] = []
        # What is no UTF-8 becomes halves of characters, which no name or value has.
        text = query.decode(errors="surrogateescape")
        for name, value in parse_qsl(text, keep_blank_values=True, errors="surrogateescape"):
            detail = None
            if name in seen:
                detail = "must not be given twice"
            elif name == "window":
                window_ms = self._window_ms(value)
                if window_ms is None:
                    longest = _seconds(self._counting.shape.window_ms)
                    detail = f"must be a span such as 250ms, 10s, 1m or 30, up to {longest}s"
            elif name == "currency":
                currency = value
                if value not in self._currencies:
                    detail = "must be a currency code this service knows"
            elif name == "user_id":
                user_id = value
                if not self._counting.has_users:
                    detail = "is not served by this deployment"
                elif not USER_ID.fullmatch(value):
                    detail = "must have 1 to 128 characters, none of them a control character"
            else:
                # A misspelt name must not silently ask a wider question.
                detail = "is not a parameter of these statistics"
            if detail is not None:
                errors.append(FieldError(pointer(name.encode(errors="replace").decode()), detail))
            seen.add(name)
        if errors:
            raise invalid_parameters(errors)
        return Question(window_ms, currency, user_id)

    def _window_ms(self, text: str) -> int | None:
        window_ms = parse_span_ms(text)
        return window_ms if window_ms and window_ms <= self._counting.shape.window_ms else None

    def _encode(self, reading: Reading) -> bytes:
        overall, by_currency = reading.figures
        currencies = ",".join(
            f'"{code}":{{{_figures(summary)}}}' for code, summary in by_currency.items()
        )
        freshness = reading.freshness
        return (
            f"{{{_figures(overall)}"
            f',"window_seconds":{_seconds(reading.window_ms)}'
            f',"resolution_ms":{self._counting.shape.resolution_ms}'
            f',"as_of":"{format_timestamp(reading.as_of_ms)}"'
            f"{'' if freshness is None else _freshness(freshness, reading.as_of_ms)}"
            f',"by_currency":{{{currencies}}}}}'
        ).encode()


class SharedStats(Stats):
    """As Stats, where single users' figures are in a store that other nodes share."""

    def __init__(self, ledger: Ledger, currencies: frozenset[str]) -> None:
        super().__init__(ledger, currencies, self._of_user)
        self._ledger = ledger

    async def _of_user(self, scope: Scope, receive: Receive, caller: Caller) -> Answer:
        window_ms, currency, user_id = self.question(scope["query_string"])
        if user_id is None or not caller.may_see(user_id):
            raise Problem(FORBIDDEN[Permission.READ_ALL])
        try:
            moment = self._ledger.moment()
            reading = await self._ledger.read_shared(moment, window_ms, currency, user_id)
        except NotReady as error:
            raise Problem(NOT_READY[error.reason]) from error
        return json_answer(HTTPStatus.OK, self._encode(reading))


def _word_missing(for_ms: int) -> Answer:
    """The answer as long as transactions are missing that were not recorded."""
    return unavailable(
        Code.TOO_MANY_TRANSACTIONS,
        "More transactions lie in this window than are kept for figures of single users",
        -(-for_ms // 1000),
    )


def parse_span_ms(text: str) -> int | None:
    """A span such as `250ms`, `10s`, `1m` or `30`; None where it is none, or no whole milliseconds."""
    match = _SPAN.fullmatch(text)
    if match is None:
        return None
    number, unit = match.groups()
    span_ms = Decimal(number) * _UNIT_MS[unit]
    return int(span_ms) if span_ms == int(span_ms) else None


def _figures(summary: Summary) -> str:
    """The members of a figures object; exact decimals, which is why they are written by hand."""
    if not summary.count:
        return '"sum":0.00,"avg":0.00,"max":0.00,"min":0.00,"count":0'
    return (
        f'"sum":{format_amount(summary.sum_units)}'
        f',"avg":{format_amount(summary.avg_units)}'
        f',"max":{format_amount(summary.max_units)}'
        f',"min":{format_amount(summary.min_units)}'
        f',"count":{summary.count}'
    )


def _freshness(freshness: Freshness, now_ms: int) -> str:
    """The members that tell how much of other nodes is counted."""
    is_degraded = "true" if freshness.is_degraded else "false"
    return f',"nodes":{freshness.nodes},"max_lag_ms":{freshness.lag_ms(now_ms)},"degraded":{is_degraded}'


def _seconds(span_ms: int) -> str:
    """Milliseconds as a JSON number of seconds."""
    whole, thousandths = divmod(span_ms, 1000)
    return f"{whole}.{thousandths:03d}".rstrip("0") if thousandths else str(whole)
