"""Chains: read from what people have, measured up to turning and moving and never up to mirroring, written as PDB and mmCIF."""

import base64
import copy
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner, Result

import endwise as ew
from endwise.chain import Chain, helix
from endwise.cli import app
from endwise.data.dataset import prepare
from endwise.errors import BadValue, DataError, RecipeError
from endwise.metrics import structures
from endwise.modalities.residues.network import ResiduesEncoder
from endwise.modalities.structure import geometry
from endwise.modalities.structure.classical import Composition, DistancesBySeparation, handedness
from endwise.modalities.structure.network import Relaxing, StructureHead, Turns
from endwise.nn.pairs import PairBlock, pair_width
from endwise.nn.size import Size

SIZE = Size.of("tiny", width=32, depth=1)


def walk(seed: int, count: int = 12) -> np.ndarray:
    """A chain of bonds of 3.8 angstrom in random directions, none of them straight back."""
    random = np.random.default_rng(seed)
    step, steps = np.array([1.0, 0.0, 0.0]), []
    for _ in range(count):
        step = step + 0.9 * random.normal(size=3)
        step /= np.linalg.norm(step)
        steps.append(3.8 * step)
    return np.cumsum(steps, axis=0)


def turned(points: np.ndarray, seed: int) -> np.ndarray:
    """Turned and moved, not mirrored."""
    random = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(random.normal(size=(3, 3)))
    turn[:, 0] *= np.sign(np.linalg.det(turn))
    return points @ turn + 50 * random.normal(size=3)


def tensors(*chains: np.ndarray) -> list[torch.Tensor]:
    return [torch.tensor(chain, dtype=torch.float32)[None] for chain in chains]


def soft(made: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return geometry.smooth_lddt(geometry.distances(made), geometry.distances(truth), mask)


def by_residue(made: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return geometry.lddt(geometry.distances(made), geometry.distances(truth), mask)


MASK = torch.ones(1, 12, dtype=torch.bool)
MIRROR = np.array([1.0, 1.0, -1.0])

# ---- what a turn changes, and what a mirror does ---------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_error_knows_no_place_and_no_direction_but_a_hand(seed: int) -> None:
    """FAPE is 0 for the same chain anywhere; unchanged when either chain is moved; above 0 for the mirror image."""
    truth, other = walk(seed), walk(seed + 1)
    same = geometry.fape(*tensors(turned(truth, seed), truth), MASK)
    assert float(same) < 2e-3
    one = geometry.fape(*tensors(other, truth), MASK)
    two = geometry.fape(*tensors(turned(other, seed + 2), turned(truth, seed + 3)), MASK)
    assert torch.allclose(one, two, atol=2e-3)
    assert float(geometry.fape(*tensors(truth * MIRROR, truth), MASK)) > 0.05


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_metrics_know_no_place_and_no_direction(seed: int) -> None:
    truth, other = walk(seed), walk(seed + 1)
    moved = turned(truth, seed)
    assert structures.rmsd(truth, moved) < 1e-6
    assert structures.lddt(truth, moved) == 1.0
    assert structures.tm_score(truth, moved) == pytest.approx(1.0)
    assert structures.lddt(truth, other) == pytest.approx(structures.lddt(truth, turned(other, seed)))
    assert structures.rmsd(truth, other) == pytest.approx(structures.rmsd(truth, turned(other, seed)))
    assert structures.rmsd(truth, truth * MIRROR) > 0.3  # superposing never mirrors
    assert structures.lddt(truth, truth * MIRROR) == 1.0  # distances alone cannot tell


def test_padding_costs_nothing() -> None:
    truth, made = walk(1), walk(2)
    far = np.full((5, 3), 1e3)
    mask = torch.arange(17)[None] < 12
    short, long = tensors(made, truth), tensors(np.concatenate([made, far]), np.concatenate([truth, -far]))
    for cost in (geometry.fape, soft):
        assert torch.allclose(cost(*short, MASK), cost(*long, mask), atol=1e-4)
    assert torch.allclose(by_residue(*short, MASK), by_residue(*long, mask)[:, :12])


def test_the_smooth_loss_is_least_at_the_truth_and_has_a_slope() -> None:
    truth, made = tensors(walk(1), walk(2))
    made.requires_grad_()
    assert abs(float(soft(truth, truth, MASK))) < 1e-5
    cost = soft(made, truth, MASK) + geometry.fape(made, truth, MASK)
    (slope,) = torch.autograd.grad(cost.sum(), made)
    assert bool(torch.isfinite(slope).all())
    assert bool((slope.abs().sum(-1) > 0).all())


def test_the_two_lddts_are_one() -> None:
    truth, made = walk(1), walk(2)
    found = by_residue(*tensors(made, truth), MASK)[0].numpy()
    assert np.allclose(found, structures.lddt_by_residue(truth, made), atol=1e-6)


def test_a_chain_of_few_residues_costs_something_finite() -> None:
    for count in (1, 2, 3):
        mask = torch.ones(1, count, dtype=torch.bool)
        truth, made = tensors(walk(1, count), walk(2, count))
        for cost in (geometry.fape, soft):
            assert bool(torch.isfinite(cost(made, truth, mask)).all())


# ---- laying a chain --------------------------------------------------------------------------------------------------


def test_a_chain_is_laid_as_one_step_after_another_would_lay_it() -> None:
    torch.manual_seed(0)
    turns = geometry.turned(torch.randn(2, 21, 4))
    made = geometry.composed(turns)
    frame, place = torch.eye(3).expand(2, 3, 3), torch.zeros(2, 3)
    for residue in range(21):
        assert torch.allclose(made[:, residue], place, atol=1e-3)
        place = place + geometry.BOND * frame[:, :, 0]
        frame = frame @ turns[:, residue]
    steps = made.diff(dim=1).norm(dim=-1)
    assert torch.allclose(steps, torch.full_like(steps, geometry.BOND), atol=1e-3)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_turns_that_are_measured_lay_the_chain_again(seed: int) -> None:
    """Anywhere it lies; and a mirror winds the other way."""
    truth = walk(seed)
    (points,), (mirrored,) = tensors(turned(truth, seed)), tensors(truth * MIRROR)
    angles = geometry.angles(points)
    straight = torch.tensor([1.0, 0.0, 1.0, 0.0])
    whole = torch.cat([straight[:2].expand(1, 1, 2), angles[:, :1, 2:]], dim=-1)  # the first has no twist
    laid = torch.cat([whole, angles[:, 1:-2], straight.expand(1, 2, 4)], dim=1)
    assert structures.rmsd(truth, geometry.composed(geometry.turned(laid))[0].numpy()) < 5e-3
    inner = slice(1, -2)
    sign = torch.tensor([1.0, -1.0, 1.0, 1.0])
    assert torch.allclose(geometry.angles(mirrored)[:, inner], angles[:, inner] * sign, atol=1e-3)


def test_a_chain_is_relaxed_to_what_its_pairs_expect() -> None:
    """An untrained one stands still; turning the chain turns the moves; a chain at its own distances stays."""
    torch.manual_seed(0)
    relaxing, pairs = Relaxing(16), torch.randn(1, 12, 12, 16)
    (points,) = tensors(walk(1))
    assert torch.equal(relaxing(points, pairs, MASK)[0], points)
    torch.nn.init.normal_(relaxing.lead.weight)
    other = turned(walk(1), 5)
    (moved,), (elsewhere,) = relaxing(points, pairs, MASK)[0], relaxing(*tensors(other), pairs, MASK)[0]
    assert structures.rmsd(moved.detach().numpy(), points[0].numpy()) > 0.1
    assert structures.rmsd(moved.detach().numpy(), elsewhere.detach().numpy()) < 1e-3
    with torch.no_grad():
        relaxing.lead.bias.copy_(torch.tensor([1.0, 100.0, 0.0]))  # the distances are those of the turns
    assert torch.allclose(relaxing(points, pairs, MASK)[0], points, atol=1e-4)


def test_what_an_untrained_network_says_is_a_right_handed_helix() -> None:
    torch.manual_seed(0)
    angles, _ = Turns(32)(torch.randn(1, 20, 32))
    made = geometry.composed(geometry.turned(angles.detach()))[0].numpy()
    ideal = helix(20).points
    assert handedness(made) > 0 < handedness(ideal)
    assert structures.rmsd(ideal, made) < 1.0
    assert np.allclose(np.linalg.norm(np.diff(ideal, axis=0), axis=1), 3.8, atol=0.05)


def test_pairs_of_a_row_do_not_look_at_its_padding() -> None:
    torch.manual_seed(0)
    block = PairBlock(SIZE, pair_width(SIZE)).eval()
    torch.nn.init.normal_(block.summed.weight)
    x, z = torch.randn(1, 7, 32), torch.randn(1, 7, 7, pair_width(SIZE))
    mask = torch.arange(7)[None] < 4
    whole, short = block(x, z, mask), block(x[:, :4], z[:, :4, :4], mask[:, :4])
    assert torch.allclose(whole[0][:, :4], short[0], atol=1e-5)
    assert torch.allclose(whole[1][:, :4, :4], short[1], atol=1e-5)


# ---- reading and writing ---------------------------------------------------------------------------------------------


def read(raw: Any, **declared: Any) -> np.ndarray:
    return ew.Structure(**declared).read(raw, lambda path: Path(path).read_bytes())


def test_lists_files_and_answers_are_read_alike(tmp_path: Path) -> None:
    chain = Chain(walk(3).round(3).astype(np.float32), "ACDEFGHIKLMX")
    wanted = chain.points - chain.points.mean(0)
    paths = [str(chain.save(tmp_path / name)) for name in ("a.pdb", "a.cif")]
    assert Path(paths[1]).read_text().startswith("data_")
    nested = np.array([*chain.points.astype(np.float64), None], dtype=object)[:-1]  # a column of lists
    for raw in (chain, chain.to_json(), chain.points.ravel().tolist(), str(chain.to_json()), nested, *paths,
                chain.pdb(), chain.mmcif(), chain.pdb().encode()):  # fmt: skip
        assert np.allclose(read(raw), wanted, atol=2e-3)


def test_a_file_of_several_chains_models_and_places() -> None:
    lines = Chain(walk(3, 2), "GA").pdb().splitlines()[:2]
    other = [line[:21] + "B" + line[22:30] + f"{9:8.3f}" + line[38:] for line in lines]
    second_place = lines[0][:16] + "B" + lines[0][17:30] + f"{77:8.3f}" + lines[0][38:]
    calcium = "HETATM    9 CA    CA A 900       1.000   1.000   1.000  1.00  0.00          CA  "
    text = "\n".join(
        ["MODEL 1", lines[0], second_place, lines[1], calcium, *other, "ENDMDL", "MODEL 2", *lines * 3, ""]
    )
    assert len(read(text)) == 2
    assert np.allclose(np.diff(read(text), axis=0), np.diff(walk(3, 2), axis=0), atol=2e-3)
    assert np.allclose(read(text, chain="B")[:, 0], 0)
    with pytest.raises(BadValue, match="there are A, B"):
        read(text, chain="C")


@pytest.mark.parametrize(
    ("raw", "said"),
    [([1.0, 2.0], "three coordinates"), ([[1, 2, 3], [1, 2]], "three coordinates"), ([[1.0, 2.0, float("nan")]], "residue 1"),
     ("HEADER\nEND\n", "no alpha carbon"), ("[1, 2", "no list"), (b"\xff\xfe", "no text"), ([], "three coordinates"),
     ("ATOM      1  CA  ALA A   1      xx.xxx  0.000   0.000\n", "damaged"), (None, "path or the bytes")],
)  # fmt: skip
def test_what_is_no_chain_is_refused(raw: Any, said: str) -> None:
    with pytest.raises(BadValue, match=said):
        read(raw)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ("ACB", "'B' at place 3"),
        ("acd", "write capitals"),
        ("", "empty"),
        (3, "one-letter"),
        ("A" * 513, "longer than 512"),
    ],
)
def test_what_is_no_sequence_is_refused(raw: Any, said: str) -> None:
    with pytest.raises(BadValue, match=said):
        ew.Residues().read(raw, lambda path: b"")


def test_a_pdb_file_keeps_its_columns() -> None:
    line = Chain(np.array([[-11.5, 2.25, 103.125]]), "W", (0.87,)).pdb().splitlines()[0]
    assert line[:6] == "ATOM  "
    assert (line[12:16], line[17:20], line[21], int(line[22:26])) == (" CA ", "TRP", "A", 1)
    assert [float(line[start : start + 8]) for start in (30, 38, 46)] == [-11.5, 2.25, 103.125]
    assert float(line[60:66]) == 87.0
    assert line[76:78] == " C"
    with pytest.raises(ValueError, match="mmCIF"):
        helix(10_000).pdb()


def bonds(uri: str) -> np.ndarray:
    """Float [bond, 4], the ends in pixels of all coloured lines of a drawing, in a fixed order."""
    text = base64.b64decode(uri.partition(",")[2]).decode("ascii")
    lines = re.findall(r'<path d="([^"]+)" stroke="(?!#fff)', text)
    found = [
        [float(number) for number in re.findall(r"[\d.]+", bond)] for line in lines for bond in line[1:].split("M")
    ]
    return np.array(sorted(found))


def test_a_chain_is_drawn() -> None:
    chain = helix(40)
    uri = chain.drawn()
    assert uri.startswith("data:image/svg+xml;base64,")
    assert len(bonds(uri)) == 39
    table = re.search(r'href="data:image/png;base64,([^"]+)"', base64.b64decode(uri.partition(",")[2]).decode("ascii"))
    assert table is not None
    picture = Image.open(io.BytesIO(base64.b64decode(table.group(1))))
    assert picture.size[0] == picture.size[1] >= 40
    assert repr(chain) == "Chain(40 residues)"
    assert re.match(r"<img src=", chain._repr_html_())


def test_a_mirror_image_is_drawn_as_another_chain() -> None:
    """Wherever an answer lies it is drawn on its truth; its mirror image, whose distances are the same, is not."""
    truth = Chain(walk(1))
    wanted, moved = bonds(truth.drawn(truth)), bonds(Chain(turned(walk(1), 5)).drawn(truth))
    assert np.allclose(wanted, moved, atol=0.2)
    on_truth = bonds(Chain(walk(1) * MIRROR).drawn(truth))
    alone = bonds(Chain(walk(1) * MIRROR).drawn())
    assert np.abs(on_truth - wanted).max() > 5
    assert np.abs(alone - bonds(truth.drawn())).max() > 5


# ---- in a recipe -----------------------------------------------------------------------------------------------------


def b_factors(path: Path) -> list[float]:
    lines = [line for line in path.read_text().splitlines() if line.startswith("ATOM")]
    return [float(line[60:66] if path.suffix == ".pdb" else line.split()[14]) for line in lines]


def test_predict_writes_pdb_or_mmcif(tmp_path: Path) -> None:
    """The same places and confidences in both, a file by its own name or a folder of them."""
    rows = [
        {"sequence": "ACDEFGHIKLMN"[seed:] + "ACDEFGHIKLMN"[:seed], "fold": walk(seed).tolist()} for seed in range(12)
    ]
    recipe = ew.Recipe(
        data=rows, inputs={"sequence": "residues"}, outputs={"fold": "structure"}, train={"size": "tiny", "steps": 2}
    )
    run, one, two = str(ew.fit(recipe, out=tmp_path / "run").run.path), "MKVLAAGHWY", "AAEEKLLR"

    def predict(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["predict", run, *arguments, "--json"])

    def value(line: str) -> Path:
        return Path(json.loads(line)["outputs"]["fold"]["value"])

    files = [value(predict(one, "--out", str(tmp_path / "new" / name)).output) for name in ("x.cif", "x.pdb")]
    assert [path.name for path in files] == ["x.cif", "x.pdb"]
    assert files[0].read_text().startswith("data_")
    (first, second), sure = map(read, map(str, files)), b_factors(files[0])
    assert np.allclose(first, second, atol=2e-3)
    assert len(first) == len(sure) == 10
    assert sure == b_factors(files[1])
    told = json.loads(predict(one).output)["outputs"]["fold"]["detail"]["residues"]
    assert np.allclose(sure, 100 * np.array(told), atol=0.01)
    folder = predict(one, two, "--out", str(tmp_path / "many"), "--suffix", ".cif").output.splitlines()
    assert [value(line).name for line in folder] == ["0001-fold.cif", "0002-fold.cif"]
    assert np.array_equal(read(str(value(folder[0]))), first)
    assert value(predict(two, "--out", str(tmp_path / "many")).output).name == "0001-fold.pdb"
    for arguments, said in (
        ((one, two, "--out", "x.cif"), "--out x --suffix .cif"),
        ((one, "--out", "x.pdb", "--suffix", ".cif"), "--out x --suffix .cif"),
        ((one, "--out", "x", "--suffix", ".wav"), "one of .cif, .pdb"),
        ((one, "--suffix", ".cif"), "add --out FOLDER"),
    ):
        refused = predict(*arguments).exception
        assert isinstance(refused, RecipeError)
        assert said in str(refused)


def test_points_and_letters_have_to_agree() -> None:
    letters = np.array(list("ACDEFGHIKLMN"))
    rows = [
        {"sequence": "".join(np.random.default_rng(seed).permutation(letters)), "fold": walk(seed).tolist()}
        for seed in range(40)
    ]
    rows[4]["sequence"] = "ACD"
    recipe = ew.Recipe(
        data={"path": rows, "max_bad": "10%"}, inputs={"sequence": "residues"}, outputs={"fold": "structure"}
    )
    (bad,) = prepare(recipe, workers=0).bad
    assert (bad.row, bad.reason) == (
        4,
        "12 points for 3 residues of sequence; those that a file names and that have no place count, too",
    )


def test_a_chain_folds_from_residues() -> None:
    with pytest.raises(RecipeError, match="type: residues"):
        ew.Recipe(data=[{"a": 1}], inputs={"a": "text"}, outputs={"fold": "structure"}).standing("fold")
    with pytest.raises(RecipeError, match="on: a"):
        ew.Recipe(data=[{"a": 1}], inputs={"a": "residues", "b": "residues"}, outputs={"y": "structure"}).standing("y")


def test_the_trivial_answer_is_as_long_as_the_sequence() -> None:
    item = ew.Structure(on="sequence")
    contract = item.fit(iter([read(walk(0))]), missing=0, role="output")
    constant = item.trivial([], contract)
    assert len(constant.value) == 12
    letters = np.frombuffer(b"ACDEFGH", np.uint8)
    given = {"sequence": ew.Residues().fit(iter([letters]), missing=0, role="input"), "fold": contract}
    (own,) = item.untaught({"sequence": letters}, given, contract).values()
    assert len(own.value) == 7


def test_distances_by_separation_give_a_helix_back() -> None:
    """Where all chains are helices, the classical rival says a helix of the right length and hand."""
    truths = [helix(count) for count in (10, 14, 18)]
    features = Composition().transform([np.full(len(truth), ord("A"), np.uint8) for truth in truths])
    found = DistancesBySeparation().fit(features, truths).predict(np.array([[12.0, *features[0][1:]]]))
    assert structures.lddt(helix(12).points, found[0]) > 0.95
    assert handedness(found[0]) > 0
    with pytest.raises(ValueError, match="number of residues"):
        DistancesBySeparation().fit(features[:, 1:], truths)


def test_an_answer_of_another_length_is_compared_from_the_first_residue_on() -> None:
    truth = helix(20).points
    assert structures.lddt(truth, helix(40).points[:30]) == pytest.approx(1.0)
    assert 0 < structures.tm_score(truth, truth[:10]) <= 0.5
    assert structures.lddt(truth, truth[:10]) < 0.6
    assert np.isnan(structures.tm_score(truth[:2], truth[:2]))


def test_grids_of_turns_need_a_known_input() -> None:
    with pytest.raises(RecipeError, match="residues input"):
        ew.Structure().head(ew.Structure().fit(iter([read(walk(0))]), missing=0, role="output"), SIZE)
    with pytest.raises(DataError, match="at least one"):
        ew.Structure().fit(iter([]), missing=3, role="output")


class Folding(torch.nn.Module):
    """Letters to points, as a network's encoder and head do it."""

    def __init__(self, recycles: int) -> None:
        super().__init__()
        self.encoder, self.head = ResiduesEncoder(SIZE), StructureHead(SIZE, on="s", recycles=recycles)

    def forward(self, letters: torch.Tensor, sizes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = self.encoder(letters, sizes)
        known = {"s": torch.ones_like(sizes[:, 0], dtype=torch.bool)}
        told = {"pair": {"s": tokens.pair["residues"]}, "symbols": {"s": letters}, "present": known}
        found = self.head(replace(tokens, spans={"s": slice(0, letters.shape[1])}, **told))
        return found["points"], found["sure"]


@pytest.mark.slow
def test_a_chain_that_is_read_again_is_exported() -> None:
    """What is written to ONNX for a chain that is read once is tested with all other answers; a second reading is more of the
    same operations, so that here the graph is enough: for other rows, and longer ones, than it was made with."""
    torch.manual_seed(0)
    network = Folding(recycles=1).eval()
    torch.nn.init.normal_(network.head.relaxing.lead.weight)
    few, many = torch.randint(0, 20, (2, 7)), torch.randint(0, 20, (3, 11))
    batch, residue = torch.export.Dim("batch"), torch.export.Dim("residue", min=3, max=512)
    shapes = ({0: batch, 1: residue}, {0: batch})
    graph = torch.export.export(network, (few, torch.tensor([[7], [5]])), dynamic_shapes=shapes, strict=False).module()
    given = (many, torch.tensor([[11], [4], [9]]))
    with torch.no_grad():
        for found, wanted in zip(graph(*given), network(*given), strict=True):
            assert torch.allclose(found, wanted, atol=1e-3)
        once = copy.deepcopy(network)
        once.head.recycles = 0
        assert not torch.allclose(once(*given)[0], network(*given)[0], atol=1e-1)
