"""The doors: path, method, handler."""

from collections.abc import Mapping

from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from app.web.batch import Batch
from app.web.health import Health
from app.web.resource import Resource, not_found
from app.web.stats import Stats
from app.web.transactions import Transactions


def build_router(transactions: Transactions, batch: Batch, stats: Stats, health: Health) -> "Doors":
    """The ASGI application: every path there is."""
    statistics = Resource({"GET": stats.get})
    return Doors(
        {
            "/transactions": Resource({"POST": transactions.post, "DELETE": transactions.delete}),
            "/transactions/batch": Resource({"POST": batch.post}),
            "/stats": statistics,
            "/statistics": statistics,
            "/health": Resource({"GET": health.live}),
            "/livez": Resource({"GET": health.live}),
            "/readyz": Resource({"GET": health.ready}),
        }
    )


class Doors(Router):
    """Starlette's router, with paths that have no parameters one look-up away.

    It stands alone, without the two middlewares of a Starlette application: a Resource answers every
    error itself.
    """

    def __init__(self, resources: Mapping[str, Resource]) -> None:
        routes = [Route(path, endpoint=resource) for path, resource in resources.items()]
        super().__init__(routes, redirect_slashes=False, default=not_found)
        self._resources = resources

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        path = scope["path"]
        resource = self._resources.get(path)
        if resource is not None:
            await resource(scope, receive, send)
        elif "\n" in path:
            await not_found(scope, receive, send)  # Which the router's patterns would overlook.
        else:
            await super().__call__(scope, receive, send)
