"""What the report draws from a model's answers: who is taken for whom, whether confidence means what it says, where
the errors lie, the worst of them raw, and what each layer already knows.

Plain JSON values in and out of these functions, except the arrays of `Answered`. Not here: metrics with intervals
(metrics/), drawing (report/).
"""

import itertools
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from endwise import metrics
from endwise.certainty import EXPECTED
from endwise.chain import Chain
from endwise.data.dataset import Dataset
from endwise.data.loader import Loader, any_larger
from endwise.drawing import Drawing, Picture, Segmentation
from endwise.explanation import Row, explained
from endwise.lattice import Lattice
from endwise.metrics import Metric
from endwise.modalities.base import Answer, Contract, Modality
from endwise.modalities.boxes import Boxes, BoxesContract
from endwise.modalities.series import Series, SeriesContract, continued
from endwise.modalities.spatial import Spatial
from endwise.modalities.trajectories import Trajectories
from endwise.model import Model
from endwise.network import TRUNK, Network, stacked
from endwise.nn.blocks import Perceptron
from endwise.nn.interface import Tokens
from endwise.paths import Paths
from endwise.recording import Recording
from endwise.rows import seen_at_once
from endwise.scan import VolumeSegmentation

WORST = 20  # mistakes shown
EXPLAINED, WHY_PIECES = 4, 3  # of them with what they lean on
LOOKS, EXPLAINING_S = 750, 60.0  # of a network that a graded explanation takes, and for those of all outputs together
PREVIEW_BYTES = 3_000_000  # of all previews together: the page must stay small enough to mail
PAIRS, CURVE_POINTS = 2_000, 200  # drawn
BINS = 10  # of confidence
MAX_CONFUSION = 200  # classes in a stored matrix
PROBE_ROWS, PROBE_CLASSES = 1_000, 200
PROBE_BATCH = 64
PROBE_COLUMNS, PROBE_FEWEST = 8, 20  # columns that are looked at, and cells that one must have
PROBE_FEW_NUMBERS, PROBE_REPEATED = 20, 5  # fewer different numbers are classes; a class comes so often on average
WITHIN = 0.99  # of an answer's errors are told apart by colour, the largest are not
ALPHAS = (0.1, 1.0, 10.0, 100.0, 1000.0)  # of the probes' ridge penalty, chosen on the training rows
OTHER = "(other)"
FORECASTS, PAST_SHARE = 5, 3  # drawn, and how much of the past beside one of the future
MOST_AGENTS = 12  # drawn of a scene
DRAWN_ROWS, DRAWINGS = 10, 5  # of what is drawn by chance: rows, and answers of each
QUERIES, NEAREST, RETRIEVAL_ROWS = 8, 4, 500  # shown of each pair of inputs, and looked at


@dataclass(frozen=True)
class Answered:
    """One output on the rows that have a target: what is true, what was answered, and each term's (loss, weight).
    answers: none where no metric looks at any, since writing a long text costs more than judging it."""

    item: Modality
    contract: Contract
    rows: np.ndarray
    truths: list[Any]
    answers: list[Answer]
    losses: Mapping[str, np.ndarray]
    measures: Mapping[str, np.ndarray]  # what metrics look at beside them
    weights: np.ndarray | None
    clusters: list[int] | None
    sureness: np.ndarray | None = None  # of each answer as its head gave it, of outputs that can abstain
    uncalibrated: Sequence[Answer] = ()  # the same answers as they were without any calibration

    @cached_property
    def metrics(self) -> Sequence[Metric]:
        """The usual metrics of this output."""
        return self.item.metrics(self.contract)

    def looked_at(self, metric: Metric) -> Sequence[Any]:
        """What a metric takes beside the truths: the answers, or one of the terms."""
        return metric.looks_at(self.answers, self.terms)

    @property
    def terms(self) -> dict[str, np.ndarray]:
        """What metrics `of_term` look at."""
        return {**self.losses, **self.measures}

    @cached_property
    def values(self) -> list[Any]:
        """The answers' values."""
        return [answer.value for answer in self.answers]

    @cached_property
    def loss(self) -> np.ndarray:
        """float64 [rows]: all terms together; not finite counts as the worst."""
        total = (
            np.sum([pairs[:, 0] for pairs in self.losses.values()], axis=0) if self.losses else np.zeros(len(self.rows))
        )
        return np.nan_to_num(total, nan=math.inf, posinf=math.inf)


def output_details(model: Model, dataset: Dataset, scored: Mapping[str, Answered]) -> dict[str, Any]:
    """{output: {"directions", "mistakes", and what applies of "confusion", "confusions", "reliability", "roc", "pr",
    "classes", "pairs", "coverage", "froc", "retrieval", "forecasts", "paths",
    "drawings"}}."""
    previews = _Previews(model, dataset)
    out: dict[str, Any] = {}
    for name, item in scored.items():
        found: dict[str, Any] = {"directions": {metric.name: metric.direction for metric in item.metrics}}
        if item.answers and not item.item.of_row and not isinstance(item.item, Series):
            found |= _behaviour(item)
        if item.truths and item.item.of_row > 1:
            found["retrieval"] = retrieval(item, previews, dataset)
        elif item.truths and isinstance(item.item, Series):
            found["forecasts"] = forecasts(item, model, dataset)
        elif item.truths and isinstance(item.item, Trajectories):
            found["paths"] = paths(item, dataset)
        elif item.truths and model.network.head(name).draws:
            found["drawings"] = drawings(name, item, model, previews, dataset)
        elif item.truths:
            found["mistakes"] = mistakes(item, previews, dataset, name, EXPLAINING_S / len(scored))
        out[name] = found
    return out


def _behaviour(scored: Answered) -> dict[str, Any]:
    first = scored.truths[0]
    found: dict[str, Any] = {}
    if isinstance(scored.item, Boxes):
        assert isinstance(scored.contract, BoxesContract)
        found["froc"] = scored.item.sensitivities(scored.truths, scored.answers, scored.contract)
    if (isinstance(first, list | tuple) and (not first or isinstance(first[0], str))) or isinstance(first, str | bool):
        found["reliability"] = reliability(scored)
    if isinstance(first, str | bool):
        found |= confusion(scored)
        found |= curves(scored)
    elif isinstance(first, list | tuple) and any(truth and isinstance(truth[0], str) for truth in scored.truths):
        found["classes"] = _tag_table(scored)
    elif isinstance(first, int | float) or (
        isinstance(first, list | tuple) and first and isinstance(first[0], int | float)
    ):
        found["pairs"] = pairs(scored)
        found |= coverage(scored)
    return {name: value for name, value in found.items() if value}


# ---- classes ---------------------------------------------------------------------------------------------------------


def confusion(scored: Answered) -> dict[str, Any]:
    """{"confusion": {"names", "counts" [truth][answer]}, "confusions": the most frequent mix-ups, "classes": n,
    precision, recall and f1 of each}; for free text only the mix-ups."""
    truths, answers = (
        [metrics.label(truth) for truth in scored.truths],
        [metrics.label(value) for value in scored.values],
    )
    mixed = Counter(pair for pair in zip(truths, answers, strict=True) if pair[0] != pair[1])
    found: dict[str, Any] = {
        "confusions": [{"truth": truth, "answer": answer, "n": n} for (truth, answer), n in mixed.most_common(WORST)]
    }
    declared = [metrics.label(name) for name in getattr(scored.contract, "classes", ())]
    closed = bool(declared) or isinstance(scored.truths[0], bool) or len(set(truths)) <= MAX_CONFUSION // 4
    names = list(dict.fromkeys([*declared, *sorted(set(truths))]))
    if not closed or len(names) > MAX_CONFUSION or len(names) > len(truths):
        return found
    if set(answers) - set(names):
        names.append(OTHER)
    place = {name: index for index, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    for truth, answer in zip(truths, answers, strict=True):
        counts[place[truth], place.get(answer, len(names) - 1)] += 1
    found["confusion"] = {"names": names, "counts": counts.tolist()}
    hits, real, said = counts.diagonal(), counts.sum(1), counts.sum(0)
    found["classes"] = [
        _class_row(name, *numbers)
        for name, *numbers in zip(names, hits.tolist(), real.tolist(), said.tolist(), strict=True)
        if name != OTHER
    ]
    return found


def _class_row(name: str, hits: int, real: int, said: int) -> dict[str, Any]:
    return {
        "class": name, "n": real,
        "precision": hits / said if said else None,
        "recall": hits / real if real else None,
        "f1": 2 * hits / (real + said) if real + said else None,
    }  # fmt: skip


def _tag_table(scored: Answered) -> list[dict[str, Any]]:
    truths, answers = [set(truth) for truth in scored.truths], [set(value) for value in scored.values]
    real, said = (Counter(tag for tags in part for tag in tags) for part in (truths, answers))
    hits = Counter(tag for truth, answer in zip(truths, answers, strict=True) for tag in truth & answer)
    return [_class_row(tag, hits[tag], real[tag], said[tag]) for tag, _ in (real + said).most_common(MAX_CONFUSION)]


def reliability(scored: Answered) -> list[dict[str, Any]]:
    """How often answers of about one confidence are right: ten equal-width bins (Guo et al. 2017), empty ones left
    out. Nothing where the answers have no confidence."""
    sure = np.array([math.nan if answer.confidence is None else answer.confidence for answer in scored.answers])
    right = np.array(
        [truth == value for truth, value in zip(scored.truths, scored.values, strict=True)], dtype=np.float64
    )
    place = np.minimum((np.nan_to_num(sure, nan=-1.0) * BINS).astype(np.int64), BINS - 1)
    return [
        {"confidence": float(sure[inside].mean()), "accuracy": float(right[inside].mean()), "n": int(inside.sum())}
        for index in range(BINS)
        if (inside := (place == index) & ~np.isnan(sure)).any()
    ]


def curves(scored: Answered) -> dict[str, Any]:
    """For two classes: {"roc": [[false positive rate, true positive rate]], "pr": [[recall, precision]], "positive"}."""
    shares: list[Any] = [answer.detail.get("probabilities") for answer in scored.answers]
    if not all(isinstance(item, Mapping) and len(item) == 2 for item in shares):
        return {}
    names = list(shares[0])
    positive = "true" if set(names) == {"true", "false"} else names[-1]
    yes = np.array([metrics.label(truth) == positive for truth in scored.truths])
    if yes.all() or not yes.any():
        return {}
    score = np.array([item[positive] for item in shares])
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))  # one point for each different score
    hits, alarms = np.cumsum(yes[order])[last], np.cumsum(~yes[order])[last]
    roc = np.stack([np.append(0, alarms / (~yes).sum()), np.append(0, hits / yes.sum())], axis=1)
    pr = np.stack([hits / yes.sum(), hits / (hits + alarms)], axis=1)
    return {"roc": _thinned(roc), "pr": _thinned(pr), "positive": positive}


def _thinned(points: np.ndarray) -> list[list[float]]:
    picked = np.unique(np.linspace(0, len(points) - 1, min(len(points), CURVE_POINTS)).round().astype(np.int64))
    return [[float(x), float(y)] for x, y in points[picked]]


# ---- numbers ---------------------------------------------------------------------------------------------------------


def pairs(scored: Answered) -> list[list[float]]:
    """[truth, answer] of at most 2,000 numbers, drawn at random; a vector's numbers one after another."""
    truths, values = (np.array(part, dtype=np.float64).ravel() for part in (scored.truths, scored.values))
    picked = np.arange(len(truths))
    if len(picked) > PAIRS:
        picked = np.sort(np.random.default_rng(0).choice(picked, PAIRS, replace=False))
    return [[float(truths[index]), float(values[index])] for index in picked]


def coverage(scored: Answered) -> dict[str, Any]:
    """Which share of the truths lies inside the answers' own intervals, where they have any."""
    if not all("low" in answer.detail and "high" in answer.detail for answer in scored.answers):
        return {}
    low, high = (
        np.array([answer.detail[side] for answer in scored.answers], dtype=np.float64) for side in ("low", "high")
    )
    truths = np.array(scored.truths, dtype=np.float64)
    return {"coverage": {"share": float(((low <= truths) & (truths <= high)).mean()), "n": int(truths.size)}}


# ---- mistakes --------------------------------------------------------------------------------------------------------


class _Previews:
    """Inputs as people see them, until the page would grow too large to mail."""

    def __init__(self, model: Model, dataset: Dataset) -> None:
        self.model, self.dataset, self.left = model, dataset, PREVIEW_BYTES
        self.seen: dict[int, dict[str, dict[str, str]]] = {}

    def of(self, row: int) -> dict[str, dict[str, str]]:
        """{input: {'kind', 'data'}}."""
        if row not in self.seen:
            self.seen[row] = {name: self._one(name, item, row) for name, item in self.model.recipe.inputs.items()}
        return self.seen[row]

    def value(self, value: Any, item: Modality, row: int, truth: Any = None) -> Any:
        """A truth or an answer, a mask over its picture, a chain over its truth; a sound or a picture that the page has no
        room for in words."""
        if not shown_whole(value):
            return value
        under = self.dataset.fields.get(str(getattr(item, "on", None)))
        there = None if under is None or not under.present[row] else under[row]
        pictured = isinstance(value, Segmentation) and value.numbers.ndim == 2 and there is not None and there.ndim == 3
        if there is not None and (pictured or isinstance(value, VolumeSegmentation)):
            found = value.over(there)
        elif isinstance(value, Chain):
            found = value.drawn(truth)
        else:
            found = value.drawn() if hasattr(value, "drawn") else value.to_json()
        if len(found) > self.left:
            return f"{value!r}, not shown: the page would grow too large"
        self.left -= len(found)
        return found

    def afforded(self, views: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those that the page has room for."""
        found = []
        for view in views:
            if len(view["data"]) <= self.left:
                self.left -= len(view["data"])
                found.append(view)
        return found

    def _one(self, name: str, item: Modality, row: int) -> dict[str, str]:
        store = self.dataset.fields.get(name)
        if store is None or not store.present[row]:
            return {"kind": "text", "data": "(missing)"}
        found = item.preview(store[row], self.model.contracts[name])
        if len(found["data"]) > self.left:
            return {"kind": "text", "data": "(not shown: the page would grow too large)"}
        self.left -= len(found["data"])
        return found


def shown_whole(value: Any) -> bool:
    """Is it heard or seen, and not written?"""
    return isinstance(value, Recording | Drawing) or hasattr(value, "drawn")


def mistakes(
    scored: Answered, previews: "_Previews", dataset: Dataset, output: str, explaining_s: float
) -> list[dict[str, Any]]:
    """The 20 wrong answers with the largest loss (of sounds 20 from the largest to the smallest): where the row is,
    what is true, what was answered, the raw inputs, and of the first ones why, where that takes no longer than `explaining_s`.
    Where nothing was answered, the 20 rows with the largest loss, and null for the answer."""
    answers = scored.answers or [Answer(None)] * len(scored.truths)
    explained_ones, share_s = EXPLAINED if scored.answers else 0, explaining_s / EXPLAINED
    wrong = [
        index
        for index in np.argsort(-scored.loss, kind="stable").tolist()
        if scored.truths[index] != answers[index].value
    ]
    return [
        {
            "row": int(scored.rows[index]),
            "origin": dataset.origin(int(scored.rows[index])),
            "truth": previews.value(scored.truths[index], scored.item, int(scored.rows[index])),
            "answer": previews.value(answers[index].value, scored.item, int(scored.rows[index]), scored.truths[index]),
            "confidence": answers[index].confidence,
            "loss": float(scored.loss[index]),
            "inputs": previews.of(int(scored.rows[index])),
            **_drawn(scored, index, answers[index], previews),
            **_doubted(scored, index, output, previews),
            **(_why(scored, index, output, previews.model, dataset, share_s) if place < explained_ones else {}),
        }
        for place, index in enumerate(_shown(wrong, scored))
    ]


def _why(scored: Answered, index: int, output: str, model: Model, dataset: Dataset, most_s: float) -> dict[str, Any]:
    """{"why": {"about", "verdict", "reliable", "inputs": [{"name", "image": a data URI or None, "pieces": [{"where", "share"}]}]}}:
    what an answer leans on, where it can be explained; {"why_not": how long it would take} for networks that take too long to
    ask so often, more than `most_s`: an evaluation is part of a budget."""
    if scored.item.unexplained or (given := _given(model, dataset, int(scored.rows[index]))) is None:
        return {}
    decoded, values = given
    wanted = LOOKS * _look_s(model, values)
    if wanted > most_s:
        return {"why_not": f"an explanation would take about {wanted:.0f} s"}
    found = explained(model, Row(values, decoded, decoded), output=output)
    shown = [
        {
            "name": item.name, "image": item.image() if item.kind == "picture" else None,
            "pieces": [{"where": piece.where, "share": piece.share} for piece in item.strongest(WHY_PIECES)],
        }
        for item in found.highlights
    ]  # fmt: skip
    return {"why": {"about": found.about, "reliable": found.reliable, "verdict": found.verdict, "inputs": shown}}


def _given(
    model: Model, dataset: Dataset, row: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray | None]] | None:
    """A row's inputs as they were decoded, and as the network takes them. None where it does not see them at once, and of a
    stage by itself: the whole network begins with the raw value."""
    inputs = model.recipe.inputs
    if any(item.handed for item in inputs.values()):
        return None
    stored = {name: dataset.fields.get(name) for name in inputs}
    decoded = {
        name: np.asarray(store[row]) for name, store in stored.items() if store is not None and store.present[row]
    }
    values = {
        name: item.transform(decoded[name], model.contracts[name]) if name in decoded else None
        for name, item in inputs.items()
    }
    return (decoded, values) if seen_at_once(inputs, model.contracts, values) else None


def _doubted(scored: Answered, index: int, output: str, previews: "_Previews") -> dict[str, Any]:
    """{"doubt": {"told", "views"}} of an output that abstains by the error that it expects: where this lies and where the answer is
    off, in the same colours. The mean of what is expected is what the answer says of itself."""
    item, model = scored.item, previews.model
    if item.abstain is None or not item.expects_error or not scored.answers:
        return {}
    given = _given(model, previews.dataset, int(scored.rows[index]))
    if given is None:
        return {}
    answer = scored.answers[index]
    raw = {name: value[0].float().cpu().numpy() for name, value in model.predicted([given[1]])[output].items()}
    lies, met = item.doubted_where(raw, answer), item.missed_where(scored.truths[index], answer)
    places = tuple(range(1, lies.ndim))
    said = np.atleast_1d(answer.detail[EXPECTED]) / np.maximum(lies.mean(places), 1e-30)
    expected = lies * said.reshape(-1, *(1,) * len(places))
    highs = np.maximum(expected.max(places), np.quantile(met, WITHIN, axis=places)).tolist()
    ends = [(0.0, high) for high in highs]
    views = previews.afforded(
        [
            {"about": about, "data": Lattice(values).drawn(ends)}
            for about, values in (("error that is expected", expected), ("error that is there", met))
        ]
    )
    unit = answer.unit or ("of full scale" if isinstance(answer.value, Picture) else "")
    told = f"dark is 0, light {', '.join(f'{high:.3g}' for high in highs)} {unit}".rstrip()
    return {"doubt": {"told": told, "views": views}} if views else {}


def _look_s(model: Model, values: Mapping[str, np.ndarray | None]) -> float:
    """Seconds of one forward pass of a row: the shortest of three, since others may be at work."""
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        model.predicted([values])
        taken.append(time.perf_counter() - began)
    return min(taken)


def _drawn(scored: Answered, index: int, answer: Answer, previews: "_Previews") -> dict[str, Any]:
    """{"drawn": {"on", "truth", "answer"}} of an output that lies on an input of this row and can be outlined there;
    {"drawn": {"on", "views"}} where pictures of parts of the input show it."""
    item, row = scored.item, int(scored.rows[index])
    if not isinstance(item, Spatial) or answer.value is None or not previews.dataset.fields[item.under()].present[row]:
        return {}
    under = previews.dataset.fields[item.under()][row]
    truth, given = (item.outlines(value, under.shape) for value in (scored.truths[index], answer.value))
    if truth or given:
        return {"drawn": {"on": item.under(), "truth": truth, "answer": given}}
    views = previews.afforded(item.views(scored.truths[index], answer.value, under))
    return {"drawn": {"on": item.under(), "views": views}} if views else {}


def _shown(wrong: Sequence[int], scored: Answered) -> Sequence[int]:
    """The worst; of sounds and pictures, of which none equals its truth, some from the worst to the best."""
    if len(wrong) <= WORST or not shown_whole(scored.truths[0]):
        return wrong[:WORST]
    return [wrong[index] for index in np.linspace(0, len(wrong) - 1, WORST).round().astype(int).tolist()]


# ---- forecasts -------------------------------------------------------------------------------------------------------


def forecasts(scored: Answered, model: Model, dataset: Dataset) -> list[dict[str, Any]]:
    """Rows spread from the best forecast to the worst, the worst channel of each: {"origin", "channel", "past", "truth",
    "value", "bands": [[low, high] from the widest]}; null where nothing is known."""
    declared, contract = scored.item, scored.contract
    assert isinstance(declared, Series)
    assert isinstance(contract, SeriesContract)
    order = np.argsort(scored.loss, kind="stable")
    found = []
    for index in order[np.linspace(0, len(order) - 1, min(FORECASTS, len(order))).round().astype(int)].tolist():
        row, answer = int(scored.rows[index]), scored.answers[index]
        truth, value = (np.atleast_2d(np.array(part, np.float64)) for part in (scored.truths[index], answer.value))
        apart = np.nan_to_num(np.abs(truth - value)).mean(1) / np.array(contract.deviation)
        channel = int(apart.argmax())
        lines = [np.atleast_2d(np.asarray(item, np.float64))[channel] for item in answer.detail["quantiles"].values()]
        half = len(lines) // 2
        past = _past_of(declared, contract, model, dataset, row, channel)
        found.append(
            {
                "origin": dataset.origin(row),
                "channel": contract.channels[channel],
                "past": past[-PAST_SHARE * truth.shape[1] :],
                "truth": truth[channel].tolist(),
                "value": value[channel].tolist(),
                "bands": [[lines[at].tolist(), lines[-1 - at].tolist()] for at in range(0, half, max(1, half // 2))],
            }
        )
    return found


def _past_of(
    declared: Series, contract: SeriesContract, model: Model, dataset: Dataset, row: int, channel: int
) -> list[float]:
    """What the row's inputs say about a channel before the forecast."""
    pasts = {
        name: own
        for name, own in model.contracts.items()
        if name in model.recipe.inputs and isinstance(own, SeriesContract)
    }
    found = continued(declared, contract, pasts)
    if found is None or not dataset.fields[found[0]].present[row]:
        return []
    past: list[float] = dataset.fields[found[0]][row][:, found[1][channel]].astype(np.float64).tolist()
    return past


# ---- paths -----------------------------------------------------------------------------------------------------------


def paths(scored: Answered, dataset: Dataset) -> list[dict[str, Any]]:
    """Rows spread from the best answer to the worst, with at most MOST_AGENTS agents of each whose truth is known: {"origin",
    "agents": [{"past", "truth", "path", "futures": [{"chance", "path"}]}]}, a path being a list of [x, y], null where nobody knows."""
    declared = scored.item
    assert isinstance(declared, Trajectories)
    order = np.argsort(scored.loss, kind="stable")
    found = []
    for index in order[np.linspace(0, len(order) - 1, min(FORECASTS, len(order))).round().astype(int)].tolist():
        row, truth, answer = int(scored.rows[index]), scored.truths[index], scored.answers[index].value
        pasts = _given_paths(declared, dataset, row, len(truth))
        # of a row without its past there is one answer
        told = zip(pasts.to_json(), truth.to_json(), answer.to_json(), strict=False)
        agents = [{"past": past["path"], "truth": own["path"], **said} for past, own, said in told if any(own["path"])]
        found.append({"origin": dataset.origin(row), "agents": agents[:MOST_AGENTS]})
    return found


def _given_paths(declared: Trajectories, dataset: Dataset, row: int, agents: int) -> Paths:
    """Where the agents of a row have been."""
    store = dataset.fields.get(str(declared.on))
    if store is None or not store.present[row]:
        return Paths(np.full((agents, 1, 2), np.nan, np.float32))
    return Paths(np.asarray(store[row]))


# ---- what is drawn by chance ------------------------------------------------------------------------------------------


def drawings(
    name: str, scored: Answered, model: Model, previews: "_Previews", dataset: Dataset
) -> list[dict[str, Any]]:
    """Rows evenly through those that were scored, with several answers of each: {"origin", "inputs", "truth", "drawn": values
    as in JSON}."""
    places = np.unique(np.linspace(0, len(scored.rows) - 1, DRAWN_ROWS).round().astype(int))
    rows = scored.rows[places]
    batch = Loader(dataset, model.recipe, model.contracts, rows, batch_size=len(rows), seed=0, shuffle=False).batch(0)
    chance = torch.Generator(model.device).manual_seed(0)
    with torch.inference_mode():
        found = model.network.head(name).sample(
            model.predictions(batch)[name], count=DRAWINGS, temperature=1.0, top_p=1.0, chance=chance
        )
    flat = {key: value.flatten(0, 1).cpu().numpy() for key, value in found.items()}
    answers = model.written({name: flat}, len(rows) * DRAWINGS)[name]
    return [
        {
            "origin": dataset.origin(int(row)),
            "inputs": previews.of(int(row)),
            "truth": previews.value(scored.truths[place], scored.item, int(row)),
            "drawn": [answer.to_dict()["value"] for answer in answers[index * DRAWINGS : (index + 1) * DRAWINGS]],
        }
        for index, (place, row) in enumerate(zip(places.tolist(), rows.tolist(), strict=True))
    ]


# ---- retrieval -------------------------------------------------------------------------------------------------------


def retrieval(scored: Answered, previews: "_Previews", dataset: Dataset) -> list[dict[str, Any]]:
    """For each ordered pair of inputs, queries spread over how well they did, with the nearest rows: {"from", "to",
    "queries": [{"origin", "query", "rank", "found": [{"score", "right", "origin", "shown"}]}]}."""
    inputs = scored.item.made_of()
    given = [answer.detail["vectors"] for answer in scored.answers]
    out = []
    for one, other in itertools.permutations(inputs, 2):
        asked = [row for row, own in enumerate(given) if one in own and other in own]
        gallery = [row for row, own in enumerate(given) if other in own]
        if not asked:
            continue
        scores = np.array([given[row][one] for row in asked]) @ np.array([given[row][other] for row in gallery]).T
        right = np.array(
            [[_same(scored.truths[a], scored.truths[b], one, other) for b in gallery] for a in asked[:RETRIEVAL_ROWS]]
        )
        scores = scores[:RETRIEVAL_ROWS]
        best = np.where(right, scores, -np.inf).max(1)[:, None]
        rank = 1 + (~right & (scores >= best)).sum(1)
        chosen = np.argsort(rank, kind="stable")[np.unique(np.linspace(0, len(rank) - 1, QUERIES).astype(int))]
        queries = []
        for at in chosen.tolist():
            nearest = np.argsort(-scores[at], kind="stable")[:NEAREST]
            queries.append(
                {
                    "origin": dataset.origin(int(scored.rows[asked[at]])),
                    "query": previews.of(int(scored.rows[asked[at]]))[one],
                    "rank": int(rank[at]),
                    "found": [
                        {
                            "score": float(scores[at, place]),
                            "right": bool(right[at, place]),
                            "origin": dataset.origin(int(scored.rows[gallery[place]])),
                            "shown": previews.of(int(scored.rows[gallery[place]]))[other],
                        }
                        for place in nearest.tolist()
                    ],
                }
            )
        out.append({"from": one, "to": other, "queries": queries})
    return out


def _same(truth: Mapping[str, int], found: Mapping[str, int], one: str, other: str) -> bool:
    return truth[one] == found.get(one) or truth[other] == found[other]


# ---- what each layer already knows -------------------------------------------------------------------------------------


def probe(
    model: Model, dataset: Dataset, train_rows: np.ndarray, val_rows: np.ndarray, *, columns: Sequence[str] = ()
) -> dict[str, Any]:
    """A linear model on the pooled features of each layer, fitted on at most 1,000 training rows and scored on at most
    1,000 validation rows (Alain & Bengio 2016): {output: [{"layer", "metric", "value", "low", "high", "n"}]}.

    Ridge regression for numbers, ridge classification for classes; outputs of other kinds are left out. columns: of the
    tables, which the network was not told about: does it know them all the same? At most PROBE_COLUMNS of those that are
    numbers or classes, the best constant answer standing first as the layer "(a constant)".
    """
    rows = [_some(np.asarray(part, dtype=np.int64)) for part in (train_rows, val_rows)]
    for name, item in model.recipe.inputs.items():
        sides, store = item.patch(model.contracts[name]), dataset.fields.get(name)
        if store is not None and any(any_larger(store, item, sides, part) for part in rows):
            return {}  # answered in windows: no layer says one thing of a row
    features = [_layers(model, dataset, part) for part in rows]
    out: dict[str, Any] = {}
    for name, item in model.recipe.outputs.items():
        store, contract = dataset.fields[name], model.contracts[name]
        there = [np.flatnonzero(store.present[part]) for part in rows]
        truths = [
            [item.truth(store[row], contract) for row in part[own].tolist()]
            for part, own in zip(rows, there, strict=True)
        ]
        fitted = None if isinstance(item, Series) else _probe_kind(*truths)  # a forecast is no one thing that is known
        metric = next((metric for metric in item.metrics(contract) if metric.of_term is None), None)
        if fitted is None or metric is None:
            continue
        out[name] = []
        for layer in features[0]:
            answers = fitted(features[0][layer][there[0]], truths[0], features[1][layer][there[1]])
            estimate = metrics.estimate(metric, truths[1], answers)
            out[name].append({"layer": layer, "metric": metric.name, **estimate.to_dict()})
    return out | _probed_columns(dataset, rows, features, columns)


def _probed_columns(
    dataset: Dataset, rows: Sequence[np.ndarray], features: Sequence[Mapping[str, np.ndarray]], columns: Sequence[str]
) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name in columns:
        cells = [dataset.cells(name, part) for part in rows]
        kind = _column_kind([cell for part in cells for cell in part if cell is not None])
        if kind is None or len(out) == PROBE_COLUMNS:
            continue
        metric, read = kind
        there = [np.flatnonzero([cell is not None for cell in part]) for part in cells]
        truths = [[read(part[at]) for at in own.tolist()] for part, own in zip(cells, there, strict=True)]
        fitted = _probe_kind(*truths)
        if fitted is None:
            continue
        constant = np.zeros((len(rows[0]), 1)), np.zeros((len(rows[1]), 1))
        layers = {"(a constant)": constant, **{key: (features[0][key], features[1][key]) for key in features[0]}}
        out[name] = []
        for layer, (own, other) in layers.items():
            answers = fitted(own[there[0]], truths[0], other[there[1]])
            estimate = metrics.estimate(metric, truths[1], answers)
            out[name].append({"layer": layer, "metric": metric.name, **estimate.to_dict()})
    return out


def _column_kind(cells: Sequence[Any]) -> tuple[Metric, Callable[[Any], Any]] | None:
    """How a column is scored and read: as numbers, or as classes that come back; None for anything else."""
    if len(cells) < PROBE_FEWEST or not all(isinstance(cell, str | bool | int | float | np.generic) for cell in cells):
        return None
    different = len({str(cell) for cell in cells})
    if different < 2:
        return None
    try:
        numbers = [float(cell) for cell in cells]
    except ValueError:
        numbers = []
    if different > PROBE_FEW_NUMBERS and numbers and all(map(math.isfinite, numbers)):
        return metrics.r2(), float
    return (metrics.accuracy(), str) if different <= min(PROBE_CLASSES, len(cells) / PROBE_REPEATED) else None


Fitted = Callable[[np.ndarray, list[Any], np.ndarray], list[Answer]]


def _probe_kind(train: list[Any], val: list[Any]) -> Fitted | None:
    if len(train) < 2 or not val:
        return None
    if all(isinstance(truth, str | bool) for truth in train):
        return _classify if 2 <= len(set(train)) <= PROBE_CLASSES else None
    if all(isinstance(truth, int | float) for truth in train) or all(
        isinstance(truth, list) and truth and isinstance(truth[0], float) for truth in train
    ):
        return _regress
    return None


def _classify(features: np.ndarray, truths: list[Any], others: np.ndarray) -> list[Answer]:
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    names = sorted(set(truths))
    places = {name: index for index, name in enumerate(names)}
    estimator = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=ALPHAS))
    estimator.fit(features, [places[truth] for truth in truths])
    scores = estimator.decision_function(others)
    scores = np.stack([-scores, scores], axis=1) if scores.ndim == 1 else scores
    shares = np.exp(scores - scores.max(1, keepdims=True))  # an order for ranking metrics, no calibrated probability
    shares /= shares.sum(1, keepdims=True)
    return [
        Answer(
            names[int(row.argmax())],
            float(row.max()),
            detail={
                "probabilities": {metrics.label(name): float(share) for name, share in zip(names, row, strict=True)}
            },
        )
        for row in shares
    ]


def _regress(features: np.ndarray, truths: list[Any], others: np.ndarray) -> list[Answer]:
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    estimator = make_pipeline(StandardScaler(), RidgeCV(alphas=ALPHAS))
    estimator.fit(features, np.array(truths, dtype=np.float64))
    return [Answer(value) for value in np.asarray(estimator.predict(others)).tolist()]


def _some(rows: np.ndarray) -> np.ndarray:
    return (
        rows if len(rows) <= PROBE_ROWS else np.sort(np.random.default_rng(0).choice(rows, PROBE_ROWS, replace=False))
    )


def _layers(model: Model, dataset: Dataset, rows: np.ndarray) -> dict[str, np.ndarray]:
    """{layer: float32 [rows, features]} in the order of the forward pass."""
    loader = Loader(
        dataset, model.recipe, model.contracts, rows, batch_size=PROBE_BATCH, seed=0, shuffle=False, order="length"
    )
    place = {int(row): index for index, row in enumerate(rows)}
    parts: dict[str, np.ndarray] = {}
    with _watched(model.network) as passes:
        for batch in loader.iterate(0, loader.batches_per_epoch):
            passes.clear()
            model.predictions(batch)
            where = np.array([place[int(row)] for row in batch.row_ids])
            for layer in passes[0]:
                values = np.concatenate([pooled[layer] for pooled in passes])  # of large rows, a few are seen at a time
                # within a film a layer has said something of every picture
                own = values.reshape(len(where), -1, values.shape[1]).mean(1)
                parts.setdefault(layer, np.zeros((len(rows), own.shape[1]), dtype=np.float32))[where] = own
    return parts


@contextmanager
def _watched(network: Network) -> Iterator[list[dict[str, np.ndarray]]]:
    """While inside, every forward pass adds the pooled output of each layer to the given list."""
    passes: list[dict[str, np.ndarray]] = []
    pooled: dict[str, np.ndarray] = {}

    def done(*_: Any) -> None:
        passes.append(dict(pooled))
        pooled.clear()

    of_rows = set(stacked(network.trunk)) if isinstance(network.trunk, Perceptron) else set()
    handles = [
        part.register_forward_hook(_keeper(name, pooled, whole=part in of_rows)) for name, part in _stacked(network)
    ]
    handles.append(network.register_forward_hook(done))
    try:
        yield passes
    finally:
        for handle in handles:
            handle.remove()


def _keeper(name: str, pooled: dict[str, np.ndarray], *, whole: bool) -> Callable[[nn.Module, Any, Any], None]:
    """whole: the layer gives one vector a row. (Two axes of another may be tokens without padding.)"""

    def keep(_: nn.Module, given: Any, output: Any) -> None:
        values = output if whole else _pooled(given, output)
        if values is not None and bool(torch.isfinite(values).all()):
            pooled[name] = values.float().cpu().numpy()

    return keep


def _pooled(given: tuple[Any, ...], output: Any) -> Tensor | None:
    """Mean over the real tokens, or over the picture; None for what is neither."""
    if isinstance(output, Tokens):
        return output.pooled()
    if not isinstance(output, Tensor) or not output.is_floating_point():
        return None
    if output.ndim == 4:
        return output.mean((2, 3))
    if output.ndim != 3:
        return None
    masks = [
        item
        for item in given
        if isinstance(item, Tensor) and item.dtype == torch.bool and item.shape == output.shape[:2]
    ]
    if not masks:
        return output.mean(1)
    weight = masks[0][..., None].to(output.dtype)
    return (output * weight).sum(1) / weight.sum(1).clamp(min=1)


def _stacked(network: Network) -> Iterator[tuple[str, nn.Module]]:
    """The layers a network is stacked of, in the order of the forward pass, named by their input or TRUNK."""
    for name, part in zip(network.input_names, network.inputs.values(), strict=True):
        encoder = part.get_submodule("encoder")
        yield from ((f"{name} {number}", layer) for number, layer in enumerate(stacked(encoder), 1))
        yield f"{name} tokens", encoder
    if network.trunk is not None:
        yield from ((f"{TRUNK} {number}", layer) for number, layer in enumerate(stacked(network.trunk), 1))


__all__ = [
    "Answered",
    "confusion",
    "coverage",
    "curves",
    "drawings",
    "forecasts",
    "mistakes",
    "output_details",
    "pairs",
    "paths",
    "probe",
    "reliability",
    "retrieval",
]
