"""The OpenAPI page of a model: what goes in, what comes out, an example of each, from its declarations."""

from collections.abc import Mapping
from typing import Any

from endwise.modalities.base import Modality
from endwise.serve.body import FORM, JSON
from endwise.serve.problems import STATUS
from endwise.serve.version import Version

MOST_CHOICES = 500  # that are listed
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["type", "field", "message"],
            "properties": {
                "type": {"type": "string", "enum": list(STATUS)},
                "field": {"type": ["string", "null"], "description": "the input that it is about"},
                "message": {"type": "string"},
            },
        }
    },
}
WHEN = {
    "400": "the body is not what its type says",
    "401": "the token is missing or wrong",
    "403": "another origin, or another host name",
    "408": "the body came too slowly",
    "413": "more than this server takes, or than it unpacks",
    "415": "one value for a model with several inputs",
    "422": "a value that this model cannot read; `field` names it",
    "503": "too many requests are waiting, or no model is ready; Retry-After says when to come again",
    "504": "no answer in time",
}


def example_of(version: Version) -> dict[str, Any] | None:
    """A row for `POST /predict`; None where a kind of value has no example."""
    found = {name: item.example(version.contracts[name]) for name, item in version.inputs.items()}
    return None if any(value is None for value in found.values()) else {"inputs": found}


def openapi(version: Version) -> dict[str, Any]:
    """OpenAPI 3.1."""
    return {
        "openapi": "3.1.0",
        "info": {"title": version.name, "version": version.sha256[:12], "description": "Raw values in, final answers out."},
        "paths": {
            "/predict": {"post": _predict(version)},
            "/livez": {"get": _plain("The process is alive.")},
            "/readyz": {"get": {**_plain("A model has answered its first row; not so while it loads or drains."),
                                "responses": {"200": {"description": "ready"}, "503": _error("503")}}},
            "/metrics": {"get": _plain("For Prometheus.")},
        },
        "components": {
            "schemas": {"Error": ERROR},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }  # fmt: skip


def _predict(version: Version) -> dict[str, Any]:
    values = {name: _given(item, version.contracts[name]) for name, item in version.inputs.items()}
    needed = [
        name for name, item in version.inputs.items() if not item.optional and not version.contracts[name].missing
    ]
    row = {"type": "object", "properties": values, "required": needed, "additionalProperties": False}
    body: dict[str, Any] = {
        "schema": {
            "type": "object", "required": ["inputs"], "properties": {"inputs": row}, "additionalProperties": False,
        }
    }  # fmt: skip
    example = example_of(version)
    if example is not None:
        body["example"] = example
    content: dict[str, Any] = {JSON: body, FORM: {"schema": row}}
    if len(version.inputs) == 1:
        item = next(iter(version.inputs.values()))
        content |= {kind: {"schema": {}} for kind in item.file_kinds or ("text/plain",)}
    return {
        "summary": "Answer one row",
        "operationId": "predict",
        "requestBody": {"required": True, "content": content},
        "responses": {
            "200": {"description": "the answers", "content": {JSON: {"schema": _answer(version)}}},
            **{status: _error(status) for status in WHEN},
        },
    }


def _given(item: Modality, contract: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"description": f"{item.type}: {item.summary(contract)}", "x-type": item.type}
    choices = getattr(contract, "classes", ())
    if 0 < len(choices) <= MOST_CHOICES:
        found["x-choices"] = list(choices)
    if item.type == "number" and contract.length is None:
        found |= {"x-range": [contract.minimum[0], contract.maximum[0]], "x-whole": contract.integer}
    if item.file_kinds and not all(kind.startswith("text/") for kind in item.file_kinds):
        found |= {"contentEncoding": "base64", "contentMediaType": item.file_kinds[0]}
    example = item.example(contract)
    if example is not None:
        found["examples"] = [example]
    return found


def _answer(version: Version) -> dict[str, Any]:
    one = {
        name: {
            "type": "object",
            "description": f"{item.type}: {item.summary(version.contracts[name])}",
            "required": ["value", "confidence"],
            "properties": {
                "value": {},
                "confidence": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
                "unit": {"type": "string"},
                "detail": {"type": "object"},
            },
        }
        for name, item in version.outputs.items()
    }
    return {
        "type": "object",
        "required": ["id", "model", "outputs"],
        "properties": {
            "id": {"type": "string"},
            "model": {"type": "string"},
            "outputs": {"type": "object", "required": list(one), "properties": one},
        },
    }


def _error(status: str) -> dict[str, Any]:
    return {
        "description": WHEN[status],
        "content": {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}},
    }


def _plain(summary: str) -> Mapping[str, Any]:
    return {"summary": summary, "responses": {"200": {"description": summary}}}
