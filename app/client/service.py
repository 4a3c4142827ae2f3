"""The service as a program sees it: typed, exact, and each transaction once, however often it is sent.

    async with Service("http://127.0.0.1:8000") as service:
        posted = await service.post(Transaction(amount=Decimal("12.50"), timestamp=now))
        figures = await service.statistics(window="10s", currency="EUR")

Every post goes out under an idempotency key, its caller's or one made here, and is sent again under the
same one: after 429 and 503, where no connection could be made, and where an answer was lost. What goes
out without a key (`key=None`) is sent again only where the service is known to have kept nothing.
"""

import asyncio
import contextlib
import re
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from http import HTTPStatus
from typing import Final, Self
from urllib.parse import urlencode

import msgspec

from app.client.patience import Patience
from app.client.values import (
    LATE,
    NOT_ITS_ANSWER,
    BatchPosted,
    ClientError,
    FateUnknown,
    NotNow,
    NotSent,
    Posted,
    Refused,
    Statistics,
    Transaction,
    decoded,
    refusal,
)
from app.client.wire import Answer, Client, LostAnswerError, NotConnectedError, parse_address

ITEMS_MAX: Final = 10_000
BODY_BYTES_MAX: Final = 8 * 2**20

OWN_KEY: Final = ""
"""Have a key made."""

_TOKEN: Final = re.compile(r"[!-~]+")
_KEY: Final = re.compile(r"[!-~]{1,255}")

# Whatever stands between may answer so when it has handed the request on, or not.
_GATEWAY: Final = frozenset((HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT))
_NOT_NOW: Final = frozenset((HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE))
# So it answers what it never keeps, whichever attempt it is.
_NEVER_KEPT: Final = frozenset(
    (
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.CONFLICT,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    )
)
# With these the service says that nothing was kept; of others it may not know.
_NOTHING_KEPT: Final = frozenset(
    ("rate_limited", "store_refused", "too_many_connections", "keys_unavailable")
)

Request = Callable[[Client], Coroutine[object, object, Answer]]


class Service:
    """A service at an address, over at most so many connections. Raises AddressError.

    Its calls raise Refused, NotNow, NotSent and FateUnknown, all of them ClientError.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        connections_max: int = 8,
        answer_seconds: float = 10.0,
        patience: Patience | None = None,
        make_key: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        if token and not _TOKEN.fullmatch(token):
            raise ValueError("a token has visible ASCII characters only")
        self._address = parse_address(url)
        self._headers = b"Authorization: Bearer %b\r\n" % token.encode() if token else b""
        self._answer_seconds = answer_seconds
        self._patience = patience or Patience()
        self._make_key = make_key
        self._places = asyncio.Semaphore(connections_max)
        self._idle: list[Client] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that nobody uses."""
        while self._idle:
            self._idle.pop().close()

    async def post(self, transaction: Transaction, *, key: str | None = OWN_KEY) -> Posted:
        """Post one transaction."""
        body = msgspec.json.encode(transaction)
        answer = await self._post("/transactions", body, key)
        if answer.status == HTTPStatus.NO_CONTENT:
            return LATE
        posted = decoded(answer.body, Posted)
        if posted.id is None:
            raise FateUnknown(NOT_ITS_ANSWER)  # JSON, but of whoever answers in its place.
        return posted

    async def post_batch(
        self,
        transactions: Iterable[Transaction],
        *,
        key: str | None = OWN_KEY,
        is_atomic: bool = False,
    ) -> BatchPosted:
        """Post what fits into one request: at most 10 000 items and 8 MiB."""
        return await self.post_items(
            map(msgspec.json.encode, transactions), key=key, is_atomic=is_atomic
        )

    async def post_items(
        self, items: Iterable[bytes], *, key: str | None = OWN_KEY, is_atomic: bool = False
    ) -> BatchPosted:
        """As `post_batch`, of items that are JSON already."""
        path = "/transactions/batch?ids=true" + "&atomic=true" * is_atomic
        answer = await self._post(path, b"[%b]" % b",".join(items), key)
        return decoded(answer.body, BatchPosted)

    async def statistics(self, *, window: str = "", currency: str = "", user_id: str = "") -> Statistics:
        """The figures over the window or a part of it such as `10s`, of one currency, of one user."""
        asked = {"window": window, "currency": currency, "user_id": user_id}
        query = urlencode({name: value for name, value in asked.items() if value})
        answer = await self._repeated(
            lambda client: client.get("/stats" + f"?{query}" * bool(query)), is_safe=True
        )
        return decoded(answer.body, Statistics)

    async def clear(self) -> None:
        """Delete all transactions. It is not repeated: that would delete what has come since."""
        answer = await self._repeated(lambda client: client.delete("/transactions"), is_safe=False)
        if answer.status != HTTPStatus.NO_CONTENT:
            raise FateUnknown(NOT_ITS_ANSWER)

    async def _post(self, path: str, body: bytes, key: str | None) -> Answer:
        if key == OWN_KEY:
            key = self._make_key()
        if key is not None and not _KEY.fullmatch(key):
            raise ValueError("a key has 1 to 255 visible ASCII characters")
        encoded = None if key is None else key.encode()
        return await self._repeated(
            lambda client: client.post(path, body, key=encoded), is_safe=key is not None
        )

    async def _repeated(self, request: Request, *, is_safe: bool) -> Answer:
        """Send it until there is an answer that counts, or the patience ends. Raises ClientError.

        `is_safe`: whether to send it again changes nothing, though it may have been heard before.
        """
        patience = self._patience
        ends_at = patience.clock() + patience.total_seconds
        attempts, unknown = 0, None
        while True:
            attempts += 1
            try:
                failure, retry_after = await self._attempt(request, ends_at - patience.clock())
            except Refused as refused:
                if unknown is None or refused.status in _NEVER_KEPT:
                    raise
                # It is this attempt that was refused; of an earlier one nobody knows.
                raise unknown from refused
            if isinstance(failure, Answer):
                return failure
            if isinstance(failure, FateUnknown):
                unknown = failure
            is_over = attempts >= patience.attempts_max or not (is_safe or unknown is None)
            pause_seconds = patience.pause_seconds(attempts, retry_after)
            if is_over or patience.clock() + pause_seconds >= ends_at:
                raise unknown or failure
            await patience.sleep(pause_seconds)

    async def _attempt(
        self, request: Request, seconds: float
    ) -> tuple[Answer | ClientError, bytes | None]:
        """One attempt: the answer, or why there may be another. Raises what no other would change."""
        is_sent = False
        try:
            async with asyncio.timeout(seconds), self._connected() as client:
                is_sent = True
                answer = await request(client)
        except NotConnectedError as error:
            return NotSent(str(error)), None
        except LostAnswerError as error:
            return FateUnknown(str(error)), None
        except TimeoutError:
            return (FateUnknown if is_sent else NotSent)("no answer in time"), None
        status = answer.status
        if status < HTTPStatus.MULTIPLE_CHOICES:
            return answer, None  # A redirection is none: it did nothing, and is not followed.
        if status in _NOT_NOW:
            failure = refusal(status, answer.body, NotNow)
            if status == HTTPStatus.SERVICE_UNAVAILABLE and failure.code not in _NOTHING_KEPT:
                return FateUnknown(str(failure)), answer.retry_after
            return failure, answer.retry_after
        if status in _GATEWAY:
            return FateUnknown(str(refusal(status, answer.body))), None
        if status == HTTPStatus.REQUEST_TIMEOUT:
            # It did not come whole, so nothing of it was heard.
            return NotSent(str(refusal(status, answer.body))), None
        raise refusal(status, answer.body)

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[Client]:
        async with self._places:
            client = self._idle.pop() if self._idle else None
            if client is None:
                client = Client(
                    self._address,
                    answer_seconds=self._answer_seconds,
                    headers=self._headers,
                    heeds_retry_after=True,
                )
            try:
                yield client
            finally:
                # One whose answer was lost opens another connection.
                self._idle.append(client)
