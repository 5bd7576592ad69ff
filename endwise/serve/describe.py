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


def openapi(version: Version, *, here: bool) -> dict[str, Any]:
    """OpenAPI 3.1. here: only this machine may ask, so that training rows may be shown."""
    paths = {"/explain": {"post": _explain(version)}}
    if here and version.model is not None and version.model.run is not None:
        paths["/like"] = {"post": _like(version)}
    return {
        "openapi": "3.1.0",
        "info": {"title": version.name, "version": version.sha256[:12], "description": "Raw values in, final answers out."},
        "paths": {
            "/predict": {"post": _predict(version)},
            **paths,
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
    return _asked(version, "Answer one row", "predict", _answer(version), "the answers")


def _explain(version: Version) -> dict[str, Any]:
    """What an answer leans on."""
    told = {
        "type": "object",
        "required": ["id", "model", "output", "about", "answer", "method", "reliable", "verdict", "inputs", "grades"],
        "properties": {
            "output": {"type": "string"},
            "about": {"type": "string", "description": "which part of the answer"},
            "reliable": {"type": ["boolean", "null"], "description": "null: it cannot be told"},
            "verdict": {"type": "string"},
            "inputs": {
                "type": "object",
                "description": "the strongest pieces of each, and with drawn=yes a picture of all",
            },
            "grades": {"type": "array", "items": {"type": "object"}},
        },
    }
    found = _asked(
        version, "What an answer leans on, and whether that is worth believing", "explain", told, "the reasons"
    )
    return {**found, "parameters": [
        _setting("of", "an output, or 'output=part': a class, a word, a number; default the goal's answer"),
        _setting("method", "auto, shapley, integrated_gradients, gradient_x_input, occlusion, attention_rollout; of a bundle occlusion"),
        _setting("grade", "yes (default) or no: whether the explanation is checked, which takes longer"),
        _setting("drawn", "yes or no (default): HTML of each input with what speaks for and against the answer"),
    ]}  # fmt: skip


def _like(version: Version) -> dict[str, Any]:
    """Training rows by example."""
    told = {"type": "object", "required": ["id", "model", "like"], "properties": {"like": {"type": "array", "items": {
        "type": "object", "required": ["score", "row", "origin", "inputs", "labels"]}}}}  # fmt: skip
    found = _asked(version, "The training rows that the network sees as most alike", "like", told, "the nearest first")
    return {**found, "parameters": [
        _setting("count", "how many; default 5"),
        _setting("drawn", "yes or no (default): what each looks or sounds like"),
    ]}  # fmt: skip


def _setting(name: str, meaning: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": meaning, "schema": {"type": "string"}}


def _asked(version: Version, summary: str, operation: str, told: Mapping[str, Any], what: str) -> dict[str, Any]:
    """A question about one row: its body, and what is told."""
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
        "summary": summary,
        "operationId": operation,
        "requestBody": {"required": True, "content": content},
        "responses": {
            "200": {"description": what, "content": {JSON: {"schema": told}}},
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
