"""A model card and a technical file: every number is the run's, every value stays text, and what only the owner knows is asked."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.testing
import yaml
from hypothesis import given
from hypothesis import strategies as st

import endwise as ew
from endwise.card.markdown import md, paragraphs
from endwise.card.owner import QUESTIONS
from endwise.card.pages import CARD, LICENSES, TECHNICAL
from endwise.cli import app
from endwise.errors import ModelError, RecipeError
from endwise.scores import spelled

ODD = "T|rier <script>alert(1)</script> [x](javascript:1)\n# heading"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a table in which one class has a name that is Markdown, HTML and a table's border."""
    folder = tmp_path_factory.mktemp("carded")
    chosen = np.random.default_rng(0)
    with (folder / "things.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["x", "town", "kind", "split"])
        for number in range(320):
            x, worse = chosen.uniform(0, 10), number % 2
            kind = chosen.choice(["large", "small"]) if worse else "large" if x > 5 else "small"
            side = ["train", "train", "val", "test"][number // 2 % 4]
            table.writerow([round(x, 3), ODD if worse else "Bonn", kind, side])
    recipe = ew.Recipe(
        name="things", data=str(folder / "things.csv"), inputs={"x": ew.Number(), "town": ew.Category()},
        outputs={"kind": ew.Category()}, train={"steps": 30, "size": "tiny"},
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENDWISE_CACHE", str(folder / "store"))
        ew.fit(recipe, out=folder / "run")
    return folder / "run"


def front(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return found


def test_most_entries_are_filled_from_facts_and_the_rest_is_named(run: Path, tmp_path: Path) -> None:
    found = ew.card(run, out=tmp_path)
    assert found.share >= 0.8
    assert found.lacking == ("shortcuts",)
    assert found.owner == tuple(QUESTIONS)
    for text in (found.card.read_text(), found.technical.read_text()):
        assert "no legal advice" in text
        assert "None" not in text
        for key in QUESTIONS:
            if any(key in keys for _, keys in (CARD if text.startswith("---") else TECHNICAL)):
                assert f"*The owner must supply* `{key}`" in text


def test_every_entry_and_every_question_is_in_the_technical_file(run: Path, tmp_path: Path) -> None:
    from endwise.card.facts import ENTRIES, EXTRAS

    shown = [key for _, keys in TECHNICAL for key in keys]
    assert sorted(shown) == sorted([*ENTRIES, *EXTRAS, *QUESTIONS])  # each once
    headings = re.findall(r"^## (\S+)", ew.card(run, out=tmp_path).technical.read_text(), re.MULTILINE)
    assert [heading.rstrip(".") for heading in headings] == [
        "1", *(f"2({letter})" for letter in "abcdefgh"), *"3456789"
    ]  # fmt: skip


def test_every_number_is_that_of_the_run(run: Path, tmp_path: Path) -> None:
    opened, text = ew.Run.open(run), ew.card(run, out=tmp_path).card.read_text()
    metrics, data, plan = (opened.read(f"{name}.json") for name in ("metrics", "data", "plan"))
    rows = {cells[0]: cells for line in text.splitlines() if len(cells := line.strip("| ").split(" | ")) >= 4}
    (result,) = front(text)["model-index"][0]["results"]
    told = {item["type"]: item for item in result["metrics"]}
    for metric, own in metrics["outputs"]["kind"].items():
        assert told[metric]["value"] == own["value"]
        assert told[metric]["args"] == {"n": own["n"], "low_95": own["low"], "high_95": own["high"]}
        assert rows[md(metric)][1:4] == [md(cell) for cell in spelled(own)]
    assert metrics["slices"]["kind"]["found"]
    for item in metrics["slices"]["kind"]["found"]:
        line = next(
            line for line in text.splitlines() if line.startswith(f"| {md(item['column'])} | {md(item['group'])} |")
        )
        assert line.endswith(" | ".join(md(cell) for cell in spelled(item["worse_by"])) + " |")
    for side, count in data["rows"].items():
        assert f"| {side} | {count} |" in text
    assert f"one network of {plan['parameters']:,} parameters" in text
    assert data["fingerprint"] in text
    assert (run / "files.sha256").read_text()[:64] in text


def test_the_hub_reads_the_metadata(run: Path, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    (tmp_path / "owner.yaml").write_text("license: Apache-2.0\n")
    found = ew.card(run, out=tmp_path, owner=tmp_path / "owner.yaml")
    read = hub.ModelCard.load(found.card)
    assert read.data.license == "apache-2.0"
    assert read.data.library_name == "endwise"
    assert read.data.pipeline_tag == "tabular-classification"
    assert {item.metric_type: item.metric_value for item in read.data.eval_results} == {
        name: own["value"] for name, own in ew.Run.open(run).read("metrics.json")["outputs"]["kind"].items()
    }
    known = {"license", "license_name", "library_name", "pipeline_tag", "tags", "datasets", "metrics", "model-index"}
    assert set(front(found.card.read_text())) <= known


@pytest.mark.parametrize(("said", "license"), [("mit", {"license": "mit"}), ("Our Own, v2!", {"license": "other", "license_name": "our-own-v2"})])  # fmt: skip
def test_a_licence_is_one_of_the_hubs_or_another_with_its_name(
    run: Path, tmp_path: Path, said: str, license: dict[str, str]
) -> None:
    (tmp_path / "owner.yaml").write_text(yaml.safe_dump({"license": said}))
    told = front(ew.card(run, out=tmp_path, owner=tmp_path / "owner.yaml").card.read_text())
    assert {name: value for name, value in told.items() if name.startswith("license")} == license
    assert license["license"] in LICENSES | {"other"}


def test_no_value_is_anything_but_text(run: Path, tmp_path: Path) -> None:
    (tmp_path / "owner.yaml").write_text(
        yaml.safe_dump({"intended_purpose": f"{ODD}\n\nsecond part", "risks": ["one", "| two"]})
    )
    found = ew.card(run, out=tmp_path, owner=tmp_path / "owner.yaml")
    for text in (found.card.read_text(), found.technical.read_text()):
        body = text.split("---\n", 2)[-1]
        assert "<" not in body
        assert "\n# heading" not in body
        assert "](javascript" not in body.replace("\\](", "")
        assert "second part" in body
        for line in body.splitlines():
            if line.startswith("| town |"):
                assert len(re.findall(r"(?<!\\)\|", line)) in (5, 8)  # of inputs, of slices: no cell more


@given(st.text(max_size=80))
def test_any_text_is_one_line_without_markup(text: str) -> None:
    found = md(text)
    assert len(found.splitlines()) <= 1
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*\[\]|_~]", found)
    assert not re.search(r"[<>]", found)
    assert not re.match(r"#|\d+[.)](\s|$)|[-+](\s|$)", found)
    assert all("\n" not in part for part in paragraphs(text))


def test_numbers_stay_as_they_are() -> None:
    assert [md(cell) for cell in ("0.95", "-3.1e-05", "2 %", "+1", "12. x")] == [
        "0.95",
        "-3.1e-05",
        "2 %",
        "+1",
        "12\\. x",
    ]


def test_an_owner_says_the_rest_and_a_misspelt_question_is_refused(run: Path, tmp_path: Path) -> None:
    answers = {key: f"what {key} is" for key in QUESTIONS}
    (tmp_path / "owner.yaml").write_text(yaml.safe_dump(answers))
    found = ew.card(run, out=tmp_path, owner=tmp_path / "owner.yaml")
    assert found.owner == ()
    assert "must supply" not in found.technical.read_text()
    for wrong, says in (
        ("intended_purpos: x", "did you mean 'intended_purpose'?"),
        ("risks: 3", "a text, or a list of texts"),
        ("risks:", "a text, or a list of texts"),
        ("- a", "a mapping of questions"),
        ("a: [", "is no YAML"),
    ):
        (tmp_path / "owner.yaml").write_text(wrong)
        with pytest.raises(RecipeError, match=re.escape(says)):
            ew.card(run, out=tmp_path, owner=tmp_path / "owner.yaml")


def test_the_command_writes_into_the_run_and_takes_its_owners_answers(run: Path, tmp_path: Path) -> None:
    invoke = typer.testing.CliRunner().invoke
    (run / "owner.yaml").write_text("provider: Somebody\n")
    try:
        said = json.loads(invoke(app, ["card", str(run), "--json"]).stdout)
    finally:
        (run / "owner.yaml").unlink()
    assert said["owner_answered"] == ["provider"]
    assert "Somebody" in (run / "technical-file.md").read_text()
    assert invoke(app, ["explain", str(run), "--audit", "--rows", "8"]).exit_code == 0
    found = invoke(app, ["card", str(run), "--out", str(tmp_path / "new")])
    assert "24 of 24 entries (100%)" in found.stdout
    assert "answers of kind were looked at" in (tmp_path / "new" / "card.md").read_text()


def test_a_folder_without_a_model_has_no_card(run: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text((run / "recipe.yaml").read_text())
    with pytest.raises(ModelError, match="holds no trained model"):
        ew.card(tmp_path)


def test_the_help_of_serve_says_its_defaults() -> None:
    from endwise.serve.options import defaults

    found = typer.testing.CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).stdout
    found = re.sub(r"\x1b\[[0-9;]*m", "", found)
    assert "[default: 8000]" in found
    assert found.count("[default:") == len(defaults())
