"""What passes between processes comes out as it went in, wherever the bytes were cut."""

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.window import Shape
from app.ledger.mirror import Mirror
from app.ledger.statistics import Freshness
from app.server.link import (
    Add,
    Downward,
    Frames,
    Fresh,
    News,
    Post,
    Question,
    Restart,
    Upward,
    Whole,
    Word,
    added,
    apply,
    decode_downward,
    decode_news,
    decode_upward,
    frame,
    frame_news,
)
from app.server.office import BackOffice
from app.web.answers import Answer
from app.web.counts import Counts
from app.web.forward import Asked, Door
from app.web.guard import ANYONE, Permission

MINUTE = Shape.covering(60_000, 1000)


@given(st.lists(st.binary(max_size=400), max_size=12), st.randoms(use_true_random=False))
def test_frames_come_out_whole_wherever_they_are_cut(
    payloads: list[bytes], chance: random.Random
) -> None:
    data = b"".join(map(frame, payloads))
    frames, found = Frames(), []
    while data:
        cut = chance.randint(1, min(len(data), chance.choice([1, 3, 4, 5, 50, 5000])))
        found += [bytes(each) for each in frames.cut(data[:cut])]
        data = data[cut:]
    assert found == [frame(payload)[4:] for payload in payloads]


def test_requests_and_answers_are_read_as_they_were_written() -> None:
    asked = Asked(
        door=Door.GET_TRANSACTION,
        query=b"user_id=\xff",
        headers=((b"content-type", b"application/json"),),
        path_params={"id": "\ufffd"},
        subject="\u017d",
        permissions=(Permission.READ_ALL, Permission.READ),
        body=b"\0" * 70_000,
        request_id=b"r",
        trace_id=b"t",
    )
    upward = Upward(
        [Post(1, b"{}", None, None), Post(2**40, b"", "s", b"k")],
        [Question(3, asked)],
        [Word.SERVING],
        2**41,
    )
    assert decode_upward(frame(upward)[4:]) == upward
    downward = Downward([(1, b"{}")], [], is_ping=True)
    assert decode_downward(frame(downward)[4:]) == downward
    assert Answer.__struct_fields__ == ("status", "headers", "body", "head")


UNITS = st.integers(-(2**63) + 1, 2**63 - 1)
PARTS = st.lists(
    st.tuples(
        st.integers(0, 60_000), st.integers(1, 2**40), st.integers(-(2**100), 2**100), UNITS, UNITS
    ),
    min_size=1,
    max_size=5,
)


@given(st.lists(st.tuples(st.sampled_from(["EUR", "USD"]), PARTS), max_size=5))
def test_sums_past_64_bits_are_told_exactly(told: list[tuple[str, list[tuple[int, ...]]]]) -> None:
    heard: list[object] = []

    class Noted(Mirror):
        def restart(self, shape: Shape) -> None:
            heard.append(shape)

        def add(self, currency: str, parts: object) -> None:
            heard.append((currency, parts))

        def note(self, freshness: Freshness) -> None:
            heard.append(freshness)

        def note_clock(self, latest_ms: int) -> None:
            heard.append(latest_ms)

    mirror = Noted(MINUTE, True, lambda: 0, lambda: None, lambda _: None)
    fresh = Freshness(2, None, True)
    news = News(7, [Restart(MINUTE), *(added(*each) for each in told), Fresh(fresh), Whole()])
    assert apply(decode_news(frame_news(news)[4:]), mirror)
    assert heard == [MINUTE, *told, fresh, 7]


def test_a_news_says_whether_it_is_the_last_of_all_there_was() -> None:
    mirror = Mirror(MINUTE, True, lambda: 0, lambda: None, lambda _: None)
    assert not apply(News(0, [Add("EUR", [(1, 1, 1, 1, 1)])]), mirror)
    assert apply(News(0, [Whole()]), mirror)


def test_a_body_of_megabytes_is_not_looked_at_again_with_every_piece() -> None:
    body = b"x" * 8_000_000
    data = frame(Upward([Post(1, body, None, None)]))
    frames = Frames()
    found = [each for cut in range(0, len(data), 4096) for each in frames.cut(data[cut : cut + 4096])]
    assert [post.body for post in decode_upward(bytes(found[0])).posts] == [body]


@pytest.mark.parametrize("length", [0, 1, 3])
def test_a_frame_is_not_begun_before_its_length_is_known(length: int) -> None:
    frames = Frames()
    data = frame([1])
    assert list(frames.cut(data[:length])) == []
    assert [bytes(each) for each in frames.cut(data[length:])] == [data[4:]]


def test_what_a_front_refuses_as_the_way_to_the_back_is_full_is_counted_there() -> None:
    async def main() -> None:
        counts, told = Counts(), list[int]()
        office = BackOffice(lambda: None, counts)
        office.pause_writing()
        office.take_in(b"{}", ANYONE, None, lambda answer: told.append(answer.status))
        for door in (Door.POST_BATCH, Door.FIND):
            asked = Asked(door, b"", (), {}, None, (), b"", b"", None)
            office.ask(asked, lambda answer: told.append(answer.status))
        assert told == [503, 503, 503]
        assert counts.outcomes.refused == 2

    asyncio.run(main())
