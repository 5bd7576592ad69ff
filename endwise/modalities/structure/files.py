"""Alpha carbons out of PDB and mmCIF text. Numpy and the standard library only. Not here: writing them (endwise/chain.py)."""

import shlex
from collections.abc import Iterator

import numpy as np

from endwise.errors import BadValue

CARBON = "CA"
Atom = tuple[str, str, tuple[float, float, float]]  # chain, residue, place


def alpha_carbons(text: str, chain: str | None) -> np.ndarray:
    """float64 [residue, 3] of one chain (None: the first) of the first model; of several places of an atom the first. A
    selenomethionine is a residue; other hetero atoms are none. BadValue with the reason."""
    is_cif = text.lstrip().startswith("data_")
    try:
        atoms = list(_of_cif(text) if is_cif else _of_pdb(text))
    except (ValueError, IndexError) as wrong:
        raise BadValue(f"the {'mmCIF' if is_cif else 'PDB'} text is damaged: {wrong}") from None
    if not atoms:
        raise BadValue(f"no alpha carbon (atom {CARBON}) in the {'mmCIF' if is_cif else 'PDB'} text")
    names = list(dict.fromkeys(name for name, _, _ in atoms))
    wanted = names[0] if chain is None else chain
    if wanted not in names:
        raise BadValue(f"there is no chain {wanted!r}; there are {', '.join(names)}")
    found: dict[str, tuple[float, float, float]] = {}
    for name, residue, place in atoms:
        if name == wanted:
            found.setdefault(residue, place)
    return np.array(list(found.values()), np.float64)


def _of_pdb(text: str) -> Iterator[Atom]:
    """Fixed columns (wwPDB format 3.3)."""
    for line in text.splitlines():
        if line.startswith("ENDMDL"):
            return
        is_residue = line.startswith("ATOM  ") or (line.startswith("HETATM") and line[17:20] == "MSE")
        if is_residue and line[12:16].strip() == CARBON:
            yield line[21].strip() or "A", line[22:27], (float(line[30:38]), float(line[38:46]), float(line[46:54]))


def _of_cif(text: str) -> Iterator[Atom]:
    """The rows of the atom_site table."""
    columns: list[str] = []
    first = None
    for line in text.splitlines():
        if line.startswith("_atom_site."):
            columns.append(line.strip().removeprefix("_atom_site."))
        elif columns and line.startswith(("ATOM", "HETATM")):
            cells = dict(zip(columns, shlex.split(line) if "'" in line or '"' in line else line.split(), strict=True))
            first = first or cells.get("pdbx_PDB_model_num", "1")
            if cells.get("pdbx_PDB_model_num", "1") != first or cells["label_atom_id"] != CARBON:
                continue
            if cells["group_PDB"] == "ATOM" or cells["label_comp_id"] == "MSE":
                place = (float(cells["Cartn_x"]), float(cells["Cartn_y"]), float(cells["Cartn_z"]))
                own = cells.get("auth_asym_id") or cells["label_asym_id"]
                yield (
                    own,
                    f"{cells.get('auth_seq_id') or cells['label_seq_id']}{cells.get('pdbx_PDB_ins_code', '')}",
                    place,
                )
        elif columns and line.startswith(("#", "_", "loop_")):
            return
