"""Chains with residues that were not resolved: read whole from files, learnt from and judged without them, answered whole."""

import base64
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import endwise as ew
from endwise.chain import LETTERS, NAMES, Chain, helix
from endwise.data.dataset import prepare
from endwise.errors import BadValue
from endwise.metrics import structures
from endwise.modalities.structure.classical import Composition, DistancesBySeparation, handedness
from endwise.modalities.structure.network import BENDS, BINS, TWISTS, StructureHead
from endwise.nn.size import Size
from tests.test_structure import MIRROR, turned, walk

COUNT = 14
UNRESOLVED = [0, 5, 6, 13]  # an end, a loop and the other end: 1-4 and 7-12 remain


def read(raw: Any, **declared: Any) -> np.ndarray:
    return ew.Structure(**declared).read(raw, lambda path: Path(path).read_bytes())


def lacking(points: np.ndarray, places: list[int]) -> np.ndarray:
    found = np.array(points, np.float32)
    found[places] = np.nan
    return found


def known(points: np.ndarray) -> list[int]:
    return np.flatnonzero(np.isfinite(points).all(1)).tolist()


# ---- learning --------------------------------------------------------------------------------------------------------


def head() -> StructureHead:
    torch.manual_seed(0)
    return StructureHead(Size.of("tiny", width=32, depth=1), on="s", recycles=0)


def answered(*points: np.ndarray) -> dict[str, torch.Tensor]:
    """What a network might have said of chains of one length."""
    random = torch.Generator().manual_seed(1)
    batch, count = len(points), len(points[0])
    shapes = {
        "logits": (batch, count, count, BINS),
        "kinds": (batch, count, TWISTS * len(BENDS)),
        "sure": (batch, count),
    }
    drawn = {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
    placed = torch.tensor(np.stack(points), dtype=torch.float32)
    return {"points": placed, "size": torch.full((batch,), count), **drawn}


def losses(said: dict[str, torch.Tensor], *truths: np.ndarray) -> dict[str, torch.Tensor]:
    sizes = torch.tensor([[len(truth)] for truth in truths])
    room = max(len(truth) for truth in truths)
    target = torch.stack([torch.tensor(np.pad(truth, ((0, room - len(truth)), (0, 0)))) for truth in truths])
    return head().loss(said, target.float(), sizes)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_turning_a_chain_with_gaps_costs_nothing_and_mirroring_it_does(seed: int) -> None:
    truth, other = walk(seed, COUNT), walk(seed + 1, COUNT)
    gone = lacking(truth, UNRESOLVED)
    one = losses(answered(other), gone)
    two = losses(answered(turned(other, seed + 2)), lacking(turned(truth, seed + 3), UNRESOLVED))
    for name, cost in one.items():
        assert torch.allclose(cost, two[name], atol=5e-3), name
    assert float(losses(answered(turned(truth, seed)), gone)["fape"]) < 2e-3
    assert float(losses(answered(truth * MIRROR), gone)["fape"]) > 0.03


def test_nothing_is_learnt_of_unresolved_residues_and_everything_of_the_others() -> None:
    """What is answered for them changes no term, and no slope comes back to it; a frame or a turn of which one residue is
    missing is none."""
    truth = lacking(walk(1, COUNT), UNRESOLVED)
    said = answered(walk(2, COUNT))
    elsewhere = {name: value.clone() for name, value in said.items()}
    elsewhere["points"][0, UNRESOLVED] += 40.0
    elsewhere["sure"][0, UNRESOLVED] += 3.0
    elsewhere["logits"][0, UNRESOLVED] += torch.randn(BINS)
    elsewhere["logits"][0, :, UNRESOLVED] += torch.randn(BINS)
    turns = [place for place in range(COUNT) if not {place - 1, place, place + 1, place + 2} <= set(known(truth))]
    assert len(turns) == COUNT - 4  # 2; 8, 9, 10 are turned in four residues that are known
    elsewhere["kinds"][0, turns] += torch.randn(TWISTS * len(BENDS))
    for name, cost in losses(elsewhere, truth).items():
        assert torch.allclose(cost, losses(said, truth)[name], atol=1e-4), name
    watched = {name: value.requires_grad_() if value.is_floating_point() else value for name, value in said.items()}
    total = torch.stack(list(losses(watched, truth).values())).sum()
    slopes = dict(
        zip(
            ("points", "sure", "kinds"),
            torch.autograd.grad(total, [watched[name] for name in ("points", "sure", "kinds")]),
            strict=True,
        )
    )
    assert all(bool(torch.isfinite(slope).all()) for slope in slopes.values())
    for name, none in (("points", UNRESOLVED), ("sure", UNRESOLVED), ("kinds", turns)):
        reached = slopes[name][0].reshape(COUNT, -1).abs().sum(1) > 1e-6  # what is rounded off aside
        assert reached.tolist() == [place not in none for place in range(COUNT)], name


def test_a_gap_in_one_chain_changes_nothing_in_another() -> None:
    said = answered(walk(2, COUNT), walk(3, COUNT))
    whole, gone = (
        losses(said, walk(1, COUNT), walk(4, COUNT)),
        losses(said, lacking(walk(1, COUNT), UNRESOLVED), walk(4, COUNT)),
    )
    for name in whole:
        assert torch.equal(whole[name][1], gone[name][1])
        assert not torch.equal(whole[name][0], gone[name][0])


def test_an_unresolved_end_costs_what_the_chain_without_it_costs() -> None:
    said = answered(walk(2, COUNT))
    for name, cost in losses(said, lacking(walk(1, COUNT), [11, 12, 13])).items():
        assert torch.allclose(cost, losses(said, walk(1, COUNT)[:11])[name], atol=1e-5), name


def test_the_error_is_that_of_every_known_residue_in_every_whole_frame() -> None:
    """By its definition, one pair after another."""
    truth, made = lacking(walk(1, COUNT), UNRESOLVED).astype(np.float64), walk(2, COUNT)

    def seen(points: np.ndarray, frame: int, residue: int) -> np.ndarray:
        ahead, behind = points[frame + 1] - points[frame], points[frame] - points[frame - 1]
        first = ahead / np.linalg.norm(ahead)
        second = behind - behind @ first * first
        second /= np.linalg.norm(second)
        return np.stack([first, second, np.cross(first, second)]) @ (points[residue] - points[frame])

    there = set(known(truth))
    off = [
        np.linalg.norm(seen(made, frame, residue) - seen(truth, frame, residue))
        for frame in there if {frame - 1, frame + 1} <= there
        for residue in there
    ]  # fmt: skip
    wanted = np.mean([0.95 * min(item, 10.0) + 0.05 * item for item in off]) / 10.0
    assert float(losses(answered(made), truth.astype(np.float32))["fape"]) == pytest.approx(wanted, abs=1e-3)


# ---- judging ---------------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_metrics_ask_only_about_what_was_resolved(seed: int) -> None:
    truth, made = lacking(walk(seed, 30), [3, 4, 17, 29]), walk(seed + 1, 30)
    elsewhere = made.copy()
    elsewhere[[3, 4, 17, 29]] += 100.0
    there = known(truth)
    for score in (structures.lddt, structures.tm_score, structures.rmsd):
        assert score(truth, made) == score(truth, elsewhere)
        assert score(truth, made) == pytest.approx(score(truth, turned(made, seed)), rel=1e-6)
        assert score(truth, made) == pytest.approx(
            score(truth[there], made[there]), rel=1e-6
        )  # as if there were no others
    moved = turned(walk(seed, 30), seed)
    assert structures.rmsd(truth, moved) < 1e-5
    assert structures.lddt(truth, moved) == 1.0
    assert structures.tm_score(truth, moved) == pytest.approx(1.0)
    assert structures.rmsd(truth, moved * MIRROR) > 0.3


def test_distances_by_separation_are_learnt_from_what_was_resolved() -> None:
    truths = [Chain(lacking(helix(count).points, [2, 7])) for count in (10, 14, 18)]
    ends = Chain(lacking(helix(20).points, [0, 19]))  # nobody has seen a separation of 18 or 19
    for chains in (truths, [*truths, ends]):
        features = Composition().transform([np.full(len(chain), ord("A"), np.uint8) for chain in chains])
        found = DistancesBySeparation().fit(features, chains).predict(features[[1]])[0]
        assert np.isfinite(found).all()
        assert structures.lddt(helix(14).points, found) > 0.95
        assert handedness(found) > 0


# ---- lists -----------------------------------------------------------------------------------------------------------


def test_null_in_a_list_is_a_residue_without_a_place() -> None:
    points = walk(3).round(3)
    rows = [None if place in (4, 5) else row for place, row in enumerate(points.tolist())]
    wanted = lacking(points - points[[0, 1, 2, 3, *range(6, 12)]].mean(0), [4, 5])
    flat = [number for row in rows for number in (row or [None] * 3)]
    nested = np.array([None if row is None else np.array(row) for row in rows], dtype=object)
    chain = Chain(lacking(points, [4, 5]))
    assert [row is None for row in chain.to_json()] == [row is None for row in rows]
    for raw in (rows, flat, str(rows).replace("None", "null"), nested, lacking(points, [4, 5]), chain, chain.to_json()):
        assert np.allclose(read(raw), wanted, atol=2e-3, equal_nan=True)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ([[0, 0, 0], [1, None, 2], [3, 3, 3], [4, 4, 4], [5, 5, 5]], "residue 2 has no place"),
        (
            [[0, 0, 0], [3, 0, 0], [3, 3, 0], None, [3, 3, 3], [4, 4, 4]],
            "5 of 6 residues have a place, nowhere 4 in a row",
        ),
        ([None] * 6, "0 of 2"),
        ([[0, 0, 0], [float("inf"), 0, 0]], "residue 2 has no place"),
    ],
)
def test_a_chain_of_which_too_little_is_known_is_refused(raw: Any, said: str) -> None:
    with pytest.raises(BadValue, match=said):
        read(raw)


# ---- files -----------------------------------------------------------------------------------------------------------


def pdb(
    letters: str, points: np.ndarray, *, first: int = 1, sequence: bool = True, missing: bool = True, chain: str = "A"
) -> str:
    """As the archive writes it: numbers from `first` on, what has no place in SEQRES and REMARK 465 alone."""
    names, there = [NAMES[letter] for letter in letters], known(points)
    lines = ["HEADER    HYDROLASE                               01-JAN-00   1ABC"]
    if missing:
        lines += ["REMARK 465", "REMARK 465 MISSING RESIDUES", "REMARK 465   M RES C SSSEQI"]
        lines += [f"REMARK 465     {names[at]} {chain} {first + at:5d}" for at in range(len(names)) if at not in there]
    if sequence:
        rows = [names[start : start + 13] for start in range(0, len(names), 13)]
        lines += [f"SEQRES {number:3d} {chain} {len(names):4d}  {' '.join(row)}" for number, row in enumerate(rows, 1)]
    for at in there:
        x, y, z = points[at]
        lines.append(
            f"ATOM  {at + 1:5d}  CA  {names[at]} {chain}{first + at:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00 20.00           C  "
        )
    return "\n".join([*lines, "TER", "END", ""])


@settings(max_examples=40, deadline=None)
@given(data=st.data(), letters=st.text("AGHV", min_size=8, max_size=40), first=st.integers(-5, 400))
def test_a_file_gives_its_whole_sequence(data: st.DataObject, letters: str, first: int) -> None:
    """However much it repeats itself, and whatever is missing of it."""
    kept = data.draw(st.integers(0, len(letters) - 4))
    gone = [at for at in data.draw(st.sets(st.integers(0, len(letters) - 1))) if not kept <= at < kept + 4]
    points = lacking(walk(len(letters), len(letters)).round(3), gone)
    chain = Chain(points, letters)
    wanted = points - points[known(points)].mean(0)
    for text in (
        pdb(letters, points, first=first),
        pdb(letters, points, first=first, sequence=False),
        chain.pdb(),
        chain.mmcif(),
    ):
        assert np.allclose(read(text), wanted, atol=2e-3, equal_nan=True)


def test_a_sequence_alone_says_where_residues_are_missing() -> None:
    """Names lead the way; where they leave it open, the numbers do."""
    letters = "MGSSHHHHHHACDEFGAAAAAAKLMNPQRW"
    points = lacking(walk(5, len(letters)).round(3), [*range(7), 18, 19, 28, 29])
    wanted = points - points[known(points)].mean(0)
    assert np.allclose(read(pdb(letters, points, missing=False)), wanted, atol=2e-3, equal_nan=True)
    assert np.allclose(read(pdb(letters, points, missing=False, first=300)), wanted, atol=2e-3, equal_nan=True)


def test_residues_are_found_in_a_sequence_that_names_a_few_otherwise() -> None:
    letters, other = "ACDEFGHIKLMNPQRSTVWY", "ACDEFGHIKLMNPQRSTVWA"
    points = lacking(walk(5, 20).round(3), [6, 7])
    lines = pdb(other, points).splitlines()
    text = "\n".join(
        [line for line in pdb(letters, points).splitlines() if line.startswith("SEQRES")]
        + [line for line in lines if line.startswith("ATOM")]
    )
    assert known(read(text)) == known(points)
    strange = text.replace(
        "SEQRES   1 A   20  ALA CYS ASP GLU PHE GLY HIS ILE LYS",
        "SEQRES   1 A   20  TRP TRP TRP TRP TRP TRP TRP TRP TRP",
    )
    with pytest.raises(BadValue, match=r"not those of its sequence \(SEQRES\): at best \d of 18"):
        read(strange)
    short = "\n".join(line for line in text.splitlines() if not line.startswith("SEQRES   2")).replace(
        "MET ASN PRO", ""
    )
    with pytest.raises(BadValue, match="18 residues with a place, and its sequence"):
        read(short)


def test_a_sequence_of_other_residues_is_refused_however_long_it_is() -> None:
    lines = pdb("AAAAAA", walk(1, 6)).splitlines()
    text = "\n".join(line.replace("ALA", "GLY") if line.startswith("ATOM") else line for line in lines)
    with pytest.raises(BadValue, match="at best 6 of 6 are named otherwise"):
        read(text)


def test_missing_residues_of_a_chain_without_a_letter_are_heard() -> None:
    points = lacking(walk(2, 9).round(3), [7, 8])
    assert known(read(pdb("ACDEFGHIK", points, chain=" ", sequence=False))) == known(points)
    assert len(read(pdb("ACDEFGHIK", points, chain=" ", sequence=False))) == 9


def test_numbers_that_skip_are_a_gap_only_where_the_chain_is_torn() -> None:
    """Of a file that names nothing. Antibodies and relatives of a numbered protein skip numbers and lack nothing."""
    letters, points = "ACDEFGHIKLMN", walk(3).round(3)
    torn = pdb(letters, lacking(points, [5, 6, 7]), sequence=False, missing=False)
    assert known(read(torn)) == [0, 1, 2, 3, 4, 8, 9, 10, 11]
    lines = pdb(letters, points, sequence=False, missing=False).splitlines()
    jumping = [
        line[:22] + f"{int(line[22:26]) + 20:4d}" + line[26:]
        if line[22:26].strip().isdigit() and int(line[22:26]) > 6 and line.startswith("ATOM")
        else line
        for line in lines
    ]
    assert len(read("\n".join(jumping))) == 12
    falling = pdb(letters, lacking(points, [5]), sequence=False).splitlines()
    falling = [
        line[:22] + f"{int(line[22:26]) - 20:4d}" + line[26:]
        if line.startswith("ATOM") and int(line[22:26]) > 6
        else line
        for line in falling
    ]
    with pytest.raises(BadValue, match="numbers that fall"):
        read("\n".join(falling))


CIF = """# made by hand
data_1ABC
_entry.id 1ABC
_struct.title
;loop_
_atom_site.group_PDB
data_none
;
_struct.details 'a loop_ in quotes'
#
loop_
_pdbx_poly_seq_scheme.asym_id
_pdbx_poly_seq_scheme.entity_id
_pdbx_poly_seq_scheme.seq_id
_pdbx_poly_seq_scheme.mon_id
_pdbx_poly_seq_scheme.pdb_strand_id
_pdbx_poly_seq_scheme.hetero
A 1 1 MET X n
A 1 2 SER X y
A 1 2 PRO X y
A 1 3 GLY X n
A 1 4 SEP X n
A 1 5 VAL X n
A 1 6 TRP X n
A 1 7 TRP X n
B 2 1 ALA Y n
#
loop_
_atom_site.group_PDB
_atom_site.id
_atom_site.label_atom_id
_atom_site.label_comp_id
_atom_site.label_asym_id
_atom_site.label_entity_id
_atom_site.label_seq_id
_atom_site.Cartn_x
_atom_site.Cartn_y
_atom_site.Cartn_z
_atom_site.auth_seq_id
_atom_site.auth_asym_id
_atom_site.pdbx_PDB_model_num
ATOM 1 N SER A 1 2 9 9 9 101 X 1
ATOM 2 CA SER A 1 2 0 0 0 101 X 1
ATOM 3 CA PRO A 1 2 0.1 0 0 101 X 1
ATOM 4 "O5'" SER A 1 2 9 9 9 101 X 1
ATOM 5 CA GLY A 1 3 3.8 0 0 102 X 1
HETATM 6 CA SEP A 1 4 3.8 3.8 0 103 X 1
ATOM 7 CA VAL A 1 5 3.8 3.8
  3.8 104 X 1
HETATM 8 CA CA C 3 . 50 50 50 201 X 1
HETATM 9 CA MSE D 4 . 60 60 60 202 X 1
ATOM 10 CA SER A 1 2 7 7 7 101 X 2
#
data_2
loop_
_atom_site.group_PDB
_atom_site.id
ATOM 1
"""


def test_an_mmcif_file_numbers_residues_along_its_sequence() -> None:
    """Two names at one place, a modified residue, ions and ligands of the same chain, a row over two lines, texts that look
    like tables, a second model, a second block."""
    points = read(CIF)
    assert known(points) == [1, 2, 3, 4]
    assert len(points) == 7
    assert np.allclose(np.diff(points[1:5], axis=0), [[3.8, 0, 0], [0, 3.8, 0], [0, 0, 3.8]], atol=1e-5)
    # the other table that has the sequence
    other = CIF.replace("_pdbx_poly_seq_scheme.asym_id\n", "").replace(
        "_pdbx_poly_seq_scheme.seq_id", "_pdbx_poly_seq_scheme.num"
    )
    other = re.sub(r"^[AB] (\d \d \w{3} [XY] [yn])$", r"\1", other, flags=re.MULTILINE).replace(
        "_pdbx_poly_seq_scheme", "_entity_poly_seq"
    )
    assert np.array_equal(read(other), points, equal_nan=True)
    with pytest.raises(BadValue, match="residue 9, and its sequence has 7"):
        read(CIF.replace("VAL A 1 5", "VAL A 1 9"))
    with pytest.raises(BadValue, match="cut short"):
        read(CIF.replace("104 X 1", "104 X"))


def test_a_calcium_ion_is_no_residue_even_if_it_is_written_as_an_atom_of_the_chain() -> None:
    """Its atom is called CA, too; by its number nearly two hundred residues would be missing before it."""
    chain = Chain(helix(8).points, "GSHMVLAA")
    ion = "ATOM      9 CA    CA A 201      60.000   0.000   0.000  1.00 20.00          CA  "
    assert np.allclose(read(chain.pdb().replace("TER", f"{ion}\nTER")), read(chain.pdb()))
    in_cif = "ATOM 9 CA CA . CA A 1 . ? 60.000 0.000 0.000 1.00 20.00 201 A 1\n"
    assert np.allclose(read(chain.mmcif().rstrip("#\n ") + "\n" + in_cif), read(chain.mmcif()))


def test_a_modified_residue_of_a_pdb_sequence_is_one_and_a_ligand_is_none() -> None:
    letters, points = "ACDEFGHI", walk(3, 8).round(3)
    text = pdb(letters, lacking(points, [7])).replace("PHE", "SEP")
    lines = ["HETATM" + line[6:] if line.startswith("ATOM") and "SEP" in line else line for line in text.splitlines()]
    ligand = "HETATM   99  CA  ALA A 900      50.000  50.000  50.000  1.00  0.00           C  "
    assert known(read("\n".join([*lines, ligand]))) == [0, 1, 2, 3, 4, 5, 6]
    # of a file that names nothing it is a gap, and not a bond of seven angstrom
    unnamed = "\n".join(line for line in lines if line.startswith(("ATOM", "HETATM")))
    assert known(read(unnamed)) == [0, 1, 2, 3, 5, 6]


def letters_of(raw: Any, **declared: Any) -> str:
    return bytes(ew.Residues(**declared).read(raw, lambda path: Path(path).read_bytes())).decode("ascii")


def test_a_file_has_its_sequence_too(tmp_path: Path) -> None:
    """As long as its chain, letter by letter: what was not resolved, the amino acid behind a modified one, X for what the file
    does not name."""
    letters, points = "ACDEFGHIKLMNPQRSTVWY", lacking(walk(5, 20).round(3), [0, 6, 7])
    text = pdb(letters, points)
    for raw in (text, text.encode(), Chain(points, letters).mmcif()):
        assert letters_of(raw) == letters
    path = tmp_path / "1ABC.ent"
    path.write_text(text)
    assert letters_of(str(path)) == letters
    assert letters_of(CIF) == "MSGSVWW"
    assert letters_of(CIF, chain="X") == "MSGSVWW"
    assert letters_of(pdb(letters, points, sequence=False, missing=False)) == letters[1:6] + "XX" + letters[8:]
    with pytest.raises(BadValue, match="there is no chain 'B'; there are A"):
        letters_of(text, chain="B")
    with pytest.raises(BadValue, match="place 4 is no amino acid"):
        letters_of("ACD\nEFG")
    with pytest.raises(BadValue, match="20 residues; longer than 19"):
        letters_of(text, longest=19)


# ---- in a recipe -----------------------------------------------------------------------------------------------------


def rows() -> list[dict[str, Any]]:
    random = np.random.default_rng(0)
    found = []
    for seed in range(12):
        letters = "".join(random.choice(list(LETTERS[:20]), size=14))
        truth = Chain(lacking(walk(seed, 14), [4, 5] if seed % 2 else []), letters)
        found.append({"file": truth.mmcif() if seed % 3 else truth.pdb()})
    return found


def test_chains_with_gaps_are_counted_drawn_and_answered_whole(tmp_path: Path) -> None:
    recipe = ew.Recipe(
        name="folds",
        data=rows(),
        inputs={"sequence": {"type": "residues", "column": "file"}},
        outputs={"fold": {"type": "structure", "column": "file"}},
        train={"size": "tiny", "steps": 2},
    )
    dataset = prepare(recipe, workers=0)
    assert not dataset.bad
    model = ew.fit(recipe, out=tmp_path / "run")
    contract = model.contracts["fold"]
    assert re.fullmatch(
        r"chains of 14 to 14 residues, \d+ of [\d,]+ not resolved", recipe.outputs["fold"].summary(contract)
    )
    answer = model.predict({"sequence": "ACDEFGHIKLMN"}).answers["fold"]
    assert np.isfinite(answer.value.points).all()
    assert len(answer.detail["residues"]) == 12
    path = Chain(lacking(walk(1), [4]), "ACDEFGHIKLMN").save(tmp_path / "new.cif")
    of_file = model.predict({"sequence": str(path)}).answers["fold"].value
    assert of_file.letters == "ACDEFGHIKLMN"
    assert np.allclose(of_file.points, answer.value.points, atol=1e-4)


def test_a_gap_is_not_drawn_as_a_bond() -> None:
    truth = Chain(lacking(helix(20).points, [8, 9]))
    text = base64.b64decode(helix(20).drawn(truth).partition(",")[2]).decode("ascii")
    (behind,) = {colour for colour in re.findall(r'stroke="(#\w+)"', text) if colour == "#b4b4b4"}
    bonds = "".join(re.findall(rf'<path d="([^"]+)" stroke="{behind}"', text)).count("M")
    assert bonds == 16
    assert "nan" not in text


def test_letters_without_a_file_have_to_be_as_many_as_the_file_names() -> None:
    item = ew.Structure(on="sequence")
    assert (
        item.misfit((14, 3), (12,))
        == "14 points for 12 residues of sequence; those that a file names and that have no place count, too"
    )
    assert item.misfit((12, 3), (14,)) == "12 points for 14 residues of sequence"
