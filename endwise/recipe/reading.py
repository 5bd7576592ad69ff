"""From a file to plain values: YAML or JSON, with relative addresses taken from the file's folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from endwise.errors import RecipeError, require
from endwise.modalities.pretrained import rebased
from endwise.recipe.data import rebased_sources

RECIPE_FILES = (".yaml", ".yml", ".json")
MAX_RECIPE_BYTES = 1_000_000  # a recipe is a page, not a data set


def read_recipe(path: str | Path) -> dict[str, Any]:
    """The values of a YAML or JSON recipe; relative data paths are taken from the recipe's folder."""
    file = Path(path)
    if file.is_dir():
        file = file / "recipe.yaml"
    require(
        file.is_file(),
        field="recipe",
        got=str(path),
        allowed="an existing YAML or JSON file",
        fix=f"'endwise init {file.parent}' proposes one",
    )
    require(
        file.suffix.lower() in RECIPE_FILES,
        field="recipe",
        got=str(path),
        allowed=f"a file that ends in {', '.join(RECIPE_FILES)}",
        fix=f"if this is the data, 'endwise init {path}' proposes a recipe for it",
    )
    require(
        file.stat().st_size <= MAX_RECIPE_BYTES,
        field="recipe",
        got=str(path),
        allowed=f"a file of at most {MAX_RECIPE_BYTES} bytes",
        fix="is this the data instead of the recipe?",
    )
    values = parse(file.read_text(encoding="utf-8"), where=str(file))
    values.setdefault("name", file.stem if file.stem != "recipe" else file.resolve().parent.name)
    if "data" in values:
        values["data"] = rebased_sources(values["data"], file.resolve().parent)
    return _rebased_weights(values, file.resolve().parent)


def parse(text: str, *, where: str) -> dict[str, Any]:
    """YAML or JSON text as plain values; anchors are refused, since a page of them can fill the memory."""
    try:
        for token in yaml.scan(text, Loader=yaml.SafeLoader):
            if isinstance(token, yaml.AliasToken):
                raise RecipeError(f"{where}: YAML anchors and aliases are not read. Fix: write the value out in full.")
        values = _with_on(yaml.safe_load(text))
    except (yaml.YAMLError, RecursionError) as wrong:
        mark = getattr(wrong, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        reason = getattr(wrong, "problem", None) or type(wrong).__name__
        raise RecipeError(
            f"{where}{line}: not valid YAML: {reason}. Fix: check the indentation and the quotes there."
        ) from None
    require(
        isinstance(values, dict),
        field=where,
        got=values,
        allowed="a mapping with data, inputs and outputs",
        fix="see 'endwise schema' or run 'endwise init'",
    )
    return dict(values)


def _with_on(values: Any) -> Any:
    """YAML 1.1 reads the name `on` as true, and a field of outputs that lie on an input has that name."""
    if isinstance(values, dict):
        return {"on" if name is True else name: _with_on(value) for name, value in values.items()}
    return [_with_on(value) for value in values] if isinstance(values, list) else values


def _rebased_weights(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Relative folders of pretrained weights are the recipe's own, as its data is."""
    found = dict(values)
    for section in ("inputs", "outputs"):
        fields = values.get(section)
        if isinstance(fields, Mapping):
            found[section] = {
                name: {**item, "pretrained": rebased(item["pretrained"], folder)}
                if isinstance(item, Mapping) and "pretrained" in item
                else item
                for name, item in fields.items()
            }
    return found
