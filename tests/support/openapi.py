"""What the description of the service says, as tests hold answers against it."""

import copy
from typing import Any

import httpx
import jsonschema_rs

from tests.support.client import NOW_MS

Json = dict[str, Any]
WHOLE: Json = {"amount": 1, "timestamp": NOW_MS}
ENTRY: Json = {"amount": 1, "user_id": "u"}


def operations(document: Json) -> dict[tuple[str, str], Json]:
    return {
        (path, method.upper()): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def codes(response: Json) -> set[str]:
    """The codes that a described answer may have; none where it is no error."""
    problem = response.get("content", {}).get("application/problem+json")
    return set(problem["schema"]["properties"]["code"]["enum"]) if problem else set()


def strict(document: Json) -> Json:
    """The schemas, with nothing in an object that they do not name."""
    components: Json = copy.deepcopy(document["components"])
    for schema in components["schemas"].values():
        if "properties" in schema:
            schema["additionalProperties"] = False
    return components


def assert_described(document: Json, answer: httpx.Response, method: str, path: str) -> None:
    """Whether status, headers and body are as the operation says, with nothing more."""
    responses = operations(document)[path, method]["responses"]
    assert str(answer.status_code) in responses, answer.text
    response = responses[str(answer.status_code)]
    for name, header in response.get("headers", {}).items():
        told = document["components"]["headers"][header["$ref"].rpartition("/")[2]]
        assert name in answer.headers or not told["required"], name
        value = answer.headers.get(name)
        typed = int(value) if told["schema"]["type"] == "integer" else value
        jsonschema_rs.validate(told["schema"], typed)
    if not answer.content:
        assert "content" not in response or method == "HEAD"
        return
    media_type = answer.headers["content-type"].partition(";")[0]
    schema = response["content"][media_type]["schema"]
    content = answer.json() if media_type.endswith("json") else answer.text
    jsonschema_rs.validate({**schema, "components": strict(document)}, content)
