"""One browser for all, the machine's own Chromium; where there is none, these tests are skipped."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright

from tests.support.process import ServiceProcess

NAMES = ("chromium", "chromium-browser", "google-chrome")

# A machine that is busy with other tests takes its time.
expect.set_options(timeout=15_000)

Open = Callable[..., Page]


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("needs Chromium")
    with sync_playwright() as playwright:
        # It is shown nothing but what is tested here, and a container may have no sandbox to offer.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def started() -> Iterator[httpx.Client]:
    with ServiceProcess({}) as process, process.client() as client:
        yield client


@pytest.fixture
def client(started: httpx.Client) -> httpx.Client:
    """A client of a service with nothing in it."""
    assert started.delete("/transactions").status_code == 204
    return started


class Witness:
    """What a page asked for and complained about."""

    def __init__(self, page: Page) -> None:
        self.requests: list[Request] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._hear)

    def hosts(self) -> set[str]:
        """Who was asked; not who would have been, had the page's policy not kept it from asking."""
        return {urlsplit(each.url).netloc for each in self.requests if each.failure != "csp"}

    def _hear(self, said: ConsoleMessage) -> None:
        if said.type in ("error", "warning"):
            self.complaints.append(said.text)


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Opens a page; at the end of the test it must have asked nobody else, and not have complained."""
    with ExitStack() as stack:

        def open_(url: str, *, complains: bool = False, **options: Any) -> Page:  # noqa: ANN401
            context = stack.enter_context(browser.new_context(**{"locale": "en-GB", **options}))
            page = context.new_page()
            witness = Witness(page)
            page.goto(url)

            def check() -> None:
                assert witness.hosts() == {urlsplit(url).netloc}
                assert complains or witness.complaints == []

            stack.callback(check)
            return page

        yield open_


def post(client: httpx.Client, amount: str, **fields: object) -> None:
    """Post one of now."""
    body = {"amount": amount, "timestamp": time.time(), **fields}
    assert client.post("/transactions", json=body).status_code == 201
