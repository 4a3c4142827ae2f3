"""The description of the service against the service: its doors, its codes, its examples."""

import tomllib
from pathlib import Path
from typing import cast

import openapi_spec_validator
import pytest
from starlette.routing import Route, Router

from app import VERSION
from app.main import build_service
from app.settings import Settings
from app.web.answers import Answer, Code
from app.web.catalogue import CATALOGUE
from app.web.cors import CrossOrigin
from app.web.feed_parameters import FEED_PARAMETERS
from app.web.guard import Permission
from app.web.openapi import describe
from app.web.operations import OPERATIONS, PARAMETERS
from app.web.resource import Entry
from tests.support.feed import PATH
from tests.support.openapi import ENTRY, WHOLE, Json, codes, operations
from tests.support.thread import ServiceThread


@pytest.fixture(scope="module")
def running(on_each_lane: ServiceThread) -> ServiceThread:
    return on_each_lane


def test_the_document_is_openapi(document: Json) -> None:
    openapi_spec_validator.validate(document)
    assert document["openapi"].startswith("3.1.")


def test_every_door_is_described_and_no_other(document: Json, running: ServiceThread) -> None:
    service = build_service(Settings(database_url="memory://"), pytest.fail)
    doors = set()
    for route in cast(Router, cast(CrossOrigin, service.application).app).routes:
        path = cast(Route, route).path
        refusal = running.client.request("TRACE", path)
        assert refusal.status_code == 405
        doors |= {(path, method) for method in refusal.headers["allow"].split(", ")}
    assert set(operations(document)) == doors
    assert set(OPERATIONS) == {(path, method) for path, method in doors if method != "HEAD"}


def test_every_code_is_described_where_it_occurs(document: Json) -> None:
    assert {code.value for code in Code} == set(CATALOGUE)
    described = [
        *(operation["responses"].items() for operation in operations(document).values()),
        [(405, document["components"]["responses"]["MethodNotAllowed"])],
        [(404, document["components"]["responses"]["NotFound"])],
    ]
    occurring = set()
    for responses in described:
        for status, response in responses:
            assert all(CATALOGUE[code].status == int(status) for code in codes(response))
            occurring |= codes(response)
    assert occurring == set(CATALOGUE)


def test_every_parameter_described_is_one_of_an_operation(document: Json) -> None:
    used = {
        parameter["$ref"].rpartition("/")[2]
        for operation in operations(document).values()
        for parameter in operation["parameters"]
    }
    assert used == set(PARAMETERS)


def test_every_example_of_a_field_is_taken(document: Json, running: ServiceThread) -> None:
    for path, schema, whole in (("/transactions", "Transaction", WHOLE), (PATH, "Entry", ENTRY)):
        fields = document["components"]["schemas"][schema]["properties"]
        examples = [(name, example) for name, field in fields.items() for example in field["examples"]]
        assert {name for name, _ in examples} == set(fields)
        for name, example in examples:
            answer = running.client.post(path, json={**whole, name: example})
            assert answer.status_code == 201, (name, example, answer.text)


def test_every_example_of_a_parameter_of_the_feed_is_taken(running: ServiceThread) -> None:
    tried = 0
    for name, parameter in FEED_PARAMETERS.items():
        for example in parameter["schema"].get("examples", ()):
            answer = running.client.get("/transactions", params={name: example})
            assert answer.status_code == 200, (name, example, answer.text)
            tried += 1
    assert tried > 5


def test_who_has_the_document_is_not_sent_it_again(running: ServiceThread) -> None:
    answer = running.client.get("/openapi.json")
    tag = answer.headers["etag"]
    for known in (tag, f'W/{tag}, "other"', f'"other",{tag}', "*"):
        again = running.client.get("/openapi.json", headers={"if-none-match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    other = running.client.get("/openapi.json", headers={"if-none-match": '"other"'})
    assert (other.status_code, other.content) == (200, answer.content)


@pytest.mark.parametrize(
    ("permission", "is_open", "security"),
    [
        (Permission.WRITE, False, [{"bearer": ["transactions:write"]}]),
        (Permission.WRITE, True, [{"bearer": ["transactions:write"]}, {}]),
        (None, False, []),
    ],
)
def test_a_token_is_asked_for_where_the_door_asks_for_one(
    permission: Permission | None, is_open: bool, security: list[Json]
) -> None:
    async def handle(*_: object) -> Answer:
        raise NotImplementedError

    doors = {"/transactions": {"POST": Entry(handle, permission)}}
    operation = describe(doors, is_open=is_open)["paths"]["/transactions"]["post"]
    assert operation["security"] == security
    assert ("401" in operation["responses"]) is (permission is not None)


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    assert project["project"]["version"] == VERSION
