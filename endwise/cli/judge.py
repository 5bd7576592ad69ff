"""What a trained model is worth and why it answers as it does: scores, explanations, and the pages about a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from endwise.cli.arguments import AsJson, RunPath, named, raw_value
from endwise.cli.printing import note, print_json, print_result, print_scores
from endwise.cli.progress import phases, progress_shown
from endwise.errors import DataError, require

if TYPE_CHECKING:
    from endwise.explain import Neighbour, WhatIf
    from endwise.explanation import Explanation


def evaluate(
    run: RunPath,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    data: Annotated[str | None, typer.Option(help="Score another table instead of a split.")] = None,
    by: Annotated[
        str | None, typer.Option(help="Also every metric per group of this column, and the gap between groups.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score a model: every metric with its n and interval, beside a trivial and a classical baseline."""
    from endwise.run import Run

    opened = Run.open(run)
    with progress_shown(quiet=as_json) as progress:
        from endwise.evaluate import evaluate_run

        found = evaluate_run(opened, split=split, data=data, by=by, progress=phases(progress)).to_dict()
    if as_json:
        print_json(found)
    else:
        print_scores(found, opened.info().get("goal"))


def explain(
    run: RunPath,
    row: Annotated[
        str | None,
        typer.Argument(
            metavar="ROW|FILE", help="A row of the run's data, counted from 0, or the raw value of the one input."
        ),
    ] = None,
    pairs: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="NAME=VALUE", help="One row, one raw value an input. Repeatable."),
    ] = None,
    of: Annotated[
        str | None,
        typer.Option(
            metavar="OUTPUT[=WHICH]", help="Default: the goal. WHICH: a class, a tag, a word, the number of a box ..."
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="auto (what the checks prefer), shapley, integrated_gradients, gradient_x_input, occlusion or "
            "attention_rollout."
        ),
    ] = "auto",
    grade: Annotated[bool, typer.Option("--grade/--no-grade", help="Check the explanation itself.")] = True,
    data: Annotated[str | None, typer.Option(help="Count ROW in another table instead of the run's own data.")] = None,
    out: Annotated[
        str | None, typer.Option(help="Also draw it: a .html file, or .png where an input is a picture.")
    ] = None,
    alike: Annotated[int, typer.Option("--like", metavar="N", help="Also the N training rows most alike.", min=0)] = 0,
    changes: Annotated[
        list[str] | None,
        typer.Option("--what-if", metavar="INPUT=VALUE", help="Also the answers with this input changed. Repeatable."),
    ] = None,
    audited: Annotated[
        bool,
        typer.Option("--audit", help="No row: look for one place, word or column that decides many answers alone."),
    ] = False,
    rows: Annotated[int, typer.Option(min=8, help="How many answers --audit looks at.")] = 64,
    seed: Annotated[int, typer.Option(help="Of the random orders and weights it is held against.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Which pixels, seconds, characters or cells drove an answer, drawn over the raw value and graded."""
    from endwise.explain import explain as run_explain
    from endwise.explain import like, what_if

    if audited:
        require(
            row is None and not pairs, field="--audit", got=row or pairs, allowed="no row: it looks at many",
            fix="leave the row out", error=DataError,
        )  # fmt: skip
        _find_shortcuts(run, of=of, data=data, rows=rows, seed=seed, as_json=as_json)
        return
    given = _explained_row(run, row, pairs)
    explanation = run_explain(run, given, of=of, method=method, grade=grade, data=data, seed=seed)
    drawn = None if out is None else explanation.save(out)
    neighbours = like(run, given, count=alike, data=data) if alike else []
    changed = what_if(run, given, named(changes, "--what-if"), data=data) if changes else None
    _print_explanation(explanation, drawn, neighbours, changed, as_json=as_json)


def _find_shortcuts(run: str, *, of: str | None, data: str | None, rows: int, seed: int, as_json: bool) -> None:
    from endwise.explain import audit
    from endwise.run import Run

    found = audit(run, of=of, data=data, rows=rows, seed=seed)
    if data is None:
        Run.open(run).write("shortcuts.json", found.to_dict())  # for the run's card
    print_result(found, as_json=as_json)


def _explained_row(run: str, row: str | None, pairs: list[str] | None) -> Any:
    """A number of the run's data, a file or a value of the one input, or one for each."""
    from endwise.run import Run

    require(
        (row is None) != (not pairs), field="ROW|FILE", got=row, allowed="a row, or --input for each input, not both",
        fix="endwise explain RUN 0", error=DataError,
    )  # fmt: skip
    if row is None:
        return named(pairs, "--input")
    if row.isdecimal():
        return int(row)
    inputs = Run.open(run).recipe.inputs
    name = next(iter(inputs))
    return row if len(inputs) > 1 else raw_value(name, inputs[name], row)


def _print_explanation(
    explanation: "Explanation",
    drawn: Path | None,
    neighbours: "Sequence[Neighbour]",
    changed: "WhatIf | None",
    *,
    as_json: bool,
) -> None:
    """What drove the answer, then what was asked for beside it."""
    if as_json:
        more = {"drawn": None if drawn is None else str(drawn), "like": [item.to_dict() for item in neighbours]}
        print_json({**explanation.to_dict(), **more, "what_if": None if changed is None else changed.to_dict()})
        return
    typer.echo(str(explanation))
    if neighbours:
        typer.echo("\n".join(["like these training rows:", *map(str, neighbours)]))
    if changed is not None:
        typer.echo(str(changed))
    if drawn is not None:
        note(f"drawn in {drawn}")


def report(run: RunPath, as_json: AsJson = False) -> None:
    """Write the report.html of a run or a comparison again: one file that opens without a network."""
    from endwise.report import build, comparison
    from endwise.run import Run

    compared = (Path(run) / comparison.RESULT).is_file()
    page = comparison.build(run) if compared else build(Run.open(run))
    if as_json:
        print_json({"report": str(page)})
    else:
        typer.echo(str(page))


def card(
    run: RunPath,
    out: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Where to write; default: the run's folder.")
    ] = None,
    owner: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="YAML with what only the owner knows; default: the run's owner.yaml, if any."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write card.md and technical-file.md from the run's facts, and say what the owner must supply."""
    from endwise.card import card as run_card

    print_result(run_card(run, out=out, owner=owner), as_json=as_json)
