"""The same job as one would write it with FastAPI: a model, a lock, a ring of sixty seconds.

    python -m loadtest.peers.fastapi_ring PORT

It keeps nothing on a disk and is wrong by up to a second at the old edge of the window; that is what
one gets in an afternoon, and what the service's own figures are held against.
"""

import threading
import time
import uuid
from decimal import Decimal
from typing import Annotated, Final

from fastapi import FastAPI, HTTPException, Response, status
from pydantic import BaseModel, Field

from loadtest.peers.noop import serve

WINDOW_SECONDS: Final = 60
AHEAD_MS_MAX: Final = 1000


class Transaction(BaseModel):
    """What a client posts."""

    amount: Annotated[Decimal, Field(ge=0, max_digits=19, decimal_places=8)]
    timestamp: int
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3,4}$")] = "USD"
    user_id: Annotated[str | None, Field(min_length=1, max_length=128)] = None


class Accepted(BaseModel):
    """The answer to a transaction that was counted."""

    id: uuid.UUID


class Statistics(BaseModel):
    """Figures over the window."""

    count: int = 0
    sum: Decimal = Decimal(0)
    min: Decimal = Decimal(0)
    max: Decimal = Decimal(0)


class Slot:
    """One second of the ring."""

    __slots__ = ("count", "max", "min", "second", "sum")

    def __init__(self) -> None:
        self.second = self.count = 0
        self.sum = self.min = self.max = Decimal(0)

    def add(self, second: int, amount: Decimal) -> None:
        """Count one amount; a slot that still holds an older second starts anew."""
        if self.second != second:
            self.second = second
            self.count = 1
            self.sum = self.min = self.max = amount
            return
        self.count += 1
        self.sum += amount
        if amount < self.min:
            self.min = amount
        elif amount > self.max:
            self.max = amount


application: Final = FastAPI()
ring: Final = [Slot() for _ in range(WINDOW_SECONDS)]
lock: Final = threading.Lock()


@application.post("/transactions", status_code=status.HTTP_201_CREATED, response_model=Accepted)
async def post_transaction(transaction: Transaction) -> Accepted | Response:
    """Count one transaction."""
    now_ms = time.time_ns() // 1_000_000
    if transaction.timestamp > now_ms + AHEAD_MS_MAX:
        raise HTTPException(status.HTTP_422_UNPROCESSABLE_CONTENT, "timestamp lies ahead")
    second = transaction.timestamp // 1000
    if second <= now_ms // 1000 - WINDOW_SECONDS:
        return Response(status_code=status.HTTP_204_NO_CONTENT)
    with lock:
        ring[second % WINDOW_SECONDS].add(second, transaction.amount)
    return Accepted(id=uuid.uuid4())


@application.get("/stats")
async def get_statistics() -> Statistics:
    """Add up the slots of the last sixty seconds."""
    oldest = time.time_ns() // 1_000_000_000 - WINDOW_SECONDS
    with lock:
        slots = [slot for slot in ring if slot.second > oldest]
        if not slots:
            return Statistics()
        return Statistics(
            count=sum(slot.count for slot in slots),
            sum=sum((slot.sum for slot in slots), Decimal(0)),
            min=min(slot.min for slot in slots),
            max=max(slot.max for slot in slots),
        )


if __name__ == "__main__":
    serve(application)
