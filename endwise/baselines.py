"""What a result is measured against: the best constant answer, and hand features with a scikit-learn model.

Both are fitted on training rows and answer the rows to score as the network does, so that the same metrics apply.
What the features and the estimators are is each modality's (`hand_features`, `classical`, `trivial`); here is how
several inputs are put together, what a missing value becomes, how much is read, and what had to be said about it.
"""

import re
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from endwise import metrics
from endwise.modalities.base import Answer, Contract, Modality

if TYPE_CHECKING:
    from endwise.data.dataset import Dataset
    from endwise.data.store import FieldStore
    from endwise.recipe import Recipe

MAX_FIT_ROWS = 10_000  # more changes a classical model little and costs minutes
MAX_COMPARED = 1_000  # on which the ways to answer without learning are compared
MAX_TRUTHS = 100_000  # of which the best constant is found
CHUNK_ROWS = 512  # features of so many rows are made at a time


class Baseline(TypedDict):
    """Answers for each row that was asked for, in order. classical is None where there is no such model; why is in
    the notes. seconds: what the classical one took."""

    trivial: list[Answer]
    classical: list[Answer] | None
    notes: list[str]
    seconds: float


def baselines(
    contracts: Mapping[str, Contract],
    recipe: "Recipe",
    dataset: "Dataset",
    train_rows: np.ndarray,
    test_rows: np.ndarray,
    *,
    score_on: "Dataset | None" = None,
    seed: int = 0,
    most_rows: int = MAX_FIT_ROWS,
) -> dict[str, Baseline]:
    """{output: Baseline} for `test_rows` (of `score_on`, if that is another data set than the one trained on).

    At most `most_rows` training rows, drawn with `seed`, are used; a note says so. A model that cannot be fitted on these
    rows gives None and a note with the reason, never an exception.
    """
    scored = dataset if score_on is None else score_on
    rows, notes = _sample(np.asarray(train_rows, dtype=np.int64), most_rows, seed, "the classical baseline was fitted")
    began = time.perf_counter()
    features = None
    if not all(item.of_row or (item.classical_of_places and item.lies) for item in recipe.outputs.values()):
        features = _features(recipe.inputs, dataset, rows, scored, np.asarray(test_rows, dtype=np.int64), notes)
    shared = (time.perf_counter() - began) / max(1, len(recipe.outputs))
    found: dict[str, Baseline] = {}
    for name, item in recipe.outputs.items():
        own = list(notes)
        constant = _trivial(item, contracts[name], dataset.fields[name], np.asarray(train_rows, dtype=np.int64), seed)
        simplest = [] if constant is None else [constant] * len(test_rows)
        if constant is not None and type(item).untaught is not Modality.untaught:
            simplest = _untaught(name, constant, contracts, recipe, dataset, train_rows, scored, test_rows, seed, own)
        began = time.perf_counter()
        answers = None
        if item.of_row:
            answers = _of_rows_classical(item, contracts[name], recipe.inputs, dataset, rows, scored, test_rows, own)
        elif item.classical_of_places and item.lies and constant is not None:
            answers = _of_places_classical(
                item, contracts[name], name, recipe.inputs, dataset, rows, scored, test_rows, own
            )
        elif (estimator := item.classical_of_inputs(_own(contracts, recipe), contracts[name])) is not None:
            answers = _of_inputs(estimator, name, contracts[name], recipe, dataset, rows, scored, test_rows, own)
        elif features is not None and constant is not None:
            answers = _classical(item, contracts[name], dataset.fields[name], rows, *features, own)
        found[name] = Baseline(
            trivial=simplest,
            classical=answers,
            notes=own,
            seconds=shared + time.perf_counter() - began,
        )
    return found


# ---- the two kinds ---------------------------------------------------------------------------------------------------


def _trivial(item: Modality, contract: Contract, store: "FieldStore", rows: np.ndarray, seed: int) -> Answer | None:
    there, _ = _sample(rows[store.present[rows]], MAX_TRUTHS, seed, "")
    if not len(there):
        return None
    return item.trivial([item.truth(store[row], contract) for row in there.tolist()], contract)


def _untaught(
    name: str, constant: Answer, contracts: Mapping[str, Contract], recipe: "Recipe", dataset: "Dataset", train_rows: np.ndarray,
    scored: "Dataset", test_rows: np.ndarray, seed: int, notes: list[str],
) -> list[Answer]:  # fmt: skip
    """The best on training rows of the constant and what a row's own inputs say without learning."""
    item, contract = recipe.outputs[name], contracts[name]
    known = np.asarray(train_rows, dtype=np.int64)
    some, _ = _sample(known[dataset.fields[name].present[known]], MAX_COMPARED, seed, "")
    truths = [item.truth(dataset.fields[name][row], contract) for row in some.tolist()]
    said = [_ways(name, constant, contracts, recipe, dataset, row) for row in some.tolist()]
    ways = [way for way in said[0] if all(way in row for row in said)]
    goal = item.metrics(contract)[0]
    scores = {way: metrics.value(goal, truths, [row[way] for row in said]) for way in ways}
    best = (min if goal.direction == "min" else max)(ways, key=lambda way: scores[way])
    told = ", ".join(f"{way} {goal.name} {scores[way]:.4g}" for way in ways)
    notes.append(f"the trivial baseline is {best}, the best of these on {len(some):,} training rows: {told}")
    return [_ways(name, constant, contracts, recipe, scored, row).get(best, constant) for row in map(int, test_rows)]


def _ways(
    name: str, constant: Answer, contracts: Mapping[str, Contract], recipe: "Recipe", dataset: "Dataset", row: int
) -> dict[str, Answer]:
    found = recipe.outputs[name].untaught(_given(recipe, dataset, row), _own(contracts, recipe), contracts[name])
    return {"the best constant": constant, **found}


def _own(contracts: Mapping[str, Contract], recipe: "Recipe") -> dict[str, Contract]:
    """Those of the inputs."""
    return {name: contracts[name] for name in recipe.inputs if name in contracts}


def _given(recipe: "Recipe", dataset: "Dataset", row: int) -> dict[str, np.ndarray]:
    """The decoded inputs that a row has."""
    fields = {name: dataset.fields[name] for name in recipe.inputs if name in dataset.fields}
    return {name: store[row] for name, store in fields.items() if store.present[row]}


def _of_inputs(
    estimator: Any, name: str, contract: Contract, recipe: "Recipe", dataset: "Dataset", rows: np.ndarray,
    scored: "Dataset", test_rows: np.ndarray, notes: list[str],
) -> list[Answer] | None:  # fmt: skip
    """What an estimator that looks at the inputs themselves says about each row."""
    item, store = recipe.outputs[name], dataset.fields[name]
    there = rows[store.present[rows]].tolist()
    try:
        estimator.fit(
            [_given(recipe, dataset, row) for row in there], [item.truth(store[row], contract) for row in there]
        )
    except (ValueError, np.linalg.LinAlgError) as wrong:
        notes.append(f"the classical baseline could not be fitted: {str(wrong).splitlines()[0]}")
        return None
    found = estimator.predict([_given(recipe, scored, row) for row in map(int, test_rows)])
    return [item.from_classical(row, contract) for row in found]


def _classical(
    item: Modality, contract: Contract, store: "FieldStore", rows: np.ndarray, own: Any, other: Any, notes: list[str]
) -> list[Answer] | None:
    try:
        estimator = item.classical(contract)
    except NotImplementedError:
        estimator = None
    if estimator is None:
        notes.append(f"there is no classical baseline for {item.type}")
        return None
    there = np.flatnonzero(store.present[rows])
    truths = [item.truth(store[row], contract) for row in rows[there].tolist()]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            estimator.fit(own[there], truths)
            predicted = list(_predicted(estimator, other))
        except (ValueError, np.linalg.LinAlgError) as wrong:
            notes.append(f"the classical baseline could not be fitted: {str(wrong).splitlines()[0]}")
            return None
    notes += [f"the classical baseline: {line}" for line in dict.fromkeys(map(_said, said))]
    return [item.from_classical(row, contract) for row in predicted]


def _said(warning: warnings.WarningMessage) -> str:
    """A library's warning as a line of ours: its first line, which ends where its list would begin."""
    from sklearn.exceptions import ConvergenceWarning

    if issubclass(warning.category, ConvergenceWarning):
        count = re.search(r"after (\d+) iteration", str(warning.message))
        after = f" after {count[1]} {'iteration' if count[1] == '1' else 'iterations'}" if count else ""
        return f"its fitting stopped{after} before it had settled, so it may be a little worse than it could be"
    return str(warning.message).splitlines()[0].rstrip(" :.")


def _of_rows_classical(
    item: Modality,
    contract: Contract,
    inputs: Mapping[str, Modality],
    dataset: "Dataset",
    rows: np.ndarray,
    scored: "Dataset",
    other_rows: np.ndarray,
    notes: list[str],
) -> list[Answer] | None:
    """For an output without a column: each input's features apart, since they are what it relates."""
    estimator = item.classical(contract)
    if estimator is None:
        notes.append(f"there is no classical baseline for {item.type}")
        return None
    own, other, there = {}, {}, {}
    for name in item.made_of():
        made = _features({name: inputs[name]}, dataset, rows, scored, np.asarray(other_rows, dtype=np.int64), notes)
        if made is None:
            notes.append(f"there is no classical baseline for {item.type} without hand features of {name}")
            return None
        own[name], other[name] = made
        there[name] = dataset.fields[name].present[rows]
    try:
        found = estimator.fit(own, there).predict(other)
    except (ValueError, np.linalg.LinAlgError) as wrong:
        notes.append(f"the classical baseline could not be fitted: {str(wrong).splitlines()[0]}")
        return None
    given = {name: scored.fields[name].present for name in found}
    return [
        item.from_classical({name: made[at] for name, made in found.items() if given[name][row]}, contract)
        for at, row in enumerate(other_rows)
    ]


class _Values(Sequence[np.ndarray]):
    """The decoded values of some rows, read when they are asked for."""

    def __init__(self, store: "FieldStore", rows: np.ndarray) -> None:
        self.store, self.rows = store, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return _Values(self.store, self.rows[index]) if isinstance(index, slice) else self.store[int(self.rows[index])]


def _of_places_classical(
    item: Modality,
    contract: Contract,
    name: str,
    inputs: Mapping[str, Modality],
    dataset: "Dataset",
    rows: np.ndarray,
    scored: "Dataset",
    other_rows: np.ndarray,
    notes: list[str],
) -> list[Answer] | None:
    """For an output with a value at every place of an input: it depends on what is there, so that the estimator is given
    the values themselves."""
    estimator, on = item.classical(contract), str(getattr(item, "on", None))
    if estimator is None:
        notes.append(f"there is no classical baseline for {item.type}")
        return None
    if on not in inputs or inputs[on].handed:
        notes.append(f"there is no classical baseline for {item.type} on {on}, which is an answer of another stage")
        return None
    under, store, other = dataset.fields[on], dataset.fields[name], scored.fields[on]
    if not other.present[other_rows].all():
        notes.append(f"there is no classical baseline for {item.type} where {on} is missing")
        return None
    there = rows[store.present[rows] & under.present[rows]]
    truths = [item.truth(store[row], contract) for row in there.tolist()]
    try:
        estimator.fit(_Values(under, there), truths)
        predicted = list(estimator.predict(_Values(other, np.asarray(other_rows))))
    except (ValueError, np.linalg.LinAlgError) as wrong:
        notes.append(f"the classical baseline could not be fitted: {str(wrong).splitlines()[0]}")
        return None
    return [item.from_classical(row, contract) for row in predicted]


def _predicted(estimator: Any, features: Any) -> Iterator[Any]:
    """{class: probability} for each row where the estimator has them, else what it predicts."""
    if not hasattr(estimator, "predict_proba"):
        yield from estimator.predict(features)
        return
    classes = np.asarray(estimator.classes_).tolist()
    for row in estimator.predict_proba(features):
        yield dict(zip(classes, row.tolist(), strict=True))


# ---- features --------------------------------------------------------------------------------------------------------


def _features(
    inputs: Mapping[str, Modality],
    dataset: "Dataset",
    rows: np.ndarray,
    scored: "Dataset",
    other_rows: np.ndarray,
    notes: list[str],
) -> tuple[Any, Any] | None:
    """(features of the training rows, of the rows to score): every input's, side by side; None where none has any."""
    own, other = [], []
    for name, item in inputs.items():
        transformer = item.hand_features()
        if transformer is None:
            notes.append(f"{name} has no hand features and takes no part in the classical baseline")
            continue
        store = dataset.fields[name]
        there = store.present[rows]
        if not there.any():
            notes.append(f"{name} is missing in all rows the classical baseline saw and takes no part in it")
            continue
        transformer.fit([store[row] for row in rows[there].tolist()])
        own.append(_of_rows(transformer, store, rows, columns=0))
        other.append(_of_rows(transformer, scored.fields.get(name), other_rows, columns=own[-1].shape[1] - 1))
    return (_side_by_side(own), _side_by_side(other)) if own and len(other_rows) else None


def _of_rows(transformer: Any, store: "FieldStore | None", rows: np.ndarray, *, columns: int) -> Any:
    """Features [rows, columns + 1]: zeros and a 1 in the last column where the value is missing. columns: how many
    there are when no row has a value."""
    from scipy import sparse

    there = np.zeros(len(rows), dtype=bool) if store is None else store.present[rows]
    parts = []
    for start in range(0, len(rows), CHUNK_ROWS):
        part = rows[start : start + CHUNK_ROWS][there[start : start + CHUNK_ROWS]]
        if store is not None and len(part):
            parts.append(transformer.transform([store[row] for row in part.tolist()]))
    columns = parts[0].shape[1] if parts else columns
    missing = (~there).astype(np.float64)[:, None]
    if parts and sparse.issparse(parts[0]):
        place = sparse.csr_matrix(
            (np.ones(int(there.sum())), (np.flatnonzero(there), np.arange(there.sum()))),
            shape=(len(rows), int(there.sum())),
        )
        return sparse.hstack([place @ sparse.vstack(parts), sparse.csr_matrix(missing)], format="csr")
    table = np.zeros((len(rows), columns))
    if parts:
        table[there] = np.concatenate([np.asarray(part) for part in parts])
    return np.concatenate([table, missing], axis=1)


def _side_by_side(parts: Sequence[Any]) -> Any:
    from scipy import sparse

    if any(sparse.issparse(part) for part in parts):
        return sparse.hstack([sparse.csr_matrix(part) for part in parts], format="csr")
    return np.concatenate(parts, axis=1)


def _sample(rows: np.ndarray, limit: int, seed: int, what: str) -> tuple[np.ndarray, list[str]]:
    if len(rows) <= limit:
        return rows, []
    picked = np.sort(np.random.default_rng(seed).choice(rows, limit, replace=False))
    return picked, [f"{what} on {limit:,} of {len(rows):,} training rows, drawn at random"]


__all__ = ["Baseline", "baselines"]
