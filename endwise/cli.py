"""The command line: reads arguments, calls one verb, prints its result. Nothing is computed here.

Importing this loads no torch; each command imports its verb when it runs. Results go to stdout, progress and
errors to stderr; `--json` prints one object (one line a row for `predict`).
"""

import contextlib
import dataclasses
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from endwise.errors import DataError, EndwiseError, ModelError, RecipeError, require, unknown_name

EPILOG = "Exit codes: 0 done, 2 recipe, 3 data, 4 setup, 5 model, 6 training, 7 export, 130 Ctrl-C, 143 SIGTERM, 1 a bug of ours."
PLAIN_EVERY_S = 10.0  # without a terminal, a line of progress this often, and one as each phase begins
STARTING = {"event": "prepare", "what": "starting", "done": 0, "total": 1}

app = typer.Typer(
    name="endwise",
    help="Raw data in, final answers out: one network, one objective, one loop.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

audit = typer.Typer(no_args_is_help=True, help="The decision log: what was answered, when, by which model.")
app.add_typer(audit, name="audit")

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


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        import endwise

        typer.echo(f"endwise {endwise.__version__}")
        raise typer.Exit
    del debug  # read by main() before the parser runs


@app.command()
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
        _print_json(
            {
                "recipe": proposal.recipe.to_dict(),
                "reasons": list(proposal.reasons),
                "questions": list(proposal.questions),
                "instead": [{"question": item.question, "recipe": item.recipe.to_dict()} for item in proposal.instead],
            }
        )
        if out is None:
            return
    if out != "-":
        require(
            not target.exists(),
            field="--out",
            got=str(target),
            allowed="a file that does not exist yet",
            fix="give another --out, or '-' to print the recipe",
        )
        target.write_text(proposal.yaml(target.parent), encoding="utf-8")
    if as_json:
        return
    typer.echo(proposal.yaml(target.parent))
    for question in proposal.questions:
        _note(f"please check: {question}")
    if out != "-":
        _note(f"written to {target}; next: endwise check {target}")


@app.command()
def check(recipe: RecipePath, settings: Settings = None, as_json: AsJson = False) -> None:
    """Read everything once: what is there, what is broken, what leaks, and what will be learnt from."""
    from endwise.data.check import check as run_check

    declared = _recipe(recipe, settings)
    _there(declared)
    with _progress(quiet=as_json) as progress:
        report = run_check(declared, progress=_phases(progress, "reading "))
    if as_json:
        _print_json(report.to_dict())
    else:
        typer.echo(str(report))
    if report.exit_code:
        raise typer.Exit(report.exit_code)


def _there(declared: Any) -> None:
    """Refuses a run that a recipe begins with and that is not there; what it holds is looked at when training begins."""
    from endwise.run import Run

    begun = {f"stages.{name}.run": stage.run for name, stage in declared.stages.items() if stage.run is not None}
    if declared.from_run is not None:
        begun["from_run"] = declared.from_run.run
    for field, run in begun.items():
        try:
            Run.open(run)
        except ModelError as wrong:
            raise ModelError(f"{field}: {wrong}") from None


@app.command()
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

    with _progress(quiet=as_json) as progress:
        result = run_advise(
            _recipe(recipe, settings),
            target=None if target is None else _target(target),
            labels=labels,
            price_per_label=price,
            needs=need or [],
            weights=dict(_pair(item, "--weights") for item in weights or []),
            seeds=seeds,
            budget=budget,
            margin=margin,
            out=out,
            resume=resume,
            progress=progress,
        )
    if as_json:
        _print_json(result.to_dict())
    else:
        typer.echo(f"{result}\nreport    {result.folder}/report.html")


@app.command()
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

    with _progress(quiet=as_json) as progress:
        result = run_compare(
            _recipe(recipe, settings),
            regimes=None if regimes is None else _listed(regimes),
            seeds=seeds,
            quick=quick,
            budget=budget,
            shares=None if shares is None else _shares(shares),
            shift=shift,
            inputs=inputs,
            pretrained=dict(_pair(item, "--pretrained") for item in pretrained or []),
            retarget=retarget,
            out=out,
            resume=resume,
            progress=progress,
        )
    if as_json:
        _print_json(result.to_dict())
    else:
        typer.echo(f"{result}\nrun     {result.run}\nreport  {result.run}/report.html")


@app.command()
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
    overrides = [*(settings or [])]
    if seed is not None:
        overrides.append(f"train.seed={seed}")
    if budget is not None:
        overrides.append(f"train.budget={budget}")
    declared = _recipe(recipe, overrides)
    if dry_run:
        return _dry_run(declared, as_json)
    with _progress(quiet=as_json) as progress:
        from endwise.regimes import fit
        from endwise.train import fit_folds

        model = fit(declared, out=out, resume=resume, progress=progress)
        run = model.run
        assert run is not None
        folded = fit_folds(declared, run, k=folds, progress=progress)
    from endwise.report import build

    page = build(run)
    metrics = run.read("metrics.json") if run.has("metrics.json") else {}
    if as_json:
        found = {"folds": run.read("folds.json")} if folded else {}
        _print_json({"run": str(run.path), "report": str(page), **metrics, **found})
        return None
    _print_scores(metrics, model.info.get("goal"))
    if folded:
        typer.echo("every row answered once by a model that did not see it:")
        _print_scores(run.read("folds.json"))
    typer.echo(f"run     {run.path}\nreport  {page}\nuse it  endwise predict {run.path} INPUT")
    return None


@app.command()
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
    with _progress(quiet=as_json) as progress:
        from endwise.reproduce import reproduce as run_again

        found = run_again(run, out=out, other_data=other_data, resume=resume, progress=progress)
    if as_json:
        _print_json(found.to_dict())
    else:
        typer.echo(f"{found}\nrun     {found.run}")
    if not found.ok:
        raise typer.Exit(3)


@app.command()
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
    with _progress(quiet=as_json) as progress:
        from endwise.evaluate import evaluate_run

        result = evaluate_run(opened, split=split, data=data, by=by, progress=_phases(progress))
    if as_json:
        _print_json(result.to_dict())
    else:
        _print_scores(result.to_dict(), opened.info().get("goal"))


@app.command()
def predict(
    run: RunPath,
    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="INPUT...", help="Raw files, tables or folders.")
    ] = None,
    pairs: Annotated[
        list[str] | None, typer.Option("--input", metavar="NAME=VALUE", help="One row, input by input.")
    ] = None,
    samples: Annotated[int | None, typer.Option(help="Draw so many answers to the --input row at random.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Of --samples: 0 greedy, 1 as the network has it.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Of --samples: share of the probability to draw from.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of --samples; default 0.")] = None,
    out: Annotated[
        str | None,
        typer.Option(
            help="Write answers of sound, pictures, chains ... there, as NUMBER-OUTPUT.wav, .png, .pdb ...; a file's name where there is "
            "one answer.",
            metavar="FOLDER",
        ),
    ] = None,
    suffix: Annotated[
        str | None, typer.Option(help="Of --out: the kind of file, where there are several: .pdb or .cif of a chain.")
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Take one INPUT as if it came in: a line whenever the answer grows.")
    ] = False,
    log: Log = None,
    as_json: AsJson = False,
) -> None:
    """Raw values in, final answers out: one line a row, in the order given; behind its id where decisions are written down."""
    from endwise.model import is_rows
    from endwise.run import Run

    require(
        bool(inputs) != bool(pairs),
        field="INPUT",
        got=inputs or pairs,
        allowed="files or tables, or --input pairs",
        fix="give at least one INPUT, or --input name=value for each input",
    )
    options = {"temperature": temperature, "top_p": top_p, "seed": seed}
    given = _told(options)
    require(
        samples is not None or not given,
        field=f"--{next(iter(given), '').replace('_', '-')}",
        got=next(iter(given.values()), None),
        allowed="an option beside --samples",
        fix="add --samples 1, or remove it: answers are not drawn at random otherwise",
    )
    require(
        samples is None or bool(pairs),
        field="--samples",
        got=samples,
        allowed="one row, as --input name=value",
        fix="give the row with --input",
    )
    require(
        suffix is None or out is not None,
        field="--suffix", got=suffix, allowed="an option beside --out", fix="add --out FOLDER, or remove it",
    )  # fmt: skip
    opened = Run.open(run)
    model = opened.model()
    if stream:
        others = {"--samples": samples, "--out": out, "--log": log}
        require(
            not _told(others), field="--stream", got=next(iter(_told(others)), None),
            allowed="--stream alone", fix="remove the other option",
        )  # fmt: skip
        _print_stream(model, inputs or [], [_pair(pair, "--input") for pair in pairs or []], as_json)
        return
    if pairs:
        row = dict(_pair(pair, "--input") for pair in pairs)
        results: Iterator[Any] = iter(
            [model.predict(row, hashed=log is not None)]
            if samples is None
            else model.sample(
                row,
                count=samples,
                temperature=1.0 if temperature is None else temperature,
                top_p=1.0 if top_p is None else top_p,
                seed=seed or 0,
                hashed=log is not None,
            )
        )
    else:
        results = model.predict_files(inputs or [], hashed=log is not None)
    several = len(inputs or []) > 1 or any(is_rows(item) for item in inputs or [])  # then each answer says whose it is
    failed = 0
    for number, (id, result) in enumerate(_written_down(opened, results, log), 1):
        if out is not None and not isinstance(result, EndwiseError):
            result = _saved(result, Path(out), number, suffix, several=several or samples is not None)
        if isinstance(result, EndwiseError):
            failed += 1
            _print_json({"error": str(result)}, line=True) if as_json else _complain(str(result))
        elif as_json:
            named = {} if id is None else {"id": id}
            whose = {} if result.origin is None else {"row": result.origin}
            _print_json({**named, **whose, "outputs": result.to_dict()}, line=True)
        else:
            typer.echo(("" if id is None else f"{id}  ") + (f"{result.origin}: {result}" if several else str(result)))
    if failed:
        raise typer.Exit(3)


@app.command()
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
    from endwise.explain import audit, like, what_if
    from endwise.explain import explain as run_explain
    from endwise.run import Run

    if audited:
        require(
            row is None and not pairs, field="--audit", got=row or pairs, allowed="no row: it looks at many",
            fix="leave the row out", error=DataError,
        )  # fmt: skip
        found = audit(run, of=of, data=data, rows=rows, seed=seed)
        if data is None:
            Run.open(run).write("shortcuts.json", found.to_dict())  # for the run's card
        _print_json(found.to_dict()) if as_json else typer.echo(str(found))
        return
    given = _explained_row(run, row, pairs)
    result = run_explain(run, given, of=of, method=method, grade=grade, data=data, seed=seed)
    drawn = None if out is None else result.save(out)
    neighbours = like(run, given, count=alike, data=data) if alike else []
    changed = what_if(run, given, dict(_pair(item, "--what-if") for item in changes), data=data) if changes else None
    if as_json:
        more = {"drawn": None if drawn is None else str(drawn), "like": [item.to_dict() for item in neighbours]}
        _print_json({**result.to_dict(), **more, "what_if": None if changed is None else changed.to_dict()})
        return
    typer.echo(str(result))
    if neighbours:
        typer.echo("\n".join(["like these training rows:", *map(str, neighbours)]))
    if changed is not None:
        typer.echo(str(changed))
    if drawn is not None:
        _note(f"drawn in {drawn}")


@app.command()
def report(run: RunPath, as_json: AsJson = False) -> None:
    """Write the report.html of a run or a comparison again: one file that opens without a network."""
    from endwise.report import build, comparison
    from endwise.run import Run

    compared = (Path(run) / comparison.RESULT).is_file()
    page = comparison.build(run) if compared else build(Run.open(run))
    if as_json:
        _print_json({"report": str(page)})
    else:
        typer.echo(str(page))


@app.command()
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

    found = run_card(run, out=out, owner=owner)
    if as_json:
        _print_json(found.to_dict())
    else:
        typer.echo(str(found))


@app.command()
def export(
    run: RunPath,
    out: Annotated[str | None, typer.Option(help="The bundle's folder; default RUN/export.")] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="An ONNX bundle (the default and, for now, only kind).")] = True,
    as_json: AsJson = False,
) -> None:
    """One bundle: graph with preprocessing and decoding inside, contract, golden examples, a runner without torch."""
    from endwise.export import export_run

    del onnx
    result = export_run(run, out=out, progress=None if as_json else _note)
    if as_json:
        _print_json(result.to_dict())
    else:
        typer.echo(str(result))


@app.command()
def search(
    run: RunPath,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="A raw value of any input: text, or a file's path.")],
    by: Annotated[
        str | None,
        typer.Option("--in", metavar="INPUT", help="Which input QUERY is; default: the one that can read it."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many rows.")] = 10,
    data: Annotated[str | None, typer.Option(help="Search another table instead of the run's own data.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find rows by any of their inputs: the nearest in the space of the run's embedding, with their scores."""
    from endwise.search import search as run_search

    result = run_search(run, query, by=by, top=top, data=data)
    if as_json:
        _print_json(result.to_dict())
    else:
        typer.echo(str(result))


class _Serve(typer.core.TyperCommand):
    """Its help says the defaults, which stand where the options are meant; looked up when they are asked for."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from endwise.serve.options import defaults

        said = defaults()
        for item in self.params:
            if item.name in said and isinstance(item, typer.core.TyperOption):
                item.default = said[item.name]
        super().format_help(ctx, formatter)


@app.command(cls=_Serve)
def serve(
    run: Annotated[str, typer.Argument(metavar="RUN|BUNDLE", help="A run, its model/ folder, or an exported bundle.")],
    host: Annotated[
        str | None, typer.Option(help="Where to listen; another than this machine's own needs --token.")
    ] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="0: any that is free.")] = None,
    token: Annotated[
        str | None,
        typer.Option(envvar="ENDWISE_TOKEN", help="Ask for it on every route; better given by the variable."),
    ] = None,
    queue: Annotated[int | None, typer.Option(min=1, help="Requests that may wait; beyond it 503.")] = None,
    max_batch: Annotated[int | None, typer.Option(min=1, help="Rows answered at once.")] = None,
    timeout_s: Annotated[float | None, typer.Option("--timeout-s", help="Of one request.")] = None,
    drain_s: Annotated[float | None, typer.Option("--drain-s", help="For what was taken, after SIGTERM.")] = None,
    p99_ms: Annotated[
        float | None, typer.Option("--p99-ms", help="Refuse at once what could not be answered in this time.")
    ] = None,
    max_body_mb: Annotated[float | None, typer.Option("--max-body-mb", help="Of one request.")] = None,
    max_pixels: Annotated[int | None, typer.Option(help="Of one picture.")] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Of a batch's arithmetic; as many batches run side by side as have cores for theirs."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Take over a new version as soon as it is in the folder.")
    ] = False,
    log: Log = None,
    as_json: AsJson = False,
) -> None:
    """Answer raw files and JSON over HTTP, as predict does; until SIGTERM, and not before all is answered."""
    from endwise.serve import serve as run_serve
    from endwise.serve.body import Limits
    from endwise.serve.options import Options

    def ready(url: str, version: Any) -> None:
        if as_json:
            _print_json({"url": url, "model": version.id}, line=True)
            sys.stdout.flush()
        else:
            _note(f"{version}\nanswers at {url}/predict; what it takes is said at {url}/openapi.json")

    asked = {
        "host": host, "port": port, "token": token, "queue": queue, "max_batch": max_batch, "timeout_s": timeout_s,
        "drain_s": drain_s, "p99_ms": p99_ms, "threads": threads, "log": log,
    }  # fmt: skip
    limits = {"body_bytes": None if max_body_mb is None else int(max_body_mb * 2**20), "pixels": max_pixels}
    options = Options(watch=watch, limits=Limits(**_told(limits)), **_told(asked))
    run_serve(run, options, ready=ready)


def _told(options: dict[str, Any]) -> dict[str, Any]:
    """What was said on the command line: the defaults stand where the options are meant."""
    return {name: value for name, value in options.items() if value is not None}


@audit.command()
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
    if as_json:
        _print_json(found.to_dict())
    else:
        typer.echo(str(found))
    if not found.ok:
        raise typer.Exit(3)


@audit.command()
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

    with Decisions.open(log) as opened, _progress(quiet=as_json) as progress:
        tell = _phases(progress)
        found = opened.show(
            id, run=None if run is None else Run.open(run).path, contents=not quick,
            progress=None if tell is None else lambda done, of: tell("hashing the data files", done, of),
        )  # fmt: skip
    if as_json:
        _print_json(found.to_dict())
    else:
        typer.echo(str(found))
    if not found.ok:
        raise typer.Exit(3)


@app.command()
def schema(
    as_json: AsJson = False,
) -> None:
    """The JSON Schema of a recipe, for editors and programs."""
    from endwise.recipe import json_schema

    del as_json  # the schema is JSON either way
    _print_json(json_schema())


@app.command()
def clean(
    everything: Annotated[bool, typer.Option("--all", help="Remove every prepared field that is not in use.")] = False,
    unused_days: Annotated[float | None, typer.Option(help="Remove what was not used for so many days.", min=0)] = None,
    as_json: AsJson = False,
) -> None:
    """What the prepared store holds; --all or --unused-days removes it (it is decoded again when needed)."""
    from endwise.data import store

    if everything or unused_days is not None:
        removed = store.clean(unused_days=unused_days)
        if as_json:
            _print_json(removed.to_dict())
        else:
            typer.echo(
                f"removed {removed.removed} fields, {_size(removed.freed_bytes)}; {removed.in_use} in use were left"
            )
        return
    used = store.usage()
    if as_json:
        _print_json(used.to_dict())
        return
    for entry in used.entries:
        days = (time.time() - entry.last_used) / 86_400
        typer.echo(f"{_size(entry.bytes):>10}  {entry.rows:>9,} rows  {days:5.1f} days ago  {entry.about}")
    typer.echo(f"{_size(used.bytes):>10}  of {_size(used.cap_bytes)} in {used.root}")


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """What is installed, what an extra would add, and what this machine can do."""
    from endwise.doctor import examine

    result = examine()
    if as_json:
        _print_json(result.to_dict())
    else:
        typer.echo(str(result))


# ---- helpers --------------------------------------------------------------------------------------------------


def main() -> None:
    """The entry point: errors as their message, never a traceback without --debug."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        app()
    except EndwiseError as wrong:
        if debug:
            raise
        if "--json" in sys.argv:
            _print_json({"error": {"type": type(wrong).__name__, "message": str(wrong), "exit_code": wrong.exit_code}})
        _complain(str(wrong))
        sys.exit(wrong.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except Exception as bug:
        if debug:
            raise
        _complain(
            f"a bug of ours: {type(bug).__name__}: {bug}. Fix: run it again with --debug and report what it prints."
        )
        sys.exit(1)


def _explained_row(run: str, row: str | None, pairs: list[str] | None) -> Any:
    """A number of the run's data, a file or a value of the one input, or one for each."""
    from endwise.rows import FieldError, content, file_fetcher, opens
    from endwise.run import Run

    require(
        (row is None) != (not pairs), field="ROW|FILE", got=row, allowed="a row, or --input for each input, not both",
        fix="endwise explain RUN 0", error=DataError,
    )  # fmt: skip
    if pairs:
        return dict(_pair(pair, "--input") for pair in pairs)
    if row is None or row.isdecimal():
        return None if row is None else int(row)
    inputs, fetch = Run.open(run).recipe.inputs, file_fetcher(".")
    name = next(iter(inputs))
    if len(inputs) > 1 or opens(inputs[name], row, fetch):
        return row
    try:
        return content(name, row, fetch)
    except FieldError as wrong:
        raise DataError(f"{row}: field {wrong.field!r}: {wrong.reason}") from None


def _written_down(run: Any, results: Iterator[Any], log: str | None) -> Iterator[tuple[str | None, Any]]:
    """Every answer with its id where there is a log, and then not before it is written there."""
    if log is None:
        yield from ((None, item) for item in results)
        return
    from endwise.decisions import Decisions

    with Decisions.open(log, create=True) as opened:
        yield from opened.followed(run.identity(), results)


def _print_stream(model: Any, inputs: list[str], pairs: list[tuple[str, str]], as_json: bool) -> None:
    """How much of the input was there, what the piece cost, and what could be said."""
    from endwise.rows import FieldError, content, file_fetcher, opens

    require(
        len(inputs) + len(pairs) == 1, field="--stream", got=inputs or dict(pairs), allowed="one input",
        fix="stream them one after the other",
    )  # fmt: skip
    stream, fetch = model.stream(), file_fetcher(".")
    for name, _ in pairs:
        if name != stream.input:
            raise unknown_name(field="--input", got=name, names=[stream.input], error=DataError)
    raw = pairs[0][1] if pairs else inputs[0]
    if inputs and not opens(model.recipe.inputs[stream.input], raw, fetch):
        try:
            raw = content(stream.input, raw, fetch)
        except FieldError as wrong:
            raise DataError(f"{inputs[0]}: field {wrong.field!r}: {wrong.reason}") from None
    said: Any = None
    for partial in stream.of(raw, fetch):
        now = {name: answer.value for name, answer in partial.answers.items()}
        if now != said:
            _print_json(partial.to_dict(), line=True) if as_json else typer.echo(str(partial))
        said = now


def _recipe(path: str, settings: list[str] | None) -> Any:
    from endwise.recipe import Recipe

    declared = Recipe.load(path)
    changes = dict(_pair(setting, "--set") for setting in settings or [])
    return declared.replace(**{name: _parsed(value) for name, value in changes.items()}) if changes else declared


def _pair(text: str, option: str) -> tuple[str, str]:
    name, mark, value = text.partition("=")
    require(bool(mark) and bool(name), field=option, got=text, allowed="NAME=VALUE", fix=f"write {option} name=value")
    return name, value


def _target(text: str) -> dict[str, float]:
    name, value = _pair(text, "--target")
    try:
        return {name: float(value)}
    except ValueError:
        raise RecipeError(f"--target: {value!r} is no number. Fix: write --target {name}=0.9") from None


def _listed(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _shares(text: str) -> list[float]:
    try:
        return [] if text == "none" else [float(item) for item in _listed(text)]
    except ValueError:
        raise RecipeError(f"--shares: {text!r} is no list of shares. Fix: write 0.1,0.3 or none.") from None


def _parsed(value: str) -> Any:
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        raise RecipeError(f"--set: {value!r} is not a YAML value. Fix: quote it.") from None


def _saved(prediction: Any, out: Path, number: int, suffix: str | None, *, several: bool) -> Any:
    """The prediction with every answer that is a file (a sound, a picture, a chain ...) written to one and its path in its
    place. several: whether other predictions may follow, so that `out` can be no file."""
    files = {name: answer.value for name, answer in prediction.answers.items() if hasattr(answer.value, "save")}
    kinds = sorted({kind for value in files.values() for kind in value.suffixes})
    withheld = not files and any(answer.abstained for answer in prediction.answers.values())
    require(
        suffix is None or suffix in kinds or withheld,
        field="--suffix", got=suffix, allowed=f"one of {', '.join(kinds)}" if kinds else "nothing: no answer is a file",
        fix="leave it out for the usual kind of file" if kinds else "leave it out",
    )  # fmt: skip
    named = next((kind for kind in kinds if out.name.lower().endswith(kind)), None)
    require(
        named is None or (len(files) == 1 and not several and suffix in (None, named)),
        field="--out", got=str(out), allowed="a folder, where there may be several files or --suffix says their kind",
        fix=f"write --out {str(out)[: -len(named or '')]} --suffix {suffix or named}",
    )  # fmt: skip
    answers = dict(prediction.answers)
    for name, value in files.items():
        kind = suffix if suffix in value.suffixes else value.suffixes[0]
        place = out if named else out / f"{number:04d}-{name}{kind}"
        place.parent.mkdir(parents=True, exist_ok=True)
        answers[name] = dataclasses.replace(answers[name], value=str(value.save(place)))
    return dataclasses.replace(prediction, answers=answers)


def _dry_run(declared: Any, as_json: bool) -> None:
    with _progress(quiet=as_json) as progress:
        from endwise.train import dry_run

        plan, facts = dry_run(declared, progress=progress)
    if as_json:
        _print_json({"plan": plan.to_dict(), "seconds": plan.seconds, "data": facts})
        return
    rows = facts["rows"]
    typer.echo(f"rows        {rows['train']} train, {rows['val']} val, {rows['test']} test ({facts['split']})")
    for name, item in facts["fields"].items():
        typer.echo(f"{item['role']:<11} {name}: {item['type']}, {item['summary']}")
    typer.echo(f"network     {plan.parameters:,} parameters, {plan.precision} on {plan.device}")
    typer.echo(f"training    {plan.steps} steps of {plan.batch_size} rows ({plan.epochs:.1f} epochs)")
    typer.echo(f"goal        {plan.goal['metric']} of {plan.goal['output']} ({plan.goal['direction']})")
    typer.echo(f"time        about {_duration(plan.seconds)} ({plan.step_s * 1000:.0f} ms a step)")


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _print_scores(found: Mapping[str, Any], goal: Mapping[str, Any] | None = None) -> None:
    """Tables of every metric beside its baselines, of groups and of inputs left out; whether a baseline is better at
    the goal; what has to be said, on stderr."""
    from endwise.scores import against_baseline, lines

    for line in lines(found):
        typer.echo(line)
    if goal is not None:
        for line in against_baseline(found, goal):
            typer.echo(line)
    for note in found.get("notes", []):
        _note(note)


@contextlib.contextmanager
def _progress(quiet: bool) -> Iterator[Any]:
    """A live line on a terminal, plain lines elsewhere, nothing when quiet; all on stderr. The first says that it begins:
    what is imported inside takes seconds."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.live import Live

        shown = _Shown()
        with Live("", console=Console(stderr=True), refresh_per_second=4, transient=True) as live:

            def tell(event: Mapping[str, Any]) -> None:
                message = shown.take(event)
                if message:
                    live.console.print(message, markup=False, highlight=False)
                live.update(shown.line())

            tell(STARTING)
            yield tell
    else:
        with _Lines() as lines:
            lines.tell(STARTING)
            yield lines.tell


def _phases(progress: Any, doing: str = "") -> Callable[[str, int, int], None] | None:
    """The same for verbs that say what is done, how much of it, and how much there is."""
    if progress is None:
        return None
    return lambda what, done, total: progress(
        {"event": "prepare", "what": f"{doing}{what}", "done": done, "total": total}
    )


class _Lines:
    """Progress for pipes and logs: every message, a line as each phase begins, and one every PLAIN_EVERY_S while it goes
    on, whether anything is heard of it or not."""

    def __init__(self) -> None:
        self.shown, self.told = _Shown(), time.monotonic()
        self.lock, self.ended = threading.Lock(), threading.Event()
        self.clock = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "_Lines":
        self.clock.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.clock.join()

    def tell(self, event: Mapping[str, Any]) -> None:
        """An event of the training."""
        with self.lock:
            phase = self.shown.phase
            message = self.shown.take(event)
            if message:
                self._say(message)
            elif self.shown.phase != phase or time.monotonic() - self.told > PLAIN_EVERY_S:
                self._say(self.shown.line())

    def _watch(self) -> None:
        while not self.ended.wait(PLAIN_EVERY_S / 10):
            with self.lock:
                if self.shown.phase and time.monotonic() - self.told > PLAIN_EVERY_S:
                    self._say(f"{self.shown.line()}  ({_duration(time.monotonic() - self.shown.since)} so far)")

    def _say(self, line: str) -> None:
        self.told = time.monotonic()
        _note(line)


class _Shown:
    """What is known about the training so far, as a line of text."""

    def __init__(self) -> None:
        self.stage = self.phase = ""
        self.since = 0.0  # when the phase began
        self.loss: float | None = None
        self.goal = ""

    def take(self, event: Mapping[str, Any]) -> str | None:
        """Note an event; a message worth a line of its own, or None."""
        kind = event["event"]
        if kind == "prepare":
            self._begin(event["what"])
            self.stage = f"{event['what']} {event['done']}/{event['total']}" if event["total"] > 1 else event["what"]
        elif kind == "step":
            self._begin("training")
            self.loss = event["loss"] if self.loss is None else 0.95 * self.loss + 0.05 * event["loss"]
            left = event["time_s"] / event["step"] * (event["steps"] - event["step"])
            self.stage = (
                f"step {event['step']}/{event['steps']}  loss {self.loss:.3f}{self.goal}  "
                f"{event['samples_per_s']:.0f} rows/s  {_duration(left)} left"
            )
        elif kind == "eval":
            self.goal = "" if event["goal"] is None else f"  val {event['goal']:.4g}"
            scores = "  ".join(
                f"{output}.{name} {value:.4g}"
                for output, values in event["val"].items()
                for name, value in values.items()
                if value is not None
            )
            return f"step {event['step']}: {scores}"
        elif kind == "alarm":
            return f"{event['name']}: {event['message']}"
        elif "message" in event:
            return str(event["message"])
        return None

    def _begin(self, phase: str) -> None:
        if phase != self.phase:
            self.phase, self.since = phase, time.monotonic()

    def line(self) -> str:
        """What is going on."""
        return self.stage


def _duration(seconds: float) -> str:
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    return (
        f"{seconds // 60} min {seconds % 60:02d} s"
        if seconds < 3600
        else f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    )


def _print_json(value: Any, *, line: bool = False) -> None:
    typer.echo(json.dumps(value, indent=None if line else 1, ensure_ascii=False, allow_nan=False))


def _note(message: str) -> None:
    typer.echo(message, err=True)


def _complain(message: str) -> None:
    typer.echo(f"error: {message}", err=True)


if __name__ == "__main__":
    main()
