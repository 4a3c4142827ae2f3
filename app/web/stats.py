"""GET /stats: a question in the query string, exact figures in the answer."""

import re
from decimal import Decimal
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope

from app.core.money import format_amount
from app.core.summary import Summary
from app.core.timestamp import format_timestamp
from app.core.transaction import FieldError
from app.ledger.ledger import Ledger, Moment, NotReady, Reading
from app.web.answers import (
    Answer,
    Problem,
    invalid_parameters,
    json_answer,
    pointer,
)
from app.web.guard import Caller
from app.web.ingest import NOT_READY

_SPAN: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,3})?)(ms|s|m|h)?")
# In one millisecond hardly anyone asks more different questions; who does is answered all the same.
_ANSWERS_MAX: Final = 64
_UNIT_MS: Final = {None: 1000, "ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}


class Stats:
    """Answers statistics over the window, or a part of it, from memory alone."""

    def __init__(self, ledger: Ledger, currencies: frozenset[str]) -> None:
        self._ledger = ledger
        self._currencies = currencies
        self._moment: Moment | None = None
        self._answers: dict[bytes, Answer] = {}
        """The answers of this moment, by query. They are as true as when they were made."""

    async def get(self, scope: Scope, receive: Receive, caller: Caller) -> Answer:
        """Answer the figures the query asks for."""
        return self.answer(scope["query_string"])

    def answer(self, query: bytes) -> Answer:
        """The figures a query asks for. Raises Problem."""
        try:
            moment = self._ledger.moment()
        except NotReady as error:
            raise Problem(NOT_READY[error.reason]) from error
        if moment is not self._moment:
            self._moment = moment
            self._answers.clear()
        answer = self._answers.get(query)
        if answer is None:
            window_ms, currency = self._question(query)
            reading = self._ledger.read(moment, window_ms, currency)
            answer = json_answer(HTTPStatus.OK, self._encode(reading))
            if len(self._answers) < _ANSWERS_MAX:
                self._answers[query] = answer
        return answer

    def _question(self, query: bytes) -> tuple[int | None, str | None]:
        """The span in milliseconds and the currency asked for. Raises Problem."""
        if not query:
            return None, None
        window_ms = currency = None
        seen: set[str] = set()
        errors: list[FieldError] = []
        for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
            detail = None
            if name in seen:
                detail = "must not be given twice"
            elif name == "window":
                window_ms = self._span_ms(value)
                if window_ms is None:
                    longest = _seconds(self._ledger.shape.window_ms)
                    detail = f"must be a span such as 250ms, 10s, 1m or 30, up to {longest}s"
            elif name == "currency":
                currency = value
                if value not in self._currencies:
                    detail = "must be a currency code this service knows"
            else:
                # A misspelt name must not silently ask a wider question.
                detail = "is not a parameter of these statistics"
            if detail is not None:
                errors.append(FieldError(pointer(name), detail))
            seen.add(name)
        if errors:
            raise invalid_parameters(errors)
        return window_ms, currency

    def _span_ms(self, text: str) -> int | None:
        match = _SPAN.fullmatch(text)
        if match is None:
            return None
        number, unit = match.groups()
        span_ms = Decimal(number) * _UNIT_MS[unit]
        if span_ms != int(span_ms) or not 0 < span_ms <= self._ledger.shape.window_ms:
            return None
        return int(span_ms)

    def _encode(self, reading: Reading) -> bytes:
        overall, by_currency = reading.figures
        currencies = ",".join(
            f'"{code}":{{{_figures(summary)}}}' for code, summary in by_currency.items()
        )
        return (
            f"{{{_figures(overall)}"
            f',"window_seconds":{_seconds(reading.window_ms)}'
            f',"resolution_ms":{self._ledger.shape.resolution_ms}'
            f',"as_of":"{format_timestamp(reading.as_of_ms)}"'
            f',"by_currency":{{{currencies}}}}}'
        ).encode()


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


def _seconds(span_ms: int) -> str:
    """Milliseconds as a JSON number of seconds."""
    whole, thousandths = divmod(span_ms, 1000)
    return f"{whole}.{thousandths:03d}".rstrip("0") if thousandths else str(whole)
