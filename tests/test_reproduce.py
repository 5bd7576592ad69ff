"""A finished run is trained again from what it wrote down: the same network comes out, or what differs is said."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer.testing

import endwise as ew
from endwise.cli import app
from endwise.errors import DataError, ModelError, RecipeError


def table(folder: Path) -> Path:
    random.seed(0)
    lines = ["hour,part,open,split"]
    for number in range(80):
        hour = random.uniform(0, 24)
        part = "night" if hour < 6 else "day" if hour < 18 else "evening"
        side = ("train", "train", "train", "val", "test")[number % 5]
        lines.append(f"{hour:.3f},{part},{'yes' if part == 'day' else 'no'},{side}")
    (folder / "hours.csv").write_text("\n".join(lines) + "\n")
    return folder / "hours.csv"


def recipe_of(data: Any, **more: Any) -> ew.Recipe:
    stages = {"see": {"from": "hour", "to": {"part": "category"}}, "decide": {"from": "part", "to": "open"}}
    train = {"steps": 4, "size": "tiny", "budget": "10m", "seed": 3}
    return ew.Recipe(**{"data": data, "inputs": {"hour": "number"}, "outputs": {"open": "category"}, "stages": stages,
                        "train": train, **more})  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table and a run in stages, which had a time limit."""
    folder = tmp_path_factory.mktemp("reproduced")
    ew.fit(recipe_of(str(table(folder))), out=folder / "run")
    return folder


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    """The run, to be spoilt; its data stays where it was."""
    return Path(shutil.copytree(trained / "run", tmp_path / "run"))


def test_the_same_network_comes_out_stage_by_stage(copied: Path, tmp_path: Path) -> None:
    found = ew.reproduce(copied)
    assert (found.verdict, found.ok, found.differs) == ("the same network", True, ())
    assert found.run == tmp_path / "run-again"
    assert "the same network, to the bit" in str(found)
    for stage in ("see", "decide"):
        first, again = (ew.Run.open(place / "stages" / stage).model_folder for place in (copied, found.run))
        assert (first / "weights.safetensors").read_bytes() == (again / "weights.safetensors").read_bytes()
    kept = json.loads((found.run / "reproduced.json").read_text())
    assert kept == found.to_dict()
    assert {item["metric"] for item in kept["numbers"] if item["output"] == "open"} >= {"accuracy", "macro_f1"}
    with pytest.raises((RecipeError, ModelError), match="--resume"):
        ew.reproduce(copied)
    assert ew.reproduce(copied, resume=True).verdict == "the same network", "nothing is trained a third time"


def test_data_that_changed_is_refused_or_said(trained: Path, copied: Path, tmp_path: Path) -> None:
    data = trained / "hours.csv"
    before = data.read_bytes()
    try:
        data.write_bytes(before.replace(b"yes", b"no", 5))
        with pytest.raises(DataError, match=r"data = 'of 1 files 1 changed: .*hours.csv.* --other-data"):
            ew.reproduce(copied, out=tmp_path / "again")
        assert not (tmp_path / "again").exists()
        told = typer.testing.CliRunner().invoke(
            app, ["reproduce", str(copied), "--out", str(tmp_path / "again"), "--other-data", "--json"]
        )
        found = json.loads(told.stdout)
        assert found["verdict"] != "the same network"
        assert found["differs"][0].startswith("data: of 1 files 1 changed")
        assert told.exit_code == (3 if found["verdict"] == "other numbers" else 0)
    finally:
        data.write_bytes(before)


def test_what_is_other_than_it_was_is_named(copied: Path, tmp_path: Path) -> None:
    told = json.loads((copied / "environment.json").read_text())
    told["packages"]["torch"], told["machine"]["cores"] = "1.0", 999
    (copied / "environment.json").write_text(json.dumps(told))
    metrics = json.loads((copied / "metrics.json").read_text())
    metrics["outputs"]["open"]["accuracy"] |= {"value": 1.5, "low": 1.4, "high": 1.6}
    (copied / "metrics.json").write_text(json.dumps(metrics))
    found = ew.reproduce(copied, out=tmp_path / "again")
    assert found.verdict == "other numbers"
    assert not found.ok
    assert any(line.startswith("packages: torch 1.0 -> ") for line in found.differs)
    assert any(line.startswith("machine: cores 999, now ") for line in found.differs)
    assert "open accuracy: 1.5 [1.4, 1.6], now " in str(found)


def test_what_cannot_be_trained_again_is_refused(copied: Path, tmp_path: Path) -> None:
    (copied / "metrics.json").unlink()
    with pytest.raises(ModelError, match="no plan or no metrics"):
        ew.reproduce(copied)
    (copied / "metrics.json").write_text('{"outputs": {}}')
    (copied / "recipe.yaml").write_text((copied / "recipe.yaml").read_text().replace("path: ", "path: memory:list #"))
    with pytest.raises(DataError, match="this one learnt from values in memory"):
        ew.reproduce(copied)
