"""Services that a whole file of tests shares, and how each test finds its own with nothing in it."""

from collections.abc import Iterator
from typing import cast

import pytest

from app.settings import Settings
from tests.support.client import LANES, NOW_MS, STORES, database_url
from tests.support.openapi import Json
from tests.support.thread import Clock, ServiceThread, serve


@pytest.fixture(scope="module", params=[*LANES, pytest.param(None, id="behind a front")])
def on_each_lane(request: pytest.FixtureRequest) -> Iterator[ServiceThread]:
    settings = Settings(database_url="memory://", workers=2)
    if request.param is not None:
        settings = Settings(database_url="memory://", fast_lane=request.param)
    with serve(settings, Clock(NOW_MS)) as service:
        yield service


@pytest.fixture(scope="module", params=STORES)
def on_each_store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServiceThread]:
    settings = Settings(database_url=database_url(request.param, tmp_path_factory.mktemp("shared")))
    with serve(settings, Clock(NOW_MS)) as service:
        yield service


@pytest.fixture(scope="module")
def document() -> Json:
    """As it is served."""
    with serve(Settings(database_url="memory://"), Clock(NOW_MS)) as service:
        answer = service.client.get("/openapi.json")
    return cast(Json, answer.json())


@pytest.fixture
def service(running: ServiceThread) -> ServiceThread:
    """The service that is running for this file, with nothing in it."""
    assert running.client.delete("/transactions").status_code == 204
    return running
