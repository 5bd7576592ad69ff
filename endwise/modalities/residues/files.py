"""The residues of a chain out of PDB and mmCIF text, with those that the file names and that have no place: their letters
and their alpha carbons. Numpy and the standard library only. Not here: writing them (endwise/chain.py).

Crystals leave loops and ends unresolved. mmCIF numbers residues along the whole sequence, so that nothing has to be guessed.
PDB has the whole sequence (SEQRES) and the numbers of what is missing (REMARK 465): the residues that have a place are laid
along the sequence by their names, and by these numbers where names leave it open. Of a file that names nothing, numbers
that skip are residues without a place where the chain is torn there; where it is not, only the numbering skips.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from endwise.chain import LETTERS, NAMES
from endwise.errors import BadValue
from endwise.modalities.base import Fetch, file_bytes

SUFFIXES = (".pdb", ".ent", ".cif", ".mmcif")  # of paths
CARBON = "CA"  # also the name of a calcium ion, which some tools write as an atom of the chain
BONDED = 4.5  # angstrom: neighbours in a chain are nearer (3.8; 2.9 before a cis proline)
UNKNOWN = "UNK"  # the name of a residue of which only a number is known
OTHERWISE = 0.1  # share of residues that may have another name in the sequence (mutated or renamed by a tool)
UNLIKELY = 0.4  # what a gap that is not as long as the numbers say counts, in residues with another name
MISSING = re.compile(r"REMARK 465\s+(?:\d+\s+)?(\S{1,3})\s+(?:(\S)\s+)?(-?\d+)([A-Za-z]?)\s*$")
RECORD = re.compile(r"^(?:ATOM  |HETATM|SEQRES|HEADER|\s*data_)", re.MULTILINE)
TOKEN = re.compile(r"""'(.*?)'(?=\s|$)|"(.*?)"(?=\s|$)|(\S+)""")
ATOMS, SCHEME, SEQUENCE = TABLES = ("_atom_site", "_pdbx_poly_seq_scheme", "_entity_poly_seq")
NOTHING = (".", "?", "")
# of modified residues the amino acid that they are made of, as the archive writes them in sequences
LETTER_OF = {name: letter for letter, name in NAMES.items()} | {
    "MSE": "M", "SEP": "S", "TPO": "T", "PTR": "Y", "CSO": "C", "CME": "C", "OCS": "C", "CSD": "C", "CSX": "C", "CAS": "C",
    "KCX": "K", "MLY": "K", "M3L": "K", "MLZ": "K", "ALY": "K", "LLP": "K", "HYP": "P", "PCA": "Q", "HIC": "H", "CGU": "E",
    "TYS": "Y", "FME": "M", "NEP": "H", "PHD": "D",
}  # fmt: skip
Number = tuple[int, str]  # as the file counts, and the insertion code


@dataclass(frozen=True, slots=True)
class Residue:
    """A residue that has a place. names: two where a crystal has both."""

    number: Number
    names: list[str]
    place: tuple[float, float, float]
    along: int | None = None  # where it stands in the whole sequence, from 0, where the file says so


@dataclass(slots=True)
class Told:
    """What a file says of one chain. whole: the names of its sequence. missing: the numbers without a place."""

    residues: dict[Number, Residue] = field(default_factory=dict)
    whole: list[str] = field(default_factory=list)
    missing: set[Number] = field(default_factory=set)

    def see(self, residue: Residue) -> None:
        """One more; of several places of a residue the first counts."""
        known = self.residues.setdefault(residue.number, residue)
        if residue.names[0] not in known.names:
            known.names.append(residue.names[0])


def is_file(raw: Any) -> bool:
    """Whether a value is a file or its text, and not a sequence written down."""
    if isinstance(raw, str):
        return raw.lower().endswith(SUFFIXES) or RECORD.search(raw) is not None
    return isinstance(raw, bytes | bytearray | memoryview | Mapping) or hasattr(raw, "__fspath__")


def text_of(raw: Any, fetch: Fetch) -> str:
    """The text of a file given as its path, its bytes or itself. BadValue with the reason."""
    if isinstance(raw, str) and "\n" in raw:
        return raw
    try:
        return file_bytes(raw, fetch, "a PDB or mmCIF file").decode("utf-8")
    except UnicodeDecodeError:
        raise BadValue("the file is no text, so neither PDB nor mmCIF") from None


def chain_of(text: str, chain: str | None) -> tuple[str, np.ndarray]:
    """(letters, alpha carbons as float64 [residue, 3]) of one chain (None: the first) of the first model, NaN where a residue is
    named and has no place. Modified residues are residues where the sequence has them, and selenomethionine is one anywhere;
    other hetero atoms are none. BadValue with the reason."""
    is_cif = re.search(r"^\s*data_", text, re.MULTILINE) is not None
    kind = "mmCIF" if is_cif else "PDB"
    try:
        told = _of_cif(text) if is_cif else _of_pdb(text)
    except (ValueError, IndexError, KeyError) as wrong:
        raise BadValue(f"the {kind} text is damaged: {wrong}") from None
    told = {name: item for name, item in told.items() if item.residues}
    if not told:
        raise BadValue(f"no alpha carbon (atom {CARBON}) in the {kind} text")
    wanted = next(iter(told)) if chain is None else chain
    if wanted not in told:
        raise BadValue(f"there is no chain {wanted!r}; there are {', '.join(told)}")
    every = list(told[wanted].residues.values())
    # where a file numbers along its sequence, what has no such number belongs to no chain
    residues = [residue for residue in every if residue.along is not None] or every
    places, count = _along(residues, told[wanted], wanted)
    points = np.full((count, 3), np.nan)
    points[places] = [residue.place for residue in residues]
    names = told[wanted].whole or [UNKNOWN] * count
    if not told[wanted].whole:
        for place, residue in zip(places, residues, strict=True):
            names[place] = residue.names[0]
    return "".join(LETTER_OF.get(name, LETTERS[-1]) for name in names), points


# ---- what a file says ------------------------------------------------------------------------------------------------


def _of_pdb(text: str) -> dict[str, Told]:
    """Fixed columns (wwPDB format 3.3)."""
    found: dict[str, Told] = {}
    ended = set[str]()
    for line in text.splitlines():
        chain = line[21:22].strip() or "A"
        if line.startswith("ENDMDL"):
            break
        if line.startswith("SEQRES"):
            found.setdefault(line[11].strip() or "A", Told()).whole += line[19:70].split()
        elif line.startswith("TER"):
            ended.add(chain)
        elif line.startswith("REMARK 465") and (said := MISSING.match(line)):
            found.setdefault(said[2] or "A", Told()).missing.add((int(said[3]), said[4]))
        elif line.startswith(("ATOM  ", "HETATM")) and line[12:16].strip() == CARBON != line[17:20].strip():
            told, name = found.setdefault(chain, Told()), line[17:20].strip()
            modified = line[12:16] == " CA " and name in told.whole and chain not in ended
            if line.startswith("ATOM") or name == "MSE" or modified:
                place = (float(line[30:38]), float(line[38:46]), float(line[46:54]))
                told.see(Residue((int(line[22:26]), line[26:27].strip()), [name], place))
    return found


def _of_cif(text: str) -> dict[str, Told]:
    """The atom_site table, and the sequence that its numbers count along."""
    tables: dict[str, list[dict[str, str]]] = {category: [] for category in TABLES}
    for category, row in _rows(text):
        if category != ATOMS or row["label_atom_id"] == CARBON != row["label_comp_id"]:
            tables[category].append(row)
    scheme, sequence = _sequences(tables[SCHEME], "asym_id", "seq_id"), _sequences(tables[SEQUENCE], "entity_id", "num")
    found: dict[str, Told] = {}
    molecules: dict[str, str] = {}
    first = tables[ATOMS][0].get("pdbx_PDB_model_num") if tables[ATOMS] else None
    for row in tables[ATOMS]:
        along, name = row.get("label_seq_id", "."), row["label_comp_id"]
        is_residue = row["group_PDB"] == "ATOM" or name == "MSE" or along not in NOTHING
        if row.get("pdbx_PDB_model_num") != first or not is_residue:
            continue
        molecule = row.get("label_asym_id", "")
        chain = next(own for own in (row.get("auth_asym_id", "."), molecule, "A") if own not in NOTHING)
        if molecules.setdefault(chain, molecule) != molecule:
            continue  # a second molecule by the same name
        told = found.setdefault(chain, Told())
        told.whole = scheme.get(molecule) or sequence.get(row.get("label_entity_id", "")) or []
        counted = next(own for own in (row.get("auth_seq_id", "."), along) if own not in NOTHING)
        code = row.get("pdbx_PDB_ins_code", "?")
        place = (float(row["Cartn_x"]), float(row["Cartn_y"]), float(row["Cartn_z"]))
        told.see(
            Residue(
                (int(counted), "" if code in NOTHING else code), [name], place,
                int(along) - 1 if told.whole and along not in NOTHING else None,
            )
        )  # fmt: skip
    return found


def _sequences(rows: Sequence[dict[str, str]], of: str, number: str) -> dict[str, list[str]]:
    """The names by chain or molecule; of two at one place the first."""
    found: dict[str, dict[int, str]] = {}
    for row in rows:
        found.setdefault(row[of], {}).setdefault(int(row[number]), row["mon_id"])
    return {name: [items.get(place, UNKNOWN) for place in range(1, max(items) + 1)] for name, items in found.items()}


def _rows(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """(category, row) of the tables that are looked at."""
    for header, lines in _loops(text):
        category = header[0].partition(".")[0]
        if category not in TABLES:
            continue
        names, cells = [name.partition(".")[2] for name in header], list[str]()
        for line in lines:
            quoted = "'" in line or '"' in line
            cells += ["".join(found) for found in TOKEN.findall(line)] if quoted else line.split()
            while len(cells) >= len(names):
                yield category, dict(zip(names, cells, strict=False))
                cells = cells[len(names) :]
        if cells:
            raise ValueError(f"a row of {category} is cut short")


def _loops(text: str) -> Iterator[tuple[list[str], list[str]]]:
    """(names of the columns, lines of values) of each table in the first block of data."""
    header: list[str] | None = None  # None: outside of a table
    lines: list[str] = []
    in_text = begun = False
    for line in text.splitlines():
        start = line.lstrip()
        if in_text or line.startswith(";"):
            in_text ^= line.startswith(";")
            lines += [] if in_text else ["?"]  # a text of several lines is one value, of no column that is looked at
        elif start.startswith("data_"):
            if begun:
                break
            begun = True
        elif start.startswith(("loop_", "_")):
            if lines and header:
                yield header, lines
            is_table = start.startswith("loop_")
            header = [] if is_table else None if lines else header
            lines = []
            if header is not None and not is_table:
                header.append(start.split()[0])
        elif start and not start.startswith("#"):
            lines.append(line)
    if lines and header:
        yield header, lines


# ---- where residues stand in the whole sequence ----------------------------------------------------------------------


def _along(residues: Sequence[Residue], told: Told, chain: str) -> tuple[list[int], int]:
    """(the place of each residue from 0, how many there are in all)."""
    known = [residue.along for residue in residues if residue.along is not None]
    if known:
        odd = next((place for place in known if not 0 <= place < len(told.whole)), None)
        if odd is not None:
            raise BadValue(f"chain {chain} has a residue {odd + 1}, and its sequence has {len(told.whole)}")
        return known, len(told.whole)
    gaps = _gaps(residues, sorted(told.missing))
    if told.whole:
        return _aligned(residues, told, gaps, chain), len(told.whole)
    numbers = [residue.number for residue in residues]
    if told.missing and numbers != sorted(numbers):
        raise BadValue(
            f"chain {chain} has residues without a place (REMARK 465) and numbers that fall: only its sequence (SEQRES) could tell "
            "where these stand"
        )
    places = np.arange(len(residues)) + np.cumsum(gaps[:-1])
    return places.tolist(), len(residues) + sum(gaps)


def _gaps(residues: Sequence[Residue], missing: Sequence[Number]) -> list[int]:
    """How many residues the numbers say there are without a place before the first, between every two, and after the last."""
    numbers = [residue.number for residue in residues]
    if missing:
        below = [0, *(bisect_left(missing, number) for number in numbers), len(missing)]
        return [max(0, after - before) for before, after in pairwise(below)]
    skipped = [max(0, two[0] - one[0] - 1) for one, two in pairwise(numbers)]
    return [0, *(count if torn else 0 for count, torn in zip(skipped, _torn(residues), strict=True)), 0]


def _torn(residues: Sequence[Residue]) -> list[bool]:
    """Whether two neighbours in the file are none in the chain."""
    steps = np.diff(np.array([residue.place for residue in residues]), axis=0)
    torn: list[bool] = (np.linalg.norm(steps, axis=1) > BONDED).tolist()
    return torn


def _aligned(residues: Sequence[Residue], told: Told, gaps: Sequence[int], chain: str) -> list[int]:
    """Where each stands in the sequence: stretches without a gap are laid along it, one after another, so that the fewest
    residues are named otherwise and the gaps are as long as the numbers say."""
    count, length = len(residues), len(told.whole)
    if count > length:
        raise BadValue(f"chain {chain} has {count} residues with a place, and its sequence (SEQRES) has {length}")
    cuts = [place for place, torn in enumerate(_torn(residues), 1) if torn or gaps[place]]
    runs = [residues[start:end] for start, end in zip([0, *cuts], [*cuts, count], strict=True)]
    between = [gaps[cut] for cut in cuts]
    other = [_otherwise(told.whole, run) for run in runs]
    # cost[j]: of all stretches up to this one, where it begins at place j; only REMARK 465 tells how much the ends lack
    unlikely = UNLIKELY if told.missing else 0.0
    cost = other[0] + np.where(np.arange(length) == gaps[0], 0.0, unlikely)
    came = list[np.ndarray]()
    for run, gap, own in zip(runs, between, other[1:], strict=False):
        ended = np.concatenate([np.full(len(run), np.inf), cost])[:length]
        least = np.minimum.accumulate(ended)
        latest = np.maximum.accumulate(np.where(ended == least, np.arange(length), 0))
        exact = np.concatenate([np.full(gap, np.inf), ended])[:length]
        as_said = exact <= least + UNLIKELY
        came.append(np.where(as_said, np.arange(length) - gap, latest) - len(run))
        cost = own + np.where(as_said, exact, least + UNLIKELY)
    lacking = length - len(runs[-1]) - np.arange(length)
    place = int(np.argmin(cost + np.where(lacking == gaps[-1], 0.0, unlikely)))
    first = [place]
    for earlier in reversed(came):
        first.append(int(earlier[first[-1]]))
    first.reverse()
    wrong = sum(costs[place] for costs, place in zip(other, first, strict=True))
    if not wrong <= OTHERWISE * count:
        raise BadValue(
            f"the residues of chain {chain} are not those of its sequence (SEQRES): at best {wrong:.0f} of {count} are named otherwise"
        )
    return [place + step for place, run in zip(first, runs, strict=True) for step in range(len(run))]


def _otherwise(whole: Sequence[str], run: Sequence[Residue]) -> np.ndarray:
    """How many residues of a stretch that begins at each place of the sequence have another name there; infinite where it
    does not fit."""
    names = np.array(whole)
    found = np.zeros(len(names))
    for step, residue in enumerate(run):
        found += np.append(~np.isin(names[step:], residue.names), np.full(step, np.inf))
    return found
