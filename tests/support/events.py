"""Server-sent events, as they are read."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import httpx


class Event(NamedTuple):
    """One event; `fields` are its lines by name."""

    fields: dict[str, str]

    @property
    def data(self) -> str:
        return self.fields["data"]


# What a test waits for comes before that; and what does not must not be waited for.
_EVENTS_MAX = 20


class Events:
    """The events of a stream; the last one is followed by StopIteration."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._lines = answer.iter_lines()
        self._events = 0

    def __iter__(self) -> "Events":
        return self

    def __next__(self) -> Event:
        self._events += 1
        assert self._events <= _EVENTS_MAX, "so many events, and not the one that is waited for"
        fields: dict[str, str] = {}
        for line in self._lines:
            if not line:
                return Event(fields)
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        raise StopIteration


@contextmanager
def listening(
    client: httpx.Client, query: str = "", headers: dict[str, str] | None = None
) -> Iterator[Events]:
    """A stream of figures, which there must be."""
    with client.stream("GET", f"/stats/stream{query}", headers=headers) as answer:
        if answer.status_code != 200:
            answer.read()
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "text/event-stream"
        yield Events(answer)


def refusal(client: httpx.Client, query: str = "") -> httpx.Response:
    """The answer to who may have no stream."""
    with client.stream("GET", f"/stats/stream{query}") as answer:
        assert answer.status_code != 200
        answer.read()
        return answer
