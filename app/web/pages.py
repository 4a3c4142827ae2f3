"""The pages people look at, and what they are made of: read once, served from memory.

There is no path of a file in any request: what is served are the names below and no others. No page asks
another host for anything, and a policy in its headers has browsers see to that.
"""

from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Final

from starlette.types import Receive, Scope

from app.web.answers import Answer, Code, Headers, Problem, problem
from app.web.documents import Document
from app.web.guard import Caller

_DIRECTORY: Final = Path(__file__).with_name("dashboard")

HTML: Final = "text/html"
JAVASCRIPT: Final = "text/javascript"
CSS: Final = "text/css"
SVG: Final = "image/svg+xml"

ASSETS: Final[Mapping[str, str]] = {
    "icon.svg": SVG,
    "dashboard.css": CSS,
    "dashboard.js": JAVASCRIPT,
    "exact.js": JAVASCRIPT,
    "figures.js": JAVASCRIPT,
    "chart.js": JAVASCRIPT,
    "feed.js": JAVASCRIPT,
    "health.js": JAVASCRIPT,
    "live.js": JAVASCRIPT,
    "description.js": JAVASCRIPT,
    "docs.js": JAVASCRIPT,
    "docs.css": CSS,
    "redoc-start.js": JAVASCRIPT,
    "uplot.js": JAVASCRIPT,
    "uplot.css": CSS,
    "swagger-ui.js": JAVASCRIPT,
    "swagger-ui.css": CSS,
    "redoc.js": JAVASCRIPT,
}
"""What the pages load, by name. What is others' is in `vendor/`, packed."""

# Nothing from elsewhere, nothing written into the page itself, and no page around it.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'{styles}; img-src 'self'{images}; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_STRICT: Final = _POLICY.format(styles="", images="")
# Swagger UI and ReDoc write styles into their pages and pictures into their styles; scripts they do not.
_OTHERS: Final = _POLICY.format(styles=" 'unsafe-inline'", images=" data:")

_NO_ASSET: Final = problem(HTTPStatus.NOT_FOUND, Code.NOT_FOUND, "No page has anything of this name")


class Pages:
    """Serves the dashboard, the two forms of the documentation, and what they load."""

    def __init__(self) -> None:
        self._assets = {name: _asset(name, media_type) for name, media_type in ASSETS.items()}
        self.dashboard = _page("index.html", _STRICT).get
        self.docs = _page("docs.html", _OTHERS).get
        self.redoc = _page("redoc.html", _OTHERS).get

    async def asset(self, scope: Scope, receive: Receive, caller: Caller) -> Answer:
        """One of what the pages load."""
        asset = self._assets.get(scope["path_params"]["name"])
        if asset is None:
            raise Problem(_NO_ASSET)
        return await asset.get(scope, receive, caller)


def _page(name: str, policy: str) -> Document:
    return _document(HTML, (_DIRECTORY / name).read_bytes(), policy)


def _asset(name: str, media_type: str) -> Document:
    packed = _DIRECTORY / "vendor" / f"{name}.gz"
    is_gzip = packed.exists()
    body = (packed if is_gzip else _DIRECTORY / name).read_bytes()
    return _document(media_type, body, _STRICT, is_gzip=is_gzip)


def _document(media_type: str, body: bytes, policy: str, *, is_gzip: bool = False) -> Document:
    headers: Headers = (
        (b"content-security-policy", policy.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
    )
    return Document(f"{media_type}; charset=utf-8".encode(), body, headers, is_gzip=is_gzip)
