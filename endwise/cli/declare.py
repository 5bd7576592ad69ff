"""Before any training: propose a recipe, check it against its data, and the schema of what may stand in it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from endwise.cli.arguments import AsJson, RecipePath, Settings, declared
from endwise.cli.printing import note, print_json, print_result
from endwise.cli.progress import phases, progress_shown
from endwise.errors import ModelError, require

if TYPE_CHECKING:
    from endwise.recipe import Recipe


def init(
    source: Annotated[str, typer.Argument(metavar="FOLDER_OR_TABLE", help="The data: a table, or a folder of files.")],
    out: Annotated[
        str | None, typer.Option(help="Where to write the recipe; default: recipe.yaml here. '-' prints it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Propose a recipe for a folder or a table, and say why."""
    from endwise.propose import propose

    proposal = propose(source)
    target = Path(out or "recipe.yaml")
    if as_json:
        print_json(
            {
                "recipe": proposal.recipe.to_dict(),
                "reasons": list(proposal.reasons),
                "questions": list(proposal.questions),
                "instead": [{"question": item.question, "recipe": item.recipe.to_dict()} for item in proposal.instead],
            }
        )
    written = out != "-" and not (as_json and out is None)
    if written:
        _write_new(target, proposal.yaml(target.parent))
    if as_json:
        return
    typer.echo(proposal.yaml(target.parent))
    for question in proposal.questions:
        note(f"please check: {question}")
    if written:
        note(f"written to {target}; next: endwise check {target}")


def _write_new(target: Path, text: str) -> None:
    require(
        not target.exists(), field="--out", got=str(target), allowed="a file that does not exist yet",
        fix="give another --out, or '-' to print the recipe",
    )  # fmt: skip
    target.write_text(text, encoding="utf-8")


def check(recipe: RecipePath, settings: Settings = None, as_json: AsJson = False) -> None:
    """Read everything once: what is there, what is broken, what leaks, and what will be learnt from."""
    from endwise.data.check import check as run_check

    asked = declared(recipe, settings)
    _there(asked)
    with progress_shown(quiet=as_json) as progress:
        report = run_check(asked, progress=phases(progress, "reading "))
    print_result(report, as_json=as_json)
    if report.exit_code:
        raise typer.Exit(report.exit_code)


def _there(recipe: "Recipe") -> None:
    """Refuses a run that a recipe begins with and that is not there; what it holds is looked at when training begins."""
    from endwise.run import Run

    begun = {f"stages.{name}.run": stage.run for name, stage in recipe.stages.items() if stage.run is not None}
    if recipe.from_run is not None:
        begun["from_run"] = recipe.from_run.run
    for field, run in begun.items():
        try:
            Run.open(run)
        except ModelError as wrong:
            raise ModelError(f"{field}: {wrong}") from None


def schema(
    as_json: AsJson = False,
) -> None:
    """The JSON Schema of a recipe, for editors and programs."""
    from endwise.recipe import json_schema

    del as_json  # the schema is JSON either way
    print_json(json_schema())
