"""The exchange over Redis, or Valkey: one stream that every node appends to and reads.

A transaction is taken in at most the window and a little after it happened, so what was told within
that time holds every slot that anyone may still ask for: the stream is cut there, and a node that
starts late reads it from the beginning. Each swap is one round trip of two commands, whatever the load.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

from app.exchange.base import ExchangeFailed, Heard

# One server, or one of its databases, is one cluster's.
STREAM: Final = "millrace:bulletins"
_FIELD: Final = b"b"

# Ingest never waits for it; the next one comes soon.
_TIMEOUT_SECONDS: Final = 0.2
# Some MB where every bulletin is full, and all of a window of idle nodes. Where that does not come in
# time, fewer do: a slow line is to be late, not cut off for ever.
_MESSAGES_MAX: Final = 1000
# So often it is seen to that the stream goes when all nodes have gone, and that it is still there.
_CARE_SECONDS: Final = 1.0
_BEGINNING: Final = b"0-0"
_SEQUENCE_MAX: Final = (1 << 64) - 1

_Entry = tuple[bytes, dict[bytes, bytes]]


class RedisExchange:
    """`kept_ms`: for how long what was told is to be heard. `monotonic`: a clock, in seconds."""

    def __init__(self, url: str, kept_ms: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Raises ValueError where the URL is none."""
        self._redis = Redis.from_url(
            url,
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
            max_connections=1,
        )
        self._kept_ms = kept_ms
        self._monotonic = monotonic
        self._position = _BEGINNING
        self._last: _Entry | None = None
        """What stands at the position: it is read again, to see that nothing is lost."""
        self._last_ms: int | None = None
        self._witness: bytes | None = None
        """What this node has told last: what is there is there with all before it."""
        self._care_due = 0.0
        self._messages_max = _MESSAGES_MAX

    async def swap(self, message: bytes) -> Heard:
        """Append and read in one round trip."""
        is_answered = False
        try:
            # The client's own deadline is one for each read.
            async with asyncio.timeout(2 * _TIMEOUT_SECONDS):
                heard = await self._swap(message)
            is_answered = True
        except Exception as error:
            # Beside its own errors the client raises what it stumbles over, where no Redis answers.
            raise ExchangeFailed(_reason(error)) from error
        finally:
            if not is_answered:
                # Answers of a command that was given up must not be taken for those of the next.
                await self._redis.connection_pool.disconnect()
                self._care_due = 0.0
                self._messages_max = max(self._messages_max // 4, 1)
        return heard

    def rewind(self) -> None:
        """Read from the beginning of the stream."""
        self._position = _BEGINNING

    async def close(self) -> None:
        """Leave the connection."""
        await self._redis.aclose()

    async def _swap(self, message: bytes) -> Heard:
        now, position, messages_max = self._monotonic(), self._position, self._messages_max
        has_care = now >= self._care_due
        pipeline = self._redis.pipeline(transaction=False)
        oldest = None if self._last_ms is None else f"{self._last_ms - self._kept_ms}-0"
        if has_care:
            pipeline.pexpire(STREAM, self._kept_ms)
            witness = self._witness or _BEGINNING
            pipeline.xrange(STREAM, witness, witness)
        pipeline.xadd(STREAM, {_FIELD: message}, minid=oldest, approximate=True)
        # With what was read last: where that is gone, so may be what anyone has told since.
        pipeline.xread({STREAM: _before(position)}, count=messages_max + 1)
        *care, own, read = await pipeline.execute()
        self._messages_max = min(2 * messages_max, _MESSAGES_MAX)
        has_lost = has_care and self._witness is not None and not care[1]
        if has_care:
            self._care_due = now + _CARE_SECONDS
        self._witness = own
        entries = _entries(read)
        # An identifier may come twice in the millisecond in which all was deleted.
        if position != _BEGINNING and entries[:1] != [self._last]:
            has_lost = True
        elif position != _BEGINNING:
            del entries[0]
        if has_lost:
            # Its clock may have been set back, too.
            self.rewind()
        self._last_ms = int(own.partition(b"-")[0])
        # Unless it was set back meanwhile.
        if entries and self._position == position and not has_lost:
            self._last = entries[-1]
            self._position = self._last[0]
        return Heard(
            messages=[fields[_FIELD] for _, fields in entries if _FIELD in fields],
            # Cut to the millisecond.
            exchange_ms=self._last_ms + 0.5,
            has_more=has_lost or len(entries) >= messages_max,
            has_lost=has_lost,
        )


def _reason(error: Exception) -> str:
    """What was wrong, in a few words, and without what was sent, which a server may quote."""
    said = str(error) if type(error) is ResponseError else ""
    said = said.rpartition("of pipeline caused error: ")[2].partition(",")[0].strip("(')")[:100]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _before(position: bytes) -> bytes:
    """The greatest identifier there may be before this one."""
    milliseconds, _, sequence = position.partition(b"-")
    if position == _BEGINNING:
        return position
    if sequence != b"0":
        return b"%b-%d" % (milliseconds, int(sequence) - 1)
    return b"%d-%d" % (int(milliseconds) - 1, _SEQUENCE_MAX)


def _entries(read: Any) -> list[_Entry]:  # noqa: ANN401 (the client's own)
    """The entries of the one stream that was read: a list by RESP2, a dictionary by RESP3."""
    if not read:
        return []
    if isinstance(read, dict):
        ((entries,),) = read.values()
    else:
        ((_, entries),) = read
    return [(identifier, fields) for identifier, fields in entries if fields]
