"""How the service is, and each thing that it depends on."""

from collections.abc import Iterable
from enum import Enum
from typing import Final, NamedTuple


class Condition(Enum):
    """From well to ill."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    """It does its work, but something is missing."""
    UNHEALTHY = "unhealthy"
    """It does not do its work."""


_ILLNESS: Final = {condition: number for number, condition in enumerate(Condition)}


class Dependency(NamedTuple):
    """One thing that is depended on, and what is wrong with it."""

    name: str
    condition: Condition
    detail: str | None = None


class NodeCondition(NamedTuple):
    """Another node, as this one sees it."""

    node: str
    condition: Condition
    lag_ms: int
    """Everything that it had counted so long ago is counted here."""
    clock_skew_ms: float
    """How far its clock is ahead of this one's."""


class Report(NamedTuple):
    """How everything is."""

    dependencies: list[Dependency]
    nodes: list[NodeCondition] | None
    """The others; None where this is no node of several."""

    @property
    def condition(self) -> Condition:
        """The worst there is. That another node is gone does not make this one ill."""
        return worst(dependency.condition for dependency in self.dependencies)


def worst(conditions: Iterable[Condition]) -> Condition:
    """The worst of some, healthy where there are none."""
    return max(conditions, key=_ILLNESS.__getitem__, default=Condition.HEALTHY)
