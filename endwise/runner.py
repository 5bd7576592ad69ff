"""Bundle: an exported model without torch. Raw values in, final answers out, on numpy and ONNX Runtime alone.

A copy of this file, of errors, rows and the modalities in use travels inside every bundle, so an answer there is read,
padded and written by the very code the platform uses. Not here: making a bundle (export/).
"""

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from endwise.batch import Ragged
from endwise.certainty import certainties, in_columns
from endwise.delimited import rows_of, wide_fields
from endwise.drawing import PNG_URI, uri_pixels
from endwise.drawing import from_uri as drawn_from_uri
from endwise.errors import DataError, EndwiseError, ModelError, need, refusal, require
from endwise.files import check_regular, plain, read_json
from endwise.modalities import TABLE, modality_class
from endwise.modalities.base import Answer, Contract, Modality, build
from endwise.patches import exceeds
from endwise.recording import WAV_URI, from_uri, uri_samples
from endwise.rows import (
    FieldError,
    Row,
    abstention,
    answered,
    check_names,
    collate,
    file_fetcher,
    in_world,
    is_missing,
    listed,
    may_be_missing,
    read_columns,
    read_row,
    rows_at_once,
    seen_at_once,
    window_by_window,
    written,
)
from endwise.scan import NIFTI_URI, uri_volume, volume_file

FORMAT, VERSION = "endwise bundle", 1
DESCRIPTION, GRAPH, GOLDEN = "bundle.json", "graph.onnx", "golden/golden.json"
ENTRIES = frozenset({"format", "version", "name", "inputs", "outputs", "contracts", "tensors", "files", "info"})
SCORE_TOLERANCE = 1e-4  # absolute: probabilities and other scores
VECTOR = 16  # numbers in a list from which on it is one
MASK_TOLERANCE = 0.01  # share of the pixels of a mask
SOUND_TOLERANCE = 0.02  # of the level of a sound: its phases are found by iterations that magnify a last bit
NUMBER_TOLERANCE = 1e-4  # relative to the number, or to the mean size of that answer where it is larger
ROWS_AT_ONCE = "rows_at_once"  # in a graph: how many rows are scored fastest, as far as its values tell
SEED = ".seed"  # behind an output's name: the graph's input that says which of its answers is drawn
DTYPES = {
    "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16,
    "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(int16)": np.int16, "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8, "tensor(uint16)": np.uint16, "tensor(uint32)": np.uint32, "tensor(bool)": np.bool_,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Difference:
    """Two answers that should be one."""

    row: int
    where: str  # "words.value", "mood.detail.happy"
    expected: Any
    got: Any
    allowed: float | None  # None: must be equal

    def __str__(self) -> str:
        room = "" if self.allowed is None else f" (allowed difference {self.allowed:.3g})"
        return f"{self.where} of row {self.row + 1}: expected {self.expected!r}, got {self.got!r}{room}"


class Bundle:
    """One exported model. `Bundle.load(folder)`, then `predict`; safe to call from several threads."""

    def __init__(
        self,
        folder: Path,
        description: Mapping[str, Any],
        modalities: Sequence[type[Modality]] = (),
        threads: int | None = None,
    ) -> None:
        self.folder, self.description = folder, dict(description)
        classes = {cls.type: cls for cls in modalities}
        self.inputs = {name: _declaration(item, classes) for name, item in description["inputs"].items()}
        self.outputs = {name: _declaration(item, classes) for name, item in description["outputs"].items()}
        fields = {**self.inputs, **self.outputs}
        self.contracts: dict[str, Contract] = {}
        for name, values in description["contracts"].items():
            contract_class: type[Contract] = fields[name].contract_class
            self.contracts[name] = contract_class.from_dict(values)
        self.certainty = certainties(description["info"])
        self.session = session(folder / GRAPH, threads=threads)
        self.rows_at_once = int(self.session.get_modelmeta().custom_metadata_map[ROWS_AT_ONCE])
        self._dtypes = {item.name: DTYPES[item.type] for item in self.session.get_inputs()}
        tensors: Mapping[str, Mapping[str, str]] = description["tensors"]
        self._answers = [(name, key, tensor) for name, part in tensors.items() for key, tensor in part.items()]

    @classmethod
    def load(
        cls,
        folder: str | Path | None = None,
        *,
        modalities: Sequence[type[Modality]] = (),
        threads: int | None = None,
        check: bool = True,
    ) -> "Bundle":
        """Read a bundle folder (default: the one this copy of the runner lies in), every file against its sha256.

        modalities: classes from outside the package that the recipe names. threads: ONNX Runtime's; None: its default.
        check = False skips the checksums: the caller has just made them. Raises ModelError when something is wrong.
        """
        place = Path(folder) if folder is not None else Path(__file__).resolve().parent.parent
        try:
            description = read_json(place / DESCRIPTION)
            _check_description(description)
            if check:
                _check_files(place, description["files"])
            return cls(place, description, modalities, threads)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as wrong:
            raise ModelError(
                f"{place}: this is no whole bundle: {wrong}. Fix: copy it again, or make it with 'endwise export'."
            ) from None

    # ---- raw values to answers ---------------------------------------------------------------------------------

    def predict(self, rows: Any, *, batch_size: int = 64, base: str | Path = ".", seed: int = 0) -> Any:
        """One mapping {input: raw value} in, one dict {output: {"value":, "confidence":, ...}} out; a list in, a list
        out. With a single input the bare value will do. base: the folder that relative paths are taken from. seed: of
        outputs that are drawn by chance, which of their answers; the same one is drawn again from the same seed.

        Raises DataError with the row, the field and the reason when a value cannot be read.
        """
        if isinstance(rows, list | tuple):
            return list(self.predict_iter(rows, batch_size=batch_size, base=base, seed=seed))
        return next(self.predict_iter([rows], base=base, seed=seed))

    def predict_iter(
        self, rows: Sequence[Any], *, batch_size: int = 64, base: str | Path = ".", seed: int = 0
    ) -> Iterator[dict[str, Any]]:
        """The same, batch by batch."""
        names = [f"row {index + 1}" for index in range(len(rows))] if len(rows) > 1 else ["the row"]
        for part in self._read(rows, names, batch_size, base):
            if wrong := next((item for item in part if isinstance(item, DataError)), None):
                raise wrong
            yield from (item for item in self._answered(part, seed) if not isinstance(item, DataError))

    def score(
        self,
        columns: Mapping[str, Sequence[Any]],
        *,
        batch_size: int | None = None,
        workers: int = 1,
        base: str | Path = ".",
        seed: int = 0,
    ) -> dict[str, dict[str, Any]]:
        """Many rows at once, column by column: {input: its raw values, one a row} in, {output: {"value":, "confidence":,
        "detail":}} out, each an array or a list with an entry a row, or None where there is nothing to say. The answers are
        those of `predict`, without an object a row; arrays of numbers and columns of names are the fastest.

        batch_size: default: as many as suit the graph. workers: batches that are answered at the same time; with several, load the bundle with threads=1. A column may be
        left out where its value may be missing. Raises DataError with the row, the field and the reason.
        """
        batch_size = self.rows_at_once if batch_size is None else batch_size
        for name, value in (("batch_size", batch_size), ("workers", workers)):
            require(value >= 1, field=name, got=value, allowed="at least 1", fix=f"leave {name} out", error=DataError)
        check_names(columns, self.inputs, self.outputs, "the columns")
        told = [name for name, item in self.outputs.items() if item.world_of is not None]
        require(not told, field="score", got=f"{', '.join(told)} in the world of an input", allowed="outputs that need no more than arrays",
                fix="use predict", error=DataError)  # fmt: skip
        counts = {name: len(cells) for name, cells in columns.items()}
        require(len(set(counts.values())) == 1, field="columns", got=counts, allowed="as many values in each",
                fix="give a value a row, None where it is missing", error=DataError)  # fmt: skip
        count = next(iter(counts.values()))
        require(count > 0, field="columns", got=counts, allowed="at least one row", fix="give values", error=DataError)
        fetch = file_fetcher(base)

        def answered(start: int) -> dict[str, dict[str, Any]]:
            rows = range(start, min(start + batch_size, count))
            fields, present = read_columns(self.inputs, self.contracts, columns, rows, fetch)
            for name, item in self.inputs.items():
                sizes = fields[name].sizes.max(0).tolist()
                require(not exceeds(sizes, item.patch(self.contracts[name])), field=name, got=sizes,
                        allowed="what the network looks at at once", fix="use predict, which answers it in windows",
                        error=DataError)  # fmt: skip
            decoded = self.decoded(fields, present, seed=seed)
            return {
                name: in_columns(item, self.contracts[name], decoded[name], self.certainty.get(name))
                for name, item in self.outputs.items()
            }

        with ThreadPoolExecutor(workers) as pool:
            parts = list(pool.map(answered, range(0, count, batch_size)))
        return {
            name: {key: _joined([part[name][key] for part in parts]) for key in parts[0][name]} for name in self.outputs
        }

    def _read(
        self, rows: Sequence[Any], names: Sequence[str], batch_size: int, base: str | Path
    ) -> Iterator[list[Row | DataError]]:
        """Batches of rows as the graph takes them; a DataError with the row's name in the place of a bad one."""
        require(batch_size >= 1, field="batch_size", got=batch_size, allowed="at least 1", fix="64 is usual",
                error=DataError)  # fmt: skip
        fetch, batch_size = file_fetcher(base), rows_at_once(self.inputs, self.contracts, batch_size)
        for start in range(0, len(rows), batch_size):
            values: list[Row | DataError] = []
            for row, where in zip(rows[start : start + batch_size], names[start : start + batch_size], strict=True):
                try:
                    values.append(read_row(self.inputs, self.contracts, self._cells(row, where), fetch))
                except FieldError as wrong:
                    values.append(DataError(f"{where}: field {wrong.field!r}: {wrong.reason}"))
                except DataError as wrong:
                    values.append(wrong)
            yield values

    def _answered(self, part: Sequence[Row | DataError], seed: int) -> Iterator[dict[str, Any] | DataError]:
        """The answers of a batch in its order, with what is wrong in its place."""
        good = [item for item in part if not isinstance(item, DataError)]
        answers = self.answers(good, seed=seed) if good else {}
        places = iter(range(len(good)))
        for item in part:
            if isinstance(item, DataError):
                yield item
            else:
                place = next(places)
                yield {name: answers[name][place].to_dict() for name in self.outputs}

    def answers(self, rows: Sequence[Row], *, seed: int = 0) -> dict[str, list[Answer]]:
        """Final answers for rows that have been read (`rows.read_row`)."""
        most = rows_at_once(self.inputs, self.contracts, len(rows))
        found: dict[str, list[Answer]] = {name: [] for name in self.outputs}
        for start in range(0, len(rows), most):
            for name, answers in self._some_answers(list(rows[start : start + most]), seed).items():
                found[name] += answers
        return answered(self.outputs, self.contracts, self.certainty, in_world(self.outputs, found, rows))

    def _some_answers(self, rows: list[Row], seed: int) -> dict[str, list[Answer]]:
        if all(seen_at_once(self.inputs, self.contracts, row) for row in rows):
            return written(self.outputs, self.contracts, self._windows(seed, rows), len(rows))
        decode = partial(self._windows, seed)
        whole = [window_by_window(self.inputs, self.outputs, self.contracts, row, decode) for row in rows]
        return {
            name: [item.write(row[name], self.contracts[name]) for row in whole] for name, item in self.outputs.items()
        }

    def _windows(self, seed: int, rows: list[Row]) -> dict[str, dict[str, np.ndarray]]:
        return self.decoded(*collate(self.inputs, self.contracts, rows), seed=seed)

    def decoded(
        self, fields: Mapping[str, Ragged], present: Mapping[str, np.ndarray], *, seed: int = 0
    ) -> dict[str, dict[str, np.ndarray]]:
        """What the graph gives for a padded batch: {output: {key: array, batch first}}."""
        arrays = self.session.run([tensor for _, _, tensor in self._answers], self.feed(fields, present, seed=seed))
        found: dict[str, dict[str, np.ndarray]] = {name: {} for name in self.outputs}
        for (name, key, _), array in zip(self._answers, arrays, strict=True):
            found[name][key] = array
        return found

    def feed(
        self, fields: Mapping[str, Ragged], present: Mapping[str, np.ndarray], *, seed: int = 0
    ) -> dict[str, np.ndarray]:
        """A padded batch under the graph's own input names."""
        found = feed(self.inputs, self.contracts, fields, present)
        rows = len(next(iter(present.values())))
        found |= {f"{name}{SEED}": np.full(rows, seed, np.int64) for name in self.outputs}  # taken where one is drawn
        for name, wanted in self._dtypes.items():
            # A graph may not use an input at all (a model that ignores it); one of another dtype is never cast here,
            # since int16 and float samples of the same sound differ by a factor.
            require(found[name].dtype == wanted, field=name, got=str(found[name].dtype),
                    allowed=str(np.dtype(wanted)), fix="this is a defect of that modality's transform",
                    error=ModelError)  # fmt: skip
        return {name: found[name] for name in self._dtypes}

    def _cells(self, row: Any, where: str) -> Mapping[str, Any]:
        if isinstance(row, Mapping):
            check_names(row, self.inputs, self.outputs, where)
            return row
        names = list(self.inputs)
        require(len(names) == 1, field=where, got=row, allowed=f"a mapping with the inputs {', '.join(names)}",
                fix=f"give {{{names[0]!r}: ..., {names[-1]!r}: ...}}", error=DataError)  # fmt: skip
        return {names[0]: row}

    # ---- what it promises --------------------------------------------------------------------------------------

    def verify(self) -> list[Difference]:
        """Answer the golden inputs again, all at once and one by one, and compare with what the model answered."""
        golden = read_json(self.folder / GOLDEN)
        rows, expected = [item["inputs"] for item in golden], [item["answers"] for item in golden]
        together = self.predict(rows, base=self.folder)
        alone = [self.predict(row, base=self.folder) for row in rows]
        return [*differences(expected, together), *differences(expected, alone)]

    def __repr__(self) -> str:
        takes = ", ".join(f"{name}: {item.type}" for name, item in self.inputs.items())
        gives = ", ".join(f"{name}: {item.type}" for name, item in self.outputs.items())
        return f"Bundle {self.description['name']} ({takes} -> {gives})"


def _joined(parts: Sequence[Any]) -> Any:
    """Parts of a column, one behind the other."""
    first = parts[0]
    if isinstance(first, Mapping) and all(isinstance(part, Mapping) for part in parts):
        return {key: _joined([part[key] for part in parts]) for key in first}
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate(parts)
    return None if first is None else [entry for part in parts for entry in part]


def session(graph: Path, *, threads: int | None = None) -> Any:
    """An ONNX Runtime session on the CPU."""
    runtime = need("onnxruntime", extra="export", what="a bundle")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors only: a warning of the optimiser is nobody's business here
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    return runtime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def feed(
    inputs: Mapping[str, Modality],
    contracts: Mapping[str, Contract],
    fields: Mapping[str, Ragged],
    present: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """A padded batch as the graph's inputs: `name`, `name.sizes` where rows differ, `name.present` where one may be
    missing."""
    found = {}
    for name, item in inputs.items():
        found[name] = fields[name].values
        if item.axes:
            found[f"{name}.sizes"] = fields[name].sizes
        if may_be_missing(item, contracts[name]):
            found[f"{name}.present"] = present[name]
    return found


def differences(expected: Sequence[Mapping[str, Any]], got: Sequence[Mapping[str, Any]]) -> list[Difference]:
    """Where answers (as `Answer.to_dict` gives them, by output) differ: labels and text at all, numbers by more than
    1e-4 of their size, scores by more than 1e-4, sounds by more than 2 % of their level, masks in more than 1 % of
    their pixels, pictures by more than a step of 256."""
    wanted = [dict(_leaves(plain(row), "")) for row in expected]
    found = [dict(_leaves(plain(row), "")) for row in got]
    sizes: dict[str, list[float]] = {}
    for row in wanted:
        for where, value in row.items():
            if isinstance(value, float):
                sizes.setdefault(_measured_as(where, row), []).append(abs(value))
    out = []
    for index, (one, other) in enumerate(zip(wanted, found, strict=True)):
        for where in [*one, *(name for name in other if name not in one)]:
            allowed = _allowed(where, one.get(where), sizes.get(_measured_as(where, one), ()))
            if not _same(one.get(where), other.get(where), allowed):
                out.append(Difference(index, where, one.get(where), other.get(where), allowed))
    return out


def largest_difference(expected: Sequence[Mapping[str, Any]], got: Sequence[Mapping[str, Any]]) -> float:
    """The largest absolute difference of any score or number, for the record."""
    largest = 0.0
    for one, other in zip(expected, got, strict=True):
        found = dict(_leaves(plain(other), ""))
        for where, value in _leaves(plain(one), ""):
            if isinstance(value, float) and isinstance(found.get(where), int | float):
                largest = max(largest, abs(value - found[where]))
    return largest


def _leaves(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _leaves(item, f"{where}.{name}" if where else str(name))
    elif isinstance(value, list):
        yield f"{where}.length", len(value)
        for index, item in enumerate(value):
            yield from _leaves(item, f"{where}.{index}")
    else:
        yield where, value


def _measured_as(where: str, row: Mapping[str, Any]) -> str:
    """A long list is a vector in a space: its numbers are measured against all of them, not each against itself."""
    whole = where.rpartition(".")[0]
    return whole if row.get(f"{whole}.length", 0) >= VECTOR else where


def _allowed(where: str, value: Any, sizes: Sequence[float]) -> float | None:
    if not isinstance(value, float):
        return None
    if where.split(".")[1] == "value":
        return NUMBER_TOLERANCE * max(abs(value), sum(sizes) / len(sizes))
    return SCORE_TOLERANCE * max(1.0, abs(value))


def _same(one: Any, other: Any, allowed: float | None) -> bool:
    if isinstance(one, str) and isinstance(other, str) and one.startswith(WAV_URI) and other.startswith(WAV_URI):
        return _same_sound(uri_samples(one), uri_samples(other))
    if isinstance(one, str) and isinstance(other, str) and one.startswith(NIFTI_URI):
        return other.startswith(NIFTI_URI) and (one == other or _same_classes(uri_volume(one), uri_volume(other)))
    if isinstance(one, str) and isinstance(other, str) and one.startswith(PNG_URI):
        return other.startswith(PNG_URI) and _same_drawing(one, other)
    if allowed is None or isinstance(other, bool) or not isinstance(other, int | float):
        return type(one) is type(other) and bool(one == other)
    return math.isfinite(other) and abs(one - other) <= allowed


def _same_sound(one: np.ndarray, other: np.ndarray) -> bool:
    """Root mean squares, with room for one step of 16 bits."""
    if len(one) != len(other):
        return False
    level, apart = (float(np.sqrt(np.mean(np.square(part)))) if len(one) else 0.0 for part in (one, one - other))
    return apart <= SOUND_TOLERANCE * level + 1.0


def _same_drawing(one: str, other: str) -> bool:
    """Classes of which two are equally probable may fall either way."""
    if one == other:
        return True
    (pixels, classes), (others, also) = uri_pixels(one), uri_pixels(other)
    if pixels.shape != others.shape or pixels.dtype != others.dtype or classes != also:
        return False
    if classes:
        return _same_classes(pixels, others)
    step = 1 if pixels.dtype.itemsize == 1 else 257
    return int(np.abs(pixels.astype(np.int64) - others.astype(np.int64)).max(initial=0)) <= step


def _same_classes(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and int((one != other).sum()) <= max(1, MASK_TOLERANCE * one.size)


def _declaration(values: Mapping[str, Any], classes: Mapping[str, type[Modality]]) -> Modality:
    fields = dict(values)
    name = str(fields.pop("type"))
    if name not in classes and name not in TABLE:
        raise refusal(field="type", got=name, allowed="a modality of this package, or one that is passed",
                      fix="Bundle.load(folder, modalities=[TheClass])", error=ModelError)  # fmt: skip
    return build(classes[name] if name in classes else modality_class(name), fields, DESCRIPTION)


def _check_description(values: Any) -> None:
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ValueError(f"{DESCRIPTION} is not the description of a bundle")
    if values.get("version") != VERSION:
        raise ValueError(f"version {values.get('version')!r} of the format; this runner reads version {VERSION}")
    if set(values) != ENTRIES:
        raise ValueError(f"{DESCRIPTION} lacks or adds: {', '.join(sorted(set(values) ^ ENTRIES))}")


def _check_files(folder: Path, files: Mapping[str, str]) -> None:
    for name, wanted in files.items():
        file = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"{name!r} lies outside the bundle")
        check_regular(file)
        with file.open("rb") as opened:
            if hashlib.file_digest(opened, "sha256").hexdigest() != wanted:
                raise ValueError(f"the checksum of {name} is not the one in {DESCRIPTION}: it is damaged or changed")


# ---- the command line of a bundle -----------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """`python run.py INPUT... [--json] [--input name=value] [--verify]`; the exit code."""
    parser = argparse.ArgumentParser(prog="run.py", description="Answers from raw values.")
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="a file or text for a model with one input, a JSON "
                        "object of inputs, or a table (.csv, .tsv, .jsonl) with a column for each input")  # fmt: skip
    parser.add_argument("--input", action="append", default=[], metavar="NAME=VALUE", help="one row, input by input")
    parser.add_argument("--json", action="store_true", help="one JSON line a row")
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        help="write answers of sound, pictures and volumes there, as NUMBER-OUTPUT.wav, .png or .nii.gz",
    )
    parser.add_argument("--threads", type=int, help="threads of ONNX Runtime; default: its own choice")
    parser.add_argument("--batch-size", type=int, default=64, help="rows at once")
    parser.add_argument("--seed", type=int, default=0, help="of answers that are drawn by chance: which one")
    parser.add_argument("--verify", action="store_true", help="answer the golden inputs again and compare")
    given = parser.parse_args(arguments)
    try:
        bundle = Bundle.load(threads=given.threads)
        if given.verify:
            return _print_verification(bundle)
        groups = _command_rows(bundle, given.inputs, given.input)
        require(bool(groups), field="INPUT", got=None, allowed="at least one input", fix="see --help", error=DataError)
        several = sum(len(rows) for _, rows, _ in groups) > 1  # then each answer says whose it is
        number = failed = 0
        for base, rows, names in groups:
            parts = bundle._read(rows, names, given.batch_size, base)
            for name, answers in zip(
                names, (item for part in parts for item in bundle._answered(part, given.seed)), strict=True
            ):
                number += 1
                if isinstance(answers, DataError):  # the others are answered all the same
                    failed += 1
                    if given.json:
                        print(json.dumps({"error": str(answers)}, ensure_ascii=False))  # noqa: T201
                    else:
                        print(answers, file=sys.stderr)  # noqa: T201
                    continue
                if given.out is not None:
                    answers = _saved(answers, Path(given.out), number)
                if given.json:
                    print(json.dumps({"row": name, "outputs": plain(answers)}, ensure_ascii=False))  # noqa: T201
                else:
                    print(f"{name}: {_spoken(answers)}" if several else _spoken(answers))  # noqa: T201
    except EndwiseError as wrong:
        print(wrong, file=sys.stderr)  # noqa: T201
        return wrong.exit_code
    return DataError.exit_code if failed else 0


def _saved(answers: Mapping[str, Any], folder: Path, number: int) -> dict[str, Any]:
    """The answers with every sound, picture and volume written to a file and its path in its place."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, answer in answers.items():
        found[name] = dict(answer)
        value = answer["value"] if isinstance(answer["value"], str) else ""
        kinds = ((WAV_URI, ".wav", from_uri), (PNG_URI, ".png", drawn_from_uri), (NIFTI_URI, ".nii.gz", volume_file))
        for start, suffix, data in kinds:
            if value.startswith(start):
                file = folder / f"{number:04d}-{name}{suffix}"
                file.write_bytes(data(value))
                found[name]["value"] = str(file)
    return found


def _print_verification(bundle: Bundle) -> int:
    wrong = bundle.verify()
    for item in wrong:
        print(item, file=sys.stderr)  # noqa: T201
    print("the golden inputs get other answers here" if wrong else "the golden inputs get the same answers")  # noqa: T201
    return 7 if wrong else 0


def _command_rows(
    bundle: Bundle, items: Sequence[str], pairs: Sequence[str]
) -> list[tuple[Path, list[Any], list[str]]]:
    """What was given, as (folder of relative paths, rows, their names for people)."""
    here = Path()
    groups: list[tuple[Path, list[Any], list[str]]] = []
    for item in items:
        suffix = Path(item).suffix.lower()
        if suffix in (".csv", ".tsv", ".jsonl", ".ndjson"):
            rows, names = _table(bundle, Path(item))
            groups.append((Path(item).parent, rows, names))
        elif item.lstrip().startswith("{"):
            groups.append((here, [_object(item, "INPUT")], [_short(item)]))
        else:
            groups.append((here, [item], [_short(item)]))
    if pairs:
        row = {}
        for pair in pairs:
            name, sign, value = pair.partition("=")
            require(bool(sign), field="--input", got=pair, allowed="NAME=VALUE", error=DataError,
                    fix=f"write --input {next(iter(bundle.inputs))}=...")  # fmt: skip
            row[name] = value
        groups.append((here, [row], ["the row"]))
    return groups


def _short(item: str) -> str:
    """An input as the name of its own row: a path as it is, the beginning of a text."""
    line = item.partition("\n")[0]
    return line if len(line) <= 120 else f"{line[:119]}…"


def _table(bundle: Bundle, file: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The inputs' columns of a CSV, TSV or JSONL table, and the rows' names; an empty cell is a missing value."""
    rows: list[tuple[int, dict[str, Any]]]
    try:
        if file.suffix.lower() in (".csv", ".tsv"):
            with wide_fields(), file.open("rb") as opened:
                names, lines = rows_of(opened, "," if file.suffix.lower() == ".csv" else "\t", str(file))
                rows = [(number, dict(zip(names, row, strict=True))) for number, row in lines]
        else:
            numbered = enumerate(file.read_text(encoding="utf-8-sig").split("\n"), 1)
            rows = [(number, _object(line, f"{file} line {number}")) for number, line in numbered if line.strip()]
    except (OSError, UnicodeDecodeError) as wrong:
        raise DataError(f"{file}: the table cannot be read: {wrong}. Fix: give an existing UTF-8 file.") from None
    found = []
    for _, row in rows:
        cells = {name: item.cell_of(row, name) for name, item in bundle.inputs.items()}
        found.append({name: None if value == "" or is_missing(value) else value for name, value in cells.items()})
    return found, [f"{file.name} line {number}" for number, _ in rows]


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as wrong:
        raise DataError(f'{where}: not JSON: {wrong}. Fix: write {{"name": value, ...}}.') from None
    require(isinstance(found, dict), field=where, got=text, allowed="a JSON object", fix='write {"name": value, ...}',
            error=DataError)  # fmt: skip
    return dict(found)


def _spoken(answers: Mapping[str, Any]) -> str:
    parts = []
    for name, answer in answers.items():
        if answer.get("abstained"):
            parts.append(f"{name}: {abstention(answer['confidence'], answer['detail']['best_guess'])}")
            continue
        sure = f" ({answer['confidence']:.0%})" if answer.get("confidence") is not None else ""
        unit = f" {answer['unit']}" if answer.get("unit") else ""
        value = answer["value"]
        if isinstance(value, str) and value.startswith(WAV_URI):
            value = "(sound: give --out FOLDER or --json)"
        if isinstance(value, str) and value.startswith(PNG_URI):
            value = "(picture: give --out FOLDER or --json)"
        if isinstance(value, str) and value.startswith(NIFTI_URI):
            value = "(volume: give --out FOLDER or --json)"
        parts.append(f"{name}: {listed(value, answer.get('detail', {}).get('more', ())) or value}{unit}{sure}")
    return "   ".join(parts)
