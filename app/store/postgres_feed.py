"""The feed's SQL: what a question becomes, and how a row is read back."""

from collections.abc import Iterator, Sequence
from itertools import starmap
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from app.core.activity import Details, Product, Status, TransactionType, metadata_term, word_term
from app.core.question import Portion, Question
from app.core.transaction import Row, Transaction

_COLUMNS: Final = """id, timestamp_ms, amount_units, currency, user_id,
    transaction_type, product, status, coalesce(metadata_text, metadata::text)"""

_ORDER: Final = "ORDER BY timestamp_ms DESC, id DESC"

# What is in one row of a hundred fills a page from so many, in some 10 ms; of what is rarer, its index
# is read as a whole.
_NEWEST_ROWS: Final = 12_000

GET: Final = f"SELECT {_COLUMNS} FROM transactions WHERE id = %s"

Parameter = int | str | bytes | UUID
Columns = tuple[UUID, int, int, str, str | None, str | None, str | None, str | None, str | None]


class Statement(NamedTuple):
    """SQL with its parameters."""

    text: str
    parameters: Sequence[Parameter]


def page_statements(question: Question, portion: Portion) -> Iterator[Statement]:
    """Statements to try in turn, until one finds more than the limit; each of them finds one more.

    The planner takes what is frequent to be frequent everywhere, and would go back through all of the
    feed for a word that stands in old rows only. So the newest rows are looked through first, and then
    all that an index has, which costs what there is of it.
    """
    ordered, loose = _conditions(question)
    if portion.before is not None:
        timestamp_ms, identifier = portion.before
        ordered.append(("(timestamp_ms, id) < (%s, %s)", (timestamp_ms, UUID(int=identifier))))
    parameters, bounds = _parameters(ordered), (portion.limit + 1, portion.offset)
    source = f"transactions {_where(ordered)}"
    if not loose:
        yield Statement(_page(source), (*parameters, *bounds))
        return
    newest = f"(SELECT * FROM {source} {_ORDER} LIMIT {_NEWEST_ROWS}) newest {_where(loose)}"
    wanted = _parameters(loose)
    yield Statement(_page(newest), (*parameters, *wanted, *bounds))
    all_ = f"(SELECT timestamp_ms, id FROM transactions {_where(ordered + loose)} OFFSET 0) found"
    yield Statement(_page(all_), (*parameters, *wanted, *bounds))


def _page(source: str) -> str:
    """The rows of a part of a source. What is skipped or sorted on the way is their places alone."""
    places = f"SELECT id FROM {source} {_ORDER} LIMIT %s OFFSET %s"
    return f"SELECT {_COLUMNS} FROM transactions WHERE id = ANY(ARRAY({places})) {_ORDER}"


def total_statement(question: Question) -> Statement:
    """How many rows a question finds."""
    ordered, loose = _conditions(question)
    conditions = ordered + loose
    text = f"SELECT count(*) FROM transactions {_where(conditions)}"
    return Statement(text, _parameters(conditions))


def read_row(columns: Columns) -> Row:
    """A row from its columns."""
    identifier, timestamp_ms, amount_units, currency, user_id, kind, product, status, metadata = columns
    details = None
    if metadata is not None:
        details = Details(
            None if kind is None else TransactionType(kind),
            None if product is None else Product(product),
            Status.COMPLETED if status is None else Status(status),
            # jsonb has an order and spaces of its own.
            msgspec.json.encode(msgspec.json.decode(metadata), order="sorted"),
        )
    return Row(identifier.int, Transaction(amount_units, timestamp_ms, currency, user_id, details))


_Condition = tuple[str, Sequence[Parameter]]


def _conditions(question: Question) -> tuple[list[_Condition], list[_Condition]]:
    """Those with an index in the order of the feed, and those without."""
    given: list[tuple[str, Parameter | None]] = [
        ("user_id = %s", question.user_id),
        ("currency = %s", question.currency),
        ("timestamp_ms >= %s", question.from_ms),
        ("timestamp_ms <= %s", question.to_ms),
    ]
    ordered: list[_Condition] = [(text, (value,)) for text, value in given if value is not None]
    kinds: list[tuple[str, str]] = []
    if question.transaction_type is not None:
        kinds.append(("transaction_type", question.transaction_type.value))
    if question.product is not None:
        kinds.append(("product", question.product.value))
    if question.status is Status.COMPLETED:
        ordered.append(("status IS NULL", ()))
    elif question.status is not None:
        kinds.append(("status", question.status.value))
    terms = [*starmap(metadata_term, question.metadata.items()), *map(word_term, question.words)]
    if len(kinds) > 1:
        # Each is frequent, and what is all of them may be nowhere: no order of one of them helps then.
        terms += [f"{name[0]}={value.lower()}" for name, value in kinds]
    else:
        ordered += [(f"{name} = %s", (value,)) for name, value in kinds]
    amounts = ("amount_units >= %s", question.min_units), ("amount_units <= %s", question.max_units)
    loose: list[_Condition] = [(text, (value,)) for text, value in amounts if value is not None]
    if terms:
        loose.append(("terms @@ %s::tsquery", (" & ".join(map(_quoted, terms)),)))
    return ordered, loose


def _where(conditions: Sequence[_Condition]) -> str:
    return "WHERE " + " AND ".join(text for text, _ in conditions) if conditions else ""


def _parameters(conditions: Sequence[_Condition]) -> list[Parameter]:
    return [value for _, values in conditions for value in values]


def _quoted(term: str) -> str:
    """A term as it stands in a query, in which nothing of it has a meaning."""
    return "'" + term.replace("\\", "\\\\").replace("'", "''") + "'"
