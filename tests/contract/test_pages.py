"""The pages and what they are made of: served as they are, to whoever asks, and nothing beside them."""

import gzip
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import app.web
from app.settings import Settings
from app.web.pages import ASSETS
from tests.support.client import NOW_MS, assert_problem, protected
from tests.support.issuer import SECRET
from tests.support.thread import Clock, ServiceThread, serve

PAGES = ("/", "/docs", "/redoc")
DIRECTORY = Path(app.web.__file__).with_name("dashboard")
VENDOR = DIRECTORY / "vendor"


@pytest.fixture(scope="module")
def running() -> Iterator[ServiceThread]:
    with serve(Settings(database_url="memory://"), Clock(NOW_MS)) as service:
        yield service


def loaded(page: str) -> set[str]:
    """The paths that a page, or a script, asks for."""
    paths = set(re.findall(r'(?:src|href)="([^"]+)"', page))
    return paths | {f"/assets/{name}" for name in re.findall(r'from "\./([^"]+)"', page)}


def test_a_page_is_of_the_service_alone_and_its_policy_says_so(running: ServiceThread) -> None:
    for path in PAGES:
        answer = running.client.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        policy = dict(
            part.strip().partition(" ")[::2]
            for part in answer.headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["script-src"] == policy["connect-src"] == "'self'"
        assert policy["style-src"] == ("'self'" if path == "/" else "'self' 'unsafe-inline'")
        assert "://" not in re.sub(r'xmlns="[^"]*"', "", answer.text)
        # Neither a script nor a style in the page itself, which the policy would not allow either.
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script[^>]*>[^<]", answer.text)


def test_whatever_a_page_asks_for_there_is_and_nothing_is_left_over(running: ServiceThread) -> None:
    asked_for: set[str] = set()
    texts = [running.client.get(path).text for path in PAGES]
    while texts:
        for path in loaded(texts.pop()):
            if path in asked_for:
                continue
            asked_for.add(path)
            answer = running.client.get(path)
            assert answer.status_code == 200, path
            if not (VENDOR / f"{path.rpartition('/')[2]}.gz").exists():
                texts.append(answer.text)
    assert asked_for - {f"/assets/{name}" for name in ASSETS} <= {*PAGES, "/stats", "/openapi.json"}
    assert {f"/assets/{name}" for name in ASSETS} <= asked_for


@pytest.mark.parametrize(
    "name",
    ["", "nope.js", "index.html", "vendor", "%2e%2e", "vendor%2fPACKAGES", "a/b"],
)
def test_what_is_no_part_of_a_page_is_not_there(name: str, running: ServiceThread) -> None:
    assert_problem(running.client.get(f"/assets/{name}"), 404, "not_found")


@pytest.mark.parametrize("path", [*PAGES, "/assets/dashboard.js", "/assets/redoc.js"])
def test_who_has_it_is_not_sent_it_again(path: str, running: ServiceThread) -> None:
    answer = running.client.get(path)
    assert answer.headers["cache-control"] == "no-cache"
    tag = {"if-none-match": answer.headers["etag"]}
    again = running.client.get(path, headers=tag)
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag["if-none-match"])
    head = running.client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers == answer.headers


@pytest.mark.parametrize("coding", ["identity", "br", "gzip;q=0", "gzip; q=0.0, identity", ""])
def test_what_is_packed_is_unpacked_for_who_cannot(coding: str, running: ServiceThread) -> None:
    packed = running.client.get("/assets/uplot.js", headers={"accept-encoding": "deflate, gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    plain = running.client.get("/assets/uplot.js", headers={"accept-encoding": coding})
    assert "content-encoding" not in plain.headers
    assert plain.headers["vary"] == packed.headers["vary"] == "accept-encoding"
    assert plain.content == packed.content
    assert int(plain.headers["content-length"]) == len(plain.content)
    assert plain.headers["etag"] != packed.headers["etag"]


def test_the_pages_need_no_token() -> None:
    with serve(protected(jwt_secret=SECRET), Clock(NOW_MS)) as service:
        for path in (*PAGES, "/assets/dashboard.js"):
            assert service.client.get(path).status_code == 200
        assert_problem(service.client.get("/stats/stream"), 401, "unauthorized")


def test_what_is_others_is_as_their_package_has_it_with_its_licence() -> None:
    lines = (VENDOR / "SHA256SUMS").read_text("utf-8").splitlines()
    sums = {file: digest for digest, file in (line.split() for line in lines)}
    packages = [line.split() for line in (VENDOR / "PACKAGES").read_text("utf-8").splitlines()]
    assert sums.keys() == {file for file, _, _ in packages}
    for file, digest in sums.items():
        packed = VENDOR / f"{file}.gz"
        content = gzip.decompress(packed.read_bytes()) if packed.exists() else None
        content = (VENDOR / file).read_bytes() if content is None else content
        assert hashlib.sha256(content).hexdigest() == digest, file
    kept = {path.name.removesuffix(".gz") for path in VENDOR.iterdir()}
    assert kept == {*sums, "PACKAGES", "SHA256SUMS"}
    # Each with a version, and a licence of its own.
    assert all(re.fullmatch(r"[a-z-]+@[0-9.]+", package) for _, package, _ in packages)
    licensed = {package for file, package, _ in packages if file.endswith(".LICENSE")}
    assert licensed == {package for _, package, _ in packages}
