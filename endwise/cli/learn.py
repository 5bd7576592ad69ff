"""Training: what to train, end-to-end against a pipeline, one network, and the same again."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from endwise.cli.arguments import (
    AsJson,
    RecipePath,
    RunPath,
    Settings,
    declared,
    listed,
    named,
    shares_of,
    target_of,
    told,
)
from endwise.cli.printing import duration, print_json, print_result, print_scores
from endwise.cli.progress import progress_shown

if TYPE_CHECKING:
    from endwise.recipe import Recipe
    from endwise.run import Run


def advise(
    recipe: RecipePath,
    target: Annotated[
        str | None, typer.Option(metavar="METRIC=VALUE", help="What is to be reached, such as accuracy=0.9.")
    ] = None,
    labels: Annotated[
        int | None, typer.Option(help="Labels that could be had; default: those at hand decide.", min=1)
    ] = None,
    price: Annotated[float | None, typer.Option("--price-per-label", help="Of one label.", min=0)] = None,
    need: Annotated[
        list[str] | None, typer.Option(help="audit, reuse, latency_ms=20 or train_s=600. Repeatable.")
    ] = None,
    weights: Annotated[
        list[str] | None, typer.Option(metavar="INPUT=SOURCE", help="Of a pretrained rival, as in a recipe.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each small part of the labels, at most.")] = 3,
    budget: Annotated[str | None, typer.Option(help="Of all trainings; default: three times one training.")] = None,
    margin: Annotated[float | None, typer.Option(help="A difference of the metric that does not matter.")] = None,
    out: Annotated[str | None, typer.Option(help="The folder; default runs/<recipe name>-advice.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the advice in --out.")] = False,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """End-to-end, pretrained, or a pipeline? Small trainings say, and how many labels a target takes."""
    from endwise.advise import advise as run_advise

    with progress_shown(quiet=as_json) as progress:
        result = run_advise(
            declared(recipe, settings),
            target=None if target is None else target_of(target),
            labels=labels,
            price_per_label=price,
            needs=need or [],
            weights=named(weights, "--weights"),
            seeds=seeds,
            budget=budget,
            margin=margin,
            out=out,
            resume=resume,
            progress=progress,
        )
    print_result(result, as_json=as_json, below=f"\nreport    {result.folder}/report.html")


def compare(
    recipe: RecipePath,
    regimes: Annotated[str | None, typer.Option(metavar="A,B", help="Some regimes; default: all.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Trainings of each on all labels; default 3.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="modular_predicted, warm_joint and direct; one seed on fewer labels.")
    ] = False,
    budget: Annotated[
        str | None, typer.Option(help="Of everything, such as 30m; default: the recipe's, for each.")
    ] = None,
    shares: Annotated[
        str | None, typer.Option(metavar="S,T", help="Of the labels, beside all; default 0.1,0.3; 'none' for none.")
    ] = None,
    shift: Annotated[
        str | None, typer.Option(metavar="COLUMN[=VALUE]", help="Hold out a group; default: disturbed inputs.")
    ] = None,
    inputs: Annotated[bool, typer.Option("--inputs", help="Also train every subset of the inputs.")] = False,
    pretrained: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INPUT=WEIGHTS", help="Also one network that begins with them, as in a recipe. Repeatable."
        ),
    ] = None,
    retarget: Annotated[
        str | None, typer.Option(metavar="COLUMN[:TYPE]", help="Also what it costs to answer it in the goal's place.")
    ] = None,
    out: Annotated[str | None, typer.Option(help="The folder; default runs/compare-<recipe name>.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the comparison in --out.")] = False,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """The pipeline or one network? Trains both under one budget, and says which wins, by how much, and why."""
    from endwise.compare import compare as run_compare

    with progress_shown(quiet=as_json) as progress:
        result = run_compare(
            declared(recipe, settings),
            regimes=None if regimes is None else listed(regimes),
            seeds=seeds,
            quick=quick,
            budget=budget,
            shares=None if shares is None else shares_of(shares),
            shift=shift,
            inputs=inputs,
            pretrained=named(pretrained, "--pretrained"),
            retarget=retarget,
            out=out,
            resume=resume,
            progress=progress,
        )
    print_result(result, as_json=as_json, below=f"\nrun     {result.run}\nreport  {result.run}/report.html")


def train(
    recipe: RecipePath,
    out: Annotated[str | None, typer.Option(help="The run folder; default runs/<recipe name>.")] = None,
    seed: Annotated[int | None, typer.Option(help="The seed of weights, order, augmentation and dropout.")] = None,
    budget: Annotated[str | None, typer.Option(help="A time limit such as 90s, 5m or 1h, evaluation included.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint of --out.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, the parameters and the time; train nothing.")
    ] = False,
    folds: Annotated[
        int | None,
        typer.Option(
            min=0, help="Cross-validate in so many folds; default: 5 for under 500 rows and no budget, else 0."
        ),
    ] = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Train one network from raw values to final answers, and evaluate it: a run folder with a report you can open."""
    short = told({"seed": seed, "budget": budget})
    asked = declared(recipe, [*(settings or []), *(f"train.{name}={value}" for name, value in short.items())])
    if dry_run:
        _dry_run(asked, as_json)
        return
    with progress_shown(quiet=as_json) as progress:
        from endwise.regimes import fit
        from endwise.train import fit_folds

        model = fit(asked, out=out, resume=resume, progress=progress)
        run = model.run
        assert run is not None
        folded = fit_folds(asked, run, k=folds, progress=progress)
    _print_training(run, model.info.get("goal"), folded, as_json)


def _dry_run(recipe: "Recipe", as_json: bool) -> None:
    with progress_shown(quiet=as_json) as progress:
        from endwise.train import dry_run

        plan, facts = dry_run(recipe, progress=progress)
    if as_json:
        print_json({"plan": plan.to_dict(), "seconds": plan.seconds, "data": facts})
        return
    rows = facts["rows"]
    typer.echo(f"rows        {rows['train']} train, {rows['val']} val, {rows['test']} test ({facts['split']})")
    for name, item in facts["fields"].items():
        typer.echo(f"{item['role']:<11} {name}: {item['type']}, {item['summary']}")
    typer.echo(f"network     {plan.parameters:,} parameters, {plan.precision} on {plan.device}")
    typer.echo(f"training    {plan.steps} steps of {plan.batch_size} rows ({plan.epochs:.1f} epochs)")
    typer.echo(f"goal        {plan.goal['metric']} of {plan.goal['output']} ({plan.goal['direction']})")
    typer.echo(f"time        about {duration(plan.seconds)} ({plan.step_s * 1000:.0f} ms a step)")


def _print_training(run: "Run", goal: dict[str, Any] | None, folded: bool, as_json: bool) -> None:
    """The scores of a run that has just ended, and where it is; folded: and those of its folds."""
    from endwise.report import build

    page = build(run)
    metrics = run.read("metrics.json") if run.has("metrics.json") else {}
    folds = {"folds": run.read("folds.json")} if folded else {}
    if as_json:
        print_json({"run": str(run.path), "report": str(page), **metrics, **folds})
        return
    print_scores(metrics, goal)
    if folded:
        typer.echo("every row answered once by a model that did not see it:")
        print_scores(folds["folds"])
    typer.echo(f"run     {run.path}\nreport  {page}\nuse it  endwise predict {run.path} INPUT")


def reproduce(
    run: RunPath,
    out: Annotated[str | None, typer.Option(help="The new run's folder; default RUN-again.")] = None,
    other_data: Annotated[
        bool, typer.Option("--other-data", help="Go on where data files are not what they were.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint of --out.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a finished run again in a new folder: do the same numbers come out, and what differs? Exit code 3 where they do not."""
    with progress_shown(quiet=as_json) as progress:
        from endwise.reproduce import reproduce as run_again

        found = run_again(run, out=out, other_data=other_data, resume=resume, progress=progress)
    print_result(found, as_json=as_json, below=f"\nrun     {found.run}")
    if not found.ok:
        raise typer.Exit(3)
