"""The doors: path, method, handler, and what its caller must be permitted."""

from collections.abc import Awaitable, Mapping
from typing import NamedTuple

from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from app.web.batch import Batch
from app.web.counts import Counts
from app.web.feed import Feed
from app.web.guard import Guard, Permission
from app.web.health import Health, live
from app.web.metrics import Metrics
from app.web.openapi import OpenAPI
from app.web.pages import Pages
from app.web.rate_limit import RateLimit
from app.web.resource import Entry, Handler, NotFound, Resource
from app.web.stats import Stats
from app.web.stream import StatsStream
from app.web.transactions import Transactions


class Handlers(NamedTuple):
    """What answers behind the doors."""

    post_transaction: Handler
    delete_transactions: Handler
    post_batch: Handler
    post_to_feed: Handler
    find: Handler
    find_of_user: Handler
    get_transaction: Handler
    get_stats: Handler
    live: Handler
    ready: Handler
    report: Handler
    metrics: Handler

    @classmethod
    def of(
        cls,
        transactions: Transactions,
        batch: Batch,
        feed: Feed,
        stats: Stats,
        health: Health,
        metrics: Metrics,
    ) -> "Handlers":
        """Those of a process that has the ledger itself."""
        return cls(
            post_transaction=transactions.post,
            delete_transactions=transactions.delete,
            post_batch=batch.post,
            post_to_feed=feed.post,
            find=feed.find,
            find_of_user=feed.find_of_user,
            get_transaction=feed.get,
            get_stats=stats.get,
            live=live,
            ready=health.ready,
            report=health.report,
            metrics=metrics.get,
        )


def build_router(
    guard: Guard,
    limit: RateLimit | None,
    handlers: Handlers,
    stream: StatsStream,
    pages: Pages,
    counts: Counts,
    *,
    guards_metrics: bool = False,
) -> "Doors":
    """The ASGI application: every path there is. `guards_metrics`: they are not for anyone."""
    statistics = {"GET": Entry(handlers.get_stats, Permission.STATS)}
    alive = {"GET": Entry(handlers.live, None)}
    entry = {"GET": Entry(handlers.get_transaction, Permission.READ)}
    described = OpenAPI(
        {
            "/transactions": {
                "POST": Entry(handlers.post_transaction, Permission.WRITE),
                "DELETE": Entry(handlers.delete_transactions, Permission.DELETE),
                "GET": Entry(handlers.find, Permission.READ),
            },
            "/transactions/batch": {"POST": Entry(handlers.post_batch, Permission.WRITE)},
            "/transactions/{id}": entry,
            "/api/v1/transactions": {
                "POST": Entry(handlers.post_to_feed, Permission.WRITE),
                "GET": Entry(handlers.find_of_user, Permission.READ),
            },
            "/api/v1/transactions/{id}": entry,
            "/stats": statistics,
            "/statistics": statistics,
            "/stats/stream": {"GET": Entry(stream.get, Permission.STATS)},
            "/health": alive,
            "/livez": alive,
            "/readyz": {"GET": Entry(handlers.ready, None)},
            "/api/v1/health": {"GET": Entry(handlers.report, None)},
            "/metrics": {"GET": Entry(handlers.metrics, Permission.STATS if guards_metrics else None)},
            "/": {"GET": Entry(pages.dashboard, None)},
            "/docs": {"GET": Entry(pages.docs, None)},
            "/redoc": {"GET": Entry(pages.redoc, None)},
            "/assets/{name}": {"GET": Entry(pages.asset, None)},
        },
        is_open=guard.everyone is not None,
    )
    resources: dict[str, Resource] = {}
    for path, entries in described.doors.items():
        counts.know(path)
        resources[path] = Resource(guard, limit, entries, counts, path)
    return Doors(resources, NotFound(counts))


class Doors(Router):
    """Starlette's router, with paths that have no parameters one look-up away.

    It stands alone, without the two middlewares of a Starlette application: a Resource answers every
    error itself.
    """

    def __init__(self, resources: Mapping[str, Resource], not_found: NotFound) -> None:
        routes = [Route(path, endpoint=resource) for path, resource in resources.items()]
        super().__init__(routes, redirect_slashes=False, default=not_found)
        self._not_found = not_found
        # A pattern that is asked for as it stands is no path, and what is in its braces an id like any.
        self._resources = {path: each for path, each in resources.items() if "{" not in path}

    # Not async: whoever awaits it awaits what it hands on to, with no coroutine between.
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:  # type: ignore[override]
        """Handle one request, by handing it on."""
        path = scope["path"]
        resource = self._resources.get(path)
        if resource is not None:
            return resource(scope, receive, send)
        if "\n" in path:
            # The router's patterns would overlook it at the end; no path has one anywhere.
            return self._not_found(scope, receive, send)
        return super().__call__(scope, receive, send)
