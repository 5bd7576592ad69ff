"""The command line: what is printed where, in which shape, with which exit code."""

import contextlib
import csv
import io
import json
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from endwise.cli import main, progress


def process(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command as people start it."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "endwise", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )


def endwise(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Its entry point in this process: a new one would spend all its time on importing."""
    out, told, code = io.StringIO(), io.StringIO(), 0
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(told),
    ):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["endwise", *arguments])
        try:
            main()
        except SystemExit as left:
            code = int(left.code or 0)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), told.getvalue())


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table and a trained run of it."""
    folder = tmp_path_factory.mktemp("cli")
    chosen = random.Random(0)
    with (folder / "parts.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["weight", "colour", "machine", "good"])
        for _ in range(200):
            weight, colour = chosen.gauss(5, 1), chosen.choice(["red", "blue"])
            out.writerow([f"{weight:.3f}", colour, chosen.choice("AB"), "yes" if weight > 5 else "no"])
    (folder / "recipe.yaml").write_text(
        "data: parts.csv\ninputs:\n  weight: {type: number, unit: kg}\n  colour: category\noutputs: {good: category}\n"
        "train: {size: tiny, steps: 60, precision: fp32}\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENDWISE_CACHE", str(folder / "store"))
        done = process("train", "recipe.yaml", "--out", "run", "--folds", "2", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) >= {"run", "report", "split", "outputs", "baselines"}
    return folder


def test_the_command_is_there_without_its_script(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "endwise", "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0
    assert "compare" in done.stdout


def test_train_leaves_a_run_with_a_report(work):
    for name in (
        "recipe.yaml",
        "plan.json",
        "metrics.json",
        "log.jsonl",
        "report.html",
        "model/model.json",
        "checkpoints",
    ):
        assert (work / "run" / name).exists()


def test_a_small_table_is_cross_validated(work):
    found = json.loads((work / "run" / "folds.json").read_text())
    assert found["rows"] == found["outputs"]["good"]["accuracy"]["n"] == 200
    assert len(found["folds"]) == 2
    assert "cross-validated in 2 folds" in (work / "run" / "report.html").read_text()


def test_evaluate_prints_the_documented_object(work):
    done = endwise("evaluate", "run", "--split", "test", "--by", "machine", "--json", cwd=work)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found["outputs"]["good"]["accuracy"]) == {"value", "low", "high", "n"}
    assert set(found["baselines"]["good"]) == {"trivial", "classical"}
    assert set(found["by"]["outputs"]["good"]["groups"]) == {"A", "B"}
    assert {row["input"] for row in found["ablation"]} == {"weight", "colour"}
    other = endwise("evaluate", "run", "--data", "parts.csv", "--json", cwd=work)
    assert json.loads(other.stdout)["outputs"]["good"]["accuracy"]["n"] == 200


def test_evaluate_prints_tables_that_fit_a_terminal(work):
    done = endwise("evaluate", "run", "--by", "machine", cwd=work)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "{" not in done.stdout
    for told in ("good by machine", "what each input is worth", "without weight", "trivial", "accuracy of good: "):
        assert any(told in line for line in lines), told


def test_a_pipe_is_told_each_phase_as_it_begins(work):
    done = endwise("evaluate", "run", "--split", "val", cwd=work)
    assert "starting\n" in done.stderr
    assert re.search(r"scoring \d+ rows\n", done.stderr)
    done = endwise("train", "recipe.yaml", "--out", "told", "--folds", "0", "--set", "train.steps=2", cwd=work)
    phases = ["starting", "opening the data", "fitting the baselines", "measuring a step", "step 1/2", "evaluating"]
    # once: a slow one is told again as it goes on
    told = dict.fromkeys(line.split("  ")[0] for line in done.stderr.splitlines())
    assert [line for line in told if line in phases] == phases
    assert done.returncode == 0


def test_a_pipe_hears_of_a_phase_that_says_nothing(monkeypatch, capsys):
    monkeypatch.setattr(progress, "PLAIN_EVERY_S", 0.05)
    with progress.Lines() as lines:
        lines.tell({"event": "prepare", "what": "reading voice", "done": 3, "total": 7})
        deadline, told = time.monotonic() + 20, ""
        while "so far" not in told and time.monotonic() < deadline:
            time.sleep(0.01)
            told += capsys.readouterr().err
    assert told.startswith("reading voice 3/7\nreading voice 3/7  (0 s so far)\n")


def test_predict_prints_one_line_a_row_and_goes_on_after_a_bad_one(work):
    (work / "new.csv").write_text("weight,colour\n9.0,red\nheavy,red\n1.0,blue\n")
    done = endwise("predict", "run", "new.csv", "--json", cwd=work)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line.get("outputs", {}).get("good", {}).get("value") for line in lines] == ["yes", None, "no"]
    assert "new.csv line 3" in lines[1]["error"]
    assert "heavy" in lines[1]["error"]
    assert [line.get("row") for line in lines] == ["new.csv line 2", None, "new.csv line 4"]
    assert done.returncode == 3
    told = endwise("predict", "run", "new.csv", cwd=work).stdout.splitlines()  # a gap is no longer in its place here
    assert [line.split(": good=")[0] for line in told] == ["new.csv line 2", "new.csv line 4"]
    pairs = endwise("predict", "run", "--input", "weight=9.0", "--input", "colour=red", "--json", cwd=work)
    assert json.loads(pairs.stdout)["outputs"]["good"]["value"] == "yes"
    alone = endwise("predict", "run", "--input", "weight=9.0", "--input", "colour=red", cwd=work)
    assert alone.stdout.startswith("good=")


def test_check_names_what_is_broken(work):
    lines = (work / "parts.csv").read_text().splitlines()
    lines[7] = "heavy," + lines[7].split(",", 1)[1]
    (work / "broken.csv").write_text("\n".join(lines) + "\n")
    (work / "broken.yaml").write_text((work / "recipe.yaml").read_text().replace("parts.csv", "broken.csv"))
    done = endwise("check", "broken.yaml", "--json", cwd=work)
    found = json.loads(done.stdout)
    assert found["bad"][0]["origin"].endswith("line 8")
    assert "heavy" in found["bad"][0]["reason"]
    assert done.returncode == found["exit_code"]


def test_dry_run_trains_nothing_and_says_the_plan(work):
    done = endwise("train", "recipe.yaml", "--out", "dry", "--dry-run", "--json", cwd=work)
    found = json.loads(done.stdout)
    assert found["plan"]["steps"] == 60
    assert found["plan"]["parameters"] > 0
    assert not (work / "dry").exists()


def test_init_proposes_a_recipe_that_check_accepts(work):
    done = endwise("init", "parts.csv", "--out", "proposed.yaml", cwd=work)
    assert done.returncode == 0, done.stderr
    assert endwise("check", "proposed.yaml", "--json", cwd=work).returncode == 0
    assert endwise("init", "parts.csv", "--out", "proposed.yaml", cwd=work).returncode == 2


def test_schema_clean_doctor_and_report_speak_json(work):
    assert json.loads(endwise("schema", cwd=work).stdout)["title"] == "endwise recipe"
    assert set(json.loads(endwise("clean", "--json", cwd=work).stdout)) == {"root", "bytes", "cap_bytes", "entries"}
    assert {"machine", "packages", "extras", "problems"} == set(
        json.loads(endwise("doctor", "--json", cwd=work).stdout)
    )
    assert json.loads(endwise("report", "run", "--json", cwd=work).stdout)["report"].endswith("report.html")


# what people type wrong: exit code, and what the message must hold
MISTAKES = [
    (["train", "nowhere.yaml"], 2, "endwise init"),
    (["train", "recipe.yaml", "--set", "train.sed=1", "--out", "x"], 2, "did you mean 'seed'"),
    (["train", "recipe.yaml", "--set", "train.seed"], 2, "NAME=VALUE"),
    (["train", "recipe.yaml", "--budget", "soon", "--out", "x"], 2, "90s, 5m or 1h"),
    (["compare", "recipe.yaml", "--budget", "soon", "--out", "x"], 2, "90s, 5m or 1h"),
    (["check", "recipe.yaml", "--set", "from_run=nowhere"], 5, "from_run: "),
    (["train", "recipe.yaml", "--out", "run"], 2, "--resume"),
    (["train", "recipe.yaml", "--set", "data=nowhere.csv", "--out", "x"], 3, "nowhere.csv"),
    (["train", "recipe.yaml", "--set", "inputs.weight.column=wieght", "--out", "x"], 2, "did you mean 'weight'"),
    (
        ["train", "recipe.yaml", "--set", "goal={output: good, metric: acuracy, direction: max}", "--out", "x"],
        2,
        "did you mean 'accuracy'",
    ),
    (["train", "recipe.yaml", "--set", "train.device=cuda:9", "--out", "x"], 6, "device: auto"),
    (["evaluate", "rnu"], 5, "rnu"),
    (["evaluate", "run", "--split", "tset"], 3, "did you mean 'test'"),
    (["evaluate", "run", "--by", "machin"], 3, "did you mean 'machine'"),
    (["predict", "run"], 2, "INPUT"),
    (["predict", "run", "--input", "wieght=3"], 3, "did you mean 'weight'"),
    (["predict", "run", "--input", "weight=3"], 3, "colour"),
    (
        ["predict", "run", "--input", "weight=3", "--input", "colour=red", "--out", "x", "--suffix", ".cif"],
        2,
        "no answer is a file",
    ),
    (["predict", "run", "missing.csv"], 3, "missing.csv"),
    (["init", "nowhere"], 3, "nowhere"),
    (["export", "nowhere"], 5, "nowhere"),
    (["report", "recipe.yaml"], 5, "recipe.yaml"),
]


@pytest.mark.parametrize(
    ("arguments", "code", "says"), MISTAKES, ids=lambda item: " ".join(item) if isinstance(item, list) else None
)
def test_a_mistake_gets_its_message_and_its_exit_code(work, arguments, code, says):
    done = endwise(*arguments, cwd=work)
    assert "Traceback" not in done.stderr
    assert says in done.stderr, done.stderr
    assert done.returncode == code, done.stderr
    assert done.stderr[done.stderr.index("error: ") :].strip().count("\n") < 8


def test_an_error_is_one_json_object_when_asked(work):
    done = process("evaluate", "nowhere", "--json", cwd=work)
    assert set(json.loads(done.stdout)["error"]) == {"type", "message", "exit_code"}


def test_help_loads_neither_torch_nor_pydantic(work):
    code = "import sys; sys.argv = ['endwise', '--help']\nfrom endwise.cli import main\ntry: main()\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'pydantic', 'numpy', 'pandas'} & set(sys.modules), sorted(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
