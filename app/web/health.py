"""What a container platform asks: is it alive, and would it take a transaction; and what people ask."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final

import msgspec
from starlette.types import Receive, Scope

from app.ledger.condition import NodeCondition
from app.ledger.ledger import Ledger
from app.web.answers import Answer, json_answer
from app.web.guard import Caller
from app.web.ingest import NOT_READY

ALIVE: Final = json_answer(HTTPStatus.OK, b'{"status":"ok"}')


class _Dependency(msgspec.Struct, omit_defaults=True):
    status: str
    detail: str | None = None


class _Node(msgspec.Struct):
    node: str
    status: str
    lag_ms: int
    clock_skew_ms: float


class _Health(msgspec.Struct, omit_defaults=True):
    status: str
    dependencies: Mapping[str, _Dependency]
    nodes: Sequence[_Node] | None = None


async def live(scope: Scope, receive: Receive, caller: Caller) -> Answer:
    """That this runs is the answer: the event loop turns."""
    return ALIVE


class Health:
    """Whether it is ready. It waits for nothing."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def ready(self, scope: Scope, receive: Receive, caller: Caller) -> Answer:
        """200 when a POST would be accepted, else 503 with the reason."""
        reason = self._ledger.why_unready()
        return ALIVE if reason is None else NOT_READY[reason]

    async def report(self, scope: Scope, receive: Receive, caller: Caller) -> Answer:
        """How everything is. It is always 200: what acts on a status asks for readiness."""
        report = self._ledger.report()
        body = _Health(
            report.condition.value,
            {each.name: _Dependency(each.condition.value, each.detail) for each in report.dependencies},
            None if report.nodes is None else [_node(each) for each in report.nodes],
        )
        return json_answer(HTTPStatus.OK, msgspec.json.encode(body))


def _node(node: NodeCondition) -> _Node:
    return _Node(node.node, node.condition.value, node.lag_ms, node.clock_skew_ms)
