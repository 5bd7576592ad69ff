"""Export: a folder that answers as the model does, needs no torch, and is not written when it would answer otherwise."""

import json
import math
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from endwise.errors import DataError, ExportError, ModelError
from endwise.export import ExportResult, benchmark, export, export_run, verify
from endwise.modalities import TABLE, modality_class
from endwise.modalities.base import Contract
from endwise.modalities.number import Number
from endwise.model import Model
from endwise.nn.interface import Encoder, Head, Tokens
from endwise.nn.scalars import NumberHead
from endwise.nn.size import Size
from endwise.recipe import Recipe
from endwise.runner import Bundle, differences
from endwise.train import fit

REPOSITORY = Path(__file__).parent.parent
ROWS: list[dict[str, Any]] = [
    {"note": text, "weight": None if row == 3 else 1.5 * row, "kind": "abc"[row % 3]}
    for row, text in enumerate(
        ["calm", "a storm is coming", "Regen im März", "", "no", "wind, then more wind", "ice", "sun"]
    )
]
ANSWERS = [{"mood": "good" if row % 2 else "bad", "price": 100.0 * row} for row in range(8)]
# What a bundle may not import: a refusing finder stands first in line, whatever is installed.
ISOLATED = """
import importlib.abc, runpy, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "pydantic", "endwise", "sklearn", "scipy", "pandas", "pyarrow", "safetensors", "yaml"}:
            raise ImportError(f"{name} is not in a bundle")
sys.meta_path.insert(0, Refuse())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def fitted(recipe: Recipe, rows: Sequence[Mapping[str, Any]]) -> dict[str, Contract]:
    """Contracts from raw values in memory."""
    found = {}
    for role, section in (("input", recipe.inputs), ("output", recipe.outputs)):
        for name, item in section.items():
            values = [item.read(row[name], lambda path: b"") for row in rows if row[name] is not None]
            found[name] = item.fit(values, missing=len(rows) - len(values), role=role)
    return found


def small_model(inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Model:
    recipe = Recipe(name="small", data="unused.csv", inputs=inputs, outputs=outputs, trunk={"width": 32, "depth": 1})
    rows = [{**row, **answers} for row, answers in zip(ROWS, ANSWERS, strict=True)]
    return Model.build(recipe, fitted(recipe, rows), seed=0)


@pytest.fixture(scope="module")
def model() -> Model:
    return small_model(
        {"note": "text", "weight": {"type": "number", "unit": "kg"}, "kind": "category"},
        {"mood": "category", "price": {"type": "number", "unit": "EUR"}},
    )


@pytest.fixture(scope="module")
def exported(model: Model, tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    return export(model, tmp_path_factory.mktemp("out") / "bundle", examples=ROWS)


def run(bundle: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """run.py in a process that can import neither torch nor endwise, started from elsewhere."""
    command = [sys.executable, "-I", "-c", ISOLATED, str(bundle / "run.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=bundle.parent.parent, timeout=120)


# ---- the bundle's answers --------------------------------------------------------------------------------------------


def test_a_bundle_answers_raw_values_as_the_model_does(model: Model, exported: ExportResult) -> None:
    bundle = Bundle.load(exported.folder)
    expected = [prediction.to_dict() for prediction in model.predict(ROWS)]
    assert differences(expected, bundle.predict(ROWS)) == []
    assert differences(expected, [bundle.predict(row) for row in ROWS]) == []
    assert bundle.predict(ROWS[0]).keys() == {"mood", "price"}
    assert bundle.predict(ROWS[0])["price"]["unit"] == "EUR"


def test_a_bundle_answers_other_sizes_than_it_was_traced_with(model: Model, exported: ExportResult) -> None:
    rows = [{"note": "x" * length, "weight": 1.0, "kind": "a"} for length in (1, 2, 97, 300)] * 5
    expected = [prediction.to_dict() for prediction in model.predict(rows)]
    assert differences(expected, Bundle.load(exported.folder).predict(rows, batch_size=7)) == []


def test_columns_are_scored_as_rows_are(exported: ExportResult) -> None:
    bundle = Bundle.load(exported.folder)
    wanted = bundle.predict(ROWS)
    listed: dict[str, Any] = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    holes = {**listed, "weight": np.array([math.nan if cell is None else cell for cell in listed["weight"]])}
    spelt = {**listed, "weight": [None if cell is None else f" {cell} " for cell in listed["weight"]]}
    for columns, settings in ((listed, {}), (holes, {"batch_size": 3, "workers": 2}), (spelt, {"batch_size": 5})):
        found = bundle.score(columns, **settings)
        assert found["mood"]["value"].tolist() == [row["mood"]["value"] for row in wanted]
        np.testing.assert_allclose(
            found["mood"]["confidence"], [row["mood"]["confidence"] for row in wanted], atol=1e-5
        )
        np.testing.assert_allclose(found["price"]["value"], [row["price"]["value"] for row in wanted], rtol=1e-4)
        good = [row["mood"]["detail"]["probabilities"]["good"] for row in wanted]
        np.testing.assert_allclose(found["mood"]["detail"]["probabilities"]["good"], good, atol=1e-5)
    del listed["weight"]  # it may be missing
    assert len(bundle.score(listed)["price"]["value"]) == len(ROWS)


def test_a_graph_cuts_nothing_up_and_knows_how_many_rows_suit_it(exported: ExportResult) -> None:
    """A layer that says several things is as many products, and a root mean square one operation."""
    graph = onnx.load(exported.folder / "graph.onnx").graph
    made = {node.input[0] for node in graph.node if node.op_type == "MatMul"}
    kinds = {node.op_type for node in graph.node}
    cut = [node for node in graph.node if node.op_type == "Split" and node.input[0] in made]
    assert not cut
    assert "Div" in kinds
    assert "Reciprocal" not in kinds
    rows = Bundle.load(exported.folder).rows_at_once
    assert 1 <= rows <= 4096
    assert rows & (rows - 1) == 0


def test_wrong_columns_are_refused_with_the_row_and_the_field(exported: ExportResult) -> None:
    bundle = Bundle.load(exported.folder)
    columns: dict[str, Any] = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    for changed, words in (
        ({"weight": [1.0, 2.0, "5 kg", *[1.0] * 5]}, ["row 3", "weight", "5 kg"]),
        ({"weight": np.array([1.0, 2.0, 3.0, np.inf, *[1.0] * 4])}, ["row 4", "weight", "infinite"]),
        ({"kind": ["a", None, *"abcabc"]}, ["row 2", "kind", "missing"]),
        ({"kind": ["a"]}, ["columns", "kind"]),
        ({"knd": ["a"] * 8}, ["knd", "kind"]),
    ):
        with pytest.raises(DataError) as wrong:
            bundle.score({**columns, **changed}, batch_size=2)
        assert all(word in str(wrong.value) for word in words), str(wrong.value)


def test_an_input_that_may_be_missing_may_be_left_out(model: Model, exported: ExportResult) -> None:
    row = {"note": "calm", "kind": "a"}
    assert differences([model.predict(row).to_dict()], [Bundle.load(exported.folder).predict(row)]) == []


def test_the_graph_has_the_promised_names(exported: ExportResult) -> None:
    assert exported.inputs == ("note", "note.sizes", "weight", "weight.present", "kind")
    assert {name.split(".")[0] for name in exported.outputs} == {"mood", "price"}
    assert exported.rows == len(ROWS) + 1  # and one with the weight left out
    assert exported.largest_difference <= 1e-4 * 1000
    assert json.dumps(exported.to_dict())
    assert str(exported.folder) in str(exported)


def test_wrong_rows_are_refused_with_the_row_and_the_field(exported: ExportResult) -> None:
    bundle = Bundle.load(exported.folder)
    good = ROWS[0]
    for row, words in (
        ({"note": "x", "kind": "a", "weight": "heavy"}, ["row 2", "'weight'", "heavy"]),
        ({"note": "x", "weight": 1.0}, ["row 2", "'kind'", "missing"]),
        ({**good, "wieght": 1.0}, ["row 2", "wieght", "'weight'"]),
        ({**good, "mood": "good"}, ["row 2", "mood", "leave it out"]),
        ("just text", ["row 2", "note, weight, kind"]),
    ):
        with pytest.raises(DataError) as refused:
            bundle.predict([good, row])
        assert all(word in str(refused.value) for word in words), refused.value


# ---- without torch -----------------------------------------------------------------------------------------------------


def test_the_runner_needs_neither_torch_nor_endwise(model: Model, exported: ExportResult) -> None:
    done = run(exported.folder, "--json", "--input", "note=calm", "--input", "weight=2.5", "--input", "kind=b")
    assert done.returncode == 0, done.stderr
    expected = model.predict({"note": "calm", "weight": "2.5", "kind": "b"}).to_dict()
    assert differences([expected], [json.loads(done.stdout)["outputs"]]) == []
    assert run(exported.folder, "--verify").stdout == "the golden inputs get the same answers\n"


def test_the_runner_takes_tables_and_json(model: Model, exported: ExportResult, tmp_path: Path) -> None:
    csv, lines = tmp_path / "rows.csv", tmp_path / "rows.jsonl"
    # U+2028 and U+0085 end a line for `str.splitlines` and for nobody else
    csv.write_text('kind,note,weight,ignored\na,"rain, snow",2.5,x\nb,sun\u2028shine,,y\n', encoding="utf-8")
    lines.write_text('{"kind": "c", "note": "ice\u0085cold", "weight": 1}\n', encoding="utf-8")
    whole = '{"kind": "a", "note": "wind", "weight": 3.5}'
    done = run(exported.folder, "--json", str(csv), str(lines), whole)
    assert done.returncode == 0, done.stderr
    rows = [
        {"kind": "a", "note": "rain, snow", "weight": 2.5},
        {"kind": "b", "note": "sun\u2028shine", "weight": None},
        {"kind": "c", "note": "ice\u0085cold", "weight": 1},
        json.loads(whole),
    ]
    expected = [prediction.to_dict() for prediction in model.predict(rows)]
    assert differences(expected, [json.loads(line)["outputs"] for line in done.stdout.splitlines()]) == []


def test_the_runner_names_every_row_and_goes_on_after_a_bad_one(exported: ExportResult, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("kind,note,weight\na,calm,2.5\nb,rain,heavy\nb,ice,1\n")
    done = run(exported.folder, str(tmp_path / "rows.csv"))
    assert done.returncode == 3
    assert [line.split(": mood: ")[0] for line in done.stdout.splitlines()] == ["rows.csv line 2", "rows.csv line 4"]
    assert done.stderr.startswith("rows.csv line 3: field 'weight'")
    told = [json.loads(line) for line in run(exported.folder, "--json", str(tmp_path / "rows.csv")).stdout.splitlines()]
    assert [line.get("row") for line in told] == ["rows.csv line 2", None, "rows.csv line 4"]
    assert "rows.csv line 3" in told[1]["error"]


def test_the_runner_speaks_of_mistakes_without_a_traceback(exported: ExportResult, tmp_path: Path) -> None:
    (tmp_path / "short.csv").write_text("note,weight,kind\ncalm,2.5,a\nice\n")
    for arguments, code, words in (
        (["--input", "note=x", "--input", "weight=heavy", "--input", "kind=a"], 3, ["weight", "heavy"]),
        ([str(tmp_path / "gone.csv")], 3, ["gone.csv"]),
        ([str(tmp_path / "short.csv")], 3, ["short.csv line 3", "1 cells where the header has 3"]),
        (["--input", "note"], 3, ["NAME=VALUE"]),
        (['{"note": '], 3, ["not JSON"]),
        ([], 3, ["at least one input"]),
    ):
        done = run(exported.folder, *arguments)
        assert done.returncode == code, done
        assert all(word in done.stderr for word in words), done.stderr
        assert "Traceback" not in done.stderr


def test_from_python_the_bundle_is_a_package_beside_the_graph(exported: ExportResult) -> None:
    code = (
        "import sys; sys.dont_write_bytecode = True; sys.path.insert(0, sys.argv[1]); from runner import Bundle;"
        "print(Bundle.load().predict({'note': 'calm', 'kind': 'a', 'weight': 1})['mood']['value']);"
        "print(sorted({'torch', 'pydantic', 'endwise', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code, str(exported.folder)], capture_output=True, text=True)
    assert done.stdout.splitlines() in (["good", "[]"], ["bad", "[]"]), done.stderr


@pytest.mark.slow
def test_a_bundle_runs_in_an_environment_without_torch(exported: ExportResult, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    wanted = str(exported.folder / "requirements.txt")
    subprocess.run([str(python), "-m", "pip", "install", "-q", "-r", wanted], check=True, capture_output=True)
    done = subprocess.run([str(python), str(exported.folder / "run.py"), "--verify"], capture_output=True, text=True)
    assert done.stdout == "the golden inputs get the same answers\n", done.stderr


# ---- the folder ----------------------------------------------------------------------------------------------------------


def test_a_bundle_tells_nothing_of_the_machine_it_was_made_on(exported: ExportResult) -> None:
    secrets = [str(REPOSITORY).encode(), str(Path.home()).encode() + b"/", b"site-packages"]
    for file in exported.folder.rglob("*"):
        if file.is_file():
            assert not any(secret in file.read_bytes() for secret in secrets), file


def test_golden_inputs_are_replayed(exported: ExportResult) -> None:
    assert verify(exported.folder) == exported.golden == len(ROWS)


def test_a_changed_file_is_noticed(exported: ExportResult, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(exported.folder, copy)
    for name in ("graph.onnx", "golden/golden.json", "runner/rows.py"):
        data = (copy / name).read_bytes()
        (copy / name).write_bytes(data[:-1])
        with pytest.raises(ModelError, match=name):
            Bundle.load(copy)
        (copy / name).write_bytes(data)
    (copy / "graph.onnx").unlink()
    with pytest.raises(ModelError, match=r"graph\.onnx"):
        Bundle.load(copy)
    with pytest.raises(ModelError, match="no whole bundle"):
        Bundle.load(tmp_path / "nowhere")


def test_a_golden_answer_that_is_no_longer_given_is_an_error(exported: ExportResult, tmp_path: Path) -> None:
    import hashlib
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(exported.folder, copy)
    golden = json.loads((copy / "golden/golden.json").read_text())
    golden[2]["answers"]["price"]["value"] += 1.0
    (copy / "golden/golden.json").write_text(json.dumps(golden))
    description = json.loads((copy / "bundle.json").read_text())
    description["files"]["golden/golden.json"] = hashlib.sha256((copy / "golden/golden.json").read_bytes()).hexdigest()
    (copy / "bundle.json").write_text(json.dumps(description))
    with pytest.raises(ExportError, match=r"price\.value of row 3"):
        verify(copy)
    assert run(copy, "--verify").returncode == 7


def test_files_of_the_examples_become_golden_files(tmp_path: Path) -> None:
    from endwise.testing import Case, examples

    pictures = examples.pictures()
    case = Case(modality_class("image")(), pictures, "input")
    paths = []
    for number, data in enumerate(pictures[:4]):
        (tmp_path / f"{number}.img.PNG").write_bytes(data)
        paths.append({"value": f"{number}.img.PNG"})
    rows = [*paths, *({"value": data} for data in pictures[4:])]
    result = export(case.model(), tmp_path / "bundle", examples=rows, base=tmp_path)
    golden = json.loads((result.folder / "golden/golden.json").read_text())
    assert len(golden) == 8
    assert all((result.folder / row["inputs"]["value"]).is_file() for row in golden)
    assert sum(row["inputs"]["value"].endswith(".png") for row in golden) == 4
    assert "pillow" in (result.folder / "requirements.txt").read_text().split()
    file = tmp_path / "0.img.PNG"
    done = run(result.folder, str(file), "--json")
    assert done.returncode == 0, done.stderr
    assert (
        differences([case.model().predict({"value": str(file)}).to_dict()], [json.loads(done.stdout)["outputs"]]) == []
    )


def test_an_earlier_bundle_is_replaced_and_nothing_else(exported: ExportResult, tmp_path: Path) -> None:
    import shutil

    model, rows = (
        small_model({"weight": {"type": "number", "optional": True}}, {"price": "number"}),
        [{"weight": 1}] * 5,
    )
    place = tmp_path / "bundle"
    shutil.copytree(exported.folder, place)
    (place / "left over").write_text("x")
    export(model, place, examples=rows)
    assert Bundle.load(place).predict(2).keys() == {"price"}
    assert not (place / "left over").exists()
    assert [item.name for item in tmp_path.iterdir()] == ["bundle"]
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.txt").write_text("years of work")
    with pytest.raises(ExportError, match="a new or empty folder"):
        export(model, other, examples=rows)
    assert (other / "chapter.txt").read_text() == "years of work"


# ---- refusals ------------------------------------------------------------------------------------------------------------


class LyingHead(NumberHead):
    """Answers differently once it is exported."""

    def decode(self, prediction: dict[str, Tensor]) -> dict[str, Tensor]:
        found = super().decode(prediction)
        return {**found, "value": found["value"] + 0.5} if torch.compiler.is_exporting() else found


@dataclass(frozen=True, kw_only=True)
class LyingNumber(Number):
    """A number whose exported form lies."""

    type: ClassVar[str] = "lying"

    def head(self, contract: Any, size: Size) -> Head:
        head = super().head(contract, size)
        head.__class__ = LyingHead
        return head


class CountingEncoder(Encoder):
    """Turns a length into a Python number, so that the graph would hold it for good."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.table = nn.Embedding(1024, size.width)

    def forward(self, values: Tensor, sizes: Tensor) -> Tokens:
        longest = int(sizes.max().item())
        mask = torch.arange(values.shape[1]) < sizes
        return Tokens(self.table(values.long() % 1024) / longest, mask)


@dataclass(frozen=True, kw_only=True)
class CountingText(modality_class("text")):  # type: ignore[misc]
    """Text whose encoder cannot be exported."""

    type: ClassVar[str] = "counting"

    def encoder(self, contract: Any, size: Size) -> Encoder:
        return CountingEncoder(size)


class FixedEncoder(CountingEncoder):
    def forward(self, values: Tensor, sizes: Tensor) -> Tokens:
        tokens = self.table(values.long() % 1024)
        parts = [tokens[:, place] for place in range(values.shape[1])]  # a loop over a length fixes it
        return Tokens(torch.stack(parts, 1), torch.arange(values.shape[1]) < sizes)


@dataclass(frozen=True, kw_only=True)
class FixedText(CountingText):
    """Text whose encoder fixes the length."""

    type: ClassVar[str] = "fixed"

    def encoder(self, contract: Any, size: Size) -> Encoder:
        return FixedEncoder(size)


def test_a_graph_that_answers_otherwise_is_not_written(tmp_path: Path) -> None:
    lying = small_model({"weight": {"type": "number", "optional": True}}, {"price": LyingNumber()})
    rows = [{"weight": float(row)} for row in range(8)]
    with pytest.raises(ExportError) as refused:
        export(lying, tmp_path / "bundle", examples=rows)
    message = str(refused.value)
    assert "outputs.price: value of row" in message
    said = [float(word) for word in re.findall(r"is (\S+) from the model and (\S+) from", message)[0]]
    assert said[1] - said[0] == pytest.approx(0.5, rel=1e-3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [CountingText, FixedText])
def test_a_network_that_cannot_be_exported_is_named_with_its_axis(kind: type, tmp_path: Path) -> None:
    stuck = small_model({"weight": "number", "note": kind()}, {"mood": "category"})
    with pytest.raises(ExportError) as refused:
        export(stuck, tmp_path / "bundle", examples=[{"weight": row["weight"], "note": row["note"]} for row in ROWS])
    assert f"inputs.note ({kind.type})" in str(refused.value)
    if kind is FixedText:
        assert "axis 1" in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_rows_that_prove_nothing_are_refused(model: Model, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="at least 5 rows"):
        export(model, tmp_path / "bundle", examples=ROWS[:4])
    with pytest.raises(ExportError, match="row 2: field 'weight'"):
        export(model, tmp_path / "bundle", examples=[ROWS[0], {**ROWS[1], "weight": "heavy"}, *ROWS[2:]])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("split", "said"), [("train", "training rows (fewer than five"), ("test", " test rows get")])
def test_a_run_says_which_rows_proved_it_and_what_it_is_doing(split: str, said: str, tmp_path: Path) -> None:
    """A table too small to have held-out rows is exported all the same, and not called held-out."""
    lines = [f"{row},{3 * row},{split if row > 6 else 'train'}" for row in range(12)]
    (tmp_path / "small.csv").write_text("\n".join(["weight,price,split", *lines]) + "\n")
    recipe = Recipe(
        data=str(tmp_path / "small.csv"), inputs={"weight": "number"}, outputs={"price": "number"},
        train={"size": "tiny", "steps": 2, "precision": "fp32"}, goal={"output": "price", "metric": "mae", "direction": "min"},
    )  # fmt: skip
    run = fit(recipe, out=tmp_path / "run").run
    told: list[str] = []
    result = export_run(run, progress=told.append)
    assert result.rows_from == split
    assert said in str(result)
    assert "held-out rows get" not in str(result)
    assert [word for word in ("reading", "tracing", "comparing") if not any(word in step for step in told)] == []


def test_a_bundle_of_an_outside_modality_needs_its_class(tmp_path: Path) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Mass(Number):
        """A number of another name."""

        type: ClassVar[str] = "mass"

    made = small_model({"weight": Mass(optional=True)}, {"price": "number"})
    result = export(made, tmp_path / "bundle", examples=[{"weight": float(row)} for row in range(8)])
    with pytest.raises(ModelError, match=r"modalities=\[TheClass\]"):
        Bundle.load(result.folder)
    bundle = Bundle.load(result.folder, modalities=[Mass])
    assert differences([made.predict({"weight": 3}).to_dict()], [bundle.predict(3)]) == []
    assert "mass" not in TABLE


# ---- speed and comparing -------------------------------------------------------------------------------------------------


def test_speed_is_told_as_a_ratio(model: Model, exported: ExportResult) -> None:
    speed = benchmark(model, exported.folder, ROWS[:2], rounds=3)
    assert speed.ratio == speed.eager_ms / speed.onnx_ms > 0
    assert speed.to_dict()["threads"] == 1


def answer(value: Any, **rest: Any) -> list[dict[str, Any]]:
    return [{"out": {"value": value, "confidence": None, **rest}}]


@given(st.floats(-1e6, 1e6, allow_nan=False), st.floats(-1, 1))
def test_numbers_may_differ_by_a_ten_thousandth_of_their_size(number: float, change: float) -> None:
    near, far = number * (1 + 0.9e-4 * change), number * 1.001 + 1e-300
    assert differences(answer(number), answer(near)) == []
    assert bool(differences(answer(number), answer(far))) == (abs(far - number) > 1e-4 * abs(number))


def test_labels_must_be_equal_and_scores_near() -> None:
    assert differences(answer("cat", confidence=0.5), answer("cat", confidence=0.50005)) == []
    assert [item.where for item in differences(answer("cat"), answer("dog"))] == ["out.value"]
    assert [item.where for item in differences(answer("cat", confidence=0.5), answer("cat", confidence=0.6))] == [
        "out.confidence"
    ]
    assert differences(answer(["a", "b"]), answer(["a"]))
    assert differences(answer(True), answer(1.0))
    assert differences(answer(1.0), answer(float("nan")))
    assert differences(answer(float("nan")), answer(float("nan"))) == []
    assert differences(answer([1.0, 1e-9]), answer([1.0, 2e-9]))
    assert "row 1" in str(differences(answer(np.float32(1)), answer(2))[0])
