"""`endwise audit`: what a decision log says, and whether it is as it was written."""

from typing import Annotated

import typer

from endwise.cli.arguments import AsJson, LogPlace
from endwise.cli.printing import print_result
from endwise.cli.progress import phases, progress_shown

commands = typer.Typer(no_args_is_help=True, help="The decision log: what was answered, when, by which model.")


@commands.command()
def verify(
    log: LogPlace,
    expect: Annotated[
        str | None, typer.Option(metavar="NUMBER:HASH", help="Of a line, as an earlier verify printed its head.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Go through a decision log: is every line as it was written, in its place? Exit code 3 where one is not."""
    from endwise.decisions import Decisions

    with Decisions.open(log) as opened:
        found = opened.verify(expect)
    print_result(found, as_json=as_json)
    if not found.ok:
        raise typer.Exit(3)


@commands.command()
def show(
    log: LogPlace,
    id: Annotated[str, typer.Argument(metavar="ID", help="Of an answer, as it was given.")],
    run: Annotated[
        str | None, typer.Option(metavar="RUN", help="Where the run is; default: where the log says, or around it.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Do not read the data files: are they there?")] = False,
    as_json: AsJson = False,
) -> None:
    """One decision, back to its model, recipe, data, code and environment: is each as it was? Exit code 3 where one is not."""
    from endwise.decisions import Decisions
    from endwise.run import Run

    with Decisions.open(log) as opened, progress_shown(quiet=as_json) as progress:
        tell = phases(progress)
        found = opened.show(
            id, run=None if run is None else Run.open(run).path, contents=not quick,
            progress=None if tell is None else lambda done, of: tell("hashing the data files", done, of),
        )  # fmt: skip
    print_result(found, as_json=as_json)
    if not found.ok:
        raise typer.Exit(3)
