"""Model: save, load, predict. The only way from raw values to answers, used by every verb.

Here: reading what a caller gives, batching, the network, writing answers. Not here: the folder a model lives in
(artefact.py), training (train), scores (evaluate.py), files of raw values (modalities) and the layers (nn).
"""

import contextlib
import html
import json
import math
import os
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, overload

import numpy as np
import torch
from torch import Tensor

from endwise import artefact
from endwise.batch import Batch, Ragged
from endwise.certainty import Certainty, certainties
from endwise.errors import DataError, ModelError, require, unknown_name
from endwise.modalities.base import Answer, Contract, Fetch, Modality
from endwise.network import Network, Predictions, seeded
from endwise.nn.interface import Encoder, Head
from endwise.nn.size import Size
from endwise.patches import exceeds
from endwise.recipe import Recipe
from endwise.rows import (
    FieldError,
    Row,
    abstention,
    answered,
    check_names,
    collate,
    content,
    file_fetcher,
    in_world,
    listed,
    may_be_missing,
    opens,
    read_row,
    rows_at_once,
    seen_at_once,
    window_by_window,
    written,
)
from endwise.stages import network_of
from endwise.stream import Stream

if TYPE_CHECKING:
    from endwise.run import Run

WINDOW_BATCHES = 16  # rows are sorted by length inside windows of so many batches (of volumes fewer): memory is bounded
READERS = min(8, os.cpu_count() or 1)  # decoders release the interpreter lock
OnBad = Literal["raise", "keep"]


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answers for one row: `prediction["words"]` is the value, `prediction.answers["words"]` all there is to say.
    origin: the row's name for people (a file, a table's line); None where one row was given as it is. inputs: the sha256 of
    each raw value, where they were asked for."""

    answers: Mapping[str, Answer]
    origin: str | None = field(default=None, compare=False)
    inputs: Mapping[str, str] | None = field(default=None, compare=False, repr=False)

    def __getitem__(self, output: str) -> Any:
        if output not in self.answers:
            raise unknown_name(field="output", got=output, names=self.answers, error=ModelError)
        return self.answers[output].value

    def to_dict(self) -> dict[str, Any]:
        """For JSON: {output: {"value":, "confidence":, ...}}."""
        return {name: answer.to_dict() for name, answer in self.answers.items()}

    def __str__(self) -> str:
        return ", ".join(_spoken(name, answer) for name, answer in self.answers.items())

    def __repr__(self) -> str:
        return f"Prediction({self})"


@dataclass(frozen=True, slots=True)
class _Source:
    """Rows as predict sees them: how many, the raw cells of one by input name, its name for people, its files."""

    count: int
    cells: Callable[[int], Mapping[str, Any]]
    origin: Callable[[int], str]
    fetch: Fetch


class Model:
    """Raw values in, final answers out. Made by `build` (untrained) or `load`; safe to call from several threads."""

    def __init__(
        self, recipe: Recipe, contracts: Mapping[str, Contract], network: Network, size: Size, info: Mapping[str, Any]
    ) -> None:
        self.recipe, self.contracts, self.network, self.size = recipe, dict(contracts), network, size
        self.info: dict[str, Any] = dict(info)
        self.run: Run | None = None

    @classmethod
    def build(cls, recipe: Recipe, contracts: Mapping[str, Contract], *, seed: int) -> Self:
        """An untrained model: the weights are a function of (recipe, contracts, seed). The caller's random state is
        left as it was."""
        for name, contract in contracts.items():
            try:
                json.dumps(contract.to_dict(), allow_nan=False)
            except ValueError:
                raise ModelError(
                    f"the contract of {name!r} holds NaN or infinity: {contract}. Fix: look at that column."
                ) from None
        size = Size.of(recipe.train.size, **recipe.trunk.model_dump())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = network_of(recipe, contracts, size)
        network.load_pretrained()
        for part in network.modules():
            if isinstance(part, Encoder):
                part.augment = recipe.train.augment
        return cls(recipe, contracts, network.eval(), size, {})

    # ---- what it is -------------------------------------------------------------------------------------------

    @property
    def parameters(self) -> int:
        """How many numbers are learnt."""
        return sum(weight.numel() for weight in self.network.parameters())

    @property
    def certainty(self) -> dict[str, Certainty]:
        """What validation rows taught about the answers of each output, once it is calibrated."""
        return certainties(self.info)

    @property
    def device(self) -> torch.device:
        """Where the network is; inputs are sent there."""
        return next(self.network.parameters()).device

    def to(self, device: torch.device | str) -> Self:
        """Move the network; answers stay plain values."""
        self.network.to(device)
        return self

    def __repr__(self) -> str:
        size = self.size
        lines = [f"Model {self.recipe.name or ''}".rstrip()]
        lines += [
            f"  in   {name}: {item.type} ({item.summary(self.contracts[name])})"
            for name, item in self.recipe.inputs.items()
        ]
        lines += [f"  net  width {size.width}, depth {size.depth}, {size.heads} heads, {self.parameters:,} parameters"]
        lines += [
            f"  out  {name}: {item.type} ({item.summary(self.contracts[name])})"
            for name, item in self.recipe.outputs.items()
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """For notebooks: inputs -> network -> outputs."""
        box = "border:1px solid #8886;border-radius:6px;padding:6px 10px;margin:2px 0"

        def column(items: Mapping[str, Modality]) -> str:
            cells = [
                f"<div style='{box}'><b>{html.escape(name)}</b> {html.escape(item.type)}<br>"
                f"<small>{html.escape(item.summary(self.contracts[name]))}</small></div>"
                for name, item in items.items()
            ]
            return f"<div>{''.join(cells)}</div>"

        network = (
            f"<div style='{box}'><b>network</b> {html.escape(self.recipe.name or '')}<br><small>{self.parameters:,} parameters, "
            f"width {self.size.width}, depth {self.size.depth}</small></div>"
        )
        parts = "<div>→</div>".join([column(self.recipe.inputs), network, column(self.recipe.outputs)])
        return f"<div style='display:flex;gap:10px;align-items:center;flex-wrap:wrap'>{parts}</div>"

    # ---- raw values to answers ---------------------------------------------------------------------------------

    @overload
    def predict(
        self, rows: Mapping[str, Any], *, batch_size: int = 64, base: str | Path = ".", hashed: bool = False
    ) -> Prediction: ...

    @overload
    def predict(
        self, rows: Any, *, batch_size: int = 64, base: str | Path = ".", hashed: bool = False
    ) -> list[Prediction]: ...

    def predict(
        self, rows: Any, *, batch_size: int = 64, base: str | Path = ".", hashed: bool = False
    ) -> Prediction | list[Prediction]:
        """One mapping {input: raw value} in, one Prediction out. A list of them, a frame, a table's path, or the path
        of one raw file when there is a single input: a list of Predictions, in the order of the rows.

        base: the folder that relative paths are taken from (a table's are taken from the table's folder). hashed: with the
        hashes of the raw values, which `Decisions.followed` writes down.
        Raises DataError with the row, the field and the reason when a value cannot be read; `predict_iter` goes on.
        """
        if isinstance(rows, Mapping):
            return self._one(rows, base, hashed)
        found = self.predict_iter(rows, batch_size=batch_size, base=base, hashed=hashed)
        return [item for item in found if isinstance(item, Prediction)]  # all of them: on_bad is 'raise'

    def predict_iter(
        self, rows: Any, *, batch_size: int = 64, base: str | Path = ".", on_bad: OnBad = "raise", hashed: bool = False
    ) -> Iterator[Prediction | DataError]:
        """The same for any number of rows in bounded memory, in their order. on_bad = 'keep': a row that cannot be
        read gives a DataError in its place, and the others go on."""
        require(
            batch_size >= 1,
            field="batch_size",
            got=batch_size,
            allowed="a whole number of at least 1",
            fix="64 is usual",
            error=DataError,
        )
        require(
            on_bad in ("raise", "keep"),
            field="on_bad",
            got=on_bad,
            allowed="'raise' or 'keep'",
            fix="choose one",
            error=DataError,
        )
        source = self._source(rows, base)
        return self._predict_source(source, batch_size, on_bad, hashed)

    def sample(
        self,
        row: Mapping[str, Any],
        *,
        count: int = 1,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
        base: str | Path = ".",
        hashed: bool = False,
    ) -> list[Prediction]:
        """`count` answers to one row, drawn at random: what a text output by attention or lm might have written, or the
        pictures that one by flow might have drawn. The same seed draws the same. temperature: 0 is greedy, 1 the network's own probabilities; top_p: only the most
        probable symbols that together reach it (Holtzman et al. 2020). Other outputs are in each answer as `predict` has
        them. ModelError when no output is written symbol after symbol."""
        for name, value, allowed, kept in (
            ("count", count, "at least 1", count >= 1),
            ("temperature", temperature, "0 or more", 0 <= temperature < math.inf),
            ("top_p", top_p, "above 0 and at most 1", 0 < top_p <= 1),
        ):
            require(kept, field=name, got=value, allowed=allowed, fix=f"change {name}", error=DataError)
        written = [
            name for name in self.network.output_names if type(self.network.head(name)).sample is not Head.sample
        ]
        require(
            bool(written),
            field="sample",
            got=", ".join(self.recipe.outputs),
            allowed="a model with a text output by attention, ctc+attention or lm, or a picture by flow",
            fix="use predict: its detail has the probabilities",
            error=ModelError,
        )
        values, hashes = self._read_one(row, base, hashed)
        chance = torch.Generator(self.device).manual_seed(seed)
        with torch.inference_mode(), self._evaluating():
            found = self.predicted([values])
            decoded = self.network.decode({name: part for name, part in found.items() if name not in written})
            draws = {
                name: self.network.head(name).sample(
                    found[name], count=count, temperature=temperature, top_p=top_p, chance=chance
                )
                for name in written
            }
        arrays = {
            name: {key: np.repeat(_array(value), count, 0) for key, value in part.items()}
            for name, part in decoded.items()
        }
        drawn = {name: {key: _array(value)[0] for key, value in part.items()} for name, part in draws.items()}
        given = {**self.given(arrays, count, of=[values] * count), **self.written(drawn, count)}
        drawn_answers = [{name: given[name][draw] for name in self.recipe.outputs} for draw in range(count)]
        return [Prediction(answers, inputs=hashes) for answers in drawn_answers]

    def predict_files(
        self, inputs: Sequence[str], *, batch_size: int = 64, hashed: bool = False
    ) -> Iterator[Prediction | DataError]:
        """What the command line gives: tables, folders and raw files, in their order; a row or a file that cannot be
        read gives a DataError in its place. Raw files need a model with a single input. hashed: as for `predict_iter`."""
        files: list[str] = []
        for item in inputs:
            if not is_rows(item):
                files.append(item)
                continue
            yield from self._files(files, batch_size, hashed)
            files = []
            try:
                yield from self.predict_iter(item, batch_size=batch_size, on_bad="keep", hashed=hashed)
            except DataError as wrong:
                yield wrong
        yield from self._files(files, batch_size, hashed)

    def _files(self, files: list[str], batch_size: int, hashed: bool) -> Iterator[Prediction | DataError]:
        if not files:
            return
        names = list(self.recipe.inputs)
        require(
            len(names) == 1,
            field="INPUT",
            got=files[0],
            allowed="a table with the columns " + ", ".join(names),
            fix=f"or give one row as {' '.join(f'--input {name}=VALUE' for name in names)}",
            error=DataError,
        )
        name, fetch = names[0], file_fetcher(".")
        opened = opens(self.recipe.inputs[name], files[0], fetch)

        def cells(row: int) -> dict[str, str]:
            return {name: files[row] if opened else content(name, files[row], fetch)}

        source = _Source(len(files), cells, files.__getitem__, fetch)
        yield from self._predict_source(source, batch_size, "keep", hashed)

    def stream(self) -> Stream:
        """A row whose input comes in piece by piece: feed them, and the answers grow. Raises ModelError with the fix
        where the recipe has no input that streams (`chunk_s:` of audio, `causal:` of text) or no answer that grows."""
        held = [name for name, item in self.recipe.outputs.items() if item.abstain is not None]
        require(not held, field="stream", got=f"{', '.join(held)} abstains", allowed="outputs without abstain:",
                fix="what is withheld is known when the whole is there: use predict", error=ModelError)  # fmt: skip
        return Stream(self.recipe, self.contracts, self.network)

    def answers(self, batch: Batch) -> dict[str, list[Answer]]:
        """A loader's batch to final answers, one per row, in the places of their inputs."""
        decoded = self.decoded(self.predictions(batch))
        return self.given(decoded, len(batch))

    def predictions(self, batch: Batch) -> Predictions:
        """Raw predictions of every head for a batch, as tensors on the model's device; nothing is learnt from them. Of what
        is drawn by chance each row gets another one, by its id."""
        device, inputs, present = self.device, {}, {}
        for name in self.recipe.inputs:
            if name in batch.inputs:
                inputs[name] = batch.inputs[name].to(device)
                present[name] = torch.as_tensor(batch.present[name], device=device)
            else:  # an optional input whose column a scored table does not have
                blank, declared = self.recipe.inputs[name].blank(self.contracts[name]), self.recipe.inputs[name]
                inputs[name] = Ragged.stack([blank] * len(batch), declared.axes).to(device)
                present[name] = torch.zeros(len(batch), dtype=torch.bool, device=device)
        with torch.inference_mode(), self._evaluating():
            rows = self._large(inputs, present)
            found = self._seen(inputs, present) if rows is None else self._in_windows(rows, self.network.output_names)
        return seeded(self.network, found, torch.as_tensor(batch.row_ids, device=device))

    def _seen(self, inputs: Mapping[str, Ragged], present: Mapping[str, Tensor]) -> Predictions:
        """What the network says to rows that it sees whole, as many at a time as the memory should hold."""
        count = len(next(iter(present.values())))
        most = rows_at_once(self.recipe.inputs, self.contracts, count)
        parts: list[Predictions] = [
            self.network(
                {name: field.rows(slice(start, start + most)) for name, field in inputs.items()},
                {name: there[start : start + most] for name, there in present.items()},
            )
            for start in range(0, count, most)
        ]
        if len(parts) == 1:
            return parts[0]
        return {
            name: {key: torch.cat([part[name][key] for part in parts]) for key in parts[0][name]} for name in parts[0]
        }

    def _large(
        self, inputs: Mapping[str, Ragged], present: Mapping[str, Tensor]
    ) -> list[dict[str, np.ndarray | None]] | None:
        """The rows of a batch one by one, where one is larger than what the network looks at at once; else None."""
        sides = {name: item.patch(self.contracts[name]) for name, item in self.recipe.inputs.items()}
        large = (exceeds(inputs[name].sizes.amax(0).tolist(), side) for name, side in sides.items() if side is not None)
        if not any(large):
            return None
        rows: list[dict[str, np.ndarray | None]] = []
        for row in range(len(next(iter(present.values())))):
            own: dict[str, np.ndarray | None] = {}
            for name, given in inputs.items():
                real = tuple(slice(side) for side in given.sizes[row].tolist())
                own[name] = given.values[row][real].cpu().numpy() if bool(present[name][row]) else None
            rows.append(own)
        return rows

    def _in_windows(self, rows: Sequence[Mapping[str, np.ndarray | None]], names: Iterable[str]) -> Predictions:
        """As the network gives it for these outputs, put together from windows over each row."""
        outputs = {name: self.recipe.outputs[name] for name in names}

        def answered(parts: list[Row]) -> dict[str, dict[str, np.ndarray]]:
            predictions = self.network(*self._sent(parts))
            return {name: {key: _array(value) for key, value in part.items()} for name, part in predictions.items()}

        found = [
            window_by_window(self.recipe.inputs, outputs, self.contracts, row, answered, whole=True) for row in rows
        ]
        return {
            name: {
                key: torch.from_numpy(value).to(self.device)
                for key, value in item.stacked([row[name] for row in found]).items()
            }
            for name, item in outputs.items()
        }

    def _concluded(self, row: Row) -> Prediction:
        """Final answers to a row that is answered in windows: those that `predicted` comes to, where less than all that the
        network says is held of outputs that need no more."""
        outputs = {name: self.recipe.outputs[name] for name in self.network.output_names}
        short = {name: item for name, item in outputs.items() if type(item).concluded is not Modality.concluded}

        def answered(parts: list[Row]) -> dict[str, dict[str, np.ndarray]]:
            return self.decoded(self.network(*self._sent(parts)))

        found = window_by_window(self.recipe.inputs, short, self.contracts, row, answered)
        decoded = {name: {key: value[None] for key, value in part.items()} for name, part in found.items()}
        rest = [name for name in outputs if name not in short]
        decoded |= self.decoded(self._in_windows([row], rest)) if rest else {}
        given = self.given(decoded, 1, of=[row])
        return Prediction({name: given[name][0] for name in outputs})

    def decoded(self, predictions: Predictions, *, draft: bool = False) -> dict[str, dict[str, np.ndarray]]:
        """Decoded answers of a batch as numpy arrays, batch first; of the outputs that are given. draft: see `Head.draft`."""
        with torch.inference_mode(), self._evaluating():
            found = self.network.decode(predictions, draft=draft)
        return {name: {key: _array(value) for key, value in part.items()} for name, part in found.items()}

    def written(self, decoded: Mapping[str, Mapping[str, np.ndarray]], rows: int) -> dict[str, list[Answer]]:
        """Decoded arrays as the user's kind of values, as the heads say them: no confidence mapped, none withheld."""
        outputs = {name: item for name, item in self.recipe.outputs.items() if name in decoded}
        return written(outputs, self.contracts, decoded, rows)

    def given(
        self, decoded: Mapping[str, Mapping[str, np.ndarray]], rows: int, *, of: Sequence[Row] | None = None
    ) -> dict[str, list[Answer]]:
        """Decoded arrays as final answers: as sure as they deserve, and withheld where an output abstains. of: the rows as
        they were read, for outputs that are said in the world of an input; without them these stay in its places."""
        outputs = {name: item for name, item in self.recipe.outputs.items() if name in decoded}
        found = self.written(decoded, rows)
        said = found if of is None else in_world(outputs, found, of)
        return answered(outputs, self.contracts, self.certainty, said)

    def row_losses(self, predictions: Predictions, batch: Batch) -> dict[str, dict[str, np.ndarray]]:
        """{output: {term: float64 [batch, 2]}}: each row's loss per unit and how many units it has (a sample weight
        of the row is not in it), of the outputs that are given."""
        found = {}
        with torch.inference_mode(), self._evaluating():
            for name, prediction in predictions.items():
                head, target = self.network.head(name), batch.targets[name].to(self.device)
                units = _float64(head.weight(target.values, target.sizes))
                terms = head.loss(prediction, target.values, target.sizes)
                found[name] = {term: np.stack([_float64(loss), units], axis=1) for term, loss in terms.items()}
        return found

    def row_measures(self, predictions: Predictions, batch: Batch) -> dict[str, dict[str, np.ndarray]]:
        """{output: {name: float64 [batch, 2]}}: what metrics look at that is no loss (`Head.measures`)."""
        found = {}
        with torch.inference_mode(), self._evaluating():
            for name, prediction in predictions.items():
                target = batch.targets[name].to(self.device)
                made = self.network.head(name).measures(prediction, target.values, target.sizes)
                found[name] = {key: _float64(value) for key, value in made.items()}
        return found

    def _one(self, row: Mapping[str, Any], base: str | Path, hashed: bool) -> Prediction:
        """The short way for one row: no threads, no sorting, no batch but the row."""
        values, hashes = self._read_one(row, base, hashed)
        (found,) = self.answered([values])
        return found if hashes is None else replace(found, inputs=hashes)

    def _read_one(
        self, row: Mapping[str, Any], base: str | Path, hashed: bool
    ) -> tuple[dict[str, np.ndarray | None], dict[str, str] | None]:
        check_names(row, self.recipe.inputs, self.recipe.outputs, "the row")
        hashes: dict[str, str] | None = {} if hashed else None
        try:
            return read_row(self.recipe.inputs, self.contracts, row, file_fetcher(base), hashes), hashes
        except FieldError as wrong:
            raise DataError(f"the row: field {wrong.field!r}: {wrong.reason}") from None

    def answered(self, rows: Sequence[Mapping[str, np.ndarray | None]]) -> list[Prediction]:
        """Final answers for rows that have been read (`rows.read_row`), all in one batch; one by one where one is answered in
        windows."""
        with torch.inference_mode(), self._evaluating():
            if not all(seen_at_once(self.recipe.inputs, self.contracts, row) for row in rows):
                return [self._concluded(row) for row in rows]
            found = self.network.decode(self.predicted(rows))
        decoded = {name: {key: _array(value) for key, value in part.items()} for name, part in found.items()}
        given = self.given(decoded, len(rows), of=rows)
        return [Prediction({name: answers[row] for name, answers in given.items()}) for row in range(len(rows))]

    def predicted(self, rows: Sequence[Mapping[str, np.ndarray | None]]) -> Predictions:
        """Raw predictions for rows that have been read (`rows.read_row`), all in one batch: nothing is decoded."""
        with torch.inference_mode(), self._evaluating():
            if not all(seen_at_once(self.recipe.inputs, self.contracts, row) for row in rows):
                return self._in_windows(rows, self.network.output_names)
            return self._seen(*self._sent(rows))

    def _sent(self, rows: Sequence[Mapping[str, np.ndarray | None]]) -> tuple[dict[str, Ragged], dict[str, Tensor]]:
        """Rows as the network takes them."""
        inputs, present = collate(self.recipe.inputs, self.contracts, rows)
        device = self.device
        sent = {name: field.to(device) for name, field in inputs.items()}
        return sent, {name: torch.from_numpy(there).to(device) for name, there in present.items()}

    def _predict_source(
        self, source: _Source, batch_size: int, on_bad: OnBad, hashed: bool
    ) -> Iterator[Prediction | DataError]:
        window = rows_at_once(self.recipe.inputs, self.contracts, batch_size * WINDOW_BATCHES)
        with contextlib.ExitStack() as stack:
            pool = stack.enter_context(ThreadPoolExecutor(READERS)) if source.count > 1 and READERS > 1 else None
            for start in range(0, source.count, window):
                numbers = range(start, min(start + window, source.count))
                yield from self._predict_window(source, numbers, batch_size, on_bad, hashed, pool)

    def _predict_window(
        self,
        source: _Source,
        numbers: range,
        batch_size: int,
        on_bad: OnBad,
        hashed: bool,
        pool: ThreadPoolExecutor | None,
    ) -> Iterator[Prediction | DataError]:
        hashes: dict[int, dict[str, str]] = {}

        def read(row: int) -> dict[str, np.ndarray | None] | DataError:
            own = hashes.setdefault(row, {}) if hashed else None
            try:
                return read_row(self.recipe.inputs, self.contracts, source.cells(row), source.fetch, own)
            except FieldError as wrong:
                return DataError(f"{source.origin(row)}: field {wrong.field!r}: {wrong.reason}")

        found = list(map(read, numbers) if pool is None else pool.map(read, numbers, chunksize=8))
        results: list[Prediction | DataError | None] = [None] * len(found)
        good: list[tuple[int, int, dict[str, np.ndarray | None]]] = []
        for index, item in enumerate(found):
            if isinstance(item, DataError):
                if on_bad == "raise":
                    raise item
                results[index] = item
            else:
                good.append((self._length(item), index, item))
        good.sort(key=lambda entry: entry[:2])
        for start in range(0, len(good), batch_size):
            part = good[start : start + batch_size]
            for (_, index, _), prediction in zip(part, self.answered([item for _, _, item in part]), strict=True):
                row = numbers[index]
                results[index] = replace(prediction, origin=source.origin(row), inputs=hashes.get(row))
        yield from (item for item in results if item is not None)

    def _length(self, values: Mapping[str, np.ndarray | None]) -> int:
        return sum(
            item.length(value.shape) for name, item in self.recipe.inputs.items() if (value := values[name]) is not None
        )

    def _source(self, rows: Any, base: str | Path) -> _Source:
        """Whatever the caller gave, as rows; refuses what is no row of this model."""
        if isinstance(rows, Mapping):
            rows = [rows]
        if is_rows(rows):
            return self._table_source(rows, base)
        if not isinstance(rows, list | tuple):
            rows = [rows]
        cells = [self._cells(row, index) for index, row in enumerate(rows)]
        return _Source(len(cells), cells.__getitem__, lambda row: f"row {row + 1}", file_fetcher(base))

    def _cells(self, row: Any, index: int) -> Mapping[str, Any]:
        if isinstance(row, Mapping):
            check_names(row, self.recipe.inputs, self.recipe.outputs, f"row {index + 1}")
            return row
        names = list(self.recipe.inputs)
        require(
            len(names) == 1,
            field=f"row {index + 1}",
            got=row,
            error=DataError,
            allowed=f"a mapping with the inputs {', '.join(names)}",
            fix=f"give {{{names[0]!r}: ..., {names[-1]!r}: ...}}",
        )
        return {names[0]: row}

    def _table_source(self, rows: Any, base: str | Path) -> _Source:
        from endwise.data.gather import to_answer
        from endwise.data.join import joined
        from endwise.data.lookup import looked_up
        from endwise.data.table import open_table
        from endwise.data.windows import view

        if isinstance(rows, str | Path) and "://" not in str(rows):
            rows = str(Path(base) / rows)
        table = rows if hasattr(rows, "fetch") else open_table(rows)
        table = to_answer(table, self.recipe.data)
        table = view(joined(table, self.recipe.inputs), self.recipe, ahead=True)
        table = looked_up({"rows": table}, self.recipe)["rows"]
        columns: dict[str, Sequence[Any]] = {}
        for name, item in self.recipe.inputs.items():
            column = item.column or name
            if table.has(column):
                columns[name] = table.column(column)
            elif not may_be_missing(item, self.contracts[name]):
                several = item.reads_columns()
                raise unknown_name(
                    field=f"inputs.{name}.{'columns' if several else 'column'} (in {table.name})",
                    got=several[0] if several else column,
                    names=table.columns,
                    error=DataError,
                )
        return _Source(
            len(table), lambda row: {name: values[row] for name, values in columns.items()}, table.origin, table.fetch
        )

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Validation runs in the middle of training: dropout and augmentation rest for its time (the one use that is
        not for several threads)."""
        if not self.network.training:
            yield
            return
        self.network.eval()
        try:
            yield
        finally:
            self.network.train()

    # ---- the folder --------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write the model folder. A kill at any moment leaves the model that was there before, or this one."""
        artefact.write(Path(folder), self.recipe, self.contracts, self.network, self.size, self.info)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        modalities: Sequence[type[Modality]] = (),
        functions: Mapping[str, Callable[[dict[str, Any]], Any]] = types.MappingProxyType({}),
        device: str = "cpu",
    ) -> Self:
        """Read a model folder, or the one inside a run. Everything is checked before it is used; a file that is not
        what it should be raises ModelError and nothing in it is ever executed.

        modalities: classes from outside the package that the recipe names; no name in a file makes Python import.
        functions: of stages that are not learnt, by the stage's name.
        """
        recipe, contracts, network, size, info = artefact.read(folder, modalities, functions)
        certainties(info)  # refused when it is damaged
        return cls(recipe, contracts, network, size, info).to(device)


def _float64(value: Tensor) -> np.ndarray:
    return value.double().cpu().numpy()


def _array(value: Tensor) -> np.ndarray:
    """bfloat16 has no numpy type."""
    value = value.detach()
    return (value.float() if value.dtype == torch.bfloat16 else value).cpu().numpy()


def is_rows(rows: Any) -> bool:
    """A table or a folder by its path, or a frame: pandas, polars and our own all have columns."""
    if not isinstance(rows, str | Path):
        return hasattr(rows, "columns")
    from endwise.data.table import is_table

    text = str(rows)
    return text.startswith("hf://") or is_table(text) or text.endswith(".json") or _is_folder(text)


def _is_folder(text: str) -> bool:
    try:
        return Path(text).is_dir()
    except (OSError, ValueError):  # a text that is no path: too long, with a zero byte
        return False


def _spoken(name: str, answer: Answer) -> str:
    if answer.abstained:
        return f"{name}={abstention(answer.confidence, answer.detail['best_guess'])}"
    value = listed(answer.value, answer.detail.get("more", ())) or ""
    if not value:
        value = f"{answer.value:.6g}" if isinstance(answer.value, float) else repr(answer.value)
        value = value if len(value) <= 80 else value[:79] + "…"
    unit = f" {answer.unit}" if answer.unit else ""
    sure = f" ({answer.confidence:.0%})" if answer.confidence is not None else ""
    return f"{name}={value}{unit}{sure}"
