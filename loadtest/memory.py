"""Measure the memory of a full window, by the number of transactions in it.

    python -m loadtest.memory [N ...]

Each N is measured in a process of its own: a real ledger over `memory://`, a clock that the
measurement moves, and so many transactions that N lie in the window, for one window and a tenth.
Prints the resident memory before and after, in MiB.
"""

import asyncio
import multiprocessing
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from app.core.currency import ISO_4217
from app.core.identifier import IdentifierSource
from app.core.transaction import Row, TransactionDecoder
from app.core.window import Shape
from app.ledger.commit import Verdict
from app.ledger.ledger import Ledger
from app.store.base import MemoryStore

WINDOW_MS: Final = 60_000
RUN_MS: Final = WINDOW_MS + WINDOW_MS // 10
START_MS: Final = 1_767_323_045_678
SEED: Final = 20_260_102
IN_WINDOW: Final = (100_000, 1_000_000, 5_000_000)


def resident_bytes() -> int:
    """Resident memory of this process, as the kernel has it."""
    status = Path("/proc/self/status").read_text("utf-8")
    kibibytes = status.split("VmRSS:")[1].split()[0]
    return int(kibibytes) * 1024


async def fill(in_window: int) -> tuple[int, int, int]:
    """Resident bytes before and after, and how many transactions the window then holds."""
    choose = random.Random(SEED)
    now_ms = START_MS
    accepted = 0

    def done(verdict: Verdict, _: Sequence[Row]) -> None:
        nonlocal accepted
        accepted += verdict is Verdict.ACCEPTED

    decoder = TransactionDecoder(currencies=ISO_4217, default_currency="EUR", allow_negative=False)
    shape = Shape.covering(WINDOW_MS, 1000)
    fail: Callable[[str], None] = sys.exit
    ledger = Ledger(MemoryStore(), shape, IdentifierSource(1), lambda: now_ms, fail)
    await ledger.open()
    before = resident_bytes()
    submitted = 0
    for elapsed_ms in range(RUN_MS):
        now_ms = START_MS + elapsed_ms
        while submitted * WINDOW_MS < (elapsed_ms + 1) * in_window:
            cents = choose.randrange(1, 10**7)
            body = b'{"amount":%d.%02d,"timestamp":%d,"currency":"EUR","user_id":"u-%d"}'
            body %= (*divmod(cents, 100), now_ms, submitted)
            ledger.submit(decoder.decode(body), done)
            submitted += 1
        while accepted < submitted:
            await asyncio.sleep(0)
    found = ledger.read(ledger.moment()).figures.overall.count
    after = resident_bytes()
    await ledger.close()
    return before, after, found


def measure(in_window: int) -> tuple[int, int, int]:
    """One measurement, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_fill_now, (in_window,))


def _fill_now(in_window: int) -> tuple[int, int, int]:
    return asyncio.run(fill(in_window))


def main() -> None:
    """Measure each N of the command line, or the usual ones."""
    print(f"{'in the window':>15} {'before MiB':>11} {'after MiB':>10} {'taken MiB':>10}")
    for in_window in [int(number) for number in sys.argv[1:]] or IN_WINDOW:
        before, after, found = measure(in_window)
        taken = (after - before) / 2**20
        print(f"{found:>15} {before / 2**20:>11.2f} {after / 2**20:>10.2f} {taken:>10.2f}")


if __name__ == "__main__":
    main()
