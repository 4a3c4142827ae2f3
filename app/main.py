"""The composition root: every part is built here, and handed what it needs."""

import secrets
import time
from collections.abc import Callable
from typing import NamedTuple

from starlette.types import ASGIApp

from app.core.identifier import IdentifierSource
from app.core.transaction import TransactionDecoder
from app.core.window import Shape
from app.ledger.ledger import Ledger
from app.settings import Late, Settings, Switch
from app.store.base import MemoryStore, Store
from app.store.sqlite import SQLiteStore
from app.web.batch import Batch
from app.web.fast_lane import FastLane
from app.web.guard import OpenDoor
from app.web.health import ALIVE, Health
from app.web.ingest import Ingest
from app.web.routes import build_router
from app.web.stats import Stats
from app.web.transactions import Transactions


class Service(NamedTuple):
    """The ledger, to be opened before and closed after, and what answers in front of it."""

    ledger: Ledger
    application: ASGIApp
    fast_lane: FastLane | None


def wall_clock_ms() -> int:
    """Milliseconds since the epoch, rounded up: what happened by now is never in the future."""
    return -(-time.time_ns() // 1_000_000)


def build_service(
    settings: Settings,
    on_failure: Callable[[str], None],
    now_ms: Callable[[], int] = wall_clock_ms,
) -> Service:
    """Build every part. `on_failure` is called with the reason when the store breaks."""
    ledger = Ledger(
        _build_store(settings),
        Shape.covering(settings.window_seconds * 1000, settings.future_skew_ms),
        IdentifierSource(secrets.randbits(48)),
        now_ms,
        on_failure,
        keeps_late=settings.late is Late.KEEP,
    )
    decoder = TransactionDecoder(
        currencies=settings.currencies,
        default_currency=settings.default_currency,
        allow_negative=settings.allow_negative_amounts,
    )
    ingest = Ingest(decoder, ledger)
    stats = Stats(ledger, settings.currencies)
    batch = Batch(decoder, ledger, ingest)
    guard = OpenDoor()
    transactions, health = Transactions(ingest, ledger), Health(ledger)
    application = build_router(guard, transactions, batch, stats, health)
    is_fast = settings.fast_lane is Switch.ON
    return Service(ledger, application, FastLane(guard, ingest, stats, ALIVE) if is_fast else None)


def _build_store(settings: Settings) -> Store:
    path = settings.database_path
    return MemoryStore() if path is None else SQLiteStore(path)
