"""The graph of a bundle: one network with its decoding, traced as ONNX with free batch and ragged axes.

Here: tracing, and who is to blame when an axis comes out fixed. Not here: whether its answers are the model's (the gate
in __init__.py).
"""

import contextlib
import copy
import io
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from endwise.batch import Batch, Ragged
from endwise.errors import ExportError
from endwise.network import Network, seeded
from endwise.rows import collate, may_be_missing
from endwise.runner import ROWS_AT_ONCE, SEED, feed

if TYPE_CHECKING:
    from endwise.model import Model


MIN_ROWS = 5  # fewer rows prove nothing
CACHE_BYTES = (
    4 << 20
)  # of a core; measured: a transformer over ten fields is a third slower with ten times as many rows
MOST_AT_ONCE = 4096
USUAL_PLACES = 64


def batch_of(fields: Mapping[str, Ragged], present: Mapping[str, np.ndarray]) -> Batch:
    """Fields as a batch without targets, of rows without an id."""
    count = len(next(iter(present.values())))
    return Batch(dict(fields), {}, dict(present), np.ones(count, np.float32), np.zeros(count, np.int64))


def _lengths(model: "Model", row: Mapping[str, np.ndarray | None]) -> int:
    return sum(
        int(np.prod(value.shape[: item.axes]))
        for name, item in model.recipe.inputs.items()
        if (value := row[name]) is not None
    )


def picked_of(model: "Model", rows: Sequence[Mapping[str, np.ndarray | None]], count: int) -> list[int]:
    """Rows for the gate: the odd ones first (values missing, shortest, longest), then evenly through the rest."""
    by_length = sorted(range(len(rows)), key=lambda row: _lengths(model, rows[row]))
    holes = [index for index, row in enumerate(rows) if any(value is None for value in row.values())]
    spread = [int(index) for index in np.linspace(0, len(rows) - 1, min(max(count, MIN_ROWS), len(rows)))]
    odd = [*by_length[:2], *by_length[-2:], *holes[:4]]
    return list(dict.fromkeys([*odd, *spread]))[: max(count, MIN_ROWS)]


class Graph(nn.Module):
    """A network with its decoding, taking one flat list of tensors: what is exported."""

    def __init__(self, model: "Model") -> None:
        super().__init__()
        self.network = copy.deepcopy(model.network)
        self.takes = [
            (name, bool(item.axes), may_be_missing(item, model.contracts[name]))
            for name, item in model.recipe.inputs.items()
        ]
        self.network.never_missing([name for name, _, holes in self.takes if not holes])
        self.drawn = drawn_outputs(model)

    def forward(self, *arrays: Tensor) -> tuple[Tensor, ...]:
        """Arrays in the order of `runner.feed`, then a seed for each output that is drawn; decoded tensors in the order of
        outputs and keys."""
        left, fields, present = list(arrays), {}, {}
        for name, ragged, holes in self.takes:
            values = left.pop(0)
            sizes = left.pop(0) if ragged else torch.zeros(values.shape[0], 0, dtype=torch.int64)
            fields[name] = Ragged(values, sizes)
            present[name] = left.pop(0) if holes else torch.ones(values.shape[0], dtype=torch.bool)
        predictions = seeded(self.network, self.network(fields, present), dict(zip(self.drawn, left, strict=True)))
        decoded = self.network.decode(predictions)
        return tuple(tensor for part in decoded.values() for tensor in part.values())


def write_graph(
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
                output_names=[tensor for part in tensor_names(model).values() for tensor in part.values()],
                dynamic_shapes=(tuple(axes[name] for name in arrays),),
                custom_translation_table={torch.ops.aten.where.self: _where, torch.ops.aten.rms_norm.default: _rms_norm},
            )  # fmt: skip
        except Exception as wrong:
            raise ExportError(f"the network could not be written as ONNX: {_first_line(wrong)}") from wrong
    assert converted is not None
    _forget_paths(converted.model)
    converted.model.metadata_props[ROWS_AT_ONCE] = str(_rows_at_once(converted.model))
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


def _rows_at_once(model: Any) -> int:
    """How many rows keep the largest value in between within a cache, a power of two. An axis that differs from row to row
    counts as `USUAL_PLACES`; values of which an axis is not known tell nothing."""
    largest = 1
    for value in (value for node in model.graph.all_nodes() for value in node.outputs):
        if value.shape is None or value.dtype is None or not len(value.shape) or isinstance(value.shape[0], int):
            continue
        sides = [side if isinstance(side, int) else side.value for side in value.shape[1:]]
        if None not in sides:
            places = math.prod(side if isinstance(side, int) else USUAL_PLACES for side in sides)
            largest = max(largest, places * int(value.dtype.itemsize))
    return int(min(MOST_AT_ONCE, max(1, 2 ** int(math.log2(max(1, CACHE_BYTES / largest))))))


def _rms_norm(x: Any, normalized_shape: Sequence[int], weight: Any = None, eps: float | None = None) -> Any:
    """Over the last axis, divided by the root: ONNX Runtime makes one operation of this, and of no product with its inverse."""
    from onnxscript import opset18

    op: Any = opset18  # takes plain numbers, which its annotations do not say
    least = float(torch.finfo(torch.float32).eps) if eps is None else eps
    square = op.ReduceMean(op.Pow(x, 2.0), [-1], keepdims=1)
    found = op.Div(x, op.Sqrt(op.Add(square, least)))
    return found if weight is None else op.Mul(found, weight)


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
    seeds = {f"{name}{SEED}": np.arange(len(shortest), dtype=np.int64) for name in drawn_outputs(model)}
    axes |= {name: {0: "batch"} for name in seeds}
    return {**feed(inputs, contracts, fields, present), **seeds}, axes


def drawn_outputs(model: "Model") -> list[str]:
    """The outputs whose answer is drawn by chance: the graph takes a seed for each."""
    return [name for name in model.network.output_names if model.network.head(name).draws]


def tensor_names(model: "Model") -> dict[str, dict[str, str]]:
    """{output: {key of its decoding: name in the graph}}, found by decoding one blank row."""
    blank = {name: item.blank(model.contracts[name]) for name, item in model.recipe.inputs.items()}
    fields, present = collate(model.recipe.inputs, model.contracts, [blank])
    decoded = model.decoded(model.predictions(batch_of(fields, present)))
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
