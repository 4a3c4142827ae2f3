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


class Events:
    """The events of a stream; the last one is followed by StopIteration."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._lines = answer.iter_lines()

    def __iter__(self) -> "Events":
        return self

    def __next__(self) -> Event:
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
