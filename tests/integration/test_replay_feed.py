"""A replay into the feed, against feeds that keep everything, and feeds that do not."""

import contextlib
import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from loadtest.replay import main
from tests.support.counterfeit import answering

Item = dict[str, Any]


def as_it_is(items: list[Item]) -> list[Item]:
    return items


class Counterfeit(ThreadingHTTPServer):
    """A feed in memory that answers as it is told to: the real one gives no way to ask for it."""

    daemon_threads = True

    def __init__(self, tell: Callable[[list[Item]], list[Item]]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.tell = tell
        self.items: list[Item] = []
        self.lock = threading.Lock()

    def keep(self, posted: Item) -> Item:
        moment = datetime.fromisoformat(posted["timestamp"]).replace(tzinfo=UTC)
        with self.lock:
            item = {
                **posted,
                "id": f"{len(self.items):032x}",
                "amount": float(posted["amount"]),
                "timestamp": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            }
            self.items.append(item)
        return item

    def page(self, query: dict[str, str]) -> Item:
        wanted = [
            item
            for item in self.items
            if query.get("currency") in (None, item["currency"])
            and query.get("user_id") in (None, item["user_id"])
            and query.get("start_date", "") <= item["timestamp"] <= query.get("end_date", "9")
        ]
        wanted.sort(key=lambda item: (item["timestamp"], item["id"]), reverse=True)
        told = self.tell(wanted)
        start, limit = int(query.get("cursor", 0)), int(query["limit"])
        more = start + limit < len(told)
        return {
            "items": told[start : start + limit],
            "next_cursor": str(start + limit) if more else None,
        }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65_536  # An answer in two writes would wait for the first one's acknowledgement.
    server: Counterfeit

    def do_GET(self) -> None:
        target = urlsplit(self.path)
        if target.path not in ("/transactions", "/api/v1/transactions"):
            self.answer(404, {})
            return
        query = {name: values[0] for name, values in parse_qs(target.query).items()}
        assert target.path == "/transactions" or "user_id" in query
        self.answer(200, self.server.page(query))

    def do_POST(self) -> None:
        assert self.path == "/api/v1/transactions"
        posted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(201, self.server.keep(posted))

    def answer(self, status: int, content: Item) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the test's output quiet."""


def counterfeit(
    tell: Callable[[list[Item]], list[Item]] = as_it_is,
) -> contextlib.AbstractContextManager[Counterfeit]:
    return answering(Counterfeit(tell))


def rows(path: Path, number: int = 250) -> Path:
    """Some rows of three users and two currencies; of the same moment now and then."""
    lines = (
        {
            "user_id": f"user {n % 3}",
            "amount": f"{n}.25",
            "currency": "EUR" if n % 5 else "JPY",
            "timestamp": f"2011-02-{n % 28 + 1:02d}",
            "product": "A & B",
        }
        for n in range(number)
    )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def replayed(url: str, file: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit status, and what was said of the feed."""
    status = main([str(file), "--feed", "--url", url, "--connections", "4"])
    out = capsys.readouterr().out
    assert "\naccepted (201)       250\n" in out
    return status, out.partition("\nfeed ")[2].strip()


def test_a_feed_that_has_all_rows_agrees(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = rows(tmp_path / "rows.ndjson")
    with counterfeit() as server:
        for times in (1, 2):
            # The second time there are other rows like them.
            assert replayed(server.url, file, capsys) == (
                0,
                "agree: all rows, by currency (EUR, JPY) and of 3 users",
            )
            assert len(server.items) == times * 250
    # Which connection comes first is nobody's to say.
    assert "2011-02-01T00:00:00.000Z" in {item["timestamp"] for item in server.items}
    assert all(item["metadata"] == {"description": "A & B"} for item in server.items)


def without_one(items: list[Item]) -> list[Item]:
    return items[:100] + items[101:]


def twice_the_same(items: list[Item]) -> list[Item]:
    return items[:40] + items[39:]


def oldest_first(items: list[Item]) -> list[Item]:
    return items[::-1]


def with_an_amount_changed(items: list[Item]) -> list[Item]:
    return [{**item, "amount": item["amount"] + 0.01} for item in items[:1]] + items[1:]


@pytest.mark.parametrize(
    ("tell", "complaint"),
    [
        (without_one, "disagree: EUR count: accepted 200, the feed has 199"),
        (twice_the_same, "which is older"),
        (oldest_first, "which is older"),
        (with_an_amount_changed, "disagree: EUR sum: "),
    ],
)
def test_a_feed_that_differs_is_a_failure(
    tell: Callable[[list[Item]], list[Item]],
    complaint: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with counterfeit(tell) as server:
        status, said = replayed(server.url, rows(tmp_path / "rows.ndjson"), capsys)
    assert status == 1
    assert complaint in said


def test_an_answer_that_does_not_say_what_was_posted_is_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = Counterfeit.keep
    monkeypatch.setattr(Counterfeit, "keep", lambda self, posted: {**keep(self, posted), "user_id": "x"})
    with counterfeit() as server:
        status, said = replayed(server.url, rows(tmp_path / "rows.ndjson"), capsys)
    assert status == 1
    assert said.startswith("disagree: posted ")


def test_a_service_without_a_feed_is_named_before_anything_is_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with counterfeit() as server:
        status = main(
            [str(rows(tmp_path / "rows.ndjson")), "--feed", "--url", server.url + "/elsewhere"]
        )
        assert server.items == []
    assert status == 2
    assert capsys.readouterr().err.startswith(f"replay: {server.url}/elsewhere: the feed answered 404")
