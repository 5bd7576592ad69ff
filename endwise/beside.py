"""What the baselines reach on given rows, kept in the run: to fit them again may take longer than all else of an evaluation.

Scores are used again only where all that they follow from is the same: contents and splits of the training rows and of the
scored ones, their groups, the declarations, what was learnt of them, our code and what is installed. Not here: the fitting
(baselines.py), the scoring (evaluate.py).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from endwise.files import plain, read_json, write_json
from endwise.lineage import code, environment
from endwise.metrics import Estimate
from endwise.modalities import TABLE, modality_class
from endwise.modalities.base import Modality

if TYPE_CHECKING:
    from endwise.data.dataset import Dataset
    from endwise.model import Model

FILE = "baselines.json"  # of a run
MOST = 8  # evaluations are kept, the latest

Scores = dict[str, dict[str, Mapping[str, Estimate] | None]]  # output -> 'trivial' | 'classical' -> metric


@dataclass(frozen=True)
class Beside:
    """What there is to be held against, what has to be said of it, and the seconds that the classical baseline took."""

    scores: Scores = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; undefined numbers are null."""
        scores = {
            output: {kind: None if found is None else {name: item.to_dict() for name, item in found.items()}
                     for kind, found in kinds.items()}
            for output, kinds in self.scores.items()
        }  # fmt: skip
        return {"scores": scores, "notes": list(self.notes), "seconds": plain(self.seconds)}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> "Beside":
        """What `to_dict` gave; KeyError, TypeError, ValueError or AttributeError for anything else."""
        scores: Scores = {
            str(output): {str(kind): None if found is None else {str(name): _estimate(item) for name, item in found.items()}
                          for kind, found in kinds.items()}
            for output, kinds in given["scores"].items()
        }  # fmt: skip
        seconds = {str(name): float(value) for name, value in given["seconds"].items()}
        return cls(scores, tuple(map(str, given["notes"])), seconds)


def _estimate(given: Mapping[str, Any]) -> Estimate:
    value, low, high = (float("nan" if given[name] is None else given[name]) for name in ("value", "low", "high"))
    return Estimate(value, low, high, int(given["n"]))


class Kept:
    """The scores of one evaluation's baselines in the file of a run."""

    def __init__(self, run: Path, made_of: str) -> None:
        self._file, self._made_of = run / FILE, made_of

    def find(self) -> Beside | None:
        """Those made of just this, where they are there and whole."""
        try:
            found = next((item for item in self._all() if item["made_of"] == self._made_of), None)
            return None if found is None else Beside.from_dict(found)
        except (KeyError, TypeError, ValueError, AttributeError):  # damaged: they are made again
            return None

    def keep(self, made: Beside) -> str | None:
        """Write them down beside those of other evaluations; the reason where the folder does not take them."""
        others = [item for item in self._all() if isinstance(item, dict) and item.get("made_of") != self._made_of]
        latest = [*others, {"made_of": self._made_of, **made.to_dict()}][-MOST:]
        try:
            write_json(self._file, {"evaluations": latest})
        except OSError as wrong:
            return wrong.strerror or str(wrong)
        return None

    def _all(self) -> list[Any]:
        try:
            found = read_json(self._file)
        except (OSError, ValueError):  # not there yet, or torn
            return []
        listed = found.get("evaluations") if isinstance(found, dict) else None
        return listed if isinstance(listed, list) else []


def made_of(model: "Model", training: "Dataset", dataset: "Dataset", rows: np.ndarray) -> str | None:
    """A hash of all that the scores of baselines follow from, fitted on `training` and asked about `rows` of `dataset`; None where
    a class from outside takes part, whose code we do not know."""
    declared = {**model.recipe.inputs, **model.recipe.outputs}
    if not all(_ours(item) for item in declared.values()):
        return None
    facts = {
        "code": code()["source_sha256"],
        "libraries": environment(),  # those that fit, and those that score
        "declared": {name: item.to_dict() for name, item in declared.items()},
        "learnt": {name: contract.to_dict() for name, contract in model.contracts.items()},
        "data": [training.fingerprint, dataset.fingerprint],
        "weighed": model.recipe.data.weight is not None,
    }
    found = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    found.update(np.asarray(rows, np.int64).tobytes())
    found.update(b"no groups" if dataset.group is None else dataset.group[rows].tobytes())
    return found.hexdigest()


def _ours(item: Modality) -> bool:
    return item.type in TABLE and modality_class(item.type) is type(item)


__all__ = ["Beside", "Kept", "made_of"]
