"""Evaluation: every number with its n and interval, beside baselines, per group, and without each input."""

import importlib
import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch

import endwise as ew
from endwise import metrics
from endwise.data.dataset import Dataset, fit_contracts, prepare
from endwise.data.loader import Loader
from endwise.details import Answered, confusion, coverage, curves, reliability
from endwise.errors import DataError
from endwise.evaluate import Evaluation, calibrate, cross_validate, evaluate, evaluate_run
from endwise.metrics import Metric, perplexity
from endwise.modalities.base import Answer
from endwise.model import Model
from endwise.nn.interface import Head
from endwise.nn.size import Size
from endwise.objective import denominators, term_values
from endwise.recipe import Recipe
from endwise.run import Run
from endwise.train import fit
from tests.toys import Kind

COUNT = 300


def rows() -> list[dict[str, Any]]:
    """y and kind follow x alone; `note` is noise; a site with few rows; some labels and some notes are missing."""
    random = np.random.default_rng(0)
    made = []
    for index in range(COUNT):
        x = float(random.normal())
        made.append({
            "x": x, "note": None if index % 5 == 0 else str(random.choice(["a", "b", "c"])),
            "y": None if index % 4 == 1 else 2 * x + 1, "kind": "high" if x > 0 else "low", "yes": bool(x > 0.5),
            "site": "small" if index % 100 == 7 else f"site {index % 2}", "who": f"p{index // 2}", "age": float(random.uniform(0, 90)),
        })  # fmt: skip
    return made


def recipe(**values: Any) -> Recipe:
    return Recipe(**{
        "name": "mix", "data": {"path": rows()}, "inputs": {"x": "number", "note": "category"},
        "outputs": {"y": "number", "kind": "category", "yes": "boolean"}, "train": {"size": "tiny", "steps": 60}, **values,
    })  # fmt: skip


def learnt(declared: Recipe, steps: int = 60) -> tuple[Model, Dataset]:
    dataset = prepare(declared, workers=0)
    contracts = fit_contracts(declared, dataset)
    model = Model.build(declared, contracts, seed=0)
    loader = Loader(dataset, declared, contracts, dataset.splits.train, batch_size=32, seed=0, shuffle=True)
    optimiser = torch.optim.AdamW(model.network.parameters(), lr=3e-3)
    model.network.train()
    torch.manual_seed(0)
    for step in range(steps):
        batch = loader.batch(step).to("cpu")
        predictions = model.network(batch.inputs, batch.present)
        terms = term_values(model.network, predictions, batch, denominators(model.network, batch))
        optimiser.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimiser.step()
    model.network.eval()
    return model, dataset


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Dataset, Evaluation]:
    patch = pytest.MonkeyPatch()
    patch.setenv("ENDWISE_CACHE", str(tmp_path_factory.mktemp("evaluated")))
    model, dataset = learnt(recipe())
    calibrate(model, dataset, dataset.splits.val)
    result = evaluate(model, dataset, dataset.splits.test, by="site")
    yield model, dataset, result
    patch.undo()


def test_the_json_has_the_documented_shape(scored: Any) -> None:
    _, dataset, result = scored
    found = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert set(found) == {"outputs", "baselines", "losses", "notes", "by", "ablation", "suspects", "certainty"}
    assert set(found["outputs"]) == {"y", "kind", "yes"}
    assert set(found["outputs"]["kind"]["accuracy"]) == {"value", "low", "high", "n"}
    assert set(found["baselines"]["kind"]) == {"trivial", "classical"}
    assert set(found["baselines"]["kind"]["classical"]) == set(found["outputs"]["kind"])
    assert found["outputs"]["kind"]["accuracy"]["n"] == len(dataset.splits.test)
    for values in found["outputs"].values():
        for estimate in values.values():
            assert estimate["low"] <= estimate["value"] <= estimate["high"]
    json.dumps(result.details, allow_nan=False)
    assert "kind accuracy" in str(result)


def test_metrics_are_those_of_the_answers_that_predict_gives(scored: Any) -> None:
    model, dataset, result = scored
    test = dataset.splits.test.tolist()
    answers = model.predict([{"x": dataset.raw("x", row), "note": dataset.raw("note", row)} for row in test])
    right = [found["kind"] == dataset.raw("kind", row) for found, row in zip(answers, test, strict=True)]
    assert result.outputs["kind"]["accuracy"].value == pytest.approx(np.mean(right))
    labelled = [(found, row) for found, row in zip(answers, test, strict=True) if dataset.raw("y", row) is not None]
    errors = [abs(found["y"] - dataset.raw("y", row)) for found, row in labelled]
    assert result.outputs["y"]["mae"].value == pytest.approx(np.mean(errors), rel=1e-5)
    assert result.outputs["y"]["mae"].n == len(labelled) < len(test)
    assert any(note.startswith("y: ") and "have no y" in note for note in result.notes)


def test_the_network_is_above_the_constant_and_losses_are_published(scored: Any) -> None:
    _, _, result = scored
    assert result.outputs["kind"]["accuracy"].value > result.baselines["kind"]["trivial"]["accuracy"].value
    assert set(result.losses) == {"y.error", "kind.cross_entropy", "yes.cross_entropy"}
    assert all(0 <= loss.value < 2 for loss in result.losses.values())


def test_groups_have_their_own_numbers_and_small_ones_are_named(scored: Any) -> None:
    _, dataset, result = scored
    groups = result.by["outputs"]["kind"]["groups"]
    sites = dataset.cells("site", dataset.splits.test)
    assert {name: groups[name]["accuracy"].n for name in groups} == {name: sites.count(name) for name in set(sites)}
    gap = result.by["outputs"]["kind"]["gaps"]["accuracy"].to_dict()
    assert gap["value"] >= 0
    assert {gap["best"], gap["worst"]} <= set(groups)
    if "small" in groups:
        assert any("fewer than 5 rows in small" in note for note in result.notes)


def test_many_numbers_are_grouped_into_quarters_and_unknown_columns_refused(scored: Any) -> None:
    model, dataset, _ = scored
    result = evaluate(model, dataset, dataset.splits.test, by="age", details=False, baselines=False)
    assert len(result.by["outputs"]["kind"]["groups"]) == 4
    assert any("cut into quarters" in note for note in result.notes)
    assert result.details == {}
    with pytest.raises(DataError, match="did you mean 'site'"):
        evaluate(model, dataset, dataset.splits.test, by="sit", details=False, baselines=False)
    with pytest.raises(DataError, match="at least one row"):
        evaluate(model, dataset, np.zeros(0, np.int64))


def test_rows_without_a_value_are_a_group_of_their_own(scored: Any) -> None:
    """Missing names, and a table whose missing numbers are NaN."""
    model, dataset, _ = scored
    found = evaluate(model, dataset, dataset.splits.test, by="note", details=False, baselines=False)
    missing = dataset.cells("note", dataset.splits.test).count(None)
    assert found.by["outputs"]["kind"]["groups"]["<missing>"]["accuracy"].n == missing > 0
    holed = [{**row, "age": math.nan if index % 3 else row["age"]} for index, row in enumerate(rows())]
    other = prepare(model.recipe, source=pd.DataFrame(holed))
    found = evaluate(model, other, other.splits.test, by="age", details=False, baselines=False)
    groups = found.by["outputs"]["kind"]["groups"]
    assert len(groups) == 5
    assert groups["<missing>"]["accuracy"].n == sum(index % 3 > 0 for index in range(COUNT))


def test_what_an_input_is_worth_shows_the_one_that_matters(scored: Any) -> None:
    _, _, result = scored
    worth = {(item["input"], item["output"]): item for item in result.ablation}
    assert set(worth) == {(name, output) for name in ("x", "note") for output in ("y", "kind", "yes")}
    assert worth["x", "kind"]["worth"].low > 0.1
    assert abs(worth["note", "kind"]["worth"].value) < 0.1
    assert "masked" in worth["note", "kind"]["left_out"]
    assert "replaced by other rows' values" in worth["x", "kind"]["left_out"]
    assert worth["x", "y"]["worth"].value > 0  # mae grows without it


def test_details_are_what_the_report_draws(scored: Any) -> None:
    model, _, result = scored
    found = result.details["outputs"]
    assert found["kind"]["directions"]["accuracy"] == "max"
    assert found["kind"]["confusion"]["names"] == list(model.contracts["kind"].classes)
    assert sum(map(sum, found["kind"]["confusion"]["counts"])) == result.outputs["kind"]["accuracy"].n
    assert {item["class"] for item in found["kind"]["classes"]} == {"high", "low"}
    assert found["yes"]["roc"][0] == [0.0, 0.0]
    assert found["yes"]["roc"][-1] == [1.0, 1.0]
    assert found["yes"]["positive"] == "true"
    assert len(found["y"]["pairs"]) == result.outputs["y"]["mae"].n
    worst = found["y"]["mistakes"]
    assert 0 < len(worst) <= 20
    assert [item["loss"] for item in worst] == sorted((item["loss"] for item in worst), reverse=True)
    assert {"row", "origin", "truth", "answer", "confidence", "loss", "inputs", "why"} == set(worst[0])
    assert set(worst[0]["inputs"]) == {"x", "note"}
    assert all(item["truth"] != item["answer"] for item in found["kind"]["mistakes"])


def test_the_probe_says_what_each_layer_knows(scored: Any) -> None:
    model, _, result = scored
    layers = [item["layer"] for item in result.details["probe"]["kind"]]
    assert layers == ["x tokens", "note tokens", *(f"trunk {number}" for number in range(1, model.size.depth + 1))]
    values = {item["layer"]: item["value"] for item in result.details["probe"]["kind"]}
    assert values["x tokens"] > values["note tokens"]
    assert not model.network._forward_hooks
    assert not any(part._forward_hooks for part in model.network.modules())


def test_calibration_uses_the_rows_it_is_given_and_says_what_it_set(scored: Any) -> None:
    model, dataset, _ = scored
    said = calibrate(model, dataset, dataset.splits.val)
    assert set(said) == {"y", "kind", "yes"}
    assert all(isinstance(value, float) for values in said.values() for value in values.values())
    assert calibrate(model, dataset, np.zeros(0, np.int64)) == {}
    assert calibrate(model, dataset, dataset.splits.val) == said


def test_intervals_are_over_groups_where_rows_belong_together() -> None:
    model, dataset = learnt(recipe(data={"path": rows(), "group": "who"}), steps=5)
    assert dataset.group is not None
    result = evaluate(model, dataset, dataset.splits.test, details=False, baselines=False)
    assert any("over whole groups" in note for note in result.notes)


def test_weights_of_rows_count() -> None:
    data = [{**row, "y": 2 * row["x"] + 1, "w": 0.0 if row["site"] == "site 0" else 1.0} for row in rows()]
    model, dataset = learnt(recipe(data={"path": data, "weight": "w"}), steps=5)
    whole = evaluate(model, dataset, dataset.splits.test, details=False, baselines=False)
    kept = np.array([row for row in dataset.splits.test if dataset.weight[row] > 0])
    part = evaluate(model, dataset, kept, details=False, baselines=False)
    assert whole.outputs["y"]["mae"].value == pytest.approx(part.outputs["y"]["mae"].value, rel=1e-4)
    assert whole.losses["y.error"].value == pytest.approx(part.losses["y.error"].value, rel=1e-4)
    for row in whole.ablation or ():
        assert row["with"].value == pytest.approx(whole.outputs[row["output"]][row["metric"]].value)


def test_validation_while_training_weighs_rows_as_the_evaluation_does(tmp_path: Path) -> None:
    data = [{**row, "y": 2 * row["x"] + 1, "w": float(index % 3)} for index, row in enumerate(rows())]
    declared = recipe(data={"path": data, "weight": "w"}, outputs={"y": "number"}, train={"size": "tiny", "steps": 5})
    heard: list[Any] = []
    model = fit(declared, out=tmp_path / "run", progress=heard.append)
    dataset = prepare(declared)
    found = evaluate(model, dataset, dataset.splits.val, details=False, baselines=False)
    said = next(event for event in heard if event["event"] == "eval")
    assert said["val"]["y"]["mae"] == pytest.approx(found.outputs["y"]["mae"].value, rel=1e-4)


# ---- metrics of loss terms ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Judged(Kind):
    """A class that is only judged by its likelihood; what it says costs too much to be asked for."""

    type: ClassVar[str] = "judged"

    def metrics(self, contract: Any) -> list[Metric]:
        return [perplexity("cross_entropy")]

    def head(self, contract: Any, size: Size) -> Head:
        head = super().head(contract, size)
        head.decode = None  # type: ignore[method-assign,assignment]
        return head


@dataclass(frozen=True, kw_only=True)
class Both(Kind):
    """The same, and answers that are scored."""

    type: ClassVar[str] = "both"

    def metrics(self, contract: Any) -> list[Metric]:
        return [perplexity("cross_entropy"), *super().metrics(contract)]


def test_what_is_judged_by_its_likelihood_is_never_decoded() -> None:
    model, dataset = learnt(recipe(outputs={"kind": Judged}, data={"path": rows(), "group": "who"}))
    result = evaluate(model, dataset, dataset.splits.test, by="site")
    found = result.outputs["kind"]["perplexity"]
    assert found.value == pytest.approx(math.exp(result.losses["kind.cross_entropy"].value))
    assert found.low < found.value < 1.5 < found.high + 1
    assert result.baselines == {}
    assert any("no baseline" in note for note in result.notes)
    assert set(result.by["outputs"]["kind"]["groups"]) >= {"site 0", "site 1"}
    assert {item["input"]: item["worth"].value > 0.1 for item in result.ablation} == {"x": True, "note": False}
    hardest = result.details["outputs"]["kind"]["mistakes"]
    assert [item["loss"] for item in hardest] == sorted((item["loss"] for item in hardest), reverse=True)
    assert {item["answer"] for item in hardest} == {None}
    json.dumps([result.to_dict(), result.details], allow_nan=False)


def test_validation_looks_at_likelihoods_unless_the_goal_needs_answers(tmp_path: Path) -> None:
    for metric, direction, seen in (
        ("perplexity", "min", {"perplexity"}),
        ("accuracy", "max", {"perplexity", "accuracy"}),
    ):
        goal = {"output": "kind", "metric": metric, "direction": direction}
        model = fit(
            recipe(outputs={"kind": Both}, goal=goal, train={"size": "tiny", "steps": 20}), out=tmp_path / metric
        )
        log = [json.loads(line) for line in (model.run.path / "log.jsonl").read_text().splitlines()]
        validated = [event for event in log if event["event"] == "eval"]
        assert {name for event in validated for name in event["val"]["kind"]} == seen
        assert validated[-1]["goal"] == validated[-1]["val"]["kind"][metric]
        final = model.run.read("metrics.json")
        assert set(final["outputs"]["kind"]) == {"perplexity", "accuracy"}
        assert set(final["baselines"]["kind"]["classical"]) == {"accuracy"}


def test_folds_pool_likelihoods_too() -> None:
    found = cross_validate(recipe(outputs={"kind": Both}), lambda fold: learnt(fold, steps=10)[0], k=2)
    assert found.outputs["kind"]["perplexity"].n == COUNT
    assert set(found.baselines["kind"]["trivial"]) == {"accuracy"}
    assert all(fold["kind"]["perplexity"] > 1 for fold in found.folds)


# ---- runs and folds -----------------------------------------------------------------------------------------------------


def test_a_run_is_scored_on_its_splits_and_on_other_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pd.DataFrame(rows()).to_csv("rows.csv", index=False)
    pd.DataFrame(rows()).head(40).to_csv("new.csv", index=False)
    run = Run.create(recipe(data="rows.csv"))
    model, dataset = learnt(run.recipe, steps=20)
    model.info["data_fingerprint"] = dataset.fingerprint
    model.save(run.model_folder)
    found = evaluate_run("runs/mix", split="val")
    assert found.outputs["kind"]["accuracy"].n == len(dataset.splits.val)
    assert found.baselines["kind"]["classical"] is not None
    other = evaluate_run(run, data="new.csv", by="site")
    assert other.outputs["kind"]["accuracy"].n == 40
    assert other.baselines["kind"]["trivial"] is not None
    with pytest.raises(DataError, match="did you mean 'test'"):
        evaluate_run(run, split="tset")
    with pytest.raises(DataError, match="column"):
        evaluate_run(run, data=[{"x": 1.0, "y": 2.0}])
    pd.DataFrame(rows()).tail(200).to_csv("rows.csv", index=False)
    assert any("has changed" in note for note in evaluate_run(run).notes)
    (tmp_path / "rows.csv").unlink()
    assert any("cannot be read any more" in note for note in evaluate_run(run, data="new.csv").notes)


@pytest.fixture
def fittings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows the baselines were asked about, each time that an evaluation fitted them."""
    asked: list[int] = []
    module = importlib.import_module("endwise.evaluate")
    fitting = module.fit_baselines

    def counted(*given: Any, **named: Any) -> Any:
        asked.append(len(given[4]))
        return fitting(*given, **named)

    monkeypatch.setattr(module, "fit_baselines", counted)
    return asked


def test_baselines_are_fitted_once_and_their_scores_kept_in_the_run(tmp_path: Path, fittings: list[int]) -> None:
    declared = recipe(data=_written(rows(), tmp_path / "rows.csv"), train={"size": "tiny", "steps": 5})
    run = fit(declared, out=tmp_path / "run").run
    first = run.read("metrics.json")
    again = evaluate_run(run)
    assert fittings == []  # the training has scored them on the same rows
    assert again.to_dict()["baselines"] == first["baselines"]
    assert any("kept in the run" in note for note in again.notes)
    assert [note for note in again.notes if "kept in the run" not in note] == first["notes"]
    val = evaluate_run(run, split="val")
    assert len(fittings) == 1
    assert not any("kept in the run" in note for note in val.notes)
    assert evaluate_run(run, split="val").baselines == val.baselines
    table = pd.DataFrame(rows()).tail(30)
    other = evaluate_run(run, data=_written(table.to_dict("records"), tmp_path / "new.csv"))
    assert evaluate_run(run, data=str(tmp_path / "new.csv")).baselines == other.baselines != again.baselines
    assert fittings[1:] == [30]


def test_baselines_are_fitted_anew_where_anything_they_depend_on_is_other(
    tmp_path: Path, fittings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "rows.csv"
    own = rows()
    declared = recipe(data={"path": _written(own, place), "group": "who"}, train={"size": "tiny", "steps": 5})
    run = fit(declared, out=tmp_path / "run").run
    before = evaluate_run(run).baselines
    assert fittings == []
    test = set(prepare(run.recipe).splits.test.tolist())
    row = next(index for index, row in enumerate(own) if row["y"] is not None and index not in test)
    own[row]["y"] = -500.0  # one label of a training row
    _written(own, place)
    assert evaluate_run(run).baselines["y"] != before["y"]
    assert len(fittings) == 1
    _written(rows(), place)
    assert evaluate_run(run).baselines == before  # as it was: known again
    assert len(fittings) == 1
    pairs = [{**row, "who": f"p{index // 10}"} for index, row in enumerate(rows())]
    _written(pairs, place)
    evaluate_run(run)  # other groups have other splits or other intervals
    assert len(fittings) == 2
    _written(rows(), place)
    monkeypatch.setattr("endwise.beside.code", lambda: {"source_sha256": "of another version"})
    assert evaluate_run(run).baselines == before
    assert len(fittings) == 3


@pytest.mark.parametrize("damage", ["{", "[]", '{"evaluations": [{"made_of": 1}]}', '{"evaluations": {}}'])
def test_a_damaged_file_of_kept_baselines_is_made_again(tmp_path: Path, fittings: list[int], damage: str) -> None:
    declared = recipe(data=_written(rows(), tmp_path / "rows.csv"), train={"size": "tiny", "steps": 5})
    run = fit(declared, out=tmp_path / "run").run
    before = evaluate_run(run).baselines
    (run.path / "baselines.json").write_text(damage)
    assert evaluate_run(run).baselines == before
    assert evaluate_run(run).baselines == before
    assert len(fittings) == 1


def test_a_model_without_its_run_and_a_class_from_outside_have_nothing_kept(
    tmp_path: Path, fittings: list[int]
) -> None:
    declared = recipe(data=_written(rows(), tmp_path / "rows.csv"), train={"size": "tiny", "steps": 5})
    run = fit(declared, out=tmp_path / "run").run
    shutil.copytree(run.model_folder, tmp_path / "copied")
    files = sorted(file.name for file in (tmp_path / "copied").iterdir())
    evaluate_run(tmp_path / "copied")
    assert sorted(file.name for file in (tmp_path / "copied").iterdir()) == files
    assert len(fittings) == 1
    outside = fit(declared.replace(outputs={"kind": Both()}), out=tmp_path / "outside").run
    evaluate_run(outside)  # its code may change while ours does not
    assert len(fittings) == 2


def test_a_table_without_an_optional_input_is_scored_as_one_of_missing_values(tmp_path: Path) -> None:
    fields = {"x": {"type": "number"}, "note": {"type": "category", "optional": True}}
    run = Run.create(
        recipe(inputs=fields, data={"path": _written(rows(), tmp_path / "rows.csv")}), out=tmp_path / "run"
    )
    model, _ = learnt(run.recipe, steps=20)
    model.save(run.model_folder)
    lean = [{name: cell for name, cell in row.items() if name != "note"} for row in rows()[:40]]
    found = evaluate_run(run, data=lean)
    blank = evaluate_run(run, data=[{**row, "note": None} for row in lean])
    assert found.outputs["kind"]["accuracy"] == blank.outputs["kind"]["accuracy"]
    assert found.baselines["kind"]["classical"] == blank.baselines["kind"]["classical"]
    assert [note for note in found.notes if "note has no column in" in note and "optional" in note]
    assert {item["input"] for item in found.ablation or ()} == {"x"}
    with pytest.raises(DataError, match=r"inputs\.x\.column"):
        evaluate_run(run, data=[{"note": "a", "kind": "high", "y": 1.0, "yes": True}])


def _written(found: list[dict[str, Any]], path: Path) -> str:
    pd.DataFrame(found).to_csv(path, index=False)
    return str(path)


def test_folds_answer_every_row_once_by_a_model_that_did_not_see_it() -> None:
    declared = recipe(data={"path": rows(), "group": "who"})
    seen: list[tuple[str | None, set[Any]]] = []

    def fit(fold: Recipe) -> Model:
        model, dataset = learnt(fold, steps=10)
        held = set(dataset.cells("who", dataset.splits.test))
        assert not held & set(dataset.cells("who", dataset.splits.train))
        seen.append((fold.name, held))
        return model

    found = cross_validate(declared, fit, k=3)
    assert [name for name, _ in seen] == ["mix-fold-1", "mix-fold-2", "mix-fold-3"]
    assert sum(len(held) for _, held in seen) == len({row["who"] for row in rows()})
    assert found.outputs["kind"]["accuracy"].n == COUNT
    assert len(found.folds) == 3
    written = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert written["baselines"]["kind"]["classical"]["accuracy"]["n"] == COUNT
    with pytest.raises(DataError, match="one table"):
        cross_validate(recipe(data={"train": rows(), "test": rows()}), fit)


def test_folds_are_pooled_among_the_classes_of_all() -> None:
    """Every person has a class of their own now and then, which no fold that holds them out has ever seen."""
    data = [{**row, "kind": row["who"] if index % 20 < 2 else row["kind"]} for index, row in enumerate(rows())]
    folds: list[tuple[Model, Dataset]] = []

    def fit(fold: Recipe) -> Model:
        folds.append(learnt(fold, steps=10))
        return folds[-1][0]

    declared = recipe(data={"path": data, "group": "who"}, outputs={"kind": "category"})
    found = cross_validate(declared, fit, k=3)
    truths: list[Any] = []
    answers: list[Answer] = []
    for model, dataset in folds:
        held = dataset.splits.test.tolist()
        truths += dataset.cells("kind", held)
        given = [{name: dataset.raw(name, row) for name in ("x", "note")} for row in held]
        answers += [item.answers["kind"] for item in model.predict(given)]
    wanted = metrics.value(metrics.auroc(sorted(set(truths))), truths, answers)
    assert found.outputs["kind"]["auroc"].value == pytest.approx(wanted, abs=1e-3)
    assert found.baselines["kind"]["trivial"]["auroc"].n == COUNT


def test_what_is_the_same_but_for_a_number_is_held_out_together() -> None:
    """Each recording of a row twice, under two ids: one in training would give away the other."""
    texts = [f"note {index}" for index in range(60)]
    data = [
        {"id": str(2 * index + copy), "said": text, "kind": "ab"[index % 2]}
        for index, text in enumerate(texts)
        for copy in (0, 1)
    ]
    declared = recipe(data={"path": data}, inputs={"said": "text"}, outputs={"kind": "category"})

    def fit(fold: Recipe) -> Model:
        model, dataset = learnt(fold, steps=1)
        assert not {*dataset.cells("said", dataset.splits.test)} & {*dataset.cells("said", dataset.splits.train)}
        return model

    assert cross_validate(declared, fit, k=2).rows == 120


# ---- the parts of the details -------------------------------------------------------------------------------------------


def answered(truths: list[Any], answers: list[Answer], contract: Any = None) -> Answered:
    return Answered(
        item=None, contract=contract, rows=np.arange(len(truths)), truths=truths, answers=answers, losses={}, measures={}, weights=None, clusters=None  # type: ignore[arg-type]
    )  # fmt: skip


def test_reliability_counts_every_row_with_a_confidence_once() -> None:
    answers = [Answer("a", 0.95), Answer("b", 0.91), Answer("a", 1.0), Answer("a", 0.0), Answer("a", None)]
    found = reliability(answered(["a", "a", "a", "a", "a"], answers))
    assert sum(item["n"] for item in found) == 4
    assert found[-1] == {"confidence": pytest.approx((0.95 + 0.91 + 1.0) / 3), "accuracy": pytest.approx(2 / 3), "n": 3}
    assert reliability(answered(["a"], [Answer("a")])) == []


def test_curves_need_two_classes_and_both_of_them() -> None:
    def sure(share: float) -> Answer:
        return Answer(share > 0.5, share, detail={"probabilities": {"false": 1 - share, "true": share}})

    found = curves(answered([True, False, True, False], [sure(0.9), sure(0.2), sure(0.4), sure(0.4)]))
    assert found["roc"] == [[0.0, 0.0], [0.0, 0.5], [0.5, 1.0], [1.0, 1.0]]
    assert found["pr"][0] == [0.5, 1.0]
    assert curves(answered([True, True], [sure(0.9), sure(0.2)])) == {}
    assert curves(answered(["a"], [Answer("a", 1.0)])) == {}


def test_free_text_has_mix_ups_and_no_matrix() -> None:
    truths = [f"text {index}" for index in range(80)]
    found = confusion(answered(truths, [Answer("text 0") for _ in truths]))
    assert "confusion" not in found
    assert len(found["confusions"]) == 20
    few = confusion(answered(["one", "two"] * 20, [Answer("one"), Answer("tow")] * 20))
    assert few["confusion"]["names"] == ["one", "two", "(other)"]
    assert few["confusion"]["counts"] == [[20, 0, 0], [0, 0, 20], [0, 0, 0]]


def test_coverage_is_the_share_of_truths_inside_their_interval() -> None:
    answers = [Answer(1.0, detail={"low": 0.0, "high": 2.0}), Answer(1.0, detail={"low": 0.9, "high": 1.1})]
    assert coverage(answered([1.5, 1.5], answers)) == {"coverage": {"share": 0.5, "n": 2}}
    assert coverage(answered([1.5], [Answer(1.0)])) == {}


def test_an_input_may_be_called_after_a_part_of_the_network(tmp_path: Path) -> None:
    rows = [{"trunk_volume": float(at), "trunk": float(at % 5), "y": "ab"[at % 2]} for at in range(80)]
    recipe = ew.Recipe(
        name="trunks", data=rows, inputs={"trunk_volume": "number", "trunk": "number"}, outputs={"y": "category"},
        train={"steps": 3, "size": "tiny"},
    )  # fmt: skip
    model = ew.fit(recipe, out=tmp_path / "run")
    assert model.run is not None
    probed = [item["layer"] for item in model.run.read("details.json")["probe"]["y"]]
    assert {"trunk_volume tokens", "trunk tokens", "trunk 1"} <= set(probed)
