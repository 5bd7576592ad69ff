"""A folded protein chain: where the alpha carbon of each residue of a sequence lies.

Here: how chains are read, what is learnt about the training rows, how a predicted one is written. Not
here: the network (network.py), its loss (geometry.py), the classical rival (classical.py), the sequence
and the reading of files (modalities/residues), metrics (endwise/metrics/structures.py).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from endwise.chain import LETTERS, Chain, helix
from endwise.errors import BadValue, DataError, refusal, require, unknown_name
from endwise.modalities.base import (
    OUTPUT_ROLE,
    Answer,
    Contract,
    Fetch,
    Modality,
    Role,
    counted,
    output_field,
)
from endwise.modalities.residues import MOST, Residues, ResiduesContract
from endwise.modalities.residues.files import chain_of, text_of

if TYPE_CHECKING:
    from endwise.metrics import Metric
    from endwise.nn.interface import Head
    from endwise.nn.size import Size

TERMS = 5
RECYCLES = 1
MOST_RECYCLES = 8
FARTHEST = 1e5  # angstrom from the origin: no file has that
NOWHERE = np.full(3, np.nan)
FEWEST_IN_A_ROW = 4  # residues with a place: how a chain turns is seen in four


@dataclass(frozen=True, kw_only=True)
class StructureContract(Contract):
    """How long the training chains are, and how many of all their residues have no place."""

    shortest: int
    longest: int
    residues: int
    unresolved: int


@dataclass(frozen=True, kw_only=True)
class Structure(Modality):
    """The alpha carbons of a chain in angstrom: [[x, y, z], ...], a flat list of three numbers a residue, or a .pdb or .cif
    file.

    It lies on a `residues` input, a point for each letter. A residue that was not resolved is null in a list, and in a file
    one that its sequence names and that has no place: nothing is learnt of it or judged by it, and answers have a place for
    every residue. A chain has no place and no direction of its own: the loss and
    the metrics see it up to turning and moving, never up to mirroring. The answer is a `Chain`; its confidence is the
    predicted lDDT, in `detail` for each residue.
    """

    type: ClassVar[str] = "structure"
    length_unit: ClassVar[str] = "residues"
    roles = frozenset({OUTPUT_ROLE})
    contract_class = StructureContract
    axes: ClassVar[int] = 1
    read_fields: ClassVar[tuple[str, ...]] = ("chain",)

    on: str | None = output_field(None, "the residues input that folds; null: the only one")
    chain: str | None = output_field(None, "which chain of a file; null: the first")
    recycles: int = output_field(
        RECYCLES, "how often the answer is read again and mended (recycling); each costs as much as the head"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            0 <= self.recycles <= MOST_RECYCLES,
            field="Structure.recycles", got=self.recycles, allowed=f"a whole number from 0 to {MOST_RECYCLES}",
            fix=f"leave it out for {RECYCLES}",
        )  # fmt: skip

    def beside(self, inputs: Mapping[str, Modality], outputs: Mapping[str, Modality]) -> Self:
        """With `on` written out."""
        suited = [name for name, item in inputs.items() if isinstance(item, Residues)]
        require(
            bool(suited),
            field="outputs: type structure", got=f"inputs {', '.join(inputs)}", allowed="an input of type: residues that folds",
            fix="declare the column of the sequence as {type: residues}",
        )  # fmt: skip
        if self.on is not None:
            if self.on not in suited:
                raise unknown_name(field="Structure.on", got=self.on, names=suited)
            return self
        require(
            len(suited) == 1,
            field="Structure.on", got=None, allowed=f"one of {', '.join(suited)}", fix=f"write on: {suited[0]}",
        )  # fmt: skip
        return replace(self, on=suited[0])

    @property
    def num_terms(self) -> int:
        """fape, lddt, distogram, turns, confidence."""
        return TERMS

    # ---- numpy side ------------------------------------------------------------------------------------------------

    def read(self, raw: Any, fetch: Fetch) -> np.ndarray:
        """float32 [residue, 3], the middle at the origin; NaN where a residue was not resolved."""
        points = self._points(raw, fetch)
        if points.ndim == 1 and len(points) % 3 == 0:
            points = points.reshape(-1, 3)
        if points.ndim != 2 or points.shape[1] != 3 or not len(points):
            raise BadValue(f"expected three coordinates a residue, got an array of shape {list(points.shape)}")
        known = ~np.isnan(points).any(1)
        odd = ~known & ~np.isnan(points).all(1)
        odd[known] = ~(np.abs(points[known]) < FARTHEST).all(1)
        if odd.any():
            first = int(np.flatnonzero(odd)[0])
            raise BadValue(
                f"residue {first + 1} has no place: {points[first].tolist()}; null is one that was not resolved"
            )
        if len(points) > MOST:
            raise BadValue(f"{len(points)} residues; more than {MOST} are not one domain")
        if not known.all() and _in_a_row(known) < FEWEST_IN_A_ROW:
            raise BadValue(
                f"{int(known.sum())} of {len(points)} residues have a place, nowhere {FEWEST_IN_A_ROW} in a row: how the chain turns "
                "cannot be seen"
            )
        return np.asarray(points - points[known].mean(0), np.float32)

    def _points(self, raw: Any, fetch: Fetch) -> np.ndarray:
        if isinstance(raw, Chain):
            return np.asarray(raw.points, np.float64)
        if isinstance(raw, str) and raw.lstrip().startswith("["):
            try:
                raw = json.loads(raw)
            except (ValueError, RecursionError):
                raise BadValue(f"{raw[:60]!r} is no list of coordinates: write it as JSON, [[x, y, z], ...]") from None
        if isinstance(raw, list | tuple) or hasattr(raw, "__array__"):
            try:
                if not any(np.ndim(item) for item in raw):  # three numbers a residue, or none at all
                    return np.array(raw, dtype=np.float64)
                # a column of lists comes as an array of arrays
                return np.array([NOWHERE if item is None else np.asarray(item, np.float64) for item in raw])
            except (ValueError, TypeError):
                raise BadValue("expected numbers, three coordinates for every residue") from None
        return chain_of(text_of(raw, fetch), self.chain)[1]

    def fit(self, values: Iterable[np.ndarray], *, missing: int, role: Role) -> StructureContract:
        """One pass."""
        lengths, unresolved = list[int](), 0
        for value in values:
            lengths.append(len(value))
            unresolved += int(np.isnan(value[:, 0]).sum())
        if not lengths:
            raise refusal(
                field="structure", got=f"{missing} rows without a value", allowed="at least one training row with a chain",
                fix="look at the column's name, or remove the field", error=DataError,
            )  # fmt: skip
        return StructureContract(
            count=len(lengths), missing=missing, shortest=min(lengths), longest=max(lengths), residues=sum(lengths),
            unresolved=unresolved,
        )  # fmt: skip

    def blank(self, contract: StructureContract) -> np.ndarray:
        """One residue at the origin."""
        return np.zeros((1, 3), np.float32)

    def length(self, shape: tuple[int, ...]) -> int:
        """Residues."""
        return shape[0]

    def misfit(self, shape: tuple[int, ...], under: tuple[int, ...]) -> str | None:
        """A point for each letter."""
        if under[0] == shape[0]:
            return None
        more = "; those that a file names and that have no place count, too" if shape[0] > under[0] else ""
        return f"{shape[0]} points for {under[0]} residues of {self.on}{more}"

    def summary(self, contract: StructureContract) -> str:
        """'chains of 40 to 128 residues, 210 of 9,120 not resolved'."""
        lacking = f", {contract.unresolved:,} of {contract.residues:,} not resolved" if contract.unresolved else ""
        return f"chains of {contract.shortest} to {contract.longest} residues{lacking}"

    def preview(self, value: np.ndarray, contract: StructureContract) -> dict[str, str]:
        """The distance map."""
        return {"kind": "image", "data": Chain(value).drawn()}

    def truth(self, value: np.ndarray, contract: StructureContract) -> Chain:
        """The chain."""
        return Chain(np.array(value, np.float32))

    def write(self, decoded: Mapping[str, np.ndarray], contract: StructureContract) -> Answer:
        """The chain with its letters and the confidence of each residue."""
        count = int(decoded["size"])
        sure = np.clip(np.asarray(decoded["sure"], np.float64)[:count], 0, 1)
        letters = "".join(LETTERS[int(place)] for place in np.asarray(decoded["letters"])[:count])
        chain = Chain(np.asarray(decoded["points"], np.float32)[:count], letters, tuple(sure.tolist()))
        return Answer(chain, confidence=float(sure.mean()), unit="Å", detail={"residues": sure.tolist()})

    def about(
        self, which: Any, decoded: Mapping[str, np.ndarray], contract: StructureContract
    ) -> tuple[str, tuple[int, ...]]:
        """The whole chain, or one residue by its number from 0."""
        if which is None:
            return "the chain", ()
        place = counted(which, int(decoded["size"]), "residue")
        return f"residue {place} ({LETTERS[int(decoded['letters'][place])]})", (place,)

    def metrics(self, contract: StructureContract) -> Sequence["Metric"]:
        """lddt, tm_score, rmsd."""
        from endwise import metrics

        return [metrics.chain_lddt(), metrics.chain_tm_score(), metrics.chain_rmsd()]

    def risk(self, contract: StructureContract) -> "Metric":
        """What is missing of the whole lDDT."""
        from endwise import metrics

        return metrics.chain_lddt()

    def classical(self, contract: StructureContract) -> Any:
        """The mean distance at each separation, as points."""
        from endwise.modalities.structure.classical import DistancesBySeparation

        return DistancesBySeparation()

    def trivial(self, truths: Sequence[Any], contract: StructureContract) -> Answer:
        """An ideal helix as long as the longest chain."""
        return Answer(helix(contract.longest), unit="Å")

    def untaught(
        self, given: Mapping[str, np.ndarray], contracts: Mapping[str, Any], contract: StructureContract
    ) -> Mapping[str, Answer]:
        """An ideal helix as long as the sequence."""
        names = [name for name in given if isinstance(contracts[name], ResiduesContract) and self.on in (None, name)]
        return {"an ideal helix": Answer(helix(len(given[names[0]])), unit="Å")} if len(names) == 1 else {}

    def from_classical(self, predicted: Any, contract: StructureContract) -> Answer:
        """Points [residue, 3]."""
        return Answer(Chain(np.asarray(predicted, np.float32)), unit="Å")

    # ---- network side ----------------------------------------------------------------------------------------------

    def head(self, contract: StructureContract, size: "Size") -> "Head":
        """Turns from residue to residue, relaxed by what is known of pairs, read again `recycles` times."""
        from endwise.modalities.structure.network import StructureHead

        if self.on is None:
            raise refusal(
                field="Structure.on", got=None, allowed="a residues input", fix="name it, or use it in a recipe"
            )
        return StructureHead(size, on=self.on, recycles=self.recycles)


def _in_a_row(known: np.ndarray) -> int:
    """The longest stretch."""
    ends = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]])))
    return int((ends[1::2] - ends[::2]).max(initial=0))
