"""What several nodes cost each other: unit costs, measured here, and what follows for 3, 30 and 300.

    python -m loadtest.scale [--database-url URL]

Takes half a minute. Encoding, taking in and reading are timed on the service's own code, in this
process; Redis is a throwaway server on loopback, by its own account of its processor, where
`redis-server` is installed. With the URL of an empty, migrated PostgreSQL, it says how many rows a
second a node's store writes there. docs/scale.md has the figures and what they mean.
"""

import argparse
import asyncio
import math
import random
import shutil
import socket
import subprocess
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median
from typing import Final, NamedTuple

import redis

from app.core.bulletin import Bulletin
from app.core.identifier import IdentifierSource
from app.core.transaction import Row, Transaction
from app.core.window import Part, Shape
from app.environment import read_settings
from app.exchange.redis import RedisExchange
from app.ledger.cluster import Cluster
from app.ledger.peer import Source
from app.ledger.rounds import BYTES_PER_SECOND_MAX, ROUND_NODES, ROUND_SECONDS
from app.ledger.statistics import Statistics
from app.ledger.users import Users
from app.main import build_store

SHAPE: Final = Shape.covering(60_000, 1000)
NOW_MS: Final = 1_767_323_045_678
STORE: Final = bytes(8)
SLOTS: Final = 1000
NODES: Final = (3, 30, 300)
ROUNDS: Final = 40
SWAPPING_NODES: Final = (3, 30, 100)
DATABASE_SECONDS: Final = 2.0
# What an entry of the stream has beside the bulletin, in an answer.
ENTRY_BYTES: Final = 43
# What a round costs the node beside what it hears: two commands and their answers.
SWAP_US: Final = 200


class Costs(NamedTuple):
    """Of one processor, in microseconds; and in bytes."""

    empty_bytes: float
    slot_bytes: float
    encode_slot_us: float
    hear_empty_us: float
    hear_slot_us: float


def cluster(name: str) -> Cluster:
    """One node's view."""
    made = Cluster(Source(name, STORE), SHAPE, Statistics(SHAPE, Users(SHAPE, 0)), lambda _: None)
    made.restart(SHAPE, 0, {})
    made.note_clock(0.0, 1.0, NOW_MS)
    return made


def parts(choose: random.Random, slots: int, over_ms: int, count: int) -> list[Part]:
    """So many slots of that count, spread over that time."""
    times_ms = choose.sample(range(NOW_MS - over_ms, NOW_MS), slots)
    return [(ms, count, count * (units := choose.randrange(10**11)), units, units) for ms in times_ms]


def microseconds(work: Callable[[], object], times: int = 30) -> float:
    """What a call takes, as a median."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return median(taken) * 1e6


def told(teller: Cluster, counted: list[Part]) -> bytes:
    """The bulletin of what was counted."""
    teller.count({"EUR": counted})
    return teller.bulletin(NOW_MS, len(counted)).bulletin.encode()


def costs(over_ms: int, count: int) -> Costs:
    """Unit costs of bulletins whose slots lie spread over that time, with so many transactions each."""
    choose = random.Random(1)
    encode_us: list[float] = []
    messages = []
    hearer, nothing = cluster("hearer"), cluster("idle").bulletin(NOW_MS, SLOTS).bulletin.encode()
    for number in range(30):
        # Each of a node of its own, so that no slot is told twice.
        teller = cluster(f"n{number % 3}")
        counted = parts(choose, SLOTS, over_ms, count + number // 3)
        teller.count({"EUR": counted})
        began = time.perf_counter()
        messages.append(teller.bulletin(NOW_MS, SLOTS).bulletin.encode())
        encode_us.append((time.perf_counter() - began) * 1e6)
    waiting = iter(messages)
    hear_us = microseconds(lambda: hearer.hear(Bulletin.decode(next(waiting)), NOW_MS), len(messages))
    empty_us = microseconds(lambda: hearer.hear(Bulletin.decode(nothing), NOW_MS), 2000)
    return Costs(
        len(nothing),
        (len(messages[0]) - len(nothing)) / SLOTS,
        median(encode_us) / SLOTS,
        empty_us,
        (hear_us - empty_us) / SLOTS,
    )


def filled(peers: int, slots: int) -> Cluster:
    """A node that knows of so many others, with so many slots each."""
    choose, made = random.Random(2), cluster("reader")
    for number in range(peers):
        teller = cluster(f"n{number}")
        for _ in range(max(slots // SLOTS, 1)):
            made.hear(Bulletin.decode(told(teller, parts(choose, min(SLOTS, slots), 60_000, 1))), NOW_MS)
    return made


@contextmanager
def redis_server() -> Iterator[int]:
    """The port of a throwaway server."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with tempfile.TemporaryDirectory() as directory:
        words = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", directory]
        server = subprocess.Popen(["redis-server", *words], stdout=subprocess.DEVNULL)
        try:
            with redis.Redis(port=port) as client:
                while True:
                    try:
                        client.ping()
                        break
                    except redis.ConnectionError:
                        time.sleep(0.02)
            yield port
        finally:
            server.terminate()
            server.wait(10)


async def swap_cost(port: int, nodes: int, message: bytes) -> tuple[float, float, float]:
    """Microseconds of Redis's processor a swap, bytes out, and microseconds of the client's."""
    exchanges = [RedisExchange(f"redis://127.0.0.1:{port}/0", 70_000) for _ in range(nodes)]
    with redis.Redis(port=port) as client:
        client.flushall()
        for each in exchanges:
            await each.swap(message)
        for each in exchanges:
            await each.swap(message)

        def account() -> tuple[float, float]:
            cpu, net = client.info("cpu"), client.info("stats")
            assert isinstance(cpu, dict)
            assert isinstance(net, dict)
            return cpu["used_cpu_user"] + cpu["used_cpu_sys"], net["total_net_output_bytes"]

        rounds = max(ROUNDS * 30 // nodes, 8)
        (cpu, out), own = account(), time.process_time()
        for _ in range(rounds):
            for each in exchanges:
                await each.swap(message)
        own = time.process_time() - own
        (cpu_then, out_then), swaps = account(), rounds * nodes
    for each in exchanges:
        await each.close()
    return (cpu_then - cpu) * 1e6 / swaps, (out_then - out) / swaps, own * 1e6 / swaps


def print_redis(idle: bytes, busy: bytes) -> float:
    """What a swap costs Redis and who asks; what the client takes for each bulletin more, in us."""
    if shutil.which("redis-server") is None:
        print("\nRedis was NOT measured: redis-server is not installed")
        return math.nan
    print("\n| nodes | bulletin, bytes | Redis, us a swap | client, us a swap | bytes out a swap |")
    print("|---|---|---|---|---|")
    clients_us: list[float] = []
    with redis_server() as port:
        for nodes in SWAPPING_NODES:
            for message in (idle, busy):
                redis_us, out, client_us = asyncio.run(swap_cost(port, nodes, message))
                print(f"| {nodes} | {len(message)} | {redis_us:.0f} | {client_us:.0f} | {out:.0f} |")
            clients_us.append(client_us)
    return (clients_us[-1] - clients_us[0]) / (SWAPPING_NODES[-1] - SWAPPING_NODES[0])


def print_derived(unit: Costs, client_us: float) -> None:
    """What follows, where every node tells a thousand slots a second, or as many as it may."""
    titles = (
        "nodes",
        "rounds a second of each",
        "swaps a second",
        "Redis out, MB/s, nothing told",
        "... slots told",
        "slots a second each may tell",
        "told",
        "a node's processor, nothing told",
        "... slots told",
    )
    print(f"\n| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    for nodes in NODES:
        rounds = 1 / (ROUND_SECONDS * max(nodes / ROUND_NODES, 1))
        swaps = nodes * rounds
        slots_max = BYTES_PER_SECOND_MAX / (nodes + 2) / unit.slot_bytes
        slots = min(1000, slots_max)
        # Each is sent to every node, and what was read last is sent again, mostly one's own.
        idle_out = swaps * (nodes + 1) * (unit.empty_bytes + ENTRY_BYTES) / 1e6
        busy_out = idle_out + nodes * (nodes + 1) * slots * unit.slot_bytes / 1e6
        idle = rounds * (SWAP_US + nodes * (unit.hear_empty_us + client_us)) / 1e6
        busy = idle + slots * (nodes * unit.hear_slot_us + unit.encode_slot_us) / 1e6
        print(
            f"| {nodes} | {rounds:.1f} | {swaps:.0f} | {idle_out:.2f} | {busy_out:.1f} "
            f"| {slots_max:.0f} | {slots:.0f} | {idle:.1%} | {busy:.1%} |"
        )


async def rows_per_second(url: str, rows: int) -> float:
    """How many rows a store writes, so many in a commit."""
    store = build_store(read_settings({"DATABASE_URL": url}))
    await store.open()
    identifiers, fact = IdentifierSource(1), Transaction(1250000000, NOW_MS, "EUR", "u-1")
    written, began = 0, time.perf_counter()
    while time.perf_counter() < began + DATABASE_SECONDS:
        await store.append([Row(each, fact) for each in identifiers.take(NOW_MS, rows)])
        written += rows
    seconds = time.perf_counter() - began
    await store.close()
    return written / seconds


def print_peers() -> None:
    """What knowing others costs, by how many there are and what they have counted."""
    print("\n| peers | slots each | a read, us | all told again, ms | counted anew, ms |")
    print("|---|---|---|---|---|")
    for peers, slots in ((1, 1000), (30, 1000), (1, 60_000), (10, 60_000)):
        made = filled(peers, slots)
        read_us = microseconds(partial(made.statistics.windows.since, NOW_MS - 59_999), 500)
        teller = cluster("again")
        teller.count({"EUR": parts(random.Random(3), slots - 1, 60_000, 1)})
        tell_ms = microseconds(teller.tell_all, 3) / 1000
        anew_ms = microseconds(made.count_anew, 3) / 1000
        print(f"| {peers} | {slots} | {read_us:.1f} | {tell_ms:.1f} | {anew_ms:.1f} |")


def print_memory() -> None:
    """What one peer takes; the total holds as much once more, for all of them together."""
    print("\n| slots of a peer, of one currency | MB |\n|---|---|")
    for slots in (1000, 10_000, 60_000):
        tracemalloc.start()
        made = filled(1, slots)
        taken = tracemalloc.get_traced_memory()[0] / 2
        tracemalloc.stop()
        del made
        print(f"| {slots} | {taken / 1e6:.1f} |")


def main() -> None:
    """Measure, and print what follows."""
    parser = argparse.ArgumentParser(description="What several nodes cost each other.")
    parser.add_argument("--database-url", help="an empty, migrated PostgreSQL to write rows to")
    url = parser.parse_args().database_url
    spread, now = costs(60_000, 1), costs(1200, 3)
    print("| slots | nothing, bytes | a slot, bytes | encode it, us | hear nothing, us | hear it, us |")
    print("|---|---|---|---|---|---|")
    for name, unit in (("one transaction each, spread", spread), ("several each, of one second", now)):
        print(f"| {name} | {' | '.join(f'{value:.1f}' for value in unit)} |")
    print_peers()
    print_memory()
    idle = cluster("idle").bulletin(NOW_MS, SLOTS).bulletin.encode()
    client_us = print_redis(idle, told(cluster("busy"), parts(random.Random(4), 40, 60_000, 1)))
    print_derived(spread, client_us)
    if url:
        print("\n| rows in a commit | rows a second |\n|---|---|")
        for rows in (1, 64, 1024):
            print(f"| {rows} | {asyncio.run(rows_per_second(url, rows)):.0f} |")


if __name__ == "__main__":
    main()
