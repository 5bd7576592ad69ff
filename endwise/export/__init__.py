"""Export: one folder that answers without torch, and the proof that its answers are the model's.

    graph.onnx     the whole network, from stored arrays to decoded answers: preprocessing and decoding are inside
    bundle.json    declarations, contracts, names of the graph's inputs and outputs, sha256 of every file
    golden/        raw inputs and the model's answers to them; `run.py --verify` asks again
    runner/        the platform's own reading and writing code, copied: numpy, ONNX Runtime and the file decoders
    run.py         python run.py INPUT... [--json]

Here: the verb and its gate; what is traced is in graph.py, what is written around it in bundle.py. Not here: loading and
running a bundle (endwise/runner.py), which is what the copies in it do.
"""

import copy
import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from endwise.errors import ExportError, need, require
from endwise.export.bundle import (
    GOLDEN_ROWS,
    Example,
    appearing,
    check_place,
    fields_of,
    write_description,
    write_golden,
    write_runner,
)
from endwise.export.graph import MIN_ROWS, batch_of, picked_of, write_graph
from endwise.files import plain, read_json
from endwise.modalities import TABLE
from endwise.modalities.base import Modality
from endwise.rows import FieldError, collate, file_fetcher, may_be_missing, read_row
from endwise.runner import GOLDEN, GRAPH, Bundle, Difference, differences, largest_difference
from endwise.stages import StagedNetwork

if TYPE_CHECKING:
    from endwise.model import Model
    from endwise.run import Run

RowsFrom = Literal["test", "val", "train", "given"]
ROWS_FROM: dict[RowsFrom, str] = {
    "test": "test rows", "val": "validation rows",
    "train": "training rows (fewer than five were held out)", "given": "given rows",
}  # fmt: skip
PARITY_ROWS = 64


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
    rows = [Example(row, fetch, f"row {index + 1}") for index, row in enumerate(examples)]
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
            batch = batch_of(fields, present).to("cpu")
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


def _examples(run: "Run", count: int) -> tuple[RowsFrom, list[Example]]:
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
        Example({name: dataset.raw(name, row) for name in recipe.inputs}, fetches[row], dataset.origin(row))
        for row in map(int, chosen)
    ]


# ---- steps ----------------------------------------------------------------------------------------------------------


def _export(
    model: "Model", out: Path, examples: Sequence[Example], parity_rows: int, opset: int | None,
    rows_from: RowsFrom, tell: Callable[[str], None],
) -> ExportResult:  # fmt: skip
    start = time.perf_counter()
    need("onnxscript", extra="export", what="export")
    need("onnxruntime", extra="export", what="export")
    require(len(examples) >= MIN_ROWS, field="examples", got=len(examples), allowed=f"at least {MIN_ROWS} rows to compare answers on",
            fix="give more, best such that the model was not trained on", error=ExportError)  # fmt: skip
    computed = [name for name, stage in model.recipe.stages.items() if stage.by is not None]
    require(not computed, field="stages", got=computed, allowed="stages that are networks: a function is in no graph",
            fix="export the runs in stages/, one by one, and call the function between them", error=ExportError)  # fmt: skip
    check_place(out)
    reference = _reference(model)
    rows = [_read(reference, example) for example in examples]
    picked = picked_of(reference, rows, parity_rows)
    again = sorted(model.network.written) if isinstance(model.network, StagedNetwork) else []
    require(not again, field="hand_off", got=f"hard, of {', '.join(again)}",
            allowed="hand-offs inside the graph: these answers are written and read again on their way",
            fix="write hand_off: latent, or export the runs in stages/ one by one", error=ExportError)  # fmt: skip
    with appearing(out) as folder:
        tell(f"tracing {model.parameters:,} parameters and writing them as ONNX: usually 5 to 20 s, of any size")
        names = write_graph(reference, [rows[i] for i in picked], folder / GRAPH, opset)
        tell(f"writing the runner and {GOLDEN_ROWS} golden inputs")
        answers = _answers(reference, rows)
        golden = write_golden(reference, folder, examples, rows, answers)
        write_runner(reference, folder)
        write_description(reference, folder, opset)
        outside = tuple({type(item) for item in fields_of(reference).values() if item.type not in TABLE})
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


def _read(model: "Model", example: Example) -> dict[str, np.ndarray | None]:
    try:
        return read_row(model.recipe.inputs, model.contracts, example.cells, example.fetch)
    except FieldError as wrong:
        raise ExportError(
            f"{example.origin}: field {wrong.field!r}: {wrong.reason}. Fix: give rows that can be read."
        ) from None


def _answers(model: "Model", rows: Sequence[Mapping[str, np.ndarray | None]]) -> list[dict[str, Any]]:
    """What the model answers to rows that have been read, as JSON values."""
    found: list[dict[str, Any]] = []
    for start in range(0, len(rows), 32):
        part = rows[start : start + 32]
        found += [plain(prediction.to_dict()) for prediction in model.answered(part)]
    return found


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


__all__ = ["ExportResult", "Speed", "benchmark", "export", "export_run", "verify"]
