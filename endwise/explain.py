"""Explain: which pixels, seconds, characters and cells drove an answer, what it would have been otherwise, and which
training rows are like it.

Here: finding the row, and what is asked beside the explanation. Not here: the methods and their grades (attribution.py), the
result (explanation.py), what makes a shortcut (shortcuts.py).
"""

import hashlib
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from html import escape
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from endwise.artefact import DESCRIPTION
from endwise.attribution import shared_copy
from endwise.data.dataset import Dataset, prepare
from endwise.data.loader import Loader
from endwise.errors import BadValue, DataError, require, unknown_name
from endwise.explanation import AUTO, Explanation, Row, explained, predicted, sent
from endwise.files import atomic, plain, read_json
from endwise.highlights import COLUMNS
from endwise.modalities.base import Fetch
from endwise.model import Model, Prediction
from endwise.rows import FieldError, check_names, file_fetcher, is_missing, read_row, taken
from endwise.run import Run
from endwise.shortcuts import FEWEST_ANSWERS, Finding, Seen, grouped, suspicious

FOLDER, VECTORS_VERSION = "explain", 1  # in the run
MOST_ROWS, BATCH_ROWS = 20_000, 64  # training rows that examples are looked for among


def explain(
    model: "Model | Run | str | Path",
    row: Any,
    *,
    of: Any = None,
    method: str = AUTO,
    grade: bool = True,
    data: Any = None,
    seed: int = 0,
    base: str | Path = ".",
) -> Explanation:
    """What one answer leans on, graded.

    model: a model, a run or its folder. row: {input: raw value}; the raw value alone where there is one input; or the number
    of a row of the run's own data, or of the table `data`, counted from 0. of: the output, default the goal's; where it has
    several answers, (output, which) or 'output=which': a class, a tag, a word or its number, the number of a box or of a
    ranked item. method: auto, shapley, integrated_gradients, gradient_x_input, occlusion or, where the network attends,
    attention_rollout. base: the folder that paths are taken from. Raises DataError where the row cannot be read and ModelError where there is nothing to explain.
    """
    run, loaded = opened(model)
    output, which = asked(loaded, of)
    found = row_of(loaded, run, row, data=data, base=base)
    return explained(loaded, found, output=output, which=which, method=method, grade=grade, seed=seed)


def opened(model: "Model | Run | str | Path") -> tuple[Run | None, Model]:
    """The run, where there is one, and its model."""
    if isinstance(model, Model):
        return model.run, model
    run = Run.open(model)
    return run, run.model()


def asked(model: Model, of: Any) -> tuple[str, Any]:
    """(output, which part of its answer)."""
    outputs, goal = model.recipe.outputs, model.recipe.goal
    if of is None:
        return (goal.output if goal is not None and goal.output in outputs else next(iter(outputs))), None
    name, which = of if isinstance(of, tuple) and len(of) == 2 else (of, None)
    if isinstance(name, str) and name not in outputs and "=" in name:
        name, _, which = name.partition("=")
    if name not in outputs:
        raise unknown_name(field="of: output", got=str(name), names=outputs, error=DataError)
    return name, which


def row_of(model: Model, run: Run | None, row: Any, *, data: Any = None, base: str | Path = ".") -> Row:
    """The row, read."""
    if isinstance(row, int) and not isinstance(row, bool):
        return numbered(dataset_of(model, run, data), model, row)
    try:
        return row_from(model, cells_of(model, row), file_fetcher(base))
    except FieldError as wrong:
        raise DataError(f"the row: field {wrong.field!r}: {wrong.reason}") from None


def row_from(model: Model, cells: Mapping[str, Any], fetch: Fetch) -> Row:
    """The row of raw values by input. Raises FieldError where one cannot be read."""
    values = read_row(model.recipe.inputs, model.contracts, cells, fetch)
    decoded, whole = {}, {}
    for name, item in model.recipe.inputs.items():
        if not is_missing(cells.get(name)):
            decoded[name] = item.read(cells[name], fetch)
            whole[name] = item.in_full(cells[name], fetch)
    return Row(values, decoded, whole)


def cells_of(model: Model, row: Any) -> Mapping[str, Any]:
    """{input: raw value} of what a caller gave."""
    if isinstance(row, Mapping):
        check_names(row, model.recipe.inputs, model.recipe.outputs, "the row")
        return row
    names = list(model.recipe.inputs)
    require(
        len(names) == 1, field="the row", got=row, allowed=f"a mapping with the inputs {', '.join(names)}",
        fix=f"give {{{names[0]!r}: ..., {names[-1]!r}: ...}}, or the number of a row", error=DataError,
    )  # fmt: skip
    return {names[0]: row}


def dataset_of(model: Model, run: Run | None, data: Any) -> Dataset:
    """The rows that numbers count: of `data`, else of the run."""
    require(
        data is not None or run is not None, field="the row", got="a number", allowed="a row of a run or of `data`",
        fix="give the run in the place of the model, or data=, or the row itself", error=DataError,
    )  # fmt: skip
    return prepare(model.recipe if run is None else run.recipe, source=data, need_targets=False)


def numbered(dataset: Dataset, model: Model, row: int) -> Row:
    """A row of a data set, by its number from 0."""
    require(
        0 <= row < len(dataset), field="the row", got=row, allowed=f"a number from 0 to {len(dataset) - 1}",
        fix="count from 0", error=DataError,
    )  # fmt: skip
    values: dict[str, np.ndarray | None] = {}
    decoded, whole = {}, {}
    for name, item in model.recipe.inputs.items():
        store = dataset.fields.get(name)
        if store is None or not store.present[row]:
            values[name] = None
            continue
        decoded[name] = np.asarray(store[row])
        values |= taken(name, item, model.contracts[name], decoded[name])
        whole[name] = _whole(dataset, model, name, row, decoded[name])
    return Row(values, decoded, whole, dataset.origin(row))


def _whole(dataset: Dataset, model: Model, name: str, row: int, decoded: np.ndarray) -> np.ndarray:
    """The raw value of a row in its own coordinates; as it is kept where its cell is not in a table of its own."""
    item = model.recipe.inputs[name]
    if name not in dataset.columns:
        return decoded
    try:
        return item.in_full(dataset.raw(name, row), dataset.fetch_of(row))
    except (BadValue, DataError):
        return decoded


# ---- what would have been otherwise ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WhatIf:
    """The answers to a row, and to the same row with some inputs changed."""

    changes: Mapping[str, Any]
    before: Prediction
    after: Prediction

    def to_dict(self) -> dict[str, Any]:
        """{"changes", "before", "after"}."""
        changes = {
            name: raw if isinstance(raw, str | int | float | None) else repr(raw) for name, raw in self.changes.items()
        }
        found: dict[str, Any] = plain(
            {"changes": changes, "before": self.before.to_dict(), "after": self.after.to_dict()}
        )
        return found

    def rows(self) -> list[tuple[str, str, str]]:
        """(output, what it was, what it is) of every output."""
        return [(name, _said(self.before, name), _said(self.after, name)) for name in self.before.answers]

    def __str__(self) -> str:
        told = ", ".join(f"{name} = {raw!r:.40}" for name, raw in self.changes.items())
        lines = [f"with {told}:"]
        lines += [
            f"  {name}: {was}" + (f" -> {now}" if now != was else " (as before)") for name, was, now in self.rows()
        ]
        return "\n".join(line if len(line) <= COLUMNS else line[: COLUMNS - 1] + "…" for line in lines)

    def _repr_html_(self) -> str:
        told = ", ".join(f"{name} = {raw!r:.60}" for name, raw in self.changes.items())
        rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in self.rows())
        return f"<div>with {escape(told)}<table><tr><th></th><th>before</th><th>after</th></tr>{rows}</table></div>"


def what_if(
    model: "Model | Run | str | Path", row: Any, changes: Mapping[str, Any], *, data: Any = None, base: str | Path = "."
) -> WhatIf:
    """The answers to a row with some inputs changed, beside those to the row as it is. row, data, base: as in `explain`;
    changes: {input: raw value, None where it is to be missing}. Raises DataError where a value cannot be read."""
    run, loaded = opened(model)
    check_names(changes, loaded.recipe.inputs, loaded.recipe.outputs, "the changes")
    found = row_of(loaded, run, row, data=data, base=base)
    inputs = {name: item for name, item in loaded.recipe.inputs.items() if name in changes}
    try:
        changed = read_row(inputs, loaded.contracts, changes, file_fetcher(base))
    except FieldError as wrong:
        raise DataError(f"the changes: field {wrong.field!r}: {wrong.reason}") from None
    after = replace(found, values={**found.values, **changed})
    return WhatIf(dict(changes), predicted(loaded, found), predicted(loaded, after))


def _said(prediction: Prediction, name: str) -> str:
    return str(Prediction({name: prediction.answers[name]})).partition("=")[2]


# ---- what it is like -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Neighbour:
    """A training row that the network sees as alike: the cosine between what it makes of both (1: the same), where the row
    is, its raw inputs in short, and its labels."""

    score: float
    row: int
    origin: str
    inputs: Mapping[str, Any]
    labels: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """{"score", "row", "origin", "inputs", "labels"}."""
        found: dict[str, Any] = plain(asdict(self))
        return found

    def __str__(self) -> str:
        values = {**self.labels, **self.inputs}
        told = "  ".join(f"{name}: {value!s:.40}" for name, value in values.items() if value is not None)
        return f"{self.score:.2f}  {told}  ({self.origin})"[:COLUMNS]


def like(
    model: "Model | Run | str | Path", row: Any, *, count: int = 5, data: Any = None, base: str | Path = "."
) -> list[Neighbour]:
    """The training rows nearest to a row in what the network makes of them (the mean of its tokens), the nearest first: an
    answer by example. row, data, base: as in `explain`. Their vectors are kept in the run folder. Needs a run."""
    run, loaded = opened(model)
    require(
        run is not None, field="model", got="a model without a run", allowed="a run, whose training rows there are",
        fix="give the run's folder", error=DataError,
    )  # fmt: skip
    assert run is not None
    found = row_of(loaded, run, row, data=data, base=base)
    return Examples.of(run, loaded).nearest(found, count)


@dataclass(frozen=True, eq=False)
class Examples:
    """The training rows of a run as its network sees them. rows: int64 [row], their numbers; vectors: float32 [row, width]."""

    model: Model
    dataset: Dataset
    rows: np.ndarray
    vectors: np.ndarray

    @classmethod
    def of(cls, run: Run, model: Model) -> Self:
        """Of at most MOST_ROWS of them; the vectors are read from the run folder, or made and kept there."""
        dataset = prepare(run.recipe)
        return cls(model, dataset, *_training_vectors(run, model, dataset))

    def nearest(self, row: Row, count: int) -> list[Neighbour]:
        """The rows most alike, the nearest first."""
        require(
            count >= 1,
            field="like",
            got=count,
            allowed="a whole number of at least 1",
            fix="5 is usual",
            error=DataError,
        )
        inputs, present = sent(self.model, row.values)
        with torch.inference_mode():
            own = shared_copy(self.model.network).tokens(inputs, present).pooled()[0].float().cpu().numpy()
        middle = self.vectors.mean(0)
        apart, mine = self.vectors - middle, own - middle
        scores = apart @ mine / np.maximum(np.linalg.norm(apart, axis=1) * np.linalg.norm(mine), 1e-12)
        best = np.argsort(-scores, kind="stable")[:count]
        return [_neighbour(self.model, self.dataset, int(self.rows[place]), float(scores[place])) for place in best]

    def shown(self, row: int) -> dict[str, dict[str, str]]:
        """{input: {"kind": "text", "image" or "audio", "data": text or a data URI}} of one of the rows."""
        found = {}
        for name, item in self.model.recipe.inputs.items():
            store = self.dataset.fields.get(name)
            if store is not None and store.present[row]:
                found[name] = item.preview(store[row], self.model.contracts[name])
        return found


def _training_vectors(run: Run, model: Model, dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """(int64 [row], float32 [row, width]) of at most MOST_ROWS training rows: from the run folder, or made and kept there."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file
    from safetensors.numpy import save as to_bytes

    weights = read_json(run.model_folder / DESCRIPTION)["weights"]["sha256"]
    key = hashlib.sha256(f"{VECTORS_VERSION} {weights} {dataset.fingerprint}".encode()).hexdigest()[:32]
    file = run.path / FOLDER / f"{key}.safetensors"
    try:
        kept = load_file(file) if file.is_file() else {}
    except SafetensorError:  # a disk that was full: made again
        kept = {}
    if not kept:
        train = np.asarray(dataset.splits.train, np.int64)
        if len(train) > MOST_ROWS:
            train = np.sort(np.random.default_rng(0).choice(train, MOST_ROWS, replace=False))
        ids, made = [], []
        loader = Loader(
            dataset, model.recipe, model.contracts, train, batch_size=BATCH_ROWS, seed=0, shuffle=False, order="length"
        )
        network = shared_copy(model.network)
        for batch in loader.iterate(0, loader.batches_per_epoch):
            there = batch.to(model.device)
            with torch.inference_mode():
                made.append(network.tokens(there.inputs, there.present).pooled().float().cpu().numpy())
            ids.append(np.asarray(batch.row_ids, np.int64))
        kept = {"rows": np.concatenate(ids), "vectors": np.concatenate(made)}
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic(file) as opened_file:
            opened_file.write(to_bytes(kept))
    return kept["rows"], kept["vectors"]


def _neighbour(model: Model, dataset: Dataset, row: int, score: float) -> Neighbour:
    inputs, labels = {}, {}
    for name, item in model.recipe.inputs.items():
        store = dataset.fields.get(name)
        if store is not None and store.present[row]:
            shown = item.preview(store[row], model.contracts[name])
            raw = dataset.raw(name, row) if name in dataset.columns else None
            inputs[name] = (
                shown["data"] if shown["kind"] == "text" else raw if isinstance(raw, str) else f"({item.type})"
            )
    for name, item in model.recipe.outputs.items():
        store = dataset.fields.get(name)
        if store is not None and not item.of_row and store.present[row]:
            truth = item.truth(store[row], model.contracts[name])
            labels[name] = truth if isinstance(truth, str | int | float | list) else repr(truth)
    return Neighbour(score, row, dataset.origin(row), inputs, labels)


# ---- what it leans on everywhere -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Audit:
    """What the answers to many rows lean on: `findings` are single places, words or columns that decide nearly alone, as a
    watermark or a leaking column does. A finding is a suspicion: a word may be all there is to know."""

    output: str
    rows: int
    findings: tuple[Finding, ...]
    shares: Mapping[str, float]  # of each input in all that the answers lean on

    def to_dict(self) -> dict[str, Any]:
        """{"output", "rows", "shares", "findings"}."""
        found: dict[str, Any] = plain(asdict(self))
        return found

    def __str__(self) -> str:
        lines = [f"{self.output}: {self.rows} answers looked at"]
        lines += [f"  {name:<30}{share:>5.0%} of what they lean on" for name, share in self.shares.items()]
        if not self.findings:
            return "\n".join([*lines, "no single place, word or column decides alone"])
        for item in self.findings:
            lines += textwrap.wrap(f"suspicious: {item}", COLUMNS, subsequent_indent="  ")
        return "\n".join([*lines, "look at these: is it the thing itself, or a mark that came with the data?"])


def audit(
    model: "Model | Run | str | Path", *, of: Any = None, data: Any = None, rows: int = 64, seed: int = 0
) -> Audit:
    """Look for shortcuts: one region, word or column that many answers lean on and that decides alone. model, of, data: as
    in `explain`; rows: how many are looked at, of the test rows where there are any."""
    run, loaded = opened(model)
    require(
        rows >= FEWEST_ANSWERS,
        field="rows",
        got=rows,
        allowed=f"at least {FEWEST_ANSWERS}",
        fix="64 is usual",
        error=DataError,
    )
    output, which = asked(loaded, of)
    dataset = dataset_of(loaded, run, data)
    sides = [np.asarray(side, np.int64) for side in (dataset.splits.test, dataset.splits.val, dataset.splits.train)]
    held = next((side for side in sides if len(side)), sides[0])
    chosen = np.random.default_rng(seed).permutation(held)[:rows]
    seen = [Seen.of(loaded, numbered(dataset, loaded, int(row)), output, which) for row in chosen]
    findings = [finding for answer, group in grouped(seen).items() for finding in suspicious(answer, group)]
    total = sum(item.weight for item in seen) or 1.0
    shares = {name: sum(item.leaning(name) for item in seen) / total for name in loaded.recipe.inputs}
    findings.sort(key=lambda item: -item.alone * item.leaning)
    return Audit(output, len(seen), tuple(findings), shares)


__all__ = ["Audit", "Examples", "Neighbour", "WhatIf", "audit", "explain", "like", "numbered", "what_if"]
