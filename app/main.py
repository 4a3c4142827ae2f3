"""The composition root: every part is built here, and handed what it needs."""

import secrets
import time
from collections.abc import Callable
from typing import Final, NamedTuple, cast

from starlette.types import ASGIApp

from app.core.entry import EntryDecoder
from app.core.identifier import IdentifierSource
from app.core.transaction import TransactionDecoder
from app.core.window import Shape
from app.ledger.history import History
from app.ledger.ledger import Ledger
from app.ledger.mirror import Mirror
from app.ledger.nodes import Membership
from app.ledger.users import Users
from app.settings import Authentication, Late, Settings, SettingsError, Switch
from app.store.base import MemoryStore, SharedStore, Store, StoreUnusable
from app.store.sqlite import SQLiteStore
from app.web.batch import Batch
from app.web.cors import CrossOrigin
from app.web.counts import Counts
from app.web.fast_lane import FastLane
from app.web.feed import Feed
from app.web.feed_query import FeedQuery
from app.web.forward import Forward, Office
from app.web.guard import Guard, OpenDoor
from app.web.health import ALIVE, Health
from app.web.ingest import Ingest, TakeIn
from app.web.metrics import Metrics
from app.web.pages import Pages
from app.web.rate_limit import RateLimit
from app.web.routes import Handlers, build_router
from app.web.stats import SharedStats, Stats
from app.web.stream import StatsStream
from app.web.transactions import Transactions

_DAY_MS: Final = 86_400_000
NO_DRIVER: Final = (
    "DATABASE_URL: PostgreSQL needs its driver: "
    "pip install --require-hashes -r requirements-postgres.lock"
)
NO_REDIS: Final = (
    "REDIS_URL: needs the client of Redis: pip install --require-hashes -r requirements-redis.lock"
)


class Front(NamedTuple):
    """What answers requests: all of them, and the most frequent ones by a shorter way."""

    application: ASGIApp
    fast_lane: FastLane | None
    end_streams: Callable[[], None]
    """To be called when the door shuts, which waits for all that is under way."""
    counts: Counts
    """What it has answered."""


class Back(NamedTuple):
    """The ledger, to be opened before and closed after, and what it is asked by."""

    ledger: Ledger
    ingest: Ingest
    stats: Stats
    handlers: Handlers
    metrics: Metrics
    counts: Counts
    """What has become of transactions, and, where it is a front as well, what it has answered."""


class Service(NamedTuple):
    """Both in one process."""

    ledger: Ledger
    application: ASGIApp
    fast_lane: FastLane | None
    end_streams: Callable[[], None]
    counts: Counts


def wall_clock_ms() -> int:
    """Milliseconds since the epoch, rounded up: what happened by now is never in the future."""
    return -(-time.time_ns() // 1_000_000)


def build_service(
    settings: Settings,
    on_failure: Callable[[str], None],
    now_ms: Callable[[], int] = wall_clock_ms,
) -> Service:
    """Build every part. `on_failure` is called with the reason when the store breaks."""
    back = build_back(settings, on_failure, now_ms)
    front = _build_front(settings, back.ingest, back.stats, back.handlers, now_ms, back.counts)
    return Service(back.ledger, *front)


def build_back(
    settings: Settings,
    on_failure: Callable[[str], None],
    now_ms: Callable[[], int] = wall_clock_ms,
) -> Back:
    """Build what keeps and counts, and has no connections."""
    store = build_store(settings, is_node=bool(settings.redis_url))
    shape = _shape(settings)
    ledger = Ledger(
        store,
        shape,
        IdentifierSource(secrets.randbits(48)),
        now_ms,
        on_failure,
        users=Users(shape, _user_rows_max(settings)),
        keeps_late=settings.late is Late.KEEP,
        retention_ms=settings.retention_days * _DAY_MS,
        membership=_build_membership(settings, shape) if settings.redis_url else None,
        shared=cast(SharedStore, store) if _has_shared_users(settings) else None,
    )
    decoder = TransactionDecoder(
        currencies=settings.currencies,
        default_currency=settings.default_currency,
        allow_negative=settings.allow_negative_amounts,
    )
    ingest = Ingest(decoder, ledger)
    stats_of = SharedStats if _has_shared_users(settings) else Stats
    stats = stats_of(ledger, settings.currencies)
    batch = Batch(decoder, ledger, ingest)
    query = FeedQuery(settings.currencies)
    feed = Feed(EntryDecoder(decoder), ingest, ledger, History(store), query, now_ms)
    counts = Counts(ledger.outcomes)
    metrics = Metrics(ledger, counts, _feed_behind_rows(store))
    transactions, health = Transactions(ingest, ledger), Health(ledger)
    handlers = Handlers.of(transactions, batch, feed, stats, health, metrics)
    return Back(ledger, ingest, stats, handlers, metrics, counts)


def build_mirror(
    settings: Settings,
    catch_up: Callable[[], object],
    on_rewind: Callable[[int], object],
    now_ms: Callable[[], int] = wall_clock_ms,
) -> Mirror:
    """A copy of what a ledger of these settings counts."""
    has_users = _user_rows_max(settings) > 0 or _has_shared_users(settings)
    return Mirror(_shape(settings), has_users, now_ms, catch_up, on_rewind)


def build_front(
    settings: Settings,
    office: Office,
    mirror: Mirror,
    counts: Counts,
    now_ms: Callable[[], int] = wall_clock_ms,
) -> Front:
    """Build what has connections, and neither keeps nor counts but in `counts`."""
    forward = Forward(office)
    stats = Stats(mirror, settings.currencies, forward.get_stats)
    return _build_front(settings, office.take_in, stats, forward.handlers(stats), now_ms, counts)


def _build_front(
    settings: Settings,
    take_in: TakeIn,
    stats: Stats,
    handlers: Handlers,
    now_ms: Callable[[], int],
    counts: Counts,
) -> Front:
    guard, limit = _build_guard(settings, now_ms), _build_limit(settings, now_ms)
    stream = StatsStream(stats, guard, settings.connections_max)
    router = build_router(
        guard, limit, handlers, stream, Pages(), counts, guards_metrics=settings.metrics_auth
    )
    # A limit of addresses is the plain lane's: the fast one does not look where a request came from.
    is_fast = settings.fast_lane is Switch.ON and (limit is None or guard.everyone is None)
    fast_lane = FastLane(guard, limit, take_in, stats, ALIVE, counts) if is_fast else None
    return Front(CrossOrigin(router, settings.origins, counts), fast_lane, stream.end, counts)


def _feed_behind_rows(store: Store) -> Callable[[], int] | None:
    return (lambda: store.feed_behind_rows) if isinstance(store, SQLiteStore) else None


def _shape(settings: Settings) -> Shape:
    return Shape.covering(settings.window_seconds * 1000, settings.future_skew_ms)


def _user_rows_max(settings: Settings) -> int:
    # Those of other nodes are in nobody's memory but theirs.
    return 0 if settings.redis_url else settings.user_rows_max


def _has_shared_users(settings: Settings) -> bool:
    return bool(settings.redis_url) and settings.has_database_server and settings.user_rows_max > 0


def _build_limit(settings: Settings, now_ms: Callable[[], int]) -> RateLimit | None:
    per_second = settings.rate_limit_per_second
    return RateLimit(per_second, settings.rate_limit_burst or per_second, now_ms) if per_second else None


def _build_guard(settings: Settings, now_ms: Callable[[], int]) -> Guard:
    if settings.auth is not Authentication.JWT:
        return OpenDoor()
    # Who asks for no tokens need not wait for cryptography at every start.
    from app.web.fetch import Fetcher
    from app.web.key_set import KeySet
    from app.web.token_guard import TokenGuard
    from app.web.tokens import Keys, SharedSecret, Verifier

    key_set = KeySet(Fetcher(settings.jwt_jwks_url), now_ms) if settings.jwt_jwks_url else None
    keys: Keys = key_set or SharedSecret(settings.jwt_secret)
    guard = TokenGuard(Verifier(keys, settings.jwt_issuer, settings.jwt_audience, now_ms), now_ms)
    if key_set is not None:
        key_set.on_change = guard.forget
        key_set.keep_fresh()
    return guard


def _build_membership(settings: Settings, shape: Shape) -> Membership:
    try:
        # Its client is an extra: who has one node need not have it.
        from app.exchange.redis import RedisExchange
    except ImportError:
        raise SettingsError(NO_REDIS) from None
    kept_ms = shape.window_ms + shape.ahead_ms + shape.rewind_ms_max
    exchange = RedisExchange(settings.redis_url, kept_ms)
    return Membership(settings.node, exchange, shares_store=settings.has_database_server)


def build_store(settings: Settings, *, is_node: bool = False) -> Store:
    """What DATABASE_URL names, not yet opened: to be had alone, or as a node beside others."""
    if settings.has_database_server:
        return _build_postgres(settings.database_url, settings.node if is_node else None)
    path = settings.database_path
    return MemoryStore() if path is None else SQLiteStore(path)


def _build_postgres(url: str, node: str | None) -> Store:
    try:
        # Its driver is an extra: who keeps a file need not have it.
        from app.store.postgres import PostgresStore
    except ImportError:
        raise SettingsError(NO_DRIVER) from None
    try:
        return PostgresStore(url, node)
    except StoreUnusable as error:
        raise SettingsError(str(error)) from None
