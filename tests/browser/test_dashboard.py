"""The dashboard in a real browser: what it shows is what the service answers, to the last digit."""

import json
import os
import signal
import socket
import time

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import Open, post
from tests.support.attacks import secret_mint
from tests.support.issuer import AUDIENCE, EVERYTHING, ISSUER, SECRET
from tests.support.process import ServiceProcess

LARGEST = "92233720368.54775807"
# As the page promises, for a server that has gone.
LOST_MS = 3000


def url(client: httpx.Client) -> str:
    return str(client.base_url)


def literals(text: str) -> dict[str, str]:
    """The figures of an answer as they are spelled."""
    whole = json.loads(text, parse_float=str, parse_int=str)
    return {name: whole[name] for name in ("sum", "avg", "max", "min", "count")}


def shown(page: Page) -> dict[str, str | None]:
    return {
        name: page.locator(f"#{name}").get_attribute("value")
        for name in ("sum", "avg", "max", "min", "count")
    }


def serious(page: Page) -> list[str]:
    """What axe finds that keeps somebody from using the page."""
    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {[node['target'] for node in each['nodes']]}"
        for each in found
        if each["impact"] in ("serious", "critical")
    ]


def test_figures_are_those_of_stats_to_the_last_digit(client: httpx.Client, open_page: Open) -> None:
    page = open_page(url(client))
    german = open_page(url(client), locale="de-DE")
    expect(page.locator("#count")).to_have_attribute("value", "0")
    for number in range(1, 4):
        post(client, LARGEST, currency="EUR")
        expect(page.locator("#count")).to_have_attribute("value", str(number))
        assert shown(page) == literals(client.get("/stats").text)
    # Past 2^53, and of more digits than a binary float has.
    assert shown(page)["sum"] == "276701161105.64327421"
    for place in ("#sum", "#currencies .sum"):
        expect(page.locator(place)).to_have_text("276,701,161,105.64327421")
        expect(german.locator(place)).to_have_text("276.701.161.105,64327421")


def test_the_chart_moves(client: httpx.Client, open_page: Open) -> None:
    page = open_page(url(client))
    post(client, "12.50")
    canvas = page.locator("#chart canvas")
    expect(page.locator("#chart-legend")).to_contain_text("a second")
    before = canvas.evaluate("canvas => canvas.toDataURL()")
    expect(page.locator("#rate")).to_have_attribute("value", "0")
    assert canvas.evaluate("canvas => canvas.toDataURL()") != before


def test_window_and_currency_are_chosen(client: httpx.Client, open_page: Open) -> None:
    post(
        client,
        "5",
        currency="EUR",
    )
    post(client, "7", currency="CHF")
    page = open_page(url(client))
    expect(page.locator("#sum-unit")).to_contain_text("2 currencies")
    page.get_by_role("combobox", name="Currency").select_option("CHF")
    expect(page.locator("#sum")).to_have_attribute("value", "7.00")
    expect(page.locator("#sum-unit")).to_have_text("CHF")
    expect(page.locator("#currencies tr")).to_have_count(1)
    page.get_by_role("combobox", name="Window").select_option("1s")
    expect(page.locator("#count")).to_have_attribute("value", "0")
    expect(page.locator("#empty")).to_contain_text("No transactions in CHF in the last 1 s")
    page.get_by_role("combobox", name="Window").select_option("")
    expect(page.locator("#count")).to_have_attribute("value", "1")


def test_the_latest_are_found_and_opened(client: httpx.Client, open_page: Open) -> None:
    page = open_page(url(client))
    expect(page.locator("#feed-said")).to_have_text("There is none yet.")
    for name, amount in (("Café Šárka", LARGEST), ("<b>Baker</b>", "3")):
        body = {"amount": amount, "user_id": "u-1", "metadata": {"merchant_name": name}}
        assert client.post("/api/v1/transactions", json=body).status_code == 201
    rows = page.locator("#feed > li")
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text("<b>Baker</b>")
    page.get_by_label("Search").fill("cafe sarka")
    expect(rows).to_have_count(1)
    expect(rows.locator(".amount")).to_have_text("92,233,720,368.54775807 USD")
    # By the keyboard alone.
    rows.locator("summary").focus()
    page.keyboard.press("Enter")
    expect(rows.locator("dl")).to_contain_text("Café Šárka")
    page.get_by_label("Search").fill("nobody")
    expect(page.locator("#feed-said")).to_contain_text("No transaction has all of these words")
    page.get_by_label("Search").fill("")
    page.get_by_label("User").fill("u-2")
    expect(page.locator("#feed-said")).to_have_text("There is none of this user.")


def test_metadata_does_not_pass_for_what_it_is_not(client: httpx.Client, open_page: Open) -> None:
    body = {"amount": "3", "user_id": "u-1", "status": "failed"}
    posing = {"amount": "9", "user_id": "u-2", "status": "completed", "__proto__": "p"}
    assert client.post("/api/v1/transactions", json={**body, "metadata": posing}).status_code == 201
    page = open_page(url(client))
    page.locator("#feed summary").click()
    for name, told in (("amount", ["3.00", "9"]), ("user id", ["u-1", "u-2"]), ("status", None)):
        terms = page.locator("#feed dt").get_by_text(name, exact=True)
        expect(terms).to_have_count(2)
        expect(terms.locator("xpath=following-sibling::dd[1]")).to_have_text(
            told or ["failed", "completed"]
        )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_keeps_anyone_from_using_it(scheme: str, client: httpx.Client, open_page: Open) -> None:
    sizes = {"light": (1280, 900), "dark": (360, 740)}
    width, height = sizes[scheme]
    page = open_page(url(client), color_scheme=scheme, viewport={"width": width, "height": height})
    expect(page.locator("#empty")).to_be_visible()
    assert serious(page) == []
    for currency in ("EUR", "CHF"):
        post(client, LARGEST, currency=currency, user_id="u" * 128)
    expect(page.locator("#feed > li")).to_have_count(2)
    page.locator("#feed summary").first.click()
    page.locator("#health summary").click()
    assert serious(page) == []
    # Nothing but the table of many columns is wider than the window.
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for figure in page.locator("#figures data").all():
        assert figure.evaluate("element => element.scrollWidth <= element.clientWidth")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_a_lost_server_is_shown_and_found_again(open_page: Open) -> None:
    environment = {"PORT": str(free_port())}
    with ServiceProcess(environment) as first:
        address = first.serving()
        page = open_page(address, complains=True)
        notice, health = page.locator("#notice"), page.locator("#health-word")
        expect(health).to_have_text("Healthy")
        expect(page.locator("#count")).to_have_attribute("value", "0")
        # One that hangs says nothing, and does not close either.
        os.kill(first.pid, signal.SIGSTOP)
        try:
            expect(notice).to_contain_text("No connection since", timeout=LOST_MS)
            expect(health).to_have_text("No connection")
        finally:
            os.kill(first.pid, signal.SIGCONT)
        expect(notice).to_be_hidden()
        expect(health).to_have_text("Healthy")
        first.kill()
        expect(notice).to_contain_text("No connection since", timeout=LOST_MS)
    with ServiceProcess(environment) as second, httpx.Client(base_url=second.serving()) as client:
        expect(notice).to_be_hidden()
        post(client, "1")
        expect(page.locator("#count")).to_have_attribute("value", "1")


def test_a_token_is_asked_for_and_kept_in_memory_only(open_page: Open) -> None:
    environment = {"AUTH": "jwt", "JWT_SECRET": SECRET, "JWT_ISSUER": ISSUER, "JWT_AUDIENCE": AUDIENCE}
    now = int(time.time())
    claims = {"exp": now + 600, "iat": now, "sub": "alice"}
    token = secret_mint(claims={**claims, "scope": EVERYTHING})
    lacking = secret_mint(claims={**claims, "scope": "transactions:read"})
    with ServiceProcess(environment) as process:
        address = process.serving()
        headers = {"authorization": f"Bearer {token}"}
        with httpx.Client(base_url=address, headers=headers) as client:
            post(client, "12.50")
        page = open_page(address, complains=True)
        field, notice = page.get_by_label("Token with the scope"), page.locator("#notice")
        expect(notice).to_contain_text("with a token")
        assert serious(page) == []
        field.fill("nonsense")
        page.keyboard.press("Enter")
        expect(notice).to_contain_text("not valid")
        field.fill(lacking)
        page.get_by_role("button", name="Use it").click()
        expect(notice).to_contain_text("lacks the scope stats:read")
        field.fill(token)
        page.keyboard.press("Enter")
        expect(page.locator("#count")).to_have_attribute("value", "1")
        expect(page.locator("#feed > li")).to_have_count(1)
        expect(field).to_be_hidden()
        kept = page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]")
        assert kept == [0, 0, ""]
        assert page.url == f"{address}/"
        assert token not in page.content()
        page.get_by_role("button", name="Forget the token").click()
        expect(field).to_be_visible()
        expect(page.locator("#sum")).to_have_attribute("value", "")
