"""What pydantic complains about, as one of our refusals: the field, the value, what is allowed, the fix."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from endwise.errors import RecipeError, nearest, refusal
from endwise.recipe.data import Borders, Data, Gather, Windows
from endwise.recipe.part import Part
from endwise.recipe.stages import Stage
from endwise.recipe.training import FromRun, Goal, Objective, Train, Trunk

SECTIONS: dict[str, type[Part]] = {  # by what a complaint calls them on the way to a field
    "data": Data,
    "from_run": FromRun,
    "goal": Goal,
    "objective": Objective,
    "trunk": Trunk,
    "train": Train,
    "gather": Gather,
    "windows": Windows,
    "split": Borders,
    "Borders": Borders,
}
EXAMPLES = {
    "goal": "goal: {output: words, metric: wer, direction: min}",
    "from_run": "from_run: runs/earlier",
    "train": "train: {budget: 5m}",
    "objective": "objective: {weighting: fixed}",
    "trunk": "trunk: {depth: 2}",
}


def in_our_words(wrong: ValidationError, values: Mapping[str, Any], recipe: type[Part]) -> RecipeError:
    """Pydantic's first complaint as one of our refusals; where a field is missing and another one beside it is none, the
    latter, whose name is most likely the misspelt one."""
    first = _misspelt(wrong.errors())
    inner = first.get("ctx", {}).get("error")
    if isinstance(inner, RecipeError):
        return inner
    where = ".".join(str(part) for part in first["loc"]) or "recipe"
    if first["type"] == "extra_forbidden":
        return _unknown_field(first, where, recipe)
    if first["type"] == "missing":
        return _missing_field(where)
    message, fix = first["msg"].removeprefix("Value error, ").removeprefix("Input should be "), "give such a value"
    if first["type"] in ("dict_type", "model_type", "model_attributes_type"):
        message, fix = "a mapping of names", f"write {_example(where) or 'name: value'}"
    elif first["type"] == "tuple_type":
        message, fix = "a name or a list of names", "write it so, such as [words]"
    made = refusal(field=where, got=first["input"] if where != "recipe" else dict(values), allowed=message, fix=fix)
    return RecipeError(str(made))


def _unknown_field(complaint: Any, where: str, recipe: type[Part]) -> RecipeError:
    """A field that its section does not have, with the one that was probably meant."""
    *path, got = complaint["loc"]
    section = Stage if path and path[0] == "stages" else recipe
    for part in path:
        section = SECTIONS.get(str(part), section)
    names = [field.alias or name for name, field in section.model_fields.items()]
    meant = nearest(str(got), names)
    return RecipeError(
        f"{where} = {str(complaint['input'])[:80]!r} is not allowed: there is no such field. "
        f"Fix: {f'did you mean {meant!r}?' if meant else 'use one of: ' + ', '.join(names)}"
    )


def _missing_field(where: str) -> RecipeError:
    section = where.rpartition(".")[0]
    fix = f"write {_example(section)}" if _example(section) else "give it"
    if not section:
        fix = "every recipe says data, inputs and outputs; 'endwise init' proposes one"
    return RecipeError(f"{where} is missing. Fix: {fix}.")


def _misspelt(complaints: Sequence[Any]) -> Any:
    """The complaint that says most: the first, or that of a field that nobody knows beside one that is missing."""
    first = complaints[0]
    beside = [
        item for item in complaints if item["type"] == "extra_forbidden" and item["loc"][:-1] == first["loc"][:-1]
    ]
    return beside[0] if first["type"] == "missing" and beside else first


def _example(where: str) -> str:
    """How a section is written, where it is a mapping that people write by hand; '' for another."""
    section, _, name = where.partition(".")
    if section == "stages":
        return f"{name or 'stages: {hear'}: {{from: recording, to: words}}{'' if name else '}'}"
    return EXAMPLES.get(section, "")
