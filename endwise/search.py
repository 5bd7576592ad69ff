"""Search: the rows that are nearest to a query in the space of an embedding, whatever kind of value the query is.

An index holds one vector for each input of each row; it is made once and kept in the run folder, under a key of the
weights and the data. Up to a hundred thousand vectors are compared one by one, which is exact and takes milliseconds;
beyond that a graph of neighbours is walked (HNSW; Malkov & Yashunin 2018), both by usearch. Not here: what makes the
vectors (the model), how good they are (evaluate.py).
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from endwise.artefact import DESCRIPTION
from endwise.data.dataset import Dataset, prepare
from endwise.data.loader import Loader
from endwise.errors import BadValue, DataError, ModelError, need, require, unknown_name
from endwise.files import atomic, plain, read_json
from endwise.modalities.base import Fetch, Modality
from endwise.model import Model
from endwise.rows import file_fetcher, opens
from endwise.run import Run

if TYPE_CHECKING:
    from endwise.recipe import Recipe

EXACT_VECTORS = 100_000  # of one input; more are searched by a graph
BATCH_ROWS = 64
INDEX_VERSION = 1
SHOWN_CHARS = 200
FOLDER = "search"  # in the run


@dataclass(frozen=True, slots=True)
class Hit:
    """One row: its score is the cosine between the query and the nearest of the row's inputs, named by `input`."""

    score: float
    input: str
    row: int
    origin: str
    values: Mapping[str, Any]  # the raw cell of every input, bytes and long texts shortened


@dataclass(frozen=True, slots=True)
class Found:
    """The nearest rows, the best first. exact: whether every row was compared."""

    query: tuple[str, ...]  # the inputs that were given
    rows: int
    exact: bool
    hits: tuple[Hit, ...]

    def to_dict(self) -> dict[str, Any]:
        """{"query", "rows", "exact", "hits": [{"score", "input", "row", "origin", "values"}]}."""
        found: dict[str, Any] = plain(dataclasses.asdict(self))
        return found

    def __str__(self) -> str:
        how = "" if self.exact else ", by a graph of neighbours"
        lines = [f"{' and '.join(self.query)} among {self.rows} rows{how}"]
        for number, hit in enumerate(self.hits, 1):
            values = "  ".join(f"{name}: {value}" for name, value in hit.values.items() if value is not None)
            lines.append(f"{number:>3}  {hit.score:.3f} by {hit.input}  {values}  ({hit.origin})")
        return "\n".join(lines)


def search(
    run: "str | Path | Run",
    query: Any,
    *,
    by: str | None = None,
    top: int = 10,
    data: Any = None,
    base: str | Path = ".",
    exact_vectors: int = EXACT_VECTORS,
) -> Found:
    """The `top` rows nearest to `query` by their other inputs.

    query: a raw value of any input of the run's embedding, or {input: raw value}. by: which input a bare value is;
    default: the only one that can read it (refused where several can). data: another table to search; default: all
    rows of the run's own data. base: the folder that paths in the query are taken from.
    """
    require(top >= 1, field="top", got=top, allowed="a whole number of at least 1", fix="10 is usual", error=DataError)
    opened = Run.open(run)
    model = opened.model()
    output, inputs = _space(model)
    row = query if isinstance(query, Mapping) else {_reader(model, inputs, query, by, base): query}
    for name in row:
        if name not in inputs:
            raise unknown_name(field="the query: input", got=name, names=inputs, error=DataError)
    others = [name for name in inputs if name not in row]
    require(
        bool(others),
        field="the query",
        got=list(row),
        allowed="at least one input left to search by",
        fix="leave out what is to be found",
        error=DataError,
    )
    vector = np.asarray(model.predict(row, base=base)[output], dtype=np.float32)
    dataset = prepare(opened.recipe, source=data, need_targets=data is None)
    file = _index_file(opened, dataset, output)
    vectors = _vectors(file, model, dataset, output, inputs)
    nearest: dict[int, tuple[float, str]] = {}
    exact = True
    for name in others:
        rows, own = vectors[name]
        graph = None if len(rows) <= exact_vectors else file.with_suffix(f".{inputs.index(name)}.usearch")
        exact = exact and graph is None
        for place, score in _nearest(own, vector, min(top, len(rows)), graph):
            found = int(rows[place])
            nearest[found] = max(nearest.get(found, (-2.0, name)), (score, name))
    ranked = sorted(nearest.items(), key=lambda item: (-item[1][0], item[0]))[:top]
    hits = tuple(
        Hit(score, name, found, dataset.origin(found), {item: _shown(dataset, item, found) for item in inputs})
        for found, (score, name) in ranked
    )
    return Found(tuple(row), sum(len(getattr(dataset.splits, side)) for side in ("train", "val", "test")), exact, hits)


# ---- the query -------------------------------------------------------------------------------------------------------


def _space(model: Model) -> tuple[str, tuple[str, ...]]:
    """The embedding to search in and its inputs."""
    for name, item in model.recipe.outputs.items():
        if item.type == "embedding":
            return name, item.made_of()
    raise ModelError(
        f"{model.recipe.name or 'this model'} has no embedding to search in (outputs: {', '.join(model.recipe.outputs)}). "
        "Fix: train with outputs: {space: {type: embedding}}."
    )


def _reader(model: Model, inputs: tuple[str, ...], query: Any, by: str | None, base: str | Path) -> str:
    """The input that a bare query is a value of."""
    if by is not None:
        if by not in inputs:
            raise unknown_name(field="by", got=by, names=inputs, error=DataError)
        return by
    fetch, is_file = file_fetcher(base), _is_file(query, base)
    able = [name for name in inputs if _reads(model.recipe.inputs[name], query, fetch, is_file)]
    require(
        len(able) == 1,
        field="the query",
        got=query,
        allowed=f"a value that one of {', '.join(inputs)} can be read from" if not able else "to say which input it is",
        fix="is the path right?" if not able else " or ".join(f"--in {name}" for name in able),
        error=DataError,
    )
    return able[0]


def _reads(item: Modality, query: Any, fetch: Fetch, is_file: bool) -> bool:
    """Whether this input takes the query; a path of a file that is there is meant as a file."""
    if is_file and not opens(item, str(query), fetch):
        return False
    try:
        item.read(query, fetch)
    except BadValue:
        return False
    return True


def _is_file(query: Any, base: str | Path) -> bool:
    try:
        return isinstance(query, str | Path) and (Path(base) / str(query).partition(".zip!")[0]).is_file()
    except (OSError, ValueError):  # a text that is no path
        return False


def _shown(dataset: Dataset, name: str, row: int) -> Any:
    """A raw cell as people see it in a list."""
    if name not in dataset.columns:
        return None
    raw = dataset.raw(name, row)
    if isinstance(raw, Mapping):
        raw = raw.get("path") or "(inline)"
    if isinstance(raw, bytes | bytearray | memoryview):
        return f"({len(raw)} bytes)"
    return raw[: SHOWN_CHARS - 1] + "…" if isinstance(raw, str) and len(raw) > SHOWN_CHARS else raw


# ---- the index -------------------------------------------------------------------------------------------------------


def _index_file(run: Run, dataset: Dataset, output: str) -> Path:
    """Where the vectors of these weights and this data are kept: other weights or other data have another name."""
    weights = read_json(run.model_folder / DESCRIPTION)["weights"]["sha256"]
    key = hashlib.sha256(f"{INDEX_VERSION} {weights} {dataset.fingerprint} {output}".encode()).hexdigest()[:32]
    return run.path / FOLDER / f"{key}.safetensors"


def _vectors(
    file: Path, model: Model, dataset: Dataset, output: str, inputs: tuple[str, ...]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{input: (rows that have it, their vectors float32 [row, dim])}: from the file, or made and kept there."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file
    from safetensors.numpy import save as to_bytes

    try:
        kept = load_file(file) if file.is_file() else {}
    except (SafetensorError, OSError):  # torn by a full disk: it is made again
        kept = {}
    if set(kept) != {f"{name}.{part}" for name in inputs for part in ("rows", "vectors")}:
        kept = _embedded(model, dataset, output, inputs)
        with atomic(file) as opened:
            opened.write(to_bytes(kept))
    return {name: (kept[f"{name}.rows"], kept[f"{name}.vectors"]) for name in inputs}


def _embedded(model: Model, dataset: Dataset, output: str, inputs: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Every row of every side through the network once."""
    recipe: Recipe = model.recipe
    sides = [np.asarray(getattr(dataset.splits, side), np.int64) for side in ("train", "val", "test")]
    rows = np.sort(np.concatenate(sides))
    loader = Loader(
        dataset, recipe, model.contracts, rows, batch_size=BATCH_ROWS, seed=0, shuffle=False, order="length"
    )
    ids: dict[str, list[np.ndarray]] = {name: [] for name in inputs}
    made: dict[str, list[np.ndarray]] = {name: [] for name in inputs}
    for batch in loader.iterate(0, loader.batches_per_epoch):
        found = model.decoded({output: model.predictions(batch)[output]})[output]
        for index, name in enumerate(inputs):
            there = found["present"][:, index]
            ids[name].append(batch.row_ids[there])
            made[name].append(found["vectors"][there, index].astype(np.float32))
    kept = {}
    for name in inputs:
        kept[f"{name}.rows"] = np.concatenate(ids[name])
        kept[f"{name}.vectors"] = np.ascontiguousarray(np.concatenate(made[name]))
    return kept


def _nearest(vectors: np.ndarray, query: np.ndarray, count: int, graph: Path | None) -> list[tuple[int, float]]:
    """(place, cosine) of the nearest of unit vectors, the nearest first. graph: where that of many vectors is kept;
    None compares them all."""
    need("usearch", extra="search", what="search")
    from usearch import index

    if count == 0:
        return []
    if graph is None:
        found = index.search(vectors, query, count, "ip", exact=True)
    else:
        found = _graph(vectors, graph).search(query, count)
    return [(int(place), 1.0 - float(far)) for place, far in zip(found.keys, found.distances, strict=True)]


def _graph(vectors: np.ndarray, file: Path) -> Any:
    """The graph of neighbours in the file, or made and kept there."""
    from usearch import index

    kept = index.Index.restore(str(file), view=True) if file.is_file() else None
    if kept is not None and len(kept) == len(vectors):
        return kept
    made = index.Index(ndim=vectors.shape[1], metric="ip", dtype="f32")
    made.add(np.arange(len(vectors)), vectors)
    partial = file.with_suffix(".partial")
    made.save(str(partial))
    partial.replace(file)
    return made


__all__ = ["Found", "Hit", "search"]
