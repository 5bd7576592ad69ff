"""Export: one folder that answers without torch, and the proof that its answers are the model's.

    graph.onnx     the whole network, from stored arrays to decoded answers: preprocessing and decoding are inside
    bundle.json    declarations, contracts, names of the graph's inputs and outputs, sha256 of every file
    golden/        raw inputs and the model's answers to them; `run.py --verify` asks again
    runner/        the platform's own reading and writing code, copied: numpy, ONNX Runtime and the file decoders
    run.py         python run.py INPUT... [--json]

Not here: loading and running a bundle (runner.py), which is what the copies in it do.
"""

import ast
import contextlib
import copy
import dataclasses
import hashlib
import io
import json
import logging
import os
import re
import shutil
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from endwise import __version__
from endwise.batch import Batch, Ragged
from endwise.errors import BadValue, ExportError, need, require
from endwise.files import plain, read_json, write_json, write_text
from endwise.modalities import TABLE
from endwise.modalities.base import Fetch, Modality
from endwise.network import Network
from endwise.rows import FieldError, collate, file_fetcher, is_missing, may_be_missing, read_row
from endwise.runner import (
    DESCRIPTION,
    FORMAT,
    GOLDEN,
    GRAPH,
    VERSION,
    Bundle,
    Difference,
    differences,
    feed,
    largest_difference,
)

if TYPE_CHECKING:
    from endwise.model import Model
    from endwise.run import Run

RowsFrom = Literal["test", "val", "train", "given"]
ROWS_FROM: dict[RowsFrom, str] = {
    "test": "test rows", "val": "validation rows",
    "train": "training rows (fewer than five were held out)", "given": "given rows",
}  # fmt: skip
GOLDEN_ROWS = 8
MIN_ROWS = 5  # fewer rows prove nothing
PARITY_ROWS = 64
PACKAGE = Path(__file__).parent
RUNNER = "runner"  # the name of the copied package inside a bundle
COPIED = re.compile(r"\bendwise(?=\.[a-z_])")
HEAVY = frozenset(
    {"torch", "pydantic", "pandas", "polars", "sklearn", "scipy", "pyarrow", "safetensors", "yaml", "typer"}
)
SCORING = frozenset(  # a bundle scores nothing
    {"endwise.metrics", "endwise.losses", "endwise.modalities.classical", "endwise.modalities.embedding.recall"}
)
DECODERS = {"PIL": "pillow", "soundfile": "soundfile", "soxr": "soxr", "tokenizers": "tokenizers"}
RUN = '''"""Answers from raw values, without torch: python run.py INPUT... [--json] [--input name=value] [--verify]"""

import sys
from pathlib import Path

sys.dont_write_bytecode = True  # a bundle stays as it was checked
sys.path.insert(0, str(Path(__file__).resolve().parent))

from runner import main

if __name__ == "__main__":
    sys.exit(main())
'''
PACKAGE_INIT = '''"""Reads raw values, runs the graph, writes answers: copied from endwise, needs neither endwise nor torch."""

from runner.runner import Bundle, main

__all__ = ["Bundle", "main"]
'''


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """What was written and how it was proved."""

    folder: Path
    inputs: tuple[str, ...]  # the graph's input names
    outputs: tuple[str, ...]
    rows: int  # rows (and rows with values left out) whose answers were compared
    rows_from: RowsFrom  # the split they are of; 'given' by the caller
    golden: int
    largest_difference: float  # of any score or number, absolute
    bytes: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**dataclasses.asdict(self), "folder": str(self.folder)}

    def __str__(self) -> str:
        return (
            f"exported to {self.folder} ({self.bytes / 1e6:.1f} MB, {self.seconds:.0f} s)\n"
            f"  {self.rows} {ROWS_FROM[self.rows_from]} get the same answers as from the model; scores and numbers differ "
            f"by at most {self.largest_difference:.1e}\n"
            f"  {self.golden} golden inputs lie in golden/: python {self.folder / 'run.py'} --verify"
        )


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Batch-1 latency of the network, stored array to decoded answer, in milliseconds (the fastest of the rounds)."""

    eager_ms: float
    onnx_ms: float
    threads: int

    @property
    def ratio(self) -> float:
        """How many times faster the graph is."""
        return self.eager_ms / self.onnx_ms

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**dataclasses.asdict(self), "ratio": self.ratio}


@dataclass(frozen=True, slots=True)
class _Example:
    """One row of the proof: raw cells by input name, how their files are fetched, and its name for people."""

    cells: Mapping[str, Any]
    fetch: Fetch
    origin: str


# ---- the verb -------------------------------------------------------------------------------------------------------


def export_run(
    run: "str | Path | Run", *, out: str | Path | None = None, progress: Callable[[str], None] | None = None
) -> ExportResult:
    """Export the model of a run, gated by rows it was not trained on: its test rows, else its validation rows; where
    neither are five, its training rows (`rows_from` says which). progress: is told each step as it begins."""
    from endwise.run import Run

    tell = progress or _nobody
    opened = Run.open(run)
    tell("reading rows to prove the export on")
    rows, found = _examples(opened, PARITY_ROWS)
    place = Path(out) if out is not None else opened.path / "export"
    return _export(opened.model(), place, found, PARITY_ROWS, None, rows, tell)


def export(
    model: "Model",
    out: str | Path,
    *,
    examples: Sequence[Mapping[str, Any]],
    base: str | Path = ".",
    parity_rows: int = PARITY_ROWS,
    opset: int | None = None,
) -> ExportResult:
    """Write the bundle of `model` to the folder `out`.

    examples: at least five rows {input: raw value}, best held-out ones, relative paths taken from `base`; they serve as
    golden inputs and, up to `parity_rows` of them (the shortest and the longest always), as the proof that the graph gives
    the model's answers: labels equal, numbers and scores within 1e-4. opset: None takes torch's default.

    Raises ExportError naming the output, the row and both values when they differ, or the input and the axis when the
    network cannot be exported; nothing is left at `out` then.
    """
    fetch = file_fetcher(base)
    rows = [_Example(row, fetch, f"row {index + 1}") for index, row in enumerate(examples)]
    return _export(model, Path(out), rows, parity_rows, opset, "given", _nobody)


def verify(bundle: str | Path | Bundle, *, modalities: Sequence[type[Modality]] = ()) -> int:
    """Replay the golden inputs of a bundle; how many there are. ExportError when an answer is not what it was."""
    opened = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle, modalities=modalities)
    wrong = opened.verify()
    if wrong:
        raise ExportError(f"{opened.folder}: {wrong[0]}{_more(wrong)}. Fix: copy the bundle again, or export anew.")
    return len(read_json(opened.folder / GOLDEN))


def benchmark(
    model: "Model", bundle: str | Path | Bundle, rows: Sequence[Mapping[str, Any]], *, base: str | Path = ".",
    threads: int = 1, rounds: int = 30, modalities: Sequence[type[Modality]] = (),
) -> Speed:  # fmt: skip
    """Batch-1 latency of the model's network and of the bundle's graph on the same rows with as many threads, taken
    in turns so that a busy machine slows both; the fastest round of each row counts, then the median over rows."""
    folder = bundle.folder if isinstance(bundle, Bundle) else Path(bundle)
    opened = Bundle.load(folder, modalities=modalities, threads=threads, check=False)
    fetch, reference = file_fetcher(base), _reference(model)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    eager, onnx = [], []
    try:
        for row in rows:
            fields, present = collate(
                model.recipe.inputs, model.contracts, [read_row(model.recipe.inputs, model.contracts, row, fetch)]
            )
            batch = _batch(fields, present).to("cpu")
            arrays = opened.feed(fields, present)
            slow, fast = [], []
            for _ in range(rounds):
                slow.append(
                    _timed(lambda batch=batch: reference.network.decode(reference.network(batch.inputs, batch.present)))
                )
                fast.append(_timed(lambda arrays=arrays: opened.session.run(None, arrays)))
            eager.append(min(slow))
            onnx.append(min(fast))
    finally:
        torch.set_num_threads(before)
    return Speed(eager_ms=statistics.median(eager), onnx_ms=statistics.median(onnx), threads=threads)


def _timed(action: Any) -> float:
    with torch.inference_mode():
        start = time.perf_counter()
        action()
        return (time.perf_counter() - start) * 1000


def _nobody(step: str) -> None:
    """Nobody wants to be told."""


def _examples(run: "Run", count: int) -> tuple[RowsFrom, list[_Example]]:
    """Rows of the run's own data, of the first of test, validation and training that has enough, with the raw cells of
    every input."""
    from endwise.data.dataset import prepare

    recipe = run.recipe
    dataset = prepare(recipe)
    splits = dataset.splits
    parts: dict[RowsFrom, np.ndarray] = {"test": splits.test, "val": splits.val, "train": splits.train}
    name: RowsFrom = next((name for name, part in parts.items() if len(part) >= MIN_ROWS), "train")
    rows = parts[name]
    chosen = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)] if len(rows) else rows
    fetches = [table.fetch for table in dataset.tables for _ in range(len(table))]  # by row id
    return name, [
        _Example({name: dataset.raw(name, row) for name in recipe.inputs}, fetches[row], dataset.origin(row))
        for row in map(int, chosen)
    ]


# ---- steps ----------------------------------------------------------------------------------------------------------


def _export(
    model: "Model", out: Path, examples: Sequence[_Example], parity_rows: int, opset: int | None,
    rows_from: RowsFrom, tell: Callable[[str], None],
) -> ExportResult:  # fmt: skip
    start = time.perf_counter()
    need("onnxscript", extra="export", what="export")
    need("onnxruntime", extra="export", what="export")
    require(len(examples) >= MIN_ROWS, field="examples", got=len(examples), allowed=f"at least {MIN_ROWS} rows to compare answers on",
            fix="give more, best such that the model was not trained on", error=ExportError)  # fmt: skip
    _check_place(out)
    reference = _reference(model)
    rows = [_read(reference, example) for example in examples]
    picked = _picked(reference, rows, parity_rows)
    with _appearing(out) as folder:
        tell(f"tracing {model.parameters:,} parameters and writing them as ONNX: usually 5 to 20 s, of any size")
        names = _write_graph(reference, [rows[i] for i in picked], folder / GRAPH, opset)
        tell(f"writing the runner and {GOLDEN_ROWS} golden inputs")
        answers = _answers(reference, rows)
        golden = _write_golden(reference, folder, examples, rows, answers)
        _write_runner(reference, folder)
        _write_description(reference, folder, opset)
        outside = tuple({type(item) for item in _fields(reference).values() if item.type not in TABLE})
        bundle = Bundle.load(folder, modalities=outside)
        tell(f"comparing the graph's answers with the model's on {len(picked)} {ROWS_FROM[rows_from]}")
        compared, largest = _gate(reference, bundle, [rows[i] for i in picked], [examples[i].origin for i in picked])
        verify(bundle)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return ExportResult(folder=out, inputs=tuple(names), outputs=tuple(t for part in bundle.description["tensors"].values() for t in part.values()),
                        rows=compared, rows_from=rows_from, golden=golden, largest_difference=largest, bytes=size,
                        seconds=time.perf_counter() - start)  # fmt: skip


def _reference(model: "Model") -> "Model":
    """The model itself as plain float32 on the CPU, apart from the caller's network: what the graph must equal."""
    network = copy.deepcopy(getattr(model.network, "_orig_mod", model.network)).to("cpu").float().eval()
    return type(model)(model.recipe, model.contracts, network, model.size, model.info)


def _fields(model: "Model") -> dict[str, Modality]:
    return {**model.recipe.inputs, **model.recipe.outputs}


def _read(model: "Model", example: _Example) -> dict[str, np.ndarray | None]:
    try:
        return read_row(model.recipe.inputs, model.contracts, example.cells, example.fetch)
    except FieldError as wrong:
        raise ExportError(
            f"{example.origin}: field {wrong.field!r}: {wrong.reason}. Fix: give rows that can be read."
        ) from None


def _lengths(model: "Model", row: Mapping[str, np.ndarray | None]) -> int:
    return sum(
        int(np.prod(value.shape[: item.axes]))
        for name, item in model.recipe.inputs.items()
        if (value := row[name]) is not None
    )


def _picked(model: "Model", rows: Sequence[Mapping[str, np.ndarray | None]], count: int) -> list[int]:
    """Rows for the gate: the odd ones first (values missing, shortest, longest), then evenly through the rest."""
    by_length = sorted(range(len(rows)), key=lambda row: _lengths(model, rows[row]))
    holes = [index for index, row in enumerate(rows) if any(value is None for value in row.values())]
    spread = [int(index) for index in np.linspace(0, len(rows) - 1, min(max(count, MIN_ROWS), len(rows)))]
    odd = [*by_length[:2], *by_length[-2:], *holes[:4]]
    return list(dict.fromkeys([*odd, *spread]))[: max(count, MIN_ROWS)]


def _answers(model: "Model", rows: Sequence[Mapping[str, np.ndarray | None]]) -> list[dict[str, Any]]:
    """What the model answers to rows that have been read, as JSON values."""
    found: list[dict[str, Any]] = []
    for start in range(0, len(rows), 32):
        part = rows[start : start + 32]
        fields, present = collate(model.recipe.inputs, model.contracts, part)
        answers = model.answers(_batch(fields, present))
        found += [{name: plain(answers[name][i].to_dict()) for name in answers} for i in range(len(part))]
    return found


def _batch(fields: Mapping[str, Ragged], present: Mapping[str, np.ndarray]) -> Batch:
    count = len(next(iter(present.values())))
    return Batch(dict(fields), {}, dict(present), np.ones(count, np.float32), np.arange(count))


# ---- the graph ------------------------------------------------------------------------------------------------------


class Graph(nn.Module):
    """A network with its decoding, taking one flat list of tensors: what is exported."""

    def __init__(self, model: "Model") -> None:
        super().__init__()
        self.network = model.network
        self.takes = [
            (name, bool(item.axes), may_be_missing(item, model.contracts[name]))
            for name, item in model.recipe.inputs.items()
        ]

    def forward(self, *arrays: Tensor) -> tuple[Tensor, ...]:
        """Arrays in the order of `runner.feed`; decoded tensors in the order of outputs and keys."""
        left, fields, present = list(arrays), {}, {}
        for name, ragged, holes in self.takes:
            values = left.pop(0)
            sizes = left.pop(0) if ragged else torch.zeros(values.shape[0], 0, dtype=torch.int64)
            fields[name] = Ragged(values, sizes)
            present[name] = left.pop(0) if holes else torch.ones(values.shape[0], dtype=torch.bool)
        decoded = self.network.decode(self.network(fields, present))
        return tuple(tensor for part in decoded.values() for tensor in part.values())


def _write_graph(
    model: "Model", rows: Sequence[Mapping[str, np.ndarray | None]], file: Path, opset: int | None
) -> list[str]:
    """Trace, convert and save; the input names."""
    arrays, axes = _trace_arrays(model, rows)
    module = Graph(model)
    tensors = tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays.values())
    shapes = tuple(dict.fromkeys(axes[name], torch.export.Dim.DYNAMIC) for name in arrays)
    with _quiet():
        try:
            program = torch.export.export(module, tensors, dynamic_shapes=(shapes,), strict=False)
        except Exception as wrong:  # torch.export raises many kinds; all mean that this network cannot be traced
            raise ExportError(_culprit(model, arrays, axes, wrong)) from wrong
        try:
            converted = torch.onnx.export(
                program, (), dynamo=True, verbose=False, opset_version=opset, input_names=list(arrays),
                output_names=[tensor for part in _tensor_names(model).values() for tensor in part.values()],
                dynamic_shapes=(tuple(axes[name] for name in arrays),),
                custom_translation_table={torch.ops.aten.where.self: _where},
            )  # fmt: skip
        except Exception as wrong:
            raise ExportError(f"the network could not be written as ONNX: {_first_line(wrong)}") from wrong
    assert converted is not None
    _forget_paths(converted.model)
    converted.save(str(file))
    _check_axes(file, axes, model)
    return list(arrays)


def _where(condition: Any, one: Any, other: Any) -> Any:
    """ONNX Runtime chooses between numbers, not between truths, so that choice is written as logic."""
    import onnx_ir
    from onnxscript import opset18 as op

    if one.dtype == onnx_ir.DataType.BOOL:
        return op.Or(op.And(condition, one), op.And(op.Not(condition), other))
    return op.Where(condition, one, other)


def _trace_arrays(
    model: "Model", rows: Sequence[Mapping[str, np.ndarray | None]]
) -> tuple[dict[str, np.ndarray], dict[str, dict[int, str]]]:
    """Example arrays for tracing, and {tensor: {axis: name}} of what may vary. At least two rows, and every varying
    axis of another length: torch specialises 0, 1 and lengths that are equal by chance."""
    inputs, contracts = model.recipe.inputs, model.contracts
    shortest = sorted(rows, key=lambda row: _lengths(model, row))[:3]
    fields, present = collate(inputs, contracts, shortest)
    used, axes = {len(shortest)}, {}
    for name, item in inputs.items():
        values, sizes = fields[name].values, fields[name].sizes
        axes[name] = {0: "batch", **{axis: f"{name}.{axis}" for axis in range(1, item.axes + 1)}}
        for axis in range(1, item.axes + 1):
            length = max(values.shape[axis], 2)
            while length in used:
                length += 1
            used.add(length)
            room = [(0, 0)] * values.ndim
            room[axis] = (0, length - values.shape[axis])
            values = np.pad(values, room)
        fields[name] = Ragged(values, sizes)
        axes[f"{name}.sizes"] = axes[f"{name}.present"] = {0: "batch"}
    return feed(inputs, contracts, fields, present), axes


def _tensor_names(model: "Model") -> dict[str, dict[str, str]]:
    """{output: {key of its decoding: name in the graph}}, found by decoding one blank row."""
    blank = {name: item.blank(model.contracts[name]) for name, item in model.recipe.inputs.items()}
    fields, present = collate(model.recipe.inputs, model.contracts, [blank])
    decoded = model.decoded(model.predictions(_batch(fields, present)))
    return {name: {key: f"{name}.{key}" for key in part} for name, part in decoded.items()}


def _check_axes(file: Path, axes: Mapping[str, Mapping[int, str]], model: "Model") -> None:
    """Refuse a graph in which an axis that differs from row to row has become a number."""
    from endwise.runner import session

    for item in session(file, threads=1).get_inputs():
        for axis in axes[item.name]:
            if isinstance(item.shape[axis], int):
                raise ExportError(_fixed_axis(item.name, axis, model, f"it became {item.shape[axis]}"))


def _culprit(
    model: "Model", arrays: Mapping[str, np.ndarray], axes: Mapping[str, Mapping[int, str]], wrong: Exception
) -> str:
    """Which input's encoder, and which axis of it, or which head cannot be traced: one of them at a time."""
    for name, item in model.recipe.inputs.items():
        encoder = _encoder(model.network, name)
        fields = (arrays[name], arrays.get(f"{name}.sizes", np.zeros((len(arrays[name]), 0), np.int64)))
        for axis in (None, *range(1, item.axes + 1), 0):
            reason = _traces(_Values(encoder), fields, set(axes[name]) if axis is None else {0, axis})
            if axis is None and reason is None:
                break  # this input is fine
            if axis is not None and reason is not None:
                return _fixed_axis(name, axis, model, reason)
        else:
            return f"inputs.{name} ({item.type}): its encoder cannot be exported: {_first_line(wrong)}"
    heads = ", ".join(f"{name} ({item.type})" for name, item in model.recipe.outputs.items())
    return f"the encoders can be exported; a head or the trunk cannot (outputs: {heads}): {_first_line(wrong)}"


class _Values(nn.Module):
    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, values: Tensor, sizes: Tensor) -> Tensor:
        found: Tensor = self.encoder(values, sizes).values
        return found


def _traces(module: nn.Module, arrays: Sequence[np.ndarray], varying: set[int]) -> str | None:
    """None when the module can be traced with those axes of its values varying, else the reason."""
    tensors = tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
    dynamic = torch.export.Dim.DYNAMIC
    shapes = (dict.fromkeys(varying, dynamic), {0: dynamic})
    try:
        torch.export.export(module, tensors, dynamic_shapes=shapes, strict=False)
    except Exception as wrong:
        return _first_line(wrong)
    return None


def _encoder(network: Network, name: str) -> nn.Module:
    found = list(network.inputs.values())[network.input_names.index(name)].encoder
    assert isinstance(found, nn.Module)
    return found


def _fixed_axis(tensor: str, axis: int, model: "Model", reason: str) -> str:
    name = tensor if tensor in model.recipe.inputs else tensor.rpartition(".")[0]
    kind = "the number of rows" if axis == 0 else f"axis {axis}, which differs from row to row"
    return (
        f"inputs.{name} ({model.recipe.inputs[name].type}): the exported graph would fix {kind}: {reason}. "
        "Fix: its encoder must not turn that length into a Python number (no .item(), int() or if on a shape)."
    )


def _first_line(wrong: Exception) -> str:
    lines = [line.strip() for line in str(wrong).splitlines() if line.strip()]
    return (lines[0] if lines else type(wrong).__name__)[:400]


def _forget_paths(model: Any) -> None:
    """torch writes source lines and file names of this machine beside every node; they are nobody's business."""
    model.metadata_props.clear()
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        graph.metadata_props.clear()
        for node in graph.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()
    for value in [*model.graph.inputs, *model.graph.initializers.values()]:
        value.metadata_props.clear()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch's exporter speaks of packages we do not use and of its own deprecations; errors are still raised."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(level)


# ---- the gate -------------------------------------------------------------------------------------------------------


def _gate(
    model: "Model", bundle: Bundle, rows: Sequence[Mapping[str, np.ndarray | None]], origins: Sequence[str]
) -> tuple[int, float]:
    """Refuse unless the graph gives the model's answers: in one batch, row by row, and with every value left out that
    may be. How many rows were compared, and the largest difference."""
    rows, origins = list(rows), list(origins)
    for name, item in model.recipe.inputs.items():
        if may_be_missing(item, model.contracts[name]):
            rows.append({**rows[0], name: None})
            origins.append(f"{origins[0]} without {name!r}")
    expected = _answers(model, rows)
    largest = 0.0
    for batch_size in (len(rows), 1):
        got = []
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            answers = bundle.answers(part)
            got += [{name: answers[name][i].to_dict() for name in answers} for i in range(len(part))]
        wrong = differences(expected, got)
        if wrong:
            raise ExportError(_mismatch(wrong, origins, len(rows)))
        largest = max(largest, largest_difference(expected, got))
    return len(rows), largest


def _mismatch(wrong: Sequence[Difference], origins: Sequence[str], rows: int) -> str:
    first = wrong[0]
    output, _, where = first.where.partition(".")
    room = "must be equal" if first.allowed is None else f"may differ by {first.allowed:.2g}"
    return (
        f"outputs.{output}: {where} of {origins[first.row]} is {first.expected!r} from the model and {first.got!r} from the "
        f"exported graph; they {room} ({len({item.row for item in wrong})} of {rows} rows differ). "
        "Nothing was exported. Fix: this is a defect of the modality's network or of the exporter; please report it."
    )


def _more(wrong: Sequence[Difference]) -> str:
    return f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""


# ---- the folder -----------------------------------------------------------------------------------------------------


def _check_place(out: Path) -> None:
    free = not out.exists() or (out.is_dir() and (not any(out.iterdir()) or (out / DESCRIPTION).is_file()))
    require(free, field="out", got=str(out), allowed="a new or empty folder, or a bundle to replace",
            fix="choose another place", error=ExportError)  # fmt: skip


@contextlib.contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """A folder that appears at `out`, whole, by a rename when the block ends well, and is gone otherwise."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        if out.exists():
            old = out.with_name(f".{out.name}.{os.getpid()}.old")
            out.rename(old)
            partial.rename(out)
            shutil.rmtree(old)
        else:
            partial.rename(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _write_golden(
    model: "Model",
    folder: Path,
    examples: Sequence[_Example],
    rows: Sequence[Mapping[str, np.ndarray | None]],
    answers: Sequence[Mapping[str, Any]],
) -> int:
    """Raw inputs as files or JSON with the model's answers: the shortest, the longest, the holes, and others."""
    golden = []
    for number, index in enumerate(_picked(model, rows, GOLDEN_ROWS)):
        cells = {name: _portable(folder, f"golden/{number}-{_slug(name)}", item, examples[index], name, rows[index][name], model)
                 for name, item in model.recipe.inputs.items()}  # fmt: skip
        golden.append({"inputs": cells, "answers": answers[index]})
    write_json(folder / GOLDEN, golden)
    return len(golden)


def _portable(
    folder: Path, stem: str, item: Modality, example: _Example, name: str, value: np.ndarray | None, model: "Model"
) -> Any:
    """A raw value as JSON can hold it: a file that `read` fetched is copied and named by its place in the bundle."""
    raw, files = example.cells.get(name), {}
    if value is None or is_missing(raw):
        return None

    def fetch(path: str) -> bytes:
        files[path] = example.fetch(path)
        return files[path]

    item.read(raw, fetch)
    if files:
        path, data = next(iter(files.items()))
        given: Any = _copied(folder, stem + PurePosixPath(path.replace("\\", "/")).suffix[:10].lower(), data)
    else:
        inline = raw.get("bytes") if isinstance(raw, Mapping) and isinstance(raw.get("bytes"), bytes) else raw
        given = (
            _copied(folder, stem, bytes(inline)) if isinstance(inline, bytes | bytearray | memoryview) else plain(raw)
        )
    try:
        again = item.transform(item.read(given, file_fetcher(folder)), model.contracts[name])
        same = again.dtype == value.dtype and np.array_equal(again, value, equal_nan=value.dtype.kind == "f")
    except (BadValue, TypeError):
        same = False
    require(same, field=f"examples: {example.origin}: {name}", got=raw, allowed="a raw value that a file or JSON can hold",
            fix="give the file's path, its bytes, text or a number", error=ExportError)  # fmt: skip
    return given


def _copied(folder: Path, name: str, data: bytes) -> str:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return name


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name)


def _write_runner(model: "Model", folder: Path) -> None:
    """run.py, the copied package, what to install, and a page for people."""
    modules = [
        "endwise.runner",
        *sorted({type(item).__module__ for item in _fields(model).values() if item.type in TABLE}),
    ]
    copied = _closure(modules)
    for name, source in copied.items():
        file = _module_file(name)
        write_text(folder / RUNNER / file.relative_to(PACKAGE), COPIED.sub(RUNNER, source))
    write_text(folder / RUNNER / "__init__.py", PACKAGE_INIT)
    write_text(folder / "run.py", RUN)
    used = {item.type for item in _fields(model).values()}
    wanted = [
        package
        for module, package in DECODERS.items()
        if any(_mentions(copied[name], module) for name in copied if _serves(name, used))
    ]
    write_text(folder / "requirements.txt", "\n".join(["numpy", "onnxruntime", *sorted(wanted)]) + "\n")
    write_text(folder / "README.md", _page(model))


def _serves(module: str, types: set[str]) -> bool:
    return any(TABLE[name][0] == module or module.startswith(f"{TABLE[name][0]}.") for name in types if name in TABLE)


def _mentions(source: str, module: str) -> bool:
    return re.search(rf"^\s*(import|from) {module}\b|need\(\s*[\"']{module}\b", source, re.MULTILINE) is not None


def _closure(modules: Sequence[str]) -> dict[str, str]:
    """The sources of these modules of ours and of all they import, leaving out the torch side."""
    found: dict[str, str] = {}
    left = list(modules)
    while left:
        name = left.pop()
        if name in found:
            continue
        source = _module_file(name).read_text(encoding="utf-8")
        found[name] = source
        parents = [name.rsplit(".", depth)[0] for depth in range(1, name.count("."))]
        left += [*parents, *(item for item in _our_imports(source) if item not in SCORING and _is_light(item))]
    return found


def _module_file(name: str) -> Path:
    place = PACKAGE.joinpath(*name.split(".")[1:])
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def _our_imports(source: str) -> list[str]:
    """Modules of ours that a source names in an import, wherever in it, but for type checkers."""
    tree = ast.parse(source)
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.startswith("endwise.")]
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "endwise":
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [item for item in inner if _module_file(item).is_file()] or [node.module]
            if node.module != "endwise":
                found.append(node.module)
    return [name for name in found if name != "endwise"]


def _is_light(name: str, seen: frozenset[str] = frozenset()) -> bool:
    """Does importing this module of ours need nothing heavier than numpy?"""
    if name in seen:
        return True
    tree = ast.parse(_module_file(name).read_text(encoding="utf-8"))
    for node in tree.body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        for item in names:
            top = item.split(".")[0]
            if top in HEAVY or (top == "endwise" and item != "endwise" and not _is_light(item, seen | {name})):
                return False
    return True


def _page(model: "Model") -> str:
    takes = "\n".join(
        f"- `{name}`: {item.type} ({item.summary(model.contracts[name])})" for name, item in model.recipe.inputs.items()
    )
    gives = "\n".join(
        f"- `{name}`: {item.type} ({item.summary(model.contracts[name])})"
        for name, item in model.recipe.outputs.items()
    )
    return (
        f"# {model.recipe.name or 'model'}\n\nIn:\n\n{takes}\n\nOut:\n\n{gives}\n\n"
        "```bash\npip install -r requirements.txt\npython run.py INPUT... --json    # or --input name=value, or a table\n"
        "python run.py --verify           # the golden inputs again\n```\n"
        "```python\nfrom runner import Bundle         # with this folder on sys.path\n"
        "Bundle.load().predict({...})\n```\n"
    )


def _write_description(model: "Model", folder: Path, opset: int | None) -> None:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    write_json(folder / DESCRIPTION, {
        "format": FORMAT,
        "version": VERSION,
        "name": model.recipe.name,
        "inputs": {name: item.to_dict() for name, item in model.recipe.inputs.items()},
        "outputs": {name: item.to_dict() for name, item in model.recipe.outputs.items()},
        "contracts": {name: model.contracts[name].to_dict() for name in _fields(model)},
        "tensors": _tensor_names(model),
        "files": {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files},
        "info": json.loads(json.dumps(plain({**model.info, "opset": opset, "versions": _versions()}))),
    })  # fmt: skip


def _versions() -> dict[str, str]:
    import onnxruntime

    return {
        "endwise": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "onnxruntime": onnxruntime.__version__,
    }


__all__ = ["ExportResult", "Speed", "benchmark", "export", "export_run", "verify"]
