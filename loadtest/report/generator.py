"""Sends requests on a schedule that waits for nobody, over kept connections, from one thread.

Each request has the moment it is due. Where the service stalls, requests wait for a free connection
and that wait is part of their latency: what a closed loop leaves out is that it does not ask while
it waits ("coordinated omission"). Latency from the actual send is kept beside it, for comparison.

The loop never sleeps while something is due soon: it has a core of its own, and a timer that fires
half a millisecond late would be measured as the service's doing.
"""

import gc
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from loadtest.report.wire import RECEIVE_BYTES, TIMEOUT_SECONDS, Address, answer_bytes, status

_DRAIN_SECONDS: Final = 10.0
_SECOND_NS: Final = 1_000_000_000


class _Line:
    """One connection with at most one request on it."""

    def __init__(self, address: Address, stream: "Stream") -> None:
        self.socket = socket.create_connection(address, TIMEOUT_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.stream = stream
        self.received = b""
        self.due_ns = 0
        self.sent_ns = 0


class Stream:
    """Requests of one kind: when they are due, what they say, and how long they took."""

    def __init__(
        self, make: Callable[[], bytes], connections: int, per_second: float | None, wanted: int
    ) -> None:
        """`per_second` None: a request is due as soon as a connection is free, the closed loop."""
        self.make = make
        self.connections = connections
        self.per_second = per_second
        self.wanted = wanted
        self.from_schedule_ns: list[int] = []
        self.from_send_ns: list[int] = []
        self.client_late_ns: list[int] = []
        self.failed = 0
        self.seconds = 0.0
        self._free: deque[_Line] = deque()
        self._freed_ns = 0
        self._given = 0
        self._started_ns = 0
        self._end_ns = 0

    @property
    def answered_per_second(self) -> float:
        """Successful answers in each second, until the last one came."""
        return len(self.from_send_ns) / self.seconds

    def open(self, address: Address) -> list[_Line]:
        """Connect."""
        lines = [_Line(address, self) for _ in range(self.connections)]
        self._free.extend(lines)
        return lines

    def start(self, now_ns: int, seconds: float) -> None:
        """Begin the schedule."""
        self._started_ns = self._freed_ns = now_ns
        self._end_ns = now_ns + int(seconds * _SECOND_NS)

    def due_ns(self, now_ns: int) -> int | None:
        """When the next request is due; None when there is none any more."""
        due_ns = now_ns
        if self.per_second is not None:
            due_ns = self._started_ns + int(self._given * _SECOND_NS / self.per_second)
        return due_ns if due_ns < self._end_ns else None

    @property
    def has_free_line(self) -> bool:
        """Whether a request that is due can go out."""
        return bool(self._free)

    @property
    def is_idle(self) -> bool:
        """Whether every request that went out was answered."""
        return len(self._free) == self.connections

    def send(self, due_ns: int, now_ns: int) -> None:
        """Send the next request, on the connection that has been free for longest."""
        line = self._free.popleft()
        self._given += 1
        self.client_late_ns.append(now_ns - max(due_ns, self._freed_ns))
        line.due_ns, line.sent_ns = due_ns, now_ns
        line.socket.send(self.make())

    def receive(self, line: _Line, now_ns: int) -> None:
        """Take in what has arrived on one of the connections."""
        data = line.socket.recv(RECEIVE_BYTES)
        if not data:
            raise ConnectionError("the service closed a connection under load")
        line.received += data
        length = answer_bytes(line.received)
        if length is None or len(line.received) < length:
            return
        if status(line.received) == self.wanted:
            self.from_schedule_ns.append(now_ns - line.due_ns)
            self.from_send_ns.append(now_ns - line.sent_ns)
        else:
            self.failed += 1
        line.received = b""
        if not self._free:
            self._freed_ns = now_ns
        self._free.append(line)
        self.seconds = (now_ns - self._started_ns) / _SECOND_NS

    def give_up(self) -> None:
        """Count what was not answered in time."""
        self.failed += self.connections - len(self._free)
        if self.per_second is not None:
            scheduled = (self._end_ns - self._started_ns) * self.per_second // _SECOND_NS
            self.failed += max(int(scheduled) - self._given, 0)


def drive(address: Address, streams: list[Stream], seconds: float) -> None:
    """Run all streams side by side for so long, then wait for what is under way."""
    lines = {line.socket.fileno(): line for stream in streams for line in stream.open(address)}
    poll = select.epoll()
    for number in lines:
        poll.register(number, select.EPOLLIN)
    try:
        gc.disable()
        _turn(poll, lines, streams, seconds)
    finally:
        gc.enable()
        poll.close()
        for line in lines.values():
            line.socket.close()


def _turn(poll: select.epoll, lines: dict[int, _Line], streams: list[Stream], seconds: float) -> None:
    clock = time.perf_counter_ns
    now_ns = clock()
    give_up_ns = now_ns + int((seconds + _DRAIN_SECONDS) * _SECOND_NS)
    for stream in streams:
        stream.start(now_ns, seconds)
    active = True
    while active and now_ns < give_up_ns:
        active = False
        for stream in streams:
            while (due_ns := stream.due_ns(now_ns := clock())) is not None:
                if due_ns > now_ns or not stream.has_free_line:
                    break
                stream.send(due_ns, now_ns)
            active = active or due_ns is not None or not stream.is_idle
        for number, _ in poll.poll(0):
            line = lines[number]
            line.stream.receive(line, clock())
        now_ns = clock()
    for stream in streams:
        stream.give_up()
