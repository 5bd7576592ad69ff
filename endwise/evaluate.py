"""What a model is worth on given rows: every metric with its n and interval, beside two baselines, per group, and
without each of its inputs; and what the report draws from the answers.

Everything goes through `Model` and the loader, as prediction and training-time validation do. Not here: the metrics
themselves (metrics/), the baselines' fitting (baselines.py), drawing (report/), choosing a decision threshold on
the rows that are scored (`calibrate` takes validation rows only).
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from endwise import metrics
from endwise.baselines import Baseline
from endwise.baselines import baselines as fit_baselines
from endwise.batch import Batch
from endwise.beside import Beside, Kept, made_of
from endwise.calibration import FEWEST, Measured, worth
from endwise.certainty import ENTRY, judged
from endwise.data.dataset import Dataset, Progress, fit_contract, prepare, split_keys
from endwise.data.gather import gathered
from endwise.data.loader import Loader, any_larger
from endwise.data.split import folds
from endwise.data.table import Table, open_table
from endwise.details import Answered, output_details, probe
from endwise.diagnosis import grouped, suspected_labels, weak_slices
from endwise.errors import DataError, EndwiseError, require, unknown_name
from endwise.files import plain
from endwise.lineage import RECIPE
from endwise.metrics import Estimate, Metric
from endwise.modalities.base import OUTPUT_ROLE, Answer
from endwise.model import Model
from endwise.network import Predictions
from endwise.nn.interface import Head
from endwise.recipe import Recipe
from endwise.rows import rows_at_once
from endwise.run import Run
from endwise.shelf import Shelf

BATCH_ROWS = 64
ABLATION_ROWS = 2_000  # each input left out is another pass over them
CALIBRATION_ROWS = 5_000
WRITTEN_ROWS = 500  # of them whose answers are written symbol after symbol, or searched for, to learn what is sure
SMALL_GROUP = 5  # rows; the interval of a smaller group says little
KFOLD_ROWS = 500  # below this one split says little: see `cross_validate`
RESAMPLED_CELLS = 4_000_000  # rows x resamples of an interval: many rows need fewer resamples for the same ends ...
FEWEST_RESAMPLES = 400  # ... but at least so many
KNOWN = "the baselines are not fitted again: their scores are those kept in the run, since rows, recipe and code are the same"
SHOWN_SLICES = 3  # in the terminal; the report has more
SPLITS = ("train", "val", "test")

Metrics = Mapping[str, Estimate]  # by name


@dataclass(frozen=True)
class Evaluation:
    """Frozen result; `to_dict()` is the documented JSON and `details` what the report draws."""

    outputs: Mapping[str, Metrics]
    baselines: Mapping[str, Mapping[str, Metrics | None]]  # output -> 'trivial' | 'classical'
    losses: Mapping[str, Estimate]  # 'output.term': the mean over the rows
    by: Mapping[str, Any] | None
    ablation: Sequence[Mapping[str, Any]] | None
    notes: tuple[str, ...]
    details: dict[str, Any]
    slices: Mapping[str, Any] | None = None  # by output: the groups that are worse than the rest
    suspects: Mapping[str, Any] | None = None  # by output: labels that look wrong
    certainty: Mapping[str, Any] | None = None  # by output: what its confidence is worth, see `calibration.worth`

    def to_dict(self) -> dict[str, Any]:
        """{"outputs": {output: {metric: {"value", "low", "high", "n"}}}, "baselines": {output: {"trivial": {...},
        "classical": {...} or null}}, "losses", "notes"} and, where there are any, "by", "ablation", "slices", "suspects" and "certainty"."""
        out: dict[str, Any] = {
            "outputs": self.outputs, "baselines": self.baselines, "losses": self.losses, "notes": list(self.notes),
        }  # fmt: skip
        if self.by is not None:
            out["by"] = self.by
        if self.ablation is not None:
            out["ablation"] = list(self.ablation)
        more = {"slices": self.slices, "suspects": self.suspects, "certainty": self.certainty}
        out |= {name: found for name, found in more.items() if found}
        found: dict[str, Any] = _json(out)
        return found

    def __str__(self) -> str:
        lines = []
        for output, values in self.outputs.items():
            for name, estimate in values.items():
                beside = [
                    f"{kind} {found[name]}" for kind, found in self.baselines.get(output, {}).items()
                    if found is not None and name in found
                ]  # fmt: skip
                lines.append(f"{output} {name}: {estimate}" + (f"   ({'; '.join(beside)})" if beside else ""))
        for output, found in (self.slices or {}).items():
            lines += [
                f"{output} {found['measure']}: {item['score']:.3g} where {item['column']} is {item['group']} "
                f"(n = {item['worse_by']['n']}), {item['rest']:.3g} elsewhere"
                for item in found["found"][:SHOWN_SLICES]
            ]
        return "\n".join([*lines, *self.notes])


def evaluate(
    model: Model,
    dataset: Dataset,
    rows: np.ndarray,
    *,
    by: str | None = None,
    details: bool = True,
    baselines: bool | Mapping[str, Baseline] = True,
    training: Dataset | None = None,
    kept: Path | None = None,
) -> Evaluation:
    """Score `rows` of `dataset`.

    by: a column of the tables; every metric per group of it, and the gap between groups. details: also what the
    report draws. baselines: fitted on the training rows of `training` (default: of `dataset`), or given: what
    `baselines.baselines` made for the same rows. kept: the folder of a run, in which their scores are kept and, unless they are given,
    looked for: what was fitted once is fitted again only where anything it follows from is other. With several inputs
    the result says what each was worth. Rows without a target are left out of that output's metrics and counted.
    """
    rows = np.asarray(rows, dtype=np.int64)
    require(
        len(rows) > 0,
        field="rows",
        got=0,
        allowed="at least one row to score",
        fix="choose a split that has rows",
        error=DataError,
    )
    scored = score(model, dataset, rows)
    notes = _remarks(model, dataset, scored, len(rows))
    seen = bool(np.isin(rows, dataset.splits.train).any())  # what was learnt by heart raises no suspicion
    outputs = {name: _estimates(item) for name, item in scored.items()}
    certainty = {name: _worth_of_confidence(model, name, item, notes) for name, item in scored.items()}
    beside = Beside()
    if baselines:
        beside = _beside(model, dataset, rows, scored, baselines, training or dataset, kept)
        notes += [line for line in beside.notes if line not in notes]

    found = {}
    if details:
        found = {"outputs": output_details(model, dataset, scored), "baseline_seconds": dict(beside.seconds)}
        if len(dataset.splits.train) and len(dataset.splits.val):
            found["probe"] = probe(
                model, dataset, dataset.splits.train, dataset.splits.val, columns=_others(model, dataset)
            )
    return Evaluation(
        outputs=outputs,
        baselines=beside.scores,
        losses=_losses(scored, notes),
        by=None if by is None else _by(model, dataset, scored, by, notes),
        ablation=_ablation(model, dataset, rows, notes) if can_be_left_out(model.recipe) else None,
        notes=tuple(notes),
        details=plain(found),
        slices=_of_each(weak_slices, dataset, scored),
        suspects=None if seen else _of_each(suspected_labels, dataset, scored),
        certainty={name: found for name, found in certainty.items() if found},
    )


def _remarks(model: Model, dataset: Dataset, scored: Mapping[str, Answered], rows: int) -> list[str]:
    """What has to be known to read the scores."""
    notes: list[str] = []
    if model.network.compares_rows:
        notes.append(f"a loss that compares rows is that of batches of {BATCH_ROWS}, whatever training used")
    for name, item in scored.items():
        if len(item.rows) < rows:
            notes.append(f"{name}: {rows - len(item.rows)} of {rows} rows have no {name} and are not in its metrics")
        told = [*item.item.remarks(item.truths, item.answers, item.contract), *model.network.head(name).notes()]
        notes += [f"{name}: {line}" for line in told]
    if dataset.group is not None:
        what = "whole groups (data.group), not over single rows"
        own = model.recipe.data.group
        if model.recipe.data.windows is not None and (own is None or own not in dataset.tables[0].columns):
            what = "stretches of time as long as the future, since windows share steps"
        notes.append(f"intervals are over {what}")
    return notes


def _worth_of_confidence(model: Model, name: str, scored: Answered, notes: list[str]) -> dict[str, Any]:
    """What `calibration.worth` says of an output whose answers say how sure they are; a note where it gives none of them."""
    if scored.sureness is None or not len(scored.sureness):
        return {}
    learnt = model.certainty.get(name)
    if scored.item.abstain is not None and (learnt is None or learnt.gives == "none"):
        why = f"{FEWEST} validation rows are needed" if learnt is None or learnt.rows < FEWEST else (
            f"on {learnt.rows} validation rows no threshold keeps {scored.item.abstain.to_dict()}")  # fmt: skip
        notes.append(f"{name}: nothing is answered, since {why}")
    return worth(
        scored.item, scored.contract, learnt, scored.truths, scored.answers, scored.sureness, scored.uncalibrated,
        clusters=scored.clusters, weights=scored.weights, resamples=FEWEST_RESAMPLES,
    )  # fmt: skip


def _others(model: Model, dataset: Dataset) -> list[str]:
    """The columns of the tables that the recipe does not use: what the layers may know without having been told."""
    data = model.recipe.data
    used = {*dataset.columns.values(), data.split_column, data.group, data.weight, data.time}
    names = dict.fromkeys(name for table in dataset.tables for name in table.columns)
    return [name for name in names if name not in used]


def _of_each(
    find: Callable[[Answered, Dataset], Any], dataset: Dataset, scored: Mapping[str, Answered]
) -> dict[str, Any]:
    """What was found of each output that is looked at by rows."""
    found = {name: find(item, dataset) for name, item in scored.items() if item.truths and not item.item.of_row}
    return {name: value for name, value in found.items() if value is not None}


def evaluate_run(
    run: "str | Path | Run",
    *,
    split: str = "test",
    data: Any = None,
    by: str | None = None,
    details: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a run's model on one of its splits, or on every row of another table (`data`). progress(what, done, of)."""
    tell = progress or _nobody

    def reading(what: str, done: int, total: int) -> None:
        tell(f"reading {what}", done, total)

    tell("opening the run and its data", 0, 1)
    opened = Run.open(run)
    if split not in SPLITS:
        raise unknown_name(field="split", got=split, names=SPLITS, error=DataError)
    model, recipe = opened.model(), opened.recipe
    notes = []
    if data is None:
        dataset = training = prepare(recipe, progress=reading)
        rows = dataset.splits.side(split)
        require(
            len(rows) > 0,
            field="split",
            got=split,
            allowed=f"a split with rows ({dataset.splits.how})",
            fix="choose another, or give --data",
            error=DataError,
        )
        if model.info.get("data_fingerprint") not in (None, dataset.fingerprint):
            notes.append(
                "the data has changed since this model was trained: its splits may not be those of the training"
            )
    else:
        dataset = prepare(recipe, source=data, progress=reading)
        rows = dataset.splits.test
        notes += dataset.notes  # of rows put aside, of columns that are not there
        try:
            training = prepare(recipe, progress=reading)
        except EndwiseError as gone:
            training = dataset
            notes.append(f"no baselines: the training data cannot be read any more ({gone})")
    tell(f"scoring {len(rows)} rows", 0, 1)
    result = evaluate(
        model, dataset, rows, by=by, details=details, baselines=len(training.splits.train) > 0, training=training,
        kept=opened.path if opened.has(RECIPE) else None,
    )  # fmt: skip
    return dataclasses.replace(result, notes=(*notes, *result.notes))


def _nobody(what: str, done: int, total: int) -> None:
    """Nobody wants to be told."""


def calibrate(model: Model, dataset: Dataset, rows: np.ndarray) -> dict[str, dict[str, float]]:
    """Set the decision thresholds and temperatures of every head on validation rows (at most 5,000 of them, always
    the same), and say what was set: {output: {name: value}}. Then learn from the same rows what the answers' confidence
    means and when an output abstains, and keep it in the model's facts."""
    heads = {name: model.network.head(name) for name in model.network.output_names}
    wanted = {name for name, head in heads.items() if type(head).calibrate is not Head.calibrate}
    measured = {
        name: Measured(item, model.contracts[name])
        for name, item in model.recipe.outputs.items()
        if item.can_abstain and name in heads
    }
    if not (wanted or measured) or not len(rows):
        return {}
    rows = _some(np.asarray(rows, dtype=np.int64), CALIBRATION_ROWS)
    few = {name for name in measured if heads[name].symbols or heads[name].drafts > 1}
    left = dict.fromkeys(few, WRITTEN_ROWS)
    kept: dict[str, list[_Held]] = {name: [] for name in wanted}
    for batch in _batches(model, dataset, rows):
        predictions = model.predictions(batch)
        for name in wanted | measured.keys():
            part = _Held.of(batch, name, predictions[name], model.device)
            if name in wanted:
                kept[name].append(part)
            elif left.get(name, 1) > 0:
                _measure(model, dataset, name, part, measured[name])
            if name in left:
                left[name] -= len(part.rows)
    found = {name: _calibrated(heads[name], kept[name]) for name in heads if name in wanted}
    for name in measured.keys() & wanted:
        for part in kept[name]:
            _measure(model, dataset, name, part, measured[name])
    model.info[ENTRY] = {
        name: item.learnt(scaled=type(heads[name]).uncalibrated is not Head.uncalibrated).to_dict()
        for name, item in measured.items()
    }
    return {name: values for name, values in found.items() if values}


@dataclass(frozen=True)
class _Held:
    """One output of a batch on the rows that have a target."""

    prediction: dict[str, Tensor]
    target: Tensor
    sizes: Tensor
    rows: np.ndarray

    @classmethod
    def of(cls, batch: Batch, name: str, prediction: Mapping[str, Tensor], device: torch.device) -> "_Held":
        there = torch.as_tensor(batch.present[name], device=device)
        target = batch.targets[name].to(device)
        part = {key: value[there] for key, value in prediction.items()}
        return cls(part, target.values[there], target.sizes[there], batch.row_ids[batch.present[name]])


def _calibrated(head: Head, kept: Sequence[_Held]) -> dict[str, float]:
    parts = [part for part in kept if len(part.rows)]
    if not parts:
        return {}
    together = {key: _padded([part.prediction[key] for part in parts]) for key in parts[0].prediction}
    return head.calibrate(together, _padded([part.target for part in parts]), torch.cat([part.sizes for part in parts]))


def _measure(model: Model, dataset: Dataset, name: str, part: _Held, measured: Measured) -> None:
    """How sure, how wrong and how strange the answers to these rows are."""
    if not len(part.rows):
        return
    answers = model.written(model.decoded({name: part.prediction}), len(part.rows))[name]
    store, contract = dataset.fields[name], model.contracts[name]
    measured.add([measured.item.truth(store[row], contract) for row in part.rows.tolist()], answers)


# ---- scoring ---------------------------------------------------------------------------------------------------------


def _batches(model: Model, dataset: Dataset, rows: np.ndarray) -> Iterator[Batch]:
    """Batches of rows of about one length, the longest first: what does not fit into memory shows at once."""
    size = rows_together(model, dataset, rows)
    loader = Loader(
        dataset, model.recipe, model.contracts, rows, batch_size=size, seed=0, shuffle=False, order="length"
    )
    return loader.iterate(0, loader.batches_per_epoch)


def rows_together(model: Model, dataset: Dataset, rows: np.ndarray, most: int = BATCH_ROWS) -> int:
    """How many of these rows are judged at a time. All that the network says of them is held meanwhile: where one is answered
    in windows, only its own."""
    inputs, contracts = model.recipe.inputs, model.contracts
    if any(
        any_larger(dataset.fields[name], item, item.patch(contracts[name]), rows)
        for name, item in inputs.items()
        if name in dataset.fields
    ):
        return 1
    return rows_at_once(inputs, contracts, most)


def score(model: Model, dataset: Dataset, rows: np.ndarray) -> dict[str, Answered]:
    """Every output's answers, truths and losses on the rows that have a target, in the order of `rows`."""
    place = {int(row): index for index, row in enumerate(rows)}
    wanted = [name for name, item in model.recipe.outputs.items() if needs_answers(item.metrics(model.contracts[name]))]
    answers: dict[str, list[Answer | None]] = {name: [None] * len(rows) for name in wanted}
    losses: dict[str, dict[str, np.ndarray]] = {name: {} for name in model.recipe.outputs}
    measures: dict[str, dict[str, np.ndarray]] = {name: {} for name in model.recipe.outputs}
    doubted = [name for name in wanted if model.recipe.outputs[name].can_abstain]
    sureness = {name: np.zeros(len(rows)) for name in doubted}
    bare: dict[str, list[Answer | None]] = {name: [None] * len(rows) for name in doubted}
    shelf = Shelf()
    for batch in _batches(model, dataset, rows):
        where = np.array([place[int(row)] for row in batch.row_ids])
        predictions = model.predictions(batch)
        decoded = model.decoded({name: predictions[name] for name in wanted})
        for name, written in model.written(decoded, len(batch)).items():
            given = [shelf.put(one) for one in written]
            item, contract = model.recipe.outputs[name], model.contracts[name]
            for index, one in zip(where.tolist(), given, strict=True):
                answers[name][index] = judged(item, contract, one, model.certainty.get(name))
            if name in doubted:
                sureness[name][where] = [item.sureness(one, contract) for one in given]
                for index, one in zip(where.tolist(), _uncalibrated(model, name, predictions, given), strict=True):
                    bare[name][index] = one
        found = (losses, model.row_losses(predictions, batch)), (measures, model.row_measures(predictions, batch))
        for kept, given_terms in found:
            for name, terms in given_terms.items():
                for term, pairs in terms.items():
                    kept[name].setdefault(term, np.zeros((len(rows), 2)))[where] = pairs
    out = {}
    for name, item in model.recipe.outputs.items():
        store = dataset.fields[name]
        there = np.flatnonzero(store.present[rows])
        own = rows[there]
        out[name] = Answered(
            item=item,
            contract=model.contracts[name],
            rows=own,
            truths=[item.truth(store[row], model.contracts[name]) for row in own.tolist()],
            answers=[answer for index in there.tolist() if (answer := answers[name][index]) is not None]
            if name in wanted
            else [],
            losses={term: pairs[there] for term, pairs in losses[name].items()},
            measures={term: pairs[there] for term, pairs in measures[name].items()},
            weights=_row_weights(model, dataset, own),
            clusters=_clusters(dataset, own),
            sureness=sureness[name][there] if name in doubted else None,
            uncalibrated=[single for index in there.tolist() if (single := bare[name][index]) is not None]
            if name in doubted
            else [],
        )
    return out


def _uncalibrated(model: Model, name: str, predictions: Predictions, answers: Sequence[Answer]) -> Sequence[Answer]:
    """The answers of a batch without the temperature of their head, where it has one."""
    head = model.network.head(name)
    if type(head).uncalibrated is Head.uncalibrated:
        return answers
    decoded = model.decoded({name: head.uncalibrated(predictions[name])})
    return model.written(decoded, len(answers))[name]


def needs_answers(found: Sequence[Metric]) -> bool:
    """Whether anything has to be decoded for these metrics."""
    return any(metric.of_term is None for metric in found)


def _row_weights(model: Model, dataset: Dataset, rows: np.ndarray) -> np.ndarray | None:
    """What each row counts for, where the recipe names a column for it."""
    return dataset.weight[rows].astype(np.float64) if model.recipe.data.weight is not None else None


def _clusters(dataset: Dataset, rows: np.ndarray) -> list[int] | None:
    """Which rows are no independent evidence; rows without a group are their own."""
    if dataset.group is None:
        return None
    groups = dataset.group[rows]
    return [int(group) for group in np.where(groups < 0, -1 - rows, groups)]


def _estimates(scored: Answered, answers: Sequence[Answer] | None = None) -> dict[str, Estimate]:
    """Every metric of the output; of others' answers (a baseline's), those that look at answers."""
    resamples = max(FEWEST_RESAMPLES, min(metrics.RESAMPLES, RESAMPLED_CELLS // max(1, len(scored.truths))))
    return metrics.estimates(
        scored.metrics if answers is None else _of_answers(scored.metrics),
        scored.truths, scored.answers if answers is None else answers, terms=scored.terms,
        weights=scored.weights, clusters=scored.clusters, resamples=resamples,
    )  # fmt: skip


def _of_answers(found: Sequence[Metric]) -> list[Metric]:
    return [metric for metric in found if metric.of_term is None]


def _mean_loss(sums: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(sums[..., 0] / sums[..., 1])


LOSS = metrics.summable("loss", "min", lambda pairs, _: np.asarray(pairs), _mean_loss)


def _losses(scored: Mapping[str, Answered], notes: list[str]) -> dict[str, Estimate]:
    found = {}
    for output, item in scored.items():
        for term, pairs in item.losses.items():
            finite = np.isfinite(pairs[:, 0])
            if not finite.all():
                notes.append(
                    f"{output}.{term}: {int((~finite).sum())} of {len(pairs)} rows have no finite loss and are not in its mean"
                )
            kept = np.stack([pairs[finite, 0] * pairs[finite, 1], pairs[finite, 1]], axis=1)
            clusters = None if item.clusters is None else [item.clusters[row] for row in np.flatnonzero(finite)]
            weights = None if item.weights is None else item.weights[finite]
            found[f"{output}.{term}"] = metrics.estimate(
                LOSS, list(kept), list(kept), weights=weights, clusters=clusters
            )
    return found


def _beside(
    model: Model, dataset: Dataset, rows: np.ndarray, scored: Mapping[str, Answered],
    given: bool | Mapping[str, Baseline], training: Dataset, kept: Path | None,
) -> Beside:  # fmt: skip
    """What the baselines reach: those given, those known from before, or fitted now."""
    key = None if kept is None else made_of(model, training, dataset, rows)
    place = None if kept is None or key is None else Kept(kept, key)
    if not isinstance(given, Mapping):
        known = None if place is None else place.find()
        if known is not None:
            return dataclasses.replace(known, notes=(*known.notes, KNOWN))
        if not len(training.splits.train):
            return Beside(notes=("no baselines: there are no training rows",))
        given = fit_baselines(model.contracts, model.recipe, training, training.splits.train, rows, score_on=dataset)
    found = _scores_beside(dataset, rows, scored, given)
    refused = None if place is None else place.keep(found)
    if refused is None:
        return found
    return dataclasses.replace(
        found, notes=(*found.notes, f"the baselines' scores could not be kept in {kept}: {refused}")
    )


def _scores_beside(
    dataset: Dataset, rows: np.ndarray, scored: Mapping[str, Answered], made: Mapping[str, Baseline]
) -> Beside:
    found: dict[str, dict[str, Metrics | None]] = {}
    notes: dict[str, None] = {}  # each once
    for name, item in scored.items() if made else ():
        if not needs_answers(item.metrics):
            notes[f"{name}: no baseline, since its metrics look at likelihoods and baselines have none"] = None
            continue
        there = np.flatnonzero(dataset.fields[name].present[rows]).tolist()
        found[name] = {}
        for kind, answers in (("trivial", made[name]["trivial"]), ("classical", made[name]["classical"])):
            found[name][kind] = _estimates(item, [answers[row] for row in there]) if answers else None
        notes |= dict.fromkeys(f"{name}: {note}" for note in made[name]["notes"])
    return Beside(found, tuple(notes), {name: item["seconds"] for name, item in made.items()})


# ---- groups ----------------------------------------------------------------------------------------------------------


def _by(
    model: Model, dataset: Dataset, scored: Mapping[str, Answered], column: str, notes: list[str]
) -> dict[str, Any]:
    """Every metric per group with n and interval, and for each metric the gap between the best and the worst group."""
    del model
    found: dict[str, Any] = {"column": column, "outputs": {}}
    for name, item in scored.items():
        cells = dataset.cells(column, item.rows)
        groups, different = grouped(cells)
        note = f"{column} has {different} different numbers: cut into quarters"
        notes += [note] if different and note not in notes else []
        sizes = {group: groups.count(group) for group in dict.fromkeys(groups)}
        small = sorted(group for group, size in sizes.items() if size < SMALL_GROUP)
        if small:
            notes.append(
                f"{name} by {column}: fewer than {SMALL_GROUP} rows in {', '.join(small[:10])}{' …' if len(small) > 10 else ''}; read these with care"
            )
        shared: dict[str, Any] = {"weights": item.weights, "clusters": item.clusters}
        gaps = {
            metric.name: metrics.gap(metric, item.truths, item.looked_at(metric), groups, **shared)
            for metric in item.metrics
        }
        found["outputs"][name] = {
            "groups": metrics.by_group(item.metrics, item.truths, item.answers, groups, terms=item.terms, **shared),
            "gaps": {metric: gap for metric, gap in gaps.items() if gap is not None},
        }
    return found


# ---- what each input is worth ----------------------------------------------------------------------------------------


def can_be_left_out(recipe: Recipe) -> bool:
    """Is there an input without which an output could still be given?"""
    return len(recipe.inputs) > 1 and not all(item.of_row for item in recipe.outputs.values())


def _ablation(model: Model, dataset: Dataset, rows: np.ndarray, notes: list[str]) -> list[dict[str, Any]]:
    """Each input left out in turn, on the same rows: what the first metric of every output loses, paired."""
    some = _some(rows, ABLATION_ROWS)
    if len(some) < len(rows):
        notes.append(f"what each input is worth was measured on {len(some):,} of {len(rows):,} rows, drawn at random")
    goals = {name: item.metrics(model.contracts[name])[0] for name, item in model.recipe.outputs.items()}
    whole = _without(model, dataset, some, None, goals, masked=False)
    found = []
    for name in model.recipe.inputs:
        if name not in dataset.fields:  # an optional one that these rows do not have
            continue
        masked = model.contracts[name].missing > 0
        partial = _without(model, dataset, some, name, goals, masked=masked)
        how = (
            "masked, as missing values were in training"
            if masked
            else "replaced by other rows' values (none was missing in training)"
        )
        for output, item in model.recipe.outputs.items():
            if item.of_row:  # what it relates cannot be left out of it
                continue
            store = dataset.fields[output]
            there = np.flatnonzero(store.present[some])
            truths = [item.truth(store[row], model.contracts[output]) for row in some[there].tolist()]
            full, without = ([given[output][index] for index in there.tolist()] for given in (whole, partial))
            own = some[there]
            shared = {"weights": _row_weights(model, dataset, own), "clusters": _clusters(dataset, own)}
            found.append(_worth(goals[output], truths, full, without, shared, name, how, output))
    return found


def _worth(
    metric: Metric,
    truths: Sequence[Any],
    full: Sequence[Any],
    without: Sequence[Any],
    shared: Mapping[str, Any],
    name: str,
    how: str,
    output: str,
) -> dict[str, Any]:
    better, worse = (full, without) if metric.direction == "max" else (without, full)
    return {
        "input": name, "left_out": how, "output": output, "metric": metric.name,
        "with": metrics.estimate(metric, truths, full, **shared),
        "without": metrics.estimate(metric, truths, without, **shared),
        "worth": metrics.difference(metric, truths, better, worse, **shared),
    }  # fmt: skip


def _without(
    model: Model, dataset: Dataset, rows: np.ndarray, name: str | None, goals: Mapping[str, Metric], *, masked: bool
) -> dict[str, list[Any]]:
    """What each output's goal looks at, in the order of `rows`, one input left out: masked, or taken from another row."""
    own = Loader(dataset, model.recipe, model.contracts, rows, batch_size=BATCH_ROWS, seed=0, shuffle=False)
    other = own
    if name is not None and not masked:
        shift = np.random.default_rng(0).permutation(len(rows))
        other = Loader(
            dataset, model.recipe, model.contracts, rows[shift], batch_size=BATCH_ROWS, seed=0, shuffle=False
        )
    out: dict[str, list[Any]] = {output: [] for output in model.recipe.outputs}
    for step in range(own.batches_per_epoch):
        batch = own.batch(step)
        if name is not None and name in batch.inputs:
            taken = batch if other is own else other.batch(step)
            there = np.zeros(len(batch), dtype=bool) if masked else taken.present[name]
            batch = dataclasses.replace(
                batch, inputs={**batch.inputs, name: taken.inputs[name]}, present={**batch.present, name: there}
            )
        for output, given in looked_at(model, batch, {output: [goal] for output, goal in goals.items()}).items():
            out[output].extend(goals[output].looks_at(*given))
    return out


def looked_at(
    model: Model,
    batch: Batch,
    wanted: Mapping[str, Sequence[Metric]],
    predictions: Predictions | None = None,
    *,
    draft: bool = False,
) -> dict[str, tuple[list[Answer], dict[str, np.ndarray]]]:
    """{output: (answers, terms)} of a batch for `Metric.looks_at`: only what these metrics need is decoded or judged.
    predictions: those of the model for this batch, where the caller has them, or others to be judged. draft: see `Head.draft`."""
    predictions = model.predictions(batch) if predictions is None else predictions
    answered = {name: predictions[name] for name in wanted if needs_answers(wanted[name])}
    decoded = model.decoded(answered, draft=draft)
    judged = {name: predictions[name] for name in wanted if any(metric.of_term is not None for metric in wanted[name])}
    answers, terms = model.written(decoded, len(batch)), model.row_losses(judged, batch)
    more = model.row_measures(judged, batch)
    return {name: (answers.get(name, []), {**terms.get(name, {}), **more.get(name, {})}) for name in wanted}


# ---- few rows --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CrossValidation:
    """Every row answered once, by a model that did not see it. outputs: over all rows; folds: each model's own."""

    outputs: Mapping[str, Metrics]
    baselines: Mapping[str, Mapping[str, Metrics | None]]
    folds: Sequence[Mapping[str, Mapping[str, float]]]
    rows: int
    suspects: Mapping[str, Any]  # by output: labels that look wrong, of all rows

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        found: dict[str, Any] = _json(
            {"rows": self.rows, "outputs": self.outputs, "baselines": self.baselines, "folds": list(self.folds),
             **({"suspects": self.suspects} if self.suspects else {})}
        )  # fmt: skip
        return found


def cross_validate(recipe: Recipe, fit: Callable[[Recipe], Model], k: int = 5) -> CrossValidation:
    """k-fold cross-validation, for tables where one split says little (under 500 rows).

    fit: trains one fold's recipe, which is `recipe` named '<name>-fold-1' .. with a split column of its own. Rows
    with the same `data.group` (or the same content) are held out together; validation rows come out of each fold's
    training rows. The declared split, if any, is not used.
    """
    ordered = recipe.data.time or recipe.data.windows
    require(recipe.data.path is not None and ordered is None, field="data", got=ordered or recipe.data.train,
            allowed="one table (data.path) that is not split by time", fix="cross-validation mixes all rows: give them as one table", error=DataError)  # fmt: skip
    table = gathered(open_table(recipe.data.path), recipe.data)
    group = recipe.data.group
    # as in `prepare`: the same picture under two names, or with two ids, is the same content
    keys = (
        [str(cell) for cell in table.column(group)] if group is not None else split_keys(recipe, prepare(recipe).fields)
    )
    pooled: dict[str, list[Answered]] = {name: [] for name in recipe.outputs}
    beside: dict[str, dict[str, list[list[Answer] | None]]] = {
        name: {"trivial": [], "classical": []} for name in recipe.outputs
    }
    single = []
    for number, (_, held) in enumerate(folds(keys, k, recipe.train.seed), 1):
        own = _fold(recipe, table, held, number)
        model, dataset = fit(own), prepare(own)
        scored = score(model, dataset, dataset.splits.test)
        made = fit_baselines(model.contracts, own, dataset, dataset.splits.train, dataset.splits.test)
        single.append(
            {
                name: {
                    metric.name: metrics.value(metric, item.truths, item.looked_at(metric), weights=item.weights)
                    for metric in item.metrics
                }
                for name, item in scored.items()
            }
        )
        for name, item in scored.items():
            there = np.flatnonzero(dataset.fields[name].present[dataset.splits.test]).tolist()
            pooled[name].append(item)
            for kind, answers in (("trivial", made[name]["trivial"]), ("classical", made[name]["classical"])):
                beside[name][kind].append([answers[row] for row in there] if answers else None)
    shown = {name: _of_all(recipe, name, dataset, parts) for name, parts in pooled.items()}
    outputs = {name: _pooled(shown[name], parts, None) for name, parts in pooled.items()}
    around = {
        name: {kind: _pooled(_of_answers(shown[name]), pooled[name], given) for kind, given in kinds.items()}
        for name, kinds in beside.items()
    }
    assert all(found is not None for found in outputs.values())
    suspects = _of_each(suspected_labels, dataset, {name: _together(parts) for name, parts in pooled.items()})
    return CrossValidation(
        {name: found for name, found in outputs.items() if found is not None},
        around,
        tuple(single),
        len(table),
        suspects,
    )


def _together(parts: Sequence[Answered]) -> Answered:
    """The answers of all folds as if one network had given them; losses and weights aside."""
    return Answered(
        item=parts[0].item, contract=parts[0].contract, rows=np.concatenate([part.rows for part in parts]),
        truths=[truth for part in parts for truth in part.truths],
        answers=[answer for part in parts for answer in part.answers], losses={}, measures={}, weights=None,
        clusters=None if parts[0].clusters is None else [cluster for part in parts for cluster in part.clusters or ()],
    )  # fmt: skip


def _of_all(recipe: Recipe, name: str, dataset: Dataset, parts: Sequence[Answered]) -> Sequence[Metric]:
    """An output's metrics over the rows of all folds: each fold answers with the classes that its training rows had,
    and is scored among those of all. dataset: any fold's."""
    rows = np.sort(np.concatenate([part.rows for part in parts]))
    item = recipe.outputs[name].beside(recipe.inputs, recipe.outputs)
    return item.metrics(fit_contract(name, item, OUTPUT_ROLE, dataset.fields[name], rows))


def _pooled(
    shown: Sequence[Metric], parts: Sequence[Answered], answers: Sequence[list[Answer] | None] | None
) -> Metrics | None:
    """These metrics of all folds together, of others' answers where they are given."""
    given = [part.answers for part in parts] if answers is None else answers
    if any(item is None for item in given) or not shown:
        return None
    truths = [truth for part in parts for truth in part.truths]
    together = [answer for item in given if item is not None for answer in item]
    terms = {term: np.concatenate([part.terms[term] for part in parts]) for term in parts[-1].terms}
    clusters = None if parts[0].clusters is None else [cluster for part in parts for cluster in part.clusters or ()]
    weights = (
        None
        if parts[0].weights is None
        else np.concatenate([part.weights for part in parts if part.weights is not None])
    )
    return metrics.estimates(shown, truths, together, terms=terms, weights=weights, clusters=clusters)


def _fold(recipe: Recipe, table: Table, held: np.ndarray, number: int) -> Recipe:
    """The recipe of one fold: the same table with a column that says which rows are held out."""
    column = "endwise fold"
    sides = ["train"] * len(table)
    for row in held.tolist():
        sides[row] = "test"
    return recipe.replace(**{
        "name": f"{recipe.name or 'run'}-fold-{number}", "data.path": _WithColumn(table, column, sides), "data.split": column, "data.gather": None,
    })  # fmt: skip


class _WithColumn(Table):
    """A table and one more column."""

    def __init__(self, table: Table, name: str, cells: list[Any]) -> None:
        more = open_table({name: cells})._column(name)
        super().__init__(
            table.name, {**table._columns, name: more}, finder=table.finder, origins=table._origins, notes=table.notes
        )


# ---- small things ----------------------------------------------------------------------------------------------------


def _some(rows: np.ndarray, limit: int) -> np.ndarray:
    """At most `limit` of them, always the same."""
    return rows if len(rows) <= limit else np.sort(np.random.default_rng(0).choice(rows, limit, replace=False))


def _padded(parts: Sequence[Tensor]) -> Tensor:
    """Batches of different extents as one, padded with zeros; `sizes` and masks say what is real."""
    largest = [max(part.shape[axis] for part in parts) for axis in range(1, parts[0].ndim)]
    if all(list(part.shape[1:]) == largest for part in parts):
        return torch.cat(list(parts))
    whole = parts[0].new_zeros((sum(len(part) for part in parts), *largest))
    start = 0
    for part in parts:
        whole[(slice(start, start + len(part)), *(slice(size) for size in part.shape[1:]))] = part
        start += len(part)
    return whole


def _json(value: Any) -> Any:
    """Estimates and gaps as their dictionaries, everywhere inside."""
    if isinstance(value, Estimate | metrics.Gap):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {str(name): _json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    return plain(value)


__all__ = ["CrossValidation", "Evaluation", "calibrate", "cross_validate", "evaluate", "evaluate_run"]
