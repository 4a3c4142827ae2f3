"""The feed: transactions with all they say of themselves, written one by one and read in pages."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Final

import msgspec
from msgspec import UNSET, Raw, UnsetType
from starlette.types import Receive, Scope

from app.core.activity import PLAIN, Product, Status, TransactionType
from app.core.entry import EntryDecoder
from app.core.idempotency import Key, KeyRoute
from app.core.identifier import created_ms, format_identifier, parse_identifier
from app.core.money import format_amount
from app.core.question import Page, place
from app.core.timestamp import format_timestamp
from app.core.transaction import Invalid, Malformed, Row
from app.ledger.commit import Verdict
from app.ledger.history import History, NotTheirs, Unreadable, Viewer
from app.ledger.judgement import Judged
from app.ledger.ledger import Ledger
from app.web.answers import Answer, Code, Problem, json_answer, problem, unavailable
from app.web.body import read_json
from app.web.cursor import write_cursor
from app.web.feed_query import Asked, FeedQuery
from app.web.guard import Caller, Permission
from app.web.idempotency import idempotency_key
from app.web.ingest import Ingest, settle, word_refusal

_MALFORMED_ID: Final = problem(
    HTTPStatus.BAD_REQUEST, Code.MALFORMED_IDENTIFIER, "The id is no id of a transaction"
)
_NOT_FOUND: Final = problem(
    HTTPStatus.NOT_FOUND, Code.NOT_FOUND, "There is no transaction of this id, or none of yours"
)
_MISSING_USER: Final = problem(HTTPStatus.BAD_REQUEST, Code.MISSING_USER_ID, "user_id is required")
_NOT_THEIRS: Final = problem(
    HTTPStatus.FORBIDDEN,
    Code.FORBIDDEN,
    f"Another user's transactions need the scope {Permission.READ_ALL.value}",
)
_UNREADABLE: Final = {
    Verdict.UNREADY: unavailable(Code.NOT_READY, "Not ready: too many questions wait for their answers"),
    Verdict.REFUSED: unavailable(Code.STORE_REFUSED, "The store cannot be read now"),
    Verdict.FAILED: unavailable(Code.STORE_FAILED, "The store has failed, and cannot be read"),
}


class _Told(msgspec.Struct):
    """A transaction as it is answered."""

    id: str
    user_id: str | None
    amount: Raw
    currency: str
    timestamp: str
    transaction_type: TransactionType | None
    product: Product | None
    status: Status
    metadata: Raw
    created_at: str


class _ToldPage(msgspec.Struct, kw_only=True):
    items: list[_Told]
    total: int | UnsetType = UNSET
    page: int | UnsetType = UNSET
    page_size: int
    total_pages: int | UnsetType = UNSET
    next_cursor: str | None


class Feed:
    """POST keeps a transaction with its details; GET finds those that its caller may see."""

    def __init__(
        self,
        decoder: EntryDecoder,
        ingest: Ingest,
        ledger: Ledger,
        history: History,
        query: FeedQuery,
        now_ms: Callable[[], int],
    ) -> None:
        self._decoder = decoder
        self._ingest = ingest
        self._ledger = ledger
        self._history = history
        self._query = query
        self._now_ms = now_ms

    async def post(self, scope: Scope, receive: Receive, caller: Caller) -> Answer:
        """Answer with the whole transaction when it is durable, and counted if it is of now."""
        key = idempotency_key(scope)
        body = await read_json(scope, receive)
        try:
            transaction = self._decoder.decode(body, self._now_ms(), caller.subject)
        except (Malformed, Invalid) as error:
            self._ledger.outcomes.rejected += 1
            return word_refusal(error)
        known_by = None if key is None else Key.of(KeyRoute.FEED, caller.subject, key, body)
        settled = await settle(
            lambda done: self._ledger.submit_request(
                (transaction,), _word_stored, done, known_by, keeps_late=True
            )
        )
        return self._ingest.word_settled(settled)

    async def find(self, scope: Scope, receive: Receive, caller: Caller) -> Answer:
        """Answer a page of what the query asks for."""
        return await self._find(caller, self._asked(scope))

    async def find_of_user(self, scope: Scope, receive: Receive, caller: Caller) -> Answer:
        """The same, of one user: where there is no token to say which, the query must."""
        asked = self._asked(scope)
        if asked.question.user_id is None and caller.subject is None:
            raise Problem(_MISSING_USER)
        return await self._find(caller, asked)

    async def get(self, scope: Scope, receive: Receive, caller: Caller) -> Answer:
        """Answer one transaction."""
        identifier = parse_identifier(scope["path_params"]["id"])
        if identifier is None:
            raise Problem(_MALFORMED_ID)
        try:
            row = await self._history.get(_viewer(caller), identifier)
        except Unreadable as error:
            raise Problem(_UNREADABLE[error.verdict]) from error
        if row is None:
            raise Problem(_NOT_FOUND)
        return json_answer(HTTPStatus.OK, msgspec.json.encode(_tell(row)))

    def _asked(self, scope: Scope) -> Asked:
        return self._query.read(scope["query_string"], self._ledger.secret)

    async def _find(self, caller: Caller, asked: Asked) -> Answer:
        viewer = _viewer(caller)
        try:
            question = self._history.narrow(viewer, asked.question)
            page = await self._history.find(viewer, question, asked.portion)
        except NotTheirs as error:
            raise Problem(_NOT_THEIRS) from error
        except Unreadable as error:
            raise Problem(_UNREADABLE[error.verdict]) from error
        cursor = None
        if page.has_more:
            cursor = write_cursor(self._ledger.secret, question, place(page.rows[-1]))
        return json_answer(HTTPStatus.OK, msgspec.json.encode(_tell_page(page, asked, cursor)))


def _viewer(caller: Caller) -> Viewer:
    return Viewer(caller.subject, Permission.READ_ALL in caller.permissions)


def _word_stored(judged: Judged) -> bytes | None:
    """The body of the answer to one transaction, where it is to be stored."""
    return msgspec.json.encode(_tell(judged.rows[0])) if judged.rows else None


def _tell(row: Row) -> _Told:
    fact = row.transaction
    details = fact.details or PLAIN
    return _Told(
        id=format_identifier(row.id),
        user_id=fact.user_id,
        # From exact decimals, as figures are.
        amount=Raw(format_amount(fact.amount_units).encode()),
        currency=fact.currency,
        timestamp=format_timestamp(fact.timestamp_ms),
        transaction_type=details.transaction_type,
        product=details.product,
        status=details.status,
        metadata=Raw(details.metadata),
        created_at=format_timestamp(created_ms(row.id)),
    )


def _tell_page(page: Page, asked: Asked, cursor: str | None) -> _ToldPage:
    told = _ToldPage(items=[_tell(row) for row in page.rows], page_size=asked.limit, next_cursor=cursor)
    if asked.page is not None and page.total is not None:
        told.page, told.total = asked.page, page.total
        told.total_pages = -(-page.total // asked.limit)
    elif asked.before is None:
        # Cursors do not count pages, but the first is known.
        told.page = 1
    return told
