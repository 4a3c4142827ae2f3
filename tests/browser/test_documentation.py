"""The two forms of the documentation in a real browser."""

import json
import time

import httpx
from playwright.sync_api import Page, expect

from tests.browser.conftest import Open
from tests.support.attacks import secret_mint
from tests.support.issuer import AUDIENCE, EVERYTHING, ISSUER, SECRET
from tests.support.process import ServiceProcess


def try_out(page: Page, status: int) -> None:
    """Post a transaction as the page proposes it."""
    operation = page.locator("#operations-Transactions-postTransaction")
    if operation.locator(".try-out__btn").count() == 0:
        operation.locator(".opblock-summary-control").click()
        operation.locator(".try-out__btn").click()
        body = json.dumps({"amount": "12.50", "currency": "EUR", "timestamp": time.time()})
        operation.locator("textarea.body-param__text").fill(body)
    operation.locator("button.execute").click()
    expect(operation.locator(".live-responses-table .response-col_status").last).to_contain_text(
        str(status)
    )


def assert_shows_every_path(page: Page, client: httpx.Client) -> None:
    for methods in client.get("/openapi.json").json()["paths"].values():
        for method, operation in methods.items():
            if method != "head":
                expect(page.get_by_text(operation["summary"]).first).to_be_attached()


def test_a_transaction_is_posted_without_a_token(client: httpx.Client, open_page: Open) -> None:
    page = open_page(f"{client.base_url}/docs")
    assert_shows_every_path(page, client)
    try_out(page, 201)
    assert client.get("/stats").json()["by_currency"]["EUR"]["count"] == 1


def test_a_transaction_is_posted_with_a_token(open_page: Open) -> None:
    environment = {
        "AUTH": "jwt",
        "JWT_SECRET": SECRET,
        "JWT_ISSUER": ISSUER,
        "JWT_AUDIENCE": AUDIENCE,
    }
    now = int(time.time())
    token = secret_mint(claims={"exp": now + 600, "iat": now, "scope": EVERYTHING})
    with ServiceProcess(environment) as process:
        page = open_page(f"{process.serving()}/docs", complains=True)
        try_out(page, 401)
        page.locator(".auth-wrapper .authorize.unlocked").first.click()
        page.locator(".modal-ux input").fill(token)
        page.locator(".modal-ux .auth-btn-wrapper button[type=submit]").click()
        page.locator(".modal-ux .btn-done").click()
        try_out(page, 201)


def test_the_reference_shows_every_path(client: httpx.Client, open_page: Open) -> None:
    # It has a picture of its maker's in it, which the page's policy keeps it from asking for.
    page = open_page(f"{client.base_url}/redoc", complains=True)
    assert_shows_every_path(page, client)
