"""What is measured, and the ratios it is measured for.

The targets are ratios of medians in the same run, because ratios travel from machine to machine and
figures alone do not.
"""

from typing import Final

import msgspec

from loadtest.benchmark.load import Get, Increment, Load, Post, Sync
from loadtest.benchmark.servers import FASTAPI, GO, NGINX, POSTGRES, REDIS, UVICORN, Server, ours

MEMORY: Final = "memory://"
SQLITE: Final = "sqlite:///{directory}/millrace.db"

BATCH_ITEMS: Final = 1000
_IN_WINDOW: Final = 100_000

_OURS: Final = Post(counted=True)
_OUR_BATCHES: Final = Post("/transactions/batch", BATCH_ITEMS, 200, counted=True)

# Both arms of it meet the same process, in the same state.
_STATS: Final = ours("stats", MEMORY)


class Arm(msgspec.Struct, frozen=True):
    """One load against one server."""

    name: str
    what: str
    server: Server | None
    load: Load

    @property
    def unit(self) -> str:
        """What its rate counts."""
        match self.load:
            case Increment():
                return "INCR/s"
            case Sync():
                return "sync/s"
            case Post(items=items) if items:
                return "tx/s"
        return "req/s"


class Target(msgspec.Struct, frozen=True):
    """The rate of one arm over that of another: what to reach, and what would be better still."""

    what: str
    arm: str
    over: str
    reach: float
    stretch: float


def _single(name: str, database: str, lane: str, fast: bool) -> Arm:
    what = f"single POST, {'memory' if database == MEMORY else 'SQLite'}, {lane} lane"
    return Arm(name, what, ours(name, database, fast), _OURS)


def _batches(name: str, database: str) -> Arm:
    what = f"batches of {BATCH_ITEMS}, {'memory' if database == MEMORY else 'SQLite'}"
    return Arm(name, what, ours(name, database), _OUR_BATCHES)


ARMS: Final = (
    _single("memory", MEMORY, "fast", fast=True),
    _single("memory-plain", MEMORY, "plain", fast=False),
    _single("sqlite", SQLITE, "fast", fast=True),
    _single("sqlite-plain", SQLITE, "plain", fast=False),
    _batches("batch-memory", MEMORY),
    _batches("batch-sqlite", SQLITE),
    Arm("postgres", "single POST, PostgreSQL, fast lane", ours("postgres", POSTGRES), _OURS),
    Arm("fdatasync", "the disk under SQLite: 4 KiB, synced", None, Sync()),
    Arm("stats", "GET /stats, 10^5 in the window", _STATS, Get("/stats", in_window=_IN_WINDOW)),
    Arm("livez", "GET /livez, same process: a no-op", _STATS, Get("/livez")),
    Arm("fastapi", "FastAPI + pydantic, ring of 60 slots", FASTAPI, Post()),
    Arm("uvicorn", "uvicorn, bare ASGI no-op", UVICORN, Post()),
    Arm("go", "Go net/http, encoding/json, ring of 60", GO, Post()),
    Arm("nginx", "nginx, constant 201", NGINX, Post()),
    Arm("nginx-batch", f"nginx, constant 201, batches of {BATCH_ITEMS}", NGINX, Post(items=BATCH_ITEMS)),
    Arm("redis", "redis INCR, one by one", REDIS, Increment()),
    Arm("redis-16", "redis INCR, pipelines of 16", REDIS, Increment(16)),
)

TARGETS: Final = (
    Target("single POST, memory ÷ nginx 201", "memory", "nginx", 0.70, 0.80),
    Target("single POST, memory ÷ Go", "memory", "go", 1.2, 1.4),
    Target("single POST, memory ÷ FastAPI", "memory", "fastapi", 7.5, 9),
    Target("single POST, memory ÷ redis INCR", "memory", "redis", 0.95, 1.1),
    Target("single POST, SQLite ÷ bare uvicorn", "sqlite", "uvicorn", 1.0, 1.2),
    Target("single POST, PostgreSQL ÷ SQLite", "postgres", "sqlite", 0.6, 0.8),
    Target("plain lane, memory ÷ bare uvicorn", "memory-plain", "uvicorn", 0.80, 0.90),
    Target("batches, memory tx ÷ INCR -P 16", "batch-memory", "redis-16", 0.6, 1.0),
    Target("batches, SQLite tx ÷ INCR -P 16", "batch-sqlite", "redis-16", 0.25, 0.4),
    Target("GET /stats ÷ no-op GET", "stats", "livez", 0.95, 1.0),
)

# Where the arm of a row runs, that of its yardstick does too.
DURABLE: Final = frozenset({"sqlite", "sqlite-plain", "batch-sqlite", "postgres"})


def chosen(names: list[str]) -> list[Arm]:
    """The arms of those names, and the disk's own figure beside those that sync; all for no names."""
    wanted = set(names) or {arm.name for arm in ARMS}
    if wanted & DURABLE:
        wanted.add("fdatasync")
    return [arm for arm in ARMS if arm.name in wanted]
