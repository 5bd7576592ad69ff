"""A protein chain as a value: where the alpha carbon of each residue lies. Numpy and the standard library only.

Here: what an answer of `type: structure` is, how it is written as PDB and mmCIF, and how one chain is laid on another. Not
here: reading files (modalities/residues/files.py), how alike two chains are (metrics/structures.py), the drawing (trace.py).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from endwise.trace import Strand, along, drawing, surely, told

LETTERS = "ACDEFGHIKLMNPQRSTVWYX"  # the twenty amino acids, and X for any other
NAMES = dict(
    zip(
        LETTERS,
        [
            "ALA",
            "CYS",
            "ASP",
            "GLU",
            "PHE",
            "GLY",
            "HIS",
            "ILE",
            "LYS",
            "LEU",
            "MET",
            "ASN",
            "PRO",
            "GLN",
            "ARG",
            "SER",
            "THR",
            "VAL",
            "TRP",
            "TYR",
            "UNK",
        ],
        strict=True,
    )
)
MOST_IN_PDB = 9_999  # residues that its columns can number
SEQRES_ROW = 13  # names in a line of a sequence
CIF_COLUMNS = (
    "group_PDB", "id", "type_symbol", "label_atom_id", "label_alt_id", "label_comp_id", "label_asym_id", "label_entity_id",
    "label_seq_id", "pdbx_PDB_ins_code", "Cartn_x", "Cartn_y", "Cartn_z", "occupancy", "B_iso_or_equiv", "auth_seq_id",
    "auth_asym_id", "pdbx_PDB_model_num",
)  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class Chain:
    """points: float32 [residue, 3], the alpha carbons in angstrom; NaN where a residue was not resolved, as happens in truths
    and never in answers. letters: the sequence, '' where it is not known. sure: the predicted lDDT of each residue, 0 to 1,
    as a tuple; empty where it is not known.

    A chain has no place in space of its own: compare two after superposition. In JSON it is [[x, y, z], ...], null for a
    residue without a place.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".pdb", ".cif")  # of files that it can be saved as, the usual one first

    points: np.ndarray
    letters: str = ""
    sure: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.points)

    def distances(self) -> np.ndarray:
        """float64 [residue, residue] in angstrom."""
        points = np.asarray(self.points, np.float64)
        found: np.ndarray = np.linalg.norm(points[:, None] - points[None], axis=-1)
        return found

    def pdb(self) -> str:
        """The text of a PDB file, chain A; where confidence is known, 100 times it stands in the column of B factors, as is
        usual for predictions. Of residues without a place the sequence and their numbers are written. ValueError for more
        residues than the format can number."""
        if len(self) > MOST_IN_PDB:
            raise ValueError(f"PDB cannot number {len(self)} residues: write mmCIF")
        lines = self._lacking_in_pdb()
        for number, (x, y, z), name, sure in self._rows():
            lines.append(
                f"ATOM  {number:5d}  CA  {name} A{number:4d}    {x:8.3f}{y:8.3f}{z:8.3f}{1:6.2f}{sure:6.2f}           C  "
            )
        last = self._names()[-1] if len(self) else "UNK"
        return "\n".join([*lines, f"TER   {len(self) + 1:5d}      {last} A{len(self):4d}", "END", ""])

    def mmcif(self) -> str:
        """The text of an mmCIF file with the atom_site table, confidence as in `pdb`; where residues have no place, with the
        sequence."""
        lines = ["data_chain", "#"]
        if not self._known().all():
            lines += ["loop_", *(f"_entity_poly_seq.{column}" for column in ("entity_id", "num", "mon_id", "hetero"))]
            lines += [*(f"1 {number} {name} n" for number, name in enumerate(self._names(), 1)), "#"]
        lines += ["loop_", *(f"_atom_site.{column}" for column in CIF_COLUMNS)]
        for number, (x, y, z), name, sure in self._rows():
            lines.append(
                f"ATOM {number} C CA . {name} A 1 {number} ? {x:.3f} {y:.3f} {z:.3f} 1.00 {sure:.2f} {number} A 1"
            )
        return "\n".join([*lines, "#", ""])

    def save(self, path: str | Path) -> Path:
        """Write .pdb, or .cif where the path says so; its path."""
        place = Path(path)
        place.write_text(self.mmcif() if place.suffix.lower() in (".cif", ".mmcif") else self.pdb(), encoding="ascii")
        return place

    def to_json(self) -> list[list[float] | None]:
        """[[x, y, z], ...] in angstrom, None for a residue without a place."""
        places: list[list[float]] = np.asarray(self.points, np.float64).round(4).tolist()
        return [place if known else None for place, known in zip(places, self._known(), strict=True)]

    def drawn(self, truth: "Chain | None" = None) -> str:
        """An SVG in a data URI: the trace of the alpha carbons, coloured by confidence or, where that is not known, along the
        chain, and the distance map, near ones dark. truth: what the chain is laid on and drawn over, turned and moved, never
        mirrored: a mirror image does not come to lie on it."""
        points, behind = np.asarray(self.points, np.float64), None
        if truth is not None:
            behind = np.asarray(truth.points, np.float64)
            points = laid(points, behind)
        colours = surely(self.sure) if self.sure else along(len(self))
        return drawing(Strand(points, colours), behind, told(sure=bool(self.sure), over=truth is not None))

    def _names(self) -> list[str]:
        return [NAMES[letter] for letter in (self.letters or "X" * len(self))]

    def _known(self) -> np.ndarray:
        """bool [residue]: which have a place."""
        known: np.ndarray = np.isfinite(self.points).all(1)
        return known

    def _rows(self) -> list[tuple[int, tuple[float, float, float], str, float]]:
        """(number, place, name, B factor) of each residue that has a place."""
        sure = [100.0 * item for item in self.sure] or [0.0] * len(self)
        return [
            (number, (float(x), float(y), float(z)), name, one)
            for number, ((x, y, z), name, one, known) in enumerate(
                zip(self.points, self._names(), sure, self._known(), strict=True), 1
            )
            if known
        ]

    def _lacking_in_pdb(self) -> list[str]:
        """SEQRES and REMARK 465, where there are residues without a place."""
        names, lacking = self._names(), np.flatnonzero(~self._known()).tolist()
        if not lacking:
            return []
        rows = [names[start : start + SEQRES_ROW] for start in range(0, len(names), SEQRES_ROW)]
        return [
            "REMARK 465",
            "REMARK 465   M RES C SSSEQI",
            *(f"REMARK 465     {names[place]} A {place + 1:5d}" for place in lacking),
            *(f"SEQRES {number:3d} A {len(names):4d}  {' '.join(row)}" for number, row in enumerate(rows, 1)),
        ]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Chain) and np.array_equal(self.points, other.points, equal_nan=True)

    def __hash__(self) -> int:
        return hash(self.points.tobytes())

    def __repr__(self) -> str:
        return f"Chain({len(self)} residues{f', {self.letters[:12]}' if self.letters else ''}{'…' if len(self.letters) > 12 else ''})"

    def _repr_html_(self) -> str:
        return f'<img src="{self.drawn()}" alt="{self!r}">'


def helix(count: int) -> Chain:
    """An ideal right-handed alpha helix (Pauling, Corey & Branson 1951): 100 degrees and 1.5 angstrom a residue, radius 2.3."""
    turn = np.radians(100.0) * np.arange(count)
    points = np.stack([2.3 * np.cos(turn), 2.3 * np.sin(turn), 1.5 * np.arange(count)], axis=1)
    return Chain((points - points.mean(0)).astype(np.float32))


def laid(points: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """`points` moved and turned, never mirrored, so that their squared distance to `onto` is least, over the residues that
    both have."""
    count = min(len(points), len(onto))
    both = np.isfinite(points[:count]).all(1) & np.isfinite(onto[:count]).all(1)
    if not both.any():
        return points
    turn, shift = superposition(points[:count][both], onto[:count][both])
    found: np.ndarray = points @ turn + shift
    return found


def superposition(points: np.ndarray, onto: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rotation and the shift, `points @ rotation + shift`, with which the squared distance to `onto` is least (Kabsch
    1976). Never a mirroring."""
    middle, target = points.mean(0), onto.mean(0)
    left, _, right = np.linalg.svd((points - middle).T @ (onto - target))
    mirror = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right)) or 1.0])
    turn = (left * mirror) @ right
    return turn, target - middle @ turn
