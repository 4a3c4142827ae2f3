"""From a query string to a question to the feed, and the part of its answer that is wanted.

A misspelt name must not silently ask a wider question: whatever is unknown, given twice or out of its
list is refused, and all of it at once.
"""

import re
from collections.abc import Callable, Collection
from enum import Enum
from http import HTTPStatus
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec

from app.core.activity import METADATA_FILTERS, Product, Status, TransactionType
from app.core.metadata import CONTROL
from app.core.money import parse_amount
from app.core.number import NUMBER
from app.core.question import Place, Portion, Question
from app.core.timestamp import from_text, parse_timestamp
from app.core.transaction import USER_ID, FieldError
from app.core.words import words
from app.web.answers import Code, Problem, invalid_parameters, pointer, problem
from app.web.cursor import NoCursor, is_too_long, read_cursor

LIMIT_DEFAULT: Final = 20
LIMIT_MAX: Final = 100
PAGE_MAX: Final = 1_000_000
SEARCH_CHARS_MAX: Final = 200

Choice = TypeVar("Choice", bound=Enum)

_DAY_MS: Final = 86_400_000
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DIGITS: Final = re.compile("[0-9]{1,7}")
_HALF: Final = re.compile("[\ud800-\udfff]")

_PORTION: Final = ("limit", "cursor", "page", "page_size")
_INVALID_CURSOR: Final = problem(
    HTTPStatus.UNPROCESSABLE_ENTITY,
    Code.INVALID_CURSOR,
    "The cursor is none that this service has given",
    (FieldError("/cursor", "must be the next_cursor of an earlier answer, unchanged"),),
)


class Asked(msgspec.Struct, frozen=True):
    """A question, and how its answer is to be cut."""

    question: Question
    limit: int
    before: Place | None = None
    page: int | None = None
    """Counted from 1; None where the answer goes by cursors."""

    @property
    def portion(self) -> Portion:
        """The part that is wanted."""
        if self.page is None:
            return Portion(self.limit, self.before)
        return Portion(self.limit, offset=(self.page - 1) * self.limit, with_total=True)


class FeedQuery:
    """Reads query strings, under one deployment's currencies."""

    def __init__(self, currencies: Collection[str]) -> None:
        def known_currency(text: str) -> str:
            if text not in currencies:
                raise ValueError("must be a currency code this service knows")
            return text

        self._readers: dict[str, tuple[str, Callable[[str], Any]]] = {
            "user_id": ("user_id", _user_id),
            "transaction_type": ("transaction_type", _choice(TransactionType)),
            "product": ("product", _choice(Product)),
            "status": ("status", _choice(Status)),
            "currency": ("currency", known_currency),
            "start_date": ("from_ms", _instant),
            "end_date": ("to_ms", _last_instant),
            "min_amount": ("min_units", _amount),
            "max_amount": ("max_units", _amount),
            "search_query": ("words", _search),
        }
        """The question's field of each parameter, and what reads it. Each raises ValueError."""

    def read(self, query: bytes, secret: bytes) -> Asked:
        """What a query string asks for. Raises Problem."""
        given, errors = _parameters(query)
        fields: dict[str, Any] = {}
        metadata: dict[str, str] = {}
        names: dict[str, str] = {}
        for name, text in given.items():
            try:
                if name in METADATA_FILTERS:
                    metadata[name] = _plain(text)
                elif name in self._readers:
                    field, reader = self._readers[name]
                    names[field], fields[field] = name, reader(text)
                elif name not in _PORTION:
                    raise ValueError("is not a parameter of the feed")
            except ValueError as error:
                errors.append(FieldError(pointer(name), str(error)))
        limit, page = _cut(given, errors)
        if errors:
            raise invalid_parameters(errors)
        question = Question(**fields, metadata=metadata)
        if "cursor" not in given:
            if is_too_long(question):
                raise invalid_parameters([FieldError("", "the filters are too long together")])
            return Asked(question, limit, page=page)
        try:
            carried, before = read_cursor(secret, given["cursor"])
        except NoCursor:
            raise Problem(_INVALID_CURSOR) from None
        others = [names[field] for field, value in fields.items() if getattr(carried, field) != value]
        others += [name for name, text in metadata.items() if carried.metadata.get(name) != text]
        if others:
            detail = "must be left out, or be what the cursor was given for"
            raise invalid_parameters([FieldError(pointer(name), detail) for name in others])
        return Asked(carried, limit, before)


def _parameters(query: bytes) -> tuple[dict[str, str], list[FieldError]]:
    """The parameters by their names, and an error for each that cannot be one."""
    given: dict[str, str] = {}
    errors: list[FieldError] = []
    text = query.decode("latin-1")
    for name, value in parse_qsl(text, keep_blank_values=True, errors="surrogateescape"):
        if _HALF.search(name) or _HALF.search(value):
            errors.append(FieldError(pointer(_HALF.sub("\ufffd", name)), "must be UTF-8"))
        elif name in given:
            errors.append(FieldError(pointer(name), "must not be given twice"))
        else:
            given[name] = value
    return given, errors


def _cut(given: dict[str, str], errors: list[FieldError]) -> tuple[int, int | None]:
    """How many items are wanted, and which page of so many, if any."""

    def whole(name: str, default: int, highest: int) -> int:
        text = given.get(name)
        if text is None:
            return default
        number = int(text) if _DIGITS.fullmatch(text) else 0
        if not 1 <= number <= highest:
            errors.append(FieldError(pointer(name), f"must be a whole number from 1 to {highest}"))
        return number

    limit = whole("limit", LIMIT_DEFAULT, LIMIT_MAX)
    page, page_size = whole("page", 1, PAGE_MAX), whole("page_size", LIMIT_DEFAULT, LIMIT_MAX)
    if "page" not in given and "page_size" not in given:
        return limit, None
    errors += [
        FieldError(pointer(name), "must not be given beside page or page_size")
        for name in ("limit", "cursor")
        if name in given
    ]
    return page_size, page


def _plain(text: str) -> str:
    # No text that was kept has any.
    if CONTROL.search(text):
        raise ValueError("must have no control characters")
    return text


def _user_id(text: str) -> str:
    if not USER_ID.fullmatch(text):
        raise ValueError("must have 1 to 128 characters, none of them a control character")
    return text


def _choice(kind: type[Choice]) -> Callable[[str], Choice]:
    def read(text: str) -> Choice:
        try:
            return kind(text)
        except ValueError:
            raise ValueError(f"must be one of: {', '.join(each.value for each in kind)}") from None

    return read


def _instant(text: str) -> int:
    literal = text.encode()
    return parse_timestamp(literal) if NUMBER.fullmatch(literal) else from_text(text)


def _last_instant(text: str) -> int:
    """The last instant that is meant: of a date alone, that of its day."""
    return _instant(text) + (_DAY_MS - 1 if _DATE.fullmatch(text) else 0)


def _amount(text: str) -> int:
    literal = text.encode()
    if not NUMBER.fullmatch(literal):
        raise ValueError("must be a decimal number")
    return parse_amount(literal)


def _search(text: str) -> tuple[str, ...]:
    if len(_plain(text)) > SEARCH_CHARS_MAX:
        raise ValueError(f"must have at most {SEARCH_CHARS_MAX} characters")
    wanted = tuple(dict.fromkeys(words(text)))
    if not wanted:
        raise ValueError("must have a letter, a digit or a visible sign in it")
    return wanted
