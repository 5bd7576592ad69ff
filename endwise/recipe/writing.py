"""From a recipe back to plain values: to be written down, or to make another recipe of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from endwise.errors import require
from endwise.recipe.data import Data, is_columns
from endwise.recipe.part import Part
from endwise.recipe.stages import named

if TYPE_CHECKING:
    from endwise.recipe.declaration import Recipe


def to_dict(recipe: "Recipe") -> dict[str, Any]:
    """Plain JSON values: only what differs from the defaults, in reading order."""
    out: dict[str, Any] = {"version": recipe.version}
    if recipe.name is not None:
        out["name"] = recipe.name
    out["data"] = {
        name: _plain_source(getattr(recipe.data, name))
        for name in Data.model_fields
        if getattr(recipe.data, name) != Data.model_fields[name].default
    }
    if recipe.from_run is not None:
        out["from_run"] = recipe.from_run.model_dump(exclude_defaults=True)
    out["inputs"] = {name: item.to_dict() for name, item in recipe.inputs.items()}
    out["outputs"] = {name: item.to_dict() for name, item in recipe.outputs.items()}
    if recipe.stages:
        out["stages"] = {
            name: {
                "from": list(stage.given),
                "to": list(stage.to),
                **stage.model_dump(exclude_defaults=True, exclude={"given", "to", "by"}, mode="json"),
                **({} if stage.by is None else {"by": named(stage.by)}),
            }
            for name, stage in recipe.stages.items()
        }
        out["regime"] = recipe.regime
    for section in ("goal", "objective", "trunk", "train"):
        part = getattr(recipe, section)
        values = {} if part is None else part.model_dump(exclude_defaults=True)
        if values.get("priors") == []:  # its default, which pydantic takes for a setting
            del values["priors"]
        if values:
            out[section] = values
    return out


def changed(recipe: "Recipe", settings: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a copy with dotted fields changed; what no file can hold is itself in it."""
    values = to_dict(recipe)
    values["data"] = {name: getattr(recipe.data, name) for name in values["data"]}
    for section in ("inputs", "outputs"):  # the class itself: a name would not find one from outside the package
        values[section] = {
            name: {**item.to_dict(), "type": type(item)} for name, item in getattr(recipe, section).items()
        }
    for name, stage in recipe.stages.items():
        if stage.by is not None:
            values["stages"][name]["by"] = stage.by
    if recipe.objective.priors:
        values["objective"]["priors"] = list(recipe.objective.priors)
    for path, value in settings.items():
        _set(values, path.split("."), value, path)
    return values


def _plain_source(value: Any) -> Any:
    """A frame or a list in memory cannot be written down: its kind is, and `data` must be given again to use it."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Part):
        return value.model_dump(exclude_defaults=True)
    if isinstance(value, Mapping) and not is_columns(value):
        return {name: _plain_source(item) for name, item in value.items()}
    return f"memory:{type(value).__name__}"


def _set(values: dict[str, Any], path: list[str], value: Any, whole: str) -> None:
    head, *rest = path
    if not rest:
        values[head] = value
        return
    inner = values.get(head)
    if inner is None:
        inner = values[head] = {}
    if isinstance(inner, str) and head not in ("name",):
        inner = values[head] = {"type": inner}
    require(isinstance(inner, dict), field=whole, got=value, allowed="the path of a field", fix="see 'endwise schema'")
    _set(inner, rest, value, whole)
