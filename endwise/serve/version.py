"""One loaded model as the server sees it: a run through torch, or a bundle through ONNX Runtime without torch, behind the
same three things: what goes in, read a row, answer some rows. Not here: when which row is answered (batching.py)."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from endwise.errors import BadValue, DataError, ModelError
from endwise.files import plain, read_json
from endwise.modalities.base import Contract, Modality
from endwise.rows import FieldError, Row, check_names, read_row
from endwise.runner import DESCRIPTION, Bundle
from endwise.serve.problems import Problem

if TYPE_CHECKING:  # a bundle is served without torch
    from endwise.model import Model

Answers = Callable[[Sequence[Row]], list[dict[str, Any]]]
MODEL_DESCRIPTION = "model.json"
ATTEMPTS = 3  # at a folder that is replaced while it is read
SHORT = 12  # hexadecimal digits of a version for people


class Version:
    """A model that does not change: `id` is its name and the beginning of `sha256`, the hash of the file that describes it
    (which has the hashes of all others). Safe to use from several threads."""

    def __init__(
        self,
        *,
        place: Path,
        name: str,
        sha256: str,
        inputs: Mapping[str, Modality],
        outputs: Mapping[str, Modality],
        contracts: Mapping[str, Contract],
        info: Mapping[str, Any],
        recipe: Mapping[str, Any],
        answers: Answers,
        model: "Model | None" = None,
    ) -> None:
        """model: the network itself, of what has one; a bundle has none."""
        self.place, self.name, self.sha256, self.info, self.recipe = place, name, sha256, dict(info), dict(recipe)
        self.inputs, self.outputs, self.contracts = dict(inputs), dict(outputs), dict(contracts)
        self.answers, self.model = answers, model
        self.id = f"{name}@{sha256[:SHORT]}"

    @classmethod
    def load(cls, target: str | Path, *, threads: int | None = None) -> "Version":
        """A run, its `model/`, or a bundle. ModelError when it is none, or when it is replaced all the time."""
        for _ in range(ATTEMPTS):
            file = description_file(target)
            before = _sha256(file)
            found = _bundle(file, before, threads) if file.name == DESCRIPTION else _run(target, file, before, threads)
            if _sha256(file) == before:
                return found
        raise ModelError(f"{target} changes while it is read. Fix: wait until it is written.")

    def read(self, cells: Mapping[str, Any]) -> Row:
        """The transformed values of a row of raw ones. Problem, naming the field, where one cannot be read."""
        odd = next((name for name in cells if name not in self.inputs), None)
        try:
            check_names(cells, self.inputs, self.outputs, "inputs")
            return read_row(self.inputs, self.contracts, cells, no_files)
        except FieldError as wrong:
            raise Problem("bad_value", wrong.reason, wrong.field) from None
        except DataError as wrong:
            raise Problem("bad_value", str(wrong), odd) from None
        except Exception as broken:  # a decoder promises no kind of exception for what a stranger sends
            raise Problem("bad_value", f"the values cannot be read ({type(broken).__name__})", _only(cells)) from broken

    def length(self, row: Row) -> int:
        """How long a row is, for batches of like ones."""
        return sum(item.length(value.shape) for name, item in self.inputs.items() if (value := row[name]) is not None)

    def blank(self) -> Row:
        """The smallest legal row: what the server warms up with."""
        return {name: item.blank(self.contracts[name]) for name, item in self.inputs.items()}

    def __repr__(self) -> str:
        takes = ", ".join(f"{name}: {item.type}" for name, item in self.inputs.items())
        gives = ", ".join(f"{name}: {item.type}" for name, item in self.outputs.items())
        return f"{self.id} ({takes} -> {gives})"


def description_file(target: str | Path) -> Path:
    """The file whose hash is the version: of a bundle, of a model folder, or of the one in a run."""
    place = Path(target)
    for found in (place / DESCRIPTION, place / MODEL_DESCRIPTION, place / "model" / MODEL_DESCRIPTION):
        if found.is_file():
            return found
    from endwise.run import Run

    return Run.open(target).model_folder / MODEL_DESCRIPTION


def no_files(path: str) -> NoReturn:
    """In the place of a file: a stranger's row names no file of this machine and no address."""
    raise BadValue(
        f"{path[:60]!r} names a file, and a server opens none. Fix: send its bytes, as a multipart part or as base64"
    )


def _bundle(file: Path, sha256: str, threads: int | None) -> Version:
    bundle = Bundle.load(file.parent, threads=threads)

    def answers(rows: Sequence[Row]) -> list[dict[str, Any]]:
        found = bundle.answers(rows)
        return [{name: plain(found[name][row].to_dict()) for name in bundle.outputs} for row in range(len(rows))]

    info = bundle.description["info"]
    return Version(
        place=file.parent.resolve(), name=str(bundle.description["name"] or file.parent.name), sha256=sha256,
        inputs=bundle.inputs, outputs=bundle.outputs, contracts=bundle.contracts, info=info,
        recipe={section: bundle.description[section] for section in ("inputs", "outputs")}, answers=answers,
    )  # fmt: skip


def _run(target: str | Path, file: Path, sha256: str, threads: int | None) -> Version:
    from endwise.run import Run

    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    run = Run.open(target)
    model = run.model()

    def answers(rows: Sequence[Row]) -> list[dict[str, Any]]:
        return [plain(prediction.to_dict()) for prediction in model.answered(rows)]

    return Version(
        place=run.path.resolve(), name=model.recipe.name or run.name, sha256=sha256, inputs=model.recipe.inputs,
        outputs=model.recipe.outputs, contracts=model.contracts, info=model.info,
        recipe=read_json(file)["recipe"], answers=answers, model=model,
    )  # fmt: skip


def _sha256(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as wrong:
        raise ModelError(f"{file} cannot be read: {wrong.strerror}. Fix: give a run or a bundle.") from None


def _only(cells: Mapping[str, Any]) -> str | None:
    return next(iter(cells)) if len(cells) == 1 else None


__all__ = ["Version", "description_file", "no_files"]
