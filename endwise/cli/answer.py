"""Asking a trained model: the answers to raw values, and the rows nearest to one."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from endwise.cli.arguments import AsJson, Log, RunPath, named, pair, raw_value, told
from endwise.cli.printing import complain, print_json, print_result
from endwise.errors import DataError, EndwiseError, require, unknown_name

if TYPE_CHECKING:
    from endwise.model import Model, Prediction
    from endwise.run import Run


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

    files, drawing = inputs or [], told({"temperature": temperature, "top_p": top_p, "seed": seed})
    _refuse_what_does_not_fit(files, pairs, samples, drawing, out, suffix)
    opened = Run.open(run)
    model = opened.model()
    if stream:
        _refuse_beside_stream(told({"--samples": samples, "--out": out, "--log": log}))
        print_stream(model, files, [pair(item, "--input") for item in pairs or []], as_json)
        return
    several = len(files) > 1 or any(is_rows(item) for item in files)  # then each answer says whose it is
    results = _answers(model, files, named(pairs, "--input"), samples, drawing, hashed=log is not None)
    failed = 0
    for number, (id, result) in enumerate(_written_down(opened, results, log), 1):
        if isinstance(result, EndwiseError):
            failed += 1
            print_json({"error": str(result)}, line=True) if as_json else complain(str(result))
            continue
        if out is not None:
            result = _saved(result, Path(out), number, suffix, several=several or samples is not None)
        _print_answer(id, result, whose=several, as_json=as_json)
    if failed:
        raise typer.Exit(3)


def _refuse_what_does_not_fit(
    files: Sequence[str],
    pairs: Sequence[str] | None,
    samples: int | None,
    drawing: Mapping[str, Any],
    out: str | None,
    suffix: str | None,
) -> None:
    """Options that say nothing beside the others."""
    require(
        bool(files) != bool(pairs), field="INPUT", got=files or pairs, allowed="files or tables, or --input pairs",
        fix="give at least one INPUT, or --input name=value for each input",
    )  # fmt: skip
    require(
        samples is not None or not drawing,
        field=f"--{next(iter(drawing), '').replace('_', '-')}", got=next(iter(drawing.values()), None),
        allowed="an option beside --samples",
        fix="add --samples 1, or remove it: answers are not drawn at random otherwise",
    )  # fmt: skip
    require(
        samples is None or bool(pairs), field="--samples", got=samples, allowed="one row, as --input name=value",
        fix="give the row with --input",
    )  # fmt: skip
    require(
        suffix is None or out is not None, field="--suffix", got=suffix, allowed="an option beside --out",
        fix="add --out FOLDER, or remove it",
    )  # fmt: skip


def _refuse_beside_stream(others: Mapping[str, Any]) -> None:
    require(
        not others, field="--stream", got=next(iter(others), None), allowed="--stream alone",
        fix="remove the other option",
    )  # fmt: skip


def _answers(
    model: "Model",
    files: Sequence[str],
    row: Mapping[str, str],
    samples: int | None,
    drawing: Mapping[str, Any],
    *,
    hashed: bool,
) -> "Iterator[Prediction | DataError]":
    """To every row of the files, or to the one row: its answer, or so many drawn at random."""
    if not row:
        return model.predict_files(files, hashed=hashed)
    if samples is None:
        return iter([model.predict(row, hashed=hashed)])
    return iter(model.sample(row, count=samples, hashed=hashed, **drawing))


def _written_down(
    run: "Run", results: "Iterator[Prediction | DataError]", log: str | None
) -> "Iterator[tuple[str | None, Prediction | DataError]]":
    """Every answer with its id where there is a log, and then not before it is written there."""
    if log is None:
        yield from ((None, item) for item in results)
        return
    from endwise.decisions import Decisions

    with Decisions.open(log, create=True) as opened:
        yield from opened.followed(run.identity(), results)


def _print_answer(id: str | None, answer: "Prediction", *, whose: bool, as_json: bool) -> None:
    """In one line, behind its id where it was written down; whose: and behind the row it belongs to, as JSON always does."""
    if as_json:
        print_json({**told({"id": id, "row": answer.origin}), "outputs": answer.to_dict()}, line=True)
    else:
        typer.echo(("" if id is None else f"{id}  ") + (f"{answer.origin}: {answer}" if whose else str(answer)))


def _saved(prediction: "Prediction", out: Path, number: int, suffix: str | None, *, several: bool) -> "Prediction":
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
    own = next((kind for kind in kinds if out.name.lower().endswith(kind)), None)
    require(
        own is None or (len(files) == 1 and not several and suffix in (None, own)),
        field="--out", got=str(out), allowed="a folder, where there may be several files or --suffix says their kind",
        fix=f"write --out {str(out)[: -len(own or '')]} --suffix {suffix or own}",
    )  # fmt: skip
    answers = dict(prediction.answers)
    for name, value in files.items():
        kind = suffix if suffix in value.suffixes else value.suffixes[0]
        place = out if own else out / f"{number:04d}-{name}{kind}"
        place.parent.mkdir(parents=True, exist_ok=True)
        answers[name] = dataclasses.replace(answers[name], value=str(value.save(place)))
    return dataclasses.replace(prediction, answers=answers)


def print_stream(model: "Model", files: Sequence[str], pairs: Sequence[tuple[str, str]], as_json: bool) -> None:
    """How much of the input was there, what the piece cost, and what could be said."""
    from endwise.rows import file_fetcher

    require(
        len(files) + len(pairs) == 1, field="--stream", got=files or dict(pairs), allowed="one input",
        fix="stream them one after the other",
    )  # fmt: skip
    stream = model.stream()
    for name, _ in pairs:
        if name != stream.input:
            raise unknown_name(field="--input", got=name, names=[stream.input], error=DataError)
    raw = pairs[0][1] if pairs else raw_value(stream.input, model.recipe.inputs[stream.input], files[0])
    said: Any = None
    for partial in stream.of(raw, file_fetcher(".")):
        now = {name: answer.value for name, answer in partial.answers.items()}
        if now != said:
            print_json(partial.to_dict(), line=True) if as_json else typer.echo(str(partial))
        said = now


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

    print_result(run_search(run, query, by=by, top=top, data=data), as_json=as_json)
