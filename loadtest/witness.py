"""Who is asked, after rows were posted, what has become of them."""

from typing import Final, Protocol

from tqdm import tqdm

from app.client.wire import Address, Client, LostAnswerError, NotConnectedError
from loadtest.feed import POST_PATH, FeedTally, check_feed, find_feed
from loadtest.tally import Outcome, Statistics, Tally, Verdict, compare, read_statistics

STATISTICS_SECONDS: Final = 10.0


class Witness(Protocol):
    """Where rows are posted, and who is asked what has become of them."""

    name: str
    path: str

    @property
    def tally(self) -> Tally:
        """What became of each row."""

    async def begin(self) -> None:
        """Look before the first row. Raises ValueError and the client's errors."""

    async def verdict(self) -> Verdict:
        """Compare what it says with what was accepted."""


class StatisticsWitness:
    """Rows happen now, and the statistics are to count them."""

    name = "statistics"
    path = "/transactions"

    def __init__(self, address: Address) -> None:
        self.tally = Tally()
        self._address = address
        self._before: Statistics

    async def begin(self) -> None:
        """Read what is in the window already."""
        self._before = await self._read()

    async def verdict(self) -> Verdict:
        """Read what is in it now."""
        try:
            after = await self._read()
        except (NotConnectedError, LostAnswerError, ValueError) as problem:
            return Verdict(Outcome.FAILED, (str(problem),))
        return compare(self._before, self.tally, after)

    async def _read(self) -> Statistics:
        async with Client(self._address, answer_seconds=STATISTICS_SECONDS) as client:
            return read_statistics(await client.get("/stats"))


class FeedWitness:
    """Rows happened long ago, and the feed is to have them all."""

    name = "feed"
    path = POST_PATH

    def __init__(self, address: Address) -> None:
        self.tally = FeedTally()
        self._address = address

    async def begin(self) -> None:
        """Look whether there is a feed."""
        await find_feed(self._address)

    async def verdict(self) -> Verdict:
        """Page through it."""
        with tqdm(total=self.tally.to_be_read, unit=" rows", desc="read back", disable=None) as bar:
            return await check_feed(self._address, self.tally, bar.update)
