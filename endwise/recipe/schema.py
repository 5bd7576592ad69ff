"""The published JSON Schema of a recipe: what editors complete and programs check against."""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from endwise.modalities import TABLE, modality_class
from endwise.modalities.base import INPUT_ROLE, OUTPUT_ROLE, Modality, Role
from endwise.priors import BUILT_IN
from endwise.recipe.data import Data
from endwise.recipe.declaration import RECIPE_VERSION
from endwise.recipe.part import Part
from endwise.recipe.stages import REGIMES, Stage
from endwise.recipe.training import FromRun, Goal, Objective, Train, Trunk


def json_schema() -> dict[str, Any]:
    """The whole schema, with every kind of value and every prior of the package."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "endwise recipe",
        "type": "object",
        "additionalProperties": False,
        "required": ["data", "inputs", "outputs"],
        "properties": {
            "version": {"const": RECIPE_VERSION},
            "name": {"type": ["string", "null"]},
            "data": {"anyOf": [{"type": "string"}, _lenient(_part(Data))]},
            "from_run": {"anyOf": [{"type": "string"}, _part(FromRun), {"type": "null"}]},
            "inputs": _declarations(INPUT_ROLE),
            "outputs": _declarations(OUTPUT_ROLE),
            "stages": {
                "type": "object",
                "additionalProperties": _declaring(_part(Stage), _declarations(OUTPUT_ROLE)),
            },
            "regime": {"enum": list(REGIMES)},
            "goal": {"anyOf": [_part(Goal), {"type": "null"}]},
            "objective": _with_priors(_part(Objective)),
            "trunk": _part(Trunk),
            "train": _lenient(_part(Train)),
        },
    }


def _part(cls: type[Part]) -> dict[str, Any]:
    """The schema of a section."""
    schema = cls.model_json_schema()
    schema.pop("title", None)
    return _written_out(schema)


def _declarations(role: Role) -> dict[str, Any]:
    """The schema of the inputs or the outputs: each a type's name, or its mapping."""
    kinds = {name: cls for name in TABLE if role in (cls := modality_class(name)).roles}
    declared = [{"enum": list(kinds)}, *(_kind(name, cls, role) for name, cls in kinds.items())]
    return {"type": "object", "minProperties": 1, "additionalProperties": {"anyOf": declared}}


def _kind(name: str, cls: type[Modality], role: Role) -> dict[str, Any]:
    """The schema of one kind of value, with the fields of this role."""
    schema = _written_out(TypeAdapter(cls).json_schema())
    fields = {
        item: spec
        for item, spec in schema["properties"].items()
        if cls.__dataclass_fields__[item].metadata.get("role") in (None, role)
    }
    for item, spec in fields.items():
        spec["description"] = cls.__dataclass_fields__[item].metadata.get("help", "")
    return {
        "type": "object",
        "title": name,
        "description": (cls.__doc__ or "").strip().split("\n")[0],
        "properties": {"type": {"const": name}, **fields},
        "required": ["type"],
        "additionalProperties": False,
    }


def _written_out(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema with what it defines in the place of references, whose addresses would be looked for in the whole document."""
    inside = schema.pop("$defs", {})

    def written_out(value: Any) -> Any:
        if isinstance(value, Mapping) and "$ref" in value:
            return inside[value["$ref"].rpartition("/")[2]]
        if isinstance(value, Mapping):
            return {name: written_out(item) for name, item in value.items()}
        return [written_out(item) for item in value] if isinstance(value, list) else value

    found: dict[str, Any] = written_out(schema)
    return found


def _declaring(stage: dict[str, Any], outputs: dict[str, Any]) -> dict[str, Any]:
    """The schema of a stage, whose outputs may be named or declared."""
    named = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
    stage["properties"]["from"] = {**named, "description": stage["properties"]["from"]["description"]}
    del stage["properties"]["by"]  # no file can hold it
    stage["properties"]["shares"] = {**named, "description": stage["properties"]["shares"]["description"]}
    stage["properties"]["to"] = {
        "anyOf": [*named["anyOf"], outputs],
        "description": stage["properties"]["to"]["description"],
    }
    return stage


def _with_priors(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of the objective with the priors of the package."""
    kinds = []
    for name, cls in BUILT_IN.items():
        fields = TypeAdapter(cls).json_schema()
        for item, spec in fields["properties"].items():
            spec["description"] = cls.__dataclass_fields__[item].metadata["help"]
        kinds.append(
            {
                "type": "object",
                "title": name,
                "description": " ".join((cls.__doc__ or "").split()),
                "properties": {"type": {"const": name}, **fields["properties"]},
                "required": ["type", *fields["required"]],
                "additionalProperties": False,
            }
        )
    description = schema["properties"]["priors"]["description"]
    schema["properties"]["priors"] = {
        "type": "array", "default": [], "description": description, "items": {"anyOf": kinds}
    }  # fmt: skip
    schema.pop("$defs", None)
    return schema


def _lenient(schema: dict[str, Any]) -> dict[str, Any]:
    """Fields that also take text ('1%', '5m', a column) say so."""
    for name in ("max_bad", "budget"):
        if name in schema["properties"]:
            spec = schema["properties"][name]
            kept = {key: spec[key] for key in ("default", "description") if key in spec}
            schema["properties"][name] = {"type": ["number", "string", "null"], **kept}
    if "gather" in schema["properties"]:
        schema["properties"]["gather"]["anyOf"].insert(0, {"type": "string"})
    return schema
