"""GET /openapi.json: the service as OpenAPI 3.1, made once from the table of doors.

A door that is not in the table is never shown, and a test finds one that `operations.py` does not
describe. What any request may be refused for follows from the door's entry.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from http import HTTPStatus
from typing import Final

import msgspec
from starlette.types import Receive, Scope

from app import VERSION
from app.web.answers import Answer, Code, json_answer, make_answer
from app.web.catalogue import CATALOGUE, RETRIABLE
from app.web.feed_parameters import Schema
from app.web.guard import Caller
from app.web.operations import (
    ANYTIME,
    HEADERS,
    JSON,
    OF_THE_CALLER,
    OPERATIONS,
    PARAMETERS,
    REFERENCE,
    Operation,
    Success,
    schema,
)
from app.web.resource import Entry
from app.web.schemas import BODIES

PATH: Final = "/openapi.json"

_PROBLEM: Final = "application/problem+json"
_TAGS: Final = re.compile(rb'(?:W/)?("[^"]*")')


class OpenAPI:
    """Serves the description of `doors`, and of its own. `is_open`: no one is asked for a token."""

    def __init__(self, doors: Mapping[str, Mapping[str, Entry]], *, is_open: bool) -> None:
        own = {PATH: {"GET": Entry(self.get, None)}}
        self.doors = {**doors, **own}
        """All paths, this one included."""
        body = msgspec.json.encode(describe(self.doors, is_open=is_open))
        self._tag = b'"%b"' % sha256(body).hexdigest()[:32].encode()
        headers = ((b"etag", self._tag), (b"cache-control", b"no-cache"))
        whole = json_answer(HTTPStatus.OK, body)
        self._answer = make_answer(HTTPStatus.OK, whole.headers + headers, body)
        self._not_modified = make_answer(HTTPStatus.NOT_MODIFIED, headers)

    async def get(self, scope: Scope, receive: Receive, caller: Caller) -> Answer:
        """The document, or 304 to a caller that has it."""
        wanted = b",".join(value for name, value in scope["headers"] if name == b"if-none-match")
        has_it = wanted.strip() == b"*" or self._tag in _TAGS.findall(wanted)
        return self._not_modified if has_it else self._answer


def describe(doors: Mapping[str, Mapping[str, Entry]], *, is_open: bool) -> Schema:
    """The document of these doors."""
    paths: dict[str, Schema] = {}
    for path, entries in doors.items():
        for method, entry in entries.items():
            operation = OPERATIONS.get((path, method))
            if operation is None:
                continue
            described = _operation(operation, entry, is_open=is_open)
            paths.setdefault(path, {})[method.lower()] = described
            if method == "GET":
                paths[path]["head"] = _without_body(described)
    _, schemas = msgspec.json.schema_components(BODIES, ref_template=REFERENCE)
    schemas["ProblemDetails"]["properties"]["code"]["enum"] = list(CATALOGUE)
    schemas["Document"] = {"type": "object", "description": "An OpenAPI document."}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Millrace",
            "version": VERSION,
            "license": {"name": "MIT", "identifier": "MIT"},
            "description": "Takes transactions in, keeps every one it acknowledged, and answers exact "
            "statistics over the last seconds. Every error is `application/problem+json` (RFC 9457) "
            "with a stable `code`; any path but these is 404, any other method of them 405.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "parameters": {name: {"name": name, **told} for name, told in PARAMETERS.items()},
            "headers": dict(HEADERS),
            "responses": {
                "NotFound": _failure([Code.NOT_FOUND]),
                "MethodNotAllowed": _failure([Code.METHOD_NOT_ALLOWED]),
            },
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            },
        },
    }


def _operation(operation: Operation, entry: Entry, *, is_open: bool) -> Schema:
    failures = [*ANYTIME, *operation.failures]
    security: list[dict[str, list[str]]] = []
    if entry.permission is not None:
        failures += OF_THE_CALLER
        security = [{"bearer": [entry.permission.value]}, *([{}] if is_open else [])]
    by_status: dict[HTTPStatus, list[str]] = {}
    for code in failures:
        codes = by_status.setdefault(CATALOGUE[code].status, [])
        if code not in codes:
            codes.append(code)
    responses = {str(success.status.value): _success(success) for success in operation.successes}
    responses |= {str(status.value): _failure(codes) for status, codes in sorted(by_status.items())}
    described: Schema = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.text,
        "security": security,
        "parameters": [
            {"$ref": f"#/components/parameters/{name}"}
            for name in (*operation.parameters, "X-Request-ID")
        ],
        "responses": responses,
    }
    if operation.body:
        content = {media_type: {"schema": body} for media_type, body in operation.body.items()}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _without_body(operation: Schema) -> Schema:
    """The same by HEAD."""
    responses = {
        status: {name: part for name, part in response.items() if name != "content"}
        for status, response in operation["responses"].items()
    }
    return {**operation, "operationId": f"{operation['operationId']}Head", "responses": responses}


def _success(success: Success) -> Schema:
    described: Schema = {"description": success.text}
    if success.headers:
        described["headers"] = _headers(success.headers)
    if success.body:
        described["content"] = {JSON: {"schema": schema(success.body)}}
    if success.text_types:
        text = {"schema": {"type": "string"}}
        described["content"] = dict.fromkeys(success.text_types, text)
    return described


def _failure(codes: Sequence[str]) -> Schema:
    """The answers of one status, which all of the codes have."""
    status = CATALOGUE[codes[0]].status
    headers = ["X-Request-ID"]
    if status in RETRIABLE:
        headers.append("Retry-After")
    if status is HTTPStatus.UNAUTHORIZED:
        headers.append("WWW-Authenticate")
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers.append("Allow")
    body = {
        "allOf": [schema("ProblemDetails")],
        "properties": {"status": {"const": status.value}, "code": {"enum": list(codes)}},
    }
    examples = {
        str(code): {
            "value": {
                "title": status.phrase,
                "status": status.value,
                "code": code,
                "detail": CATALOGUE[code].text,
            }
        }
        for code in codes
    }
    return {
        "description": " ".join(f"`{code}`: {CATALOGUE[code].text}" for code in codes),
        "headers": _headers(headers),
        "content": {_PROBLEM: {"schema": body, "examples": examples}},
    }


def _headers(names: Iterable[str]) -> Schema:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
