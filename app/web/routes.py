"""The doors: path, method, handler."""

from starlette.routing import Route, Router

from app.web.batch import Batch
from app.web.health import Health
from app.web.resource import Resource, not_found
from app.web.stats import Stats
from app.web.transactions import Transactions


def build_router(transactions: Transactions, batch: Batch, stats: Stats, health: Health) -> Router:
    """The ASGI application: every path there is."""
    statistics = Resource({"GET": stats.get})
    doors = {
        "/transactions": Resource({"POST": transactions.post, "DELETE": transactions.delete}),
        "/transactions/batch": Resource({"POST": batch.post}),
        "/stats": statistics,
        "/statistics": statistics,
        "/health": Resource({"GET": health.live}),
        "/livez": Resource({"GET": health.live}),
        "/readyz": Resource({"GET": health.ready}),
    }
    # A router alone, without Starlette's two middlewares around it: a Resource answers every error.
    return Router(
        [Route(path, endpoint=resource) for path, resource in doors.items()],
        redirect_slashes=False,
        default=not_found,
    )
