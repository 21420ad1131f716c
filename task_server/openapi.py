"""The OpenAPI document: what FastAPI knows of the routes, and what every reply has that no route declares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI

from athena.chain.auth import HEADER_REPLY_SIGNATURE, REQUEST_HEADERS
from athena.wire import IDEMPOTENCY_KEY, Problem
from task_server.examples import EXAMPLES, TASK

ABOUT = """\
Leases shards of Common Crawl to miners; keeps their submissions, the validators' score sheets and released models.

Everyone may read. Writes are signed by a member of the subnet (btauth/1), or carry an operator's API key. Each names
itself by an `Idempotency-Key`: sent again with the same body, it is answered as the first time.

Lists come in pages. `next` is the `cursor` of the page after, good for the same list under the same filters only. Every
GET has an ETag; HEAD works wherever GET does. Errors are problem documents (RFC 9457): `code` is stable, texts are not.
"""
_PAGE = "Page_"
_SIGNED = HEADER_REPLY_SIGNATURE
_RATE = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")
_HEADERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "RateLimit-Limit": ("Requests that may be sent in a minute.", {"type": "integer"}),
    "RateLimit-Remaining": ("Requests that may be sent now.", {"type": "integer"}),
    "RateLimit-Reset": ("Seconds until all of them are back.", {"type": "integer"}),
    "Retry-After": ("Seconds after which the same request may succeed.", {"type": "integer"}),
    "ETag": ("Names this content: send it as If-None-Match.", {"type": "string"}),
    "Cache-Control": ("How long a cache may keep the reply.", {"type": "string"}),
    _SIGNED: (
        "The server's sr25519 signature, hex, of the reply to a signed request.",
        {"type": "string", "pattern": "^[0-9a-f]{128}$"},
    ),
}
_PROBLEMS = {
    400: ("bad-request", "There was an error parsing the body"),
    401: ("unauthorized", "the request was sent before"),
    403: ("forbidden", "the lease is another miner's"),
    404: ("not-found", f"no task {TASK.id}"),
    408: ("request-timeout", "the body did not arrive in time"),
    409: ("conflict", "the lease is submitted already"),
    413: ("too-large", "the body is over 1048576 bytes"),
    422: ("bad-input", "query.limit: Input should be less than or equal to 500"),
    429: ("rate-limited", "more than 3000 requests a minute"),
    503: ("unavailable", "the database is busy or out of reach"),
}
"""Code, and an example of a text, by status."""
_OR = {429: ", or quota-spent for a claim"}
_OF_ALL = (408, 413, 429)
_OF_WRITES = (400, 401, 403, 404, 409, 422, 503)


class Api(FastAPI):
    """FastAPI whose document is complete."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            _complete(super().openapi())
        assert self.openapi_schema is not None
        return self.openapi_schema


def _complete(document: dict[str, Any]) -> None:
    components = document["components"]
    components["responses"] = {
        **{_response_name(status): _problem_response(status, *problem) for status, problem in _PROBLEMS.items()},
        _response_name(304): {
            "description": "The content still has the ETag that If-None-Match named.",
            "headers": _headers(*_RATE, "ETag", "Cache-Control"),
        },
    }
    components.setdefault("securitySchemes", {}).update(
        {
            name: {"type": "apiKey", "in": "header", "name": name, "description": text}
            for name, text in REQUEST_HEADERS.items()
        }
    )
    schemas = components["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"] = Problem.model_json_schema()
    for name, schema in schemas.items():
        example = _example(name)
        if example is not None:
            schema["examples"] = [example]
    for path, method, operation in _operations(document):
        _complete_operation(path, method, operation)


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def _complete_operation(path: str, method: str, operation: dict[str, Any]) -> None:
    parameters = [parameter["name"] for parameter in operation.get("parameters", ())]
    is_write = IDEMPOTENCY_KEY in parameters
    if is_write and "security" not in operation:
        operation["security"] = [{name: [] for name in REQUEST_HEADERS}]
    responses = operation["responses"]
    own = _RATE if is_write else (*_RATE, "ETag", "Cache-Control")
    for status in list(responses):
        if int(status) >= HTTPStatus.BAD_REQUEST:
            del responses[status]
        else:
            responses[status].setdefault("headers", {}).update(_headers(*own))
            if is_write:
                responses[status]["headers"] |= _headers(_SIGNED, required=False)
    for status in (*_OF_ALL, *(_OF_WRITES if is_write else _of_read(path, parameters))):
        responses[str(status)] = {"$ref": f"#/components/responses/{_response_name(status)}"}
    operation["responses"] = dict(sorted(responses.items()))


def _of_read(path: str, parameters: list[str]) -> Iterator[int]:
    yield 304
    if "{" in path:
        yield 404
    if parameters:
        yield 422
    if path not in ("/healthz", "/metrics"):
        yield 503


def _response_name(status: int) -> str:
    return HTTPStatus(status).phrase.title().replace(" ", "")


def _problem_response(status: int, code: str, detail: str) -> dict[str, Any]:
    problem = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, code=code)
    wait = ("Retry-After",) if status in (429, 503) else ()
    return {
        "description": f"{problem.title}. Code: {code}{_OR.get(status, '')}.",
        "headers": _headers(*_RATE, *wait) | _headers(_SIGNED, required=False),
        "content": {
            "application/problem+json": {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "example": problem.model_dump(mode="json"),
            }
        },
    }


def _headers(*names: str, required: bool = True) -> dict[str, Any]:
    found = {}
    for name in names:
        text, schema = _HEADERS[name]
        found[name] = {"description": text, "schema": schema, "required": required}
    return found


def _example(schema: str) -> dict[str, Any] | None:
    """Of a noun, or of a page of them; none for what only lies inside others."""
    noun = EXAMPLES.get(schema.removeprefix(_PAGE).removesuffix("_"))
    if noun is None:
        return None
    example = noun.model_dump(mode="json")
    return {"items": [example], "next": None} if schema.startswith(_PAGE) else example
