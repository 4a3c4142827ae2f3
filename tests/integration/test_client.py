"""The client against the service and all that may lie between: each transaction once, or a clear no."""

import asyncio
import os
import random
import sqlite3
import time
from contextlib import ExitStack, suppress
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from app.client.gathering import Gathering
from app.client.patience import Patience
from app.client.service import ITEMS_MAX, Service
from app.client.values import Posted, Refused, Transaction
from app.settings import Settings
from tests.support.client import NOW_MS
from tests.support.fault_proxy import Fault, FaultProxy, fault_proxy
from tests.support.nginx import free_port
from tests.support.process import WAIT_SECONDS, ServiceProcess
from tests.support.thread import Clock, serve

POSTS = int(os.environ.get("MILLRACE_CLIENT_POSTS", "300"))
POSTERS = 6
RESTARTS = 2
FAULTS = (Fault.DROP, Fault.DROP_ANSWER)


async def trouble(proxy: FaultProxy, choose: random.Random) -> None:
    """Cut a request every few, at its arrival or at its answer."""
    while True:
        struck = proxy.struck
        fault = choose.choice(FAULTS)
        proxy.arm(fault, choose.choice((b"}", b"]")), choose.randrange(1, 8))
        while proxy.struck == struck:
            await asyncio.sleep(0.001)


def test_each_transaction_is_kept_once_through_cuts_drains_and_kills(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    choose = random.Random(seed)
    path, port = tmp_path / "ledger.db", free_port()
    environment = {
        "DATABASE_URL": f"sqlite:///{path}",
        "WINDOW_SECONDS": "3600",
        "PORT": str(port),
    }
    told: dict[str, Posted] = {}
    left = iter(range(POSTS))

    def made(number: int) -> Transaction:
        return Transaction(
            amount=Decimal(number) / 100,
            timestamp=time.time_ns() // 1_000_000,
            currency="EUR",
            user_id=f"u-{number}",
        )

    async def post(poster: int, service: Service, gathering: Gathering) -> None:
        by_batch = poster % 2 == 0
        for number in left:
            one = made(number)
            told[f"u-{number}"] = await (gathering.post(one) if by_batch else service.post(one))

    async def restart(process: ServiceProcess, after: int, *, is_killed: bool) -> ServiceProcess:
        while len(told) < after:
            await asyncio.sleep(0.001)
        process.kill() if is_killed else process.terminate()
        await asyncio.to_thread(process.exit_status)
        restarted = processes.enter_context(ServiceProcess(environment))
        await asyncio.to_thread(restarted.serving)
        return restarted

    async def main() -> int:
        process = processes.enter_context(ServiceProcess(environment))
        await asyncio.to_thread(process.serving)
        patience = Patience(attempts_max=1000, total_seconds=WAIT_SECONDS, pause_seconds_max=0.1)
        async with asyncio.timeout(2 * WAIT_SECONDS), fault_proxy(f"http://x@127.0.0.1:{port}") as proxy:
            url = f"http://127.0.0.1:{urlsplit(proxy.url).port}"
            async with Service(url, patience=patience) as service:
                gathering = Gathering(service, wait_ms=1)
                troubling = asyncio.create_task(trouble(proxy, choose))
                posting = asyncio.gather(
                    *(post(number, service, gathering) for number in range(POSTERS))
                )
                for number in range(RESTARTS):
                    after = POSTS * (number + 1) // (RESTARTS + 1)
                    process = await restart(process, after, is_killed=number % 2 == 1)
                await posting
                troubling.cancel()
                with suppress(asyncio.CancelledError):
                    await troubling
        process.terminate()
        assert await asyncio.to_thread(process.exit_status) == 0
        return proxy.struck

    with ExitStack() as processes:
        struck = asyncio.run(main())
    assert struck >= 3
    connection = sqlite3.connect(path)
    rows = connection.execute(
        "SELECT user_id, lower(hex(id)), amount_units FROM transactions"
    ).fetchall()
    connection.close()
    assert len(told) == POSTS
    assert sorted(rows) == sorted(
        (user, (posted.id or "").replace("-", ""), int(user.removeprefix("u-")) * 10**6)
        for user, posted in told.items()
    )


def test_a_caller_over_its_rate_comes_again_when_it_is_told_to() -> None:
    clock = Clock(NOW_MS)
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.now_ms += round(seconds * 1000)

    settings = Settings(database_url="memory://", rate_limit_per_second=2, rate_limit_burst=2)
    with serve(settings, clock) as running:

        async def main() -> None:
            url = f"http://127.0.0.1:{running.address[1]}"
            patience = Patience(clock=lambda: clock.now_ms / 1000, sleep=sleep, chance=lambda: 0.0)
            async with Service(url, patience=patience) as service:
                for number in range(6):
                    one = Transaction(amount=Decimal(number), timestamp=clock.now_ms)
                    assert (await service.post(one)).counted
                assert (await service.statistics()).count == 6

        asyncio.run(main())
    assert slept
    assert all(seconds >= 1 for seconds in slept)


def test_what_is_wrong_with_a_whole_batch_is_heard() -> None:
    with serve(Settings(database_url="memory://"), Clock(NOW_MS)) as running:

        async def main() -> None:
            async with Service(f"http://127.0.0.1:{running.address[1]}") as service:
                wrong = (
                    b'{"amount":"x","timestamp":"y","currency":"zz","user_id":"","idempotency_key":""}'
                )
                posted = await service.post_items([wrong] * ITEMS_MAX)
                assert posted.rejected == ITEMS_MAX
                assert len(posted.errors) == 5 * ITEMS_MAX

        asyncio.run(main())


@pytest.mark.parametrize("is_atomic", [False, True])
def test_the_answers_of_the_service_are_read_as_they_are_meant(is_atomic: bool) -> None:
    clock = Clock(NOW_MS)
    with serve(Settings(database_url="memory://"), clock) as running:

        async def main() -> None:
            async with Service(f"http://127.0.0.1:{running.address[1]}") as service:
                good = Transaction(amount=Decimal("1E+1"), timestamp=NOW_MS, idempotency_key="k")
                late = Transaction(amount=Decimal(1), timestamp=NOW_MS - 61_000)
                bad = Transaction(amount=Decimal("NaN"), timestamp=NOW_MS)
                if is_atomic:
                    with pytest.raises(Refused) as refused:
                        await service.post_batch([good, bad], is_atomic=True)
                    assert (refused.value.status, refused.value.code) == (422, "invalid_field")
                    assert refused.value.errors[0].pointer
                    return
                posted = await service.post_batch([good, good, late, bad])
                counts = (posted.accepted, posted.duplicate, posted.late, posted.rejected)
                assert counts == (1, 1, 1, 1)
                assert posted.ids[0] == posted.ids[1]
                assert posted.ids[2:] == [None, None]
                assert posted.errors[0].index == 3
                assert (await service.post(late)).id is None
                assert (await service.statistics(currency="USD")).sum == Decimal("10.00")
                await service.clear()
                assert (await service.statistics()).count == 0

        asyncio.run(main())
