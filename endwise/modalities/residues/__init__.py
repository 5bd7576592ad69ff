"""An amino-acid sequence: a letter a residue, a token a letter, and something known of every two of them.

Here: how a sequence is read and what is learnt about the training rows. Not here: PDB and mmCIF (files.py), the encoder
(network.py), the chain that it folds to (modalities/structure). Text that people write is `text`, whose units are not single letters.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from endwise.chain import LETTERS
from endwise.errors import BadValue, DataError, refusal, require
from endwise.modalities.base import INPUT_ROLE, Contract, Fetch, Modality, Role, input_field
from endwise.modalities.residues.files import chain_of, is_file, text_of

if TYPE_CHECKING:
    from endwise.nn.interface import Encoder
    from endwise.nn.size import Size

LONGEST = 512  # what is known of every two residues is 512 x 512 vectors
MOST = 1_024
CODES = np.full(256, -1, np.int64)
CODES[[ord(letter) for letter in LETTERS]] = np.arange(len(LETTERS))
SHOWN = 60


@dataclass(frozen=True, kw_only=True)
class ResiduesContract(Contract):
    """What the training rows are like. letters: how often each of the 21 letters comes."""

    shortest: int
    longest: int
    letters: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Residues(Modality):
    """A protein's sequence in one-letter codes: the twenty amino acids in capitals, and X for any other. Or a .pdb or .cif file,
    of which the whole sequence is read, with the residues that have no place.

    Each residue is a token, and there is a vector for every two of them (`Tokens.pair`): what a folded chain is read from.
    """

    type: ClassVar[str] = "residues"
    length_unit: ClassVar[str] = "residues"
    roles = frozenset({INPUT_ROLE})
    contract_class = ResiduesContract
    axes: ClassVar[int] = 1
    read_fields: ClassVar[tuple[str, ...]] = ("longest", "chain")

    longest: int = input_field(LONGEST, "longer sequences are refused, never cut: the cost grows with the square")
    chain: str | None = input_field(None, "which chain of a file; null: the first")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            1 <= self.longest <= MOST,
            field="Residues.longest", got=self.longest, allowed=f"a whole number from 1 to {MOST}",
            fix=f"leave it out for {LONGEST}",
        )  # fmt: skip

    def read(self, raw: Any, fetch: Fetch) -> np.ndarray:
        """uint8 [residue], the letters."""
        if is_file(raw):
            raw = chain_of(text_of(raw, fetch), self.chain)[0]
        if not isinstance(raw, str):
            raise BadValue(f"expected a sequence in one-letter codes, or a PDB or mmCIF file, got {type(raw).__name__}")
        if not raw:
            raise BadValue("the sequence is empty")
        if len(raw) > self.longest:
            raise BadValue(
                f"{len(raw)} residues; longer than {self.longest} is refused: raise longest, or give its domains"
            )
        odd = next(((place, letter) for place, letter in enumerate(raw, 1) if letter not in LETTERS), None)
        if odd is not None:
            hint = (
                "; write capitals"
                if odd[1].upper() in LETTERS
                else "; write X for a residue that is none of the twenty"
            )
            raise BadValue(f"{odd[1]!r} at place {odd[0]} is no amino acid{hint}")
        return np.frombuffer(raw.encode("ascii"), np.uint8)

    def fit(self, values: Iterable[np.ndarray], *, missing: int, role: Role) -> ResiduesContract:
        """One pass."""
        counts, lengths = np.zeros(len(LETTERS), np.int64), []
        for value in values:
            counts += np.bincount(CODES[value], minlength=len(LETTERS))
            lengths.append(len(value))
        if not lengths:
            raise refusal(
                field="residues", got=f"{missing} rows without a value", allowed="at least one training row with a sequence",
                fix="look at the column's name, or remove the field", error=DataError,
            )  # fmt: skip
        return ResiduesContract(
            count=len(lengths),
            missing=missing,
            shortest=min(lengths),
            longest=max(lengths),
            letters=tuple(counts.tolist()),
        )

    def transform(self, value: np.ndarray, contract: ResiduesContract) -> np.ndarray:
        """int64 [residue]: the place of each letter in LETTERS."""
        found: np.ndarray = CODES[value]
        return found

    def blank(self, contract: ResiduesContract) -> np.ndarray:
        """One X."""
        return np.array([len(LETTERS) - 1], np.int64)

    def length(self, shape: tuple[int, ...]) -> int:
        """Residues."""
        return shape[0]

    def example(self, contract: ResiduesContract) -> Any:
        """Ten residues."""
        return "MKTAYIAKQR"

    def summary(self, contract: ResiduesContract) -> str:
        """'40 to 128 residues'."""
        return f"{contract.shortest} to {contract.longest} residues"

    def preview(self, value: np.ndarray, contract: ResiduesContract) -> dict[str, str]:
        """The sequence, in lines."""
        text = bytes(value).decode("ascii")
        return {"kind": "text", "data": "\n".join(text[start : start + SHOWN] for start in range(0, len(text), SHOWN))}

    def named(self, whole: np.ndarray, contract: ResiduesContract) -> Sequence[str]:
        """'M1', 'K2' ..., as chemists count."""
        return [f"{letter}{place}" for place, letter in enumerate(bytes(whole).decode("ascii"), 1)]

    def hand_features(self) -> Any:
        """How long it is, and how much there is of each letter."""
        from endwise.modalities.structure.classical import Composition

        return Composition()

    def encoder(self, contract: ResiduesContract, size: "Size") -> "Encoder":
        """Blocks of attention over residues and of triangles over pairs."""
        from endwise.modalities.residues.network import ResiduesEncoder

        return ResiduesEncoder(size)
