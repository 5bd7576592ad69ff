"""What stands on a command line: the arguments that commands share, and what their text means."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from endwise.errors import DataError, RecipeError, require

if TYPE_CHECKING:
    from endwise.modalities.base import Modality
    from endwise.recipe import Recipe

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
RecipePath = Annotated[str, typer.Argument(metavar="RECIPE", help="A YAML or JSON recipe, or its folder.")]
RunPath = Annotated[str, typer.Argument(metavar="RUN", help="A run folder or its model/ folder.")]
Log = Annotated[
    str | None,
    typer.Option(envvar="ENDWISE_LOG", help="Write every decision down: a path, or postgresql://..."),
]
LogPlace = Annotated[str, typer.Argument(metavar="LOG", help="A decision log: its path, or postgresql://...")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Override a field: --set train.steps=100. Repeatable."),
]


def declared(path: str, settings: list[str] | None) -> "Recipe":
    """The recipe at a path, with what --set changes in it."""
    from endwise.recipe import Recipe

    recipe = Recipe.load(path)
    changes = {name: _parsed(value) for name, value in named(settings, "--set").items()}
    return recipe.replace(**changes) if changes else recipe


def _parsed(value: str) -> Any:
    import yaml  # not at the top: --help is quicker without it

    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        raise RecipeError(f"--set: {value!r} is not a YAML value. Fix: quote it.") from None


def told(options: dict[str, Any]) -> dict[str, Any]:
    """What was said on the command line: the defaults stand where the options are meant."""
    return {name: value for name, value in options.items() if value is not None}


def named(texts: Iterable[str] | None, option: str) -> dict[str, str]:
    """What a repeatable option says by name: the last of a name counts."""
    return dict(pair(text, option) for text in texts or [])


def pair(text: str, option: str) -> tuple[str, str]:
    """NAME=VALUE."""
    name, mark, value = text.partition("=")
    require(bool(mark) and bool(name), field=option, got=text, allowed="NAME=VALUE", fix=f"write {option} name=value")
    return name, value


def target_of(text: str) -> dict[str, float]:
    """METRIC=VALUE."""
    name, value = pair(text, "--target")
    try:
        return {name: float(value)}
    except ValueError:
        raise RecipeError(f"--target: {value!r} is no number. Fix: write --target {name}=0.9") from None


def listed(text: str) -> list[str]:
    """A,B."""
    return [item.strip() for item in text.split(",") if item.strip()]


def shares_of(text: str) -> list[float]:
    """0.1,0.3 or none."""
    try:
        return [] if text == "none" else [float(item) for item in listed(text)]
    except ValueError:
        raise RecipeError(f"--shares: {text!r} is no list of shares. Fix: write 0.1,0.3 or none.") from None


def raw_value(name: str, modality: "Modality", text: str) -> str:
    """A bare argument as the raw value of an input: the path itself where the input opens paths, else what the file of
    that name holds, or the text."""
    from endwise.rows import FieldError, content, file_fetcher, opens

    fetch = file_fetcher(".")
    if opens(modality, text, fetch):
        return text
    try:
        return content(name, text, fetch)
    except FieldError as wrong:
        raise DataError(f"{text}: field {wrong.field!r}: {wrong.reason}") from None
