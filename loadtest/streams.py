"""Hold many streams of figures open, and count what comes.

    python -m loadtest.streams [--url URL] [--streams N] [--interval SPAN] [--seconds S]

Says when every stream has had its first event, and after so many seconds, or once the service has ended
them all, how many events there were. Exit status: 0 when every stream was begun and none broke before.
"""

import argparse
import asyncio
import sys
import time
from typing import Final, cast

import uvloop

from app.client.wire import Address, parse_address

# So many at a time are begun: a crowd at the door is not what is measured.
_BEGUN_AT_ONCE: Final = 50


class _Stream(asyncio.Protocol):
    """One connection with a stream on it; only its events are looked for."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.events = 0
        self.received_bytes = 0
        self.is_whole = False
        self.has_begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.has_ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the stream."""
        self.transport = cast(asyncio.Transport, transport)  # A uvloop transport is no subclass.
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Count; an event comes in one piece."""
        self.received_bytes += len(data)
        self.events += data.count(b"\ndata: ")
        self.is_whole = data.endswith(b"\r\n0\r\n\r\n") or data == b"0\r\n\r\n"
        if self.events and not self.has_begun.done():
            self.has_begun.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that there is no more to come."""
        for each in (self.has_begun, self.has_ended):
            if not each.done():
                each.set_result(None)


async def hold(address: Address, streams: int, interval: str, seconds: float) -> int:
    """Hold them, and say what came; the exit status."""
    loop = asyncio.get_running_loop()
    path = f"{address.base_path}/stats/stream?interval={interval}"
    request = f"GET {path} HTTP/1.1\r\nhost: {address.host_header}\r\n\r\n".encode()
    held: list[_Stream] = []
    for start in range(0, streams, _BEGUN_AT_ONCE):
        few = range(start, min(start + _BEGUN_AT_ONCE, streams))
        begun = await asyncio.gather(
            *(loop.create_connection(lambda: _Stream(request), address.host, address.port) for _ in few)
        )
        held += [stream for _, stream in begun]
        await asyncio.gather(*(stream.has_begun for stream in held[start:]))
    refused = sum(stream.events == 0 for stream in held)
    print(f"holding {streams - refused} streams", flush=True)
    began, before = time.monotonic(), sum(stream.events for stream in held)
    await asyncio.wait([stream.has_ended for stream in held], timeout=seconds)
    events = sum(stream.events for stream in held) - before
    took = time.monotonic() - began
    broken = sum(stream.has_ended.done() and not stream.is_whole for stream in held)
    ended = sum(stream.is_whole for stream in held)
    print(f"{events} events in {took:.2f} s, {ended} streams ended, {broken} broken", flush=True)
    for stream in held:
        stream.transport.abort()
    return 1 if refused or broken else 0


def main() -> int:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser(description="Hold many streams of figures open.")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="where the service listens")
    parser.add_argument("--streams", type=int, default=1000, help="how many")
    parser.add_argument("--interval", default="1s", help="how often each is told, such as 250ms")
    parser.add_argument("--seconds", type=float, default=30.0, help="for how long at most")
    options = parser.parse_args()
    address = parse_address(options.url)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(hold(address, options.streams, options.interval, options.seconds))


if __name__ == "__main__":
    sys.exit(main())
