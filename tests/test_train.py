"""Training: what a person relies on when the machine, the data or the clock misbehave.

Small tables train in a second; every process that is killed here is a real one.
"""

import csv
import dataclasses
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

import endwise as ew
from endwise.errors import DataError, ModelError, RecipeError, TrainingError
from endwise.modalities.number import Number
from endwise.nn.interface import Encoder, Tokens
from endwise.objective import Objective
from endwise.plan import EVALUATION_S, Plan
from endwise.train import Stopped, dry_run
from endwise.train.loop import mixed_seed
from endwise.weighting import LOG_VARIANCE_LIMIT, Uncertainty

TINY = {"size": "tiny", "batch_size": 16, "precision": "fp32"}


def table(path: Path, rows: int = 160, seed: int = 0) -> Path:
    """Two numbers, a class they decide, and a number they decide."""
    chosen = random.Random(seed)
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["a", "b", "side", "total"])
        for _ in range(rows):
            a, b = chosen.gauss(0, 1), chosen.gauss(0, 2)
            out.writerow([a, b, "left" if a + b < 0 else "right", a + b])
    return path


def recipe(path: Path, **train: object) -> ew.Recipe:
    return ew.Recipe(
        name="sides",
        data=str(path),
        inputs={"a": "number", "b": "number"},
        outputs={"side": "category", "total": "number"},
        train={**TINY, "steps": 60, **train},
    )


def weights(run: Path) -> str:
    return hashlib.sha256((run / "model" / "weights.safetensors").read_bytes()).hexdigest()


def events(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("attention", [False, True])
def test_fields_that_say_something_only_together_are_learnt(tmp_path: Path, attention: bool) -> None:
    """Neither number tells the answer, nor does their sum: whether their signs are the same."""
    drawn = np.random.default_rng(0).uniform(-1, 1, (1000, 2))
    rows = [{"a": float(a), "b": float(b), "same": bool(a * b > 0)} for a, b in drawn]
    declared = ew.Recipe(
        name="signs", data=rows, inputs={"a": "number", "b": "number"}, outputs={"same": "boolean"},
        trunk={"attention": attention}, train={**TINY, "steps": 150},
    )  # fmt: skip
    model = ew.fit(declared, out=tmp_path / "run")
    assert model.run is not None
    assert model.run.read("metrics.json")["outputs"]["same"]["accuracy"]["value"] > 0.9


def test_one_network_learns_both_answers(tmp_path):
    model = ew.fit(recipe(table(tmp_path / "t.csv", 400), steps=300), out=tmp_path / "run")
    assert model.predict({"a": 1.5, "b": 3.0})["side"] == "right"
    assert model.predict({"a": -1.5, "b": -3.0})["side"] == "left"
    assert model.predict({"a": 1.5, "b": 3.0})["total"] == pytest.approx(4.5, abs=1.0)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    accuracy = metrics["outputs"]["side"]["accuracy"]
    assert accuracy["value"] > 0.85
    assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
    assert accuracy["value"] > metrics["baselines"]["side"]["trivial"]["accuracy"]["value"]
    for name in ("recipe.yaml", "plan.json", "log.jsonl", "model/model.json", "model/weights.safetensors"):
        assert (tmp_path / "run" / name).exists()


def test_the_log_names_every_term_with_its_weight_and_gradient(tmp_path):
    ew.fit(recipe(table(tmp_path / "t.csv")), out=tmp_path / "run")
    steps = [event for event in events(tmp_path / "run") if event["event"] == "step"]
    assert [step["step"] for step in steps] == list(range(1, 61))
    assert len(steps[0]["terms"]) == 2
    for term in steps[0]["terms"].values():
        assert set(term) == {"value", "weight", "grad_norm"}
    assert "grad_norm" not in next(iter(steps[1]["terms"].values()))
    ((one, others),) = steps[0]["cosines"].items()
    assert {one, *others} == set(steps[0]["terms"])
    assert all(-1 <= cosine <= 1 for cosine in others.values())
    assert "cosines" not in steps[1]


def test_the_same_recipe_twice_gives_the_same_bytes(tmp_path):
    data = table(tmp_path / "t.csv")
    for name in ("one", "two"):
        ew.fit(recipe(data), out=tmp_path / name)
    assert weights(tmp_path / "one") == weights(tmp_path / "two")
    ew.fit(recipe(data, seed=1), out=tmp_path / "three")
    assert weights(tmp_path / "one") != weights(tmp_path / "three")


@pytest.mark.parametrize("weighting", ["fixed", "uncertainty", "gradnorm", "dwa", "pcgrad"])
def test_micro_batches_add_up_to_the_batch(tmp_path, weighting):
    """Same rows, same loss at every step; only rounding differs (no dropout, so that nothing is drawn)."""
    data = table(tmp_path / "t.csv")
    losses, norms = [], []
    for micro in (16, 5):
        made = recipe(data, steps=12, micro_batch=micro).replace(
            **{"trunk.dropout": 0.0, "objective.weighting": weighting}
        )
        ew.fit(made, out=tmp_path / f"micro{micro}")
        steps = [event for event in events(tmp_path / f"micro{micro}") if event["event"] == "step"]
        losses.append([event["loss"] for event in steps])
        norms.append([term["grad_norm"] for term in steps[0]["terms"].values()])
    assert losses[0] == pytest.approx(losses[1], rel=2e-3, abs=1e-4)
    assert norms[0] == pytest.approx(norms[1], rel=2e-3)


# ---- killed, stopped, resumed ------------------------------------------------------------------------------------

CHILD = """
import sys
import endwise as ew
import endwise.train.loop as loop
loop.CHECKPOINT_EVERY_S = 0.0  # a checkpoint after every step: kills often fall into a save
import torch; torch.set_num_threads(1)
model = ew.fit(ew.Recipe.load(sys.argv[1]), out=sys.argv[2], resume="--resume" in sys.argv)
"""


def child(recipe_file: Path, run: Path, *options: str) -> subprocess.Popen:
    with run.with_suffix(".told").open("w") as told:
        return subprocess.Popen(
            [sys.executable, "-c", CHILD, str(recipe_file), str(run), *options], stdout=told, stderr=told
        )


def told(run: Path) -> str:
    return run.with_suffix(".told").read_text()


def write_recipe(tmp_path: Path, **train: object) -> Path:
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe(table(tmp_path / "t.csv"), **train).to_yaml())
    return file


def steps_done(run: Path) -> int:
    found = sorted((run / "checkpoints").glob("step-????????")) if (run / "checkpoints").exists() else []
    return int(found[-1].name[5:]) if found else -1


def wait_for_step(process: subprocess.Popen, run: Path, step: int) -> None:
    deadline = time.monotonic() + 120
    while steps_done(run) < step and process.poll() is None:
        assert time.monotonic() < deadline, "the training does not get on"
        time.sleep(0.005)


def interrupted_at(step: int):
    """A listener that stops the training after this step, as Ctrl-C does."""

    def interrupt(event):
        if event["event"] == "step" and event["step"] == step:
            os.kill(os.getpid(), signal.SIGINT)

    return interrupt


def test_a_training_killed_at_any_moment_resumes_bit_for_bit(tmp_path):
    """SIGKILL three times, at moments that fall into steps and into saves; the weights equal an uninterrupted run's."""
    file = write_recipe(tmp_path, steps=60)
    whole = child(file, tmp_path / "whole")
    assert whole.wait(timeout=180) == 0, told(tmp_path / "whole")
    killed = tmp_path / "killed"
    for at in (3, 17, 41):
        process = child(file, killed, *(["--resume"] if killed.exists() else []))
        wait_for_step(process, killed, at)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
    last = child(file, killed, "--resume")
    assert last.wait(timeout=180) == 0, told(killed)
    assert weights(killed) == weights(tmp_path / "whole")
    assert (killed / "metrics.json").exists()


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_leaves_a_usable_run_and_says_how_to_go_on(tmp_path, sent):
    file = write_recipe(tmp_path, steps=5000)
    process = child(file, tmp_path / "run")
    wait_for_step(process, tmp_path / "run", 5)
    process.send_signal(sent)
    assert process.wait(timeout=60) not in (0, None)
    assert f"--out {tmp_path / 'run'} --resume" in told(tmp_path / "run")
    assert ew.Run.open(tmp_path / "run").model().predict({"a": 1.0, "b": 1.0})["side"] in ("left", "right")
    assert any(event["event"] == "interrupted" for event in events(tmp_path / "run"))


def test_an_existing_run_is_refused_and_a_changed_recipe_is_not_resumed(tmp_path):
    data = table(tmp_path / "t.csv")
    ew.fit(recipe(data, steps=5), out=tmp_path / "run")
    with pytest.raises((RecipeError, ModelError), match="--resume"):
        ew.fit(recipe(data, steps=5), out=tmp_path / "run")
    with pytest.raises((RecipeError, ModelError), match=r"train\.seed"):
        ew.fit(recipe(data, steps=5, seed=9), out=tmp_path / "run", resume=True)
    before = weights(tmp_path / "run")
    ew.fit(recipe(data, steps=5), out=tmp_path / "run", resume=True)
    assert weights(tmp_path / "run") == before


def test_a_run_that_stopped_early_has_nothing_left_to_resume(tmp_path):
    declared = recipe(table(tmp_path / "t.csv"), steps=400, patience=2, learning_rate=1e-12)
    ew.fit(declared, out=tmp_path / "run")
    before, last = weights(tmp_path / "run"), events(tmp_path / "run")[-1]
    assert last["step"] < 400
    ew.fit(declared, out=tmp_path / "run", resume=True)
    assert weights(tmp_path / "run") == before
    assert events(tmp_path / "run")[-1]["step"] == last["step"]


def test_a_run_is_not_resumed_with_other_rows(tmp_path):
    declared = recipe(table(tmp_path / "t.csv"), steps=5)
    ew.fit(declared, out=tmp_path / "run")
    table(tmp_path / "t.csv", rows=200, seed=1)
    with pytest.raises(DataError, match="restore the data, or start a new run"):
        ew.fit(declared, out=tmp_path / "run", resume=True)


def test_a_run_goes_on_where_it_and_its_data_were_moved_to(tmp_path):
    """A clone or a folder under another name: the rows are what they were, so the weights are those of one that stayed."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    declared = recipe(table(old / "t.csv"), steps=20)
    ew.fit(declared, out=old / "whole")
    with pytest.raises(Stopped):
        ew.fit(declared, out=old / "run", progress=interrupted_at(9))
    old.rename(new)
    heard: list[dict] = []
    ew.fit(recipe(new / "t.csv", steps=20), out=new / "run", resume=True, progress=heard.append)
    assert weights(new / "run") == weights(new / "whole")
    assert min(event["step"] for event in heard if event["event"] == "step") == 10
    said = [event["message"] for event in heard if event["event"] == "note"]
    assert any(str(old / "t.csv") in line and str(new / "t.csv") in line for line in said)
    assert ew.Run.open(new / "run").recipe.data.path == str(new / "t.csv"), "what reads the run's rows finds them"


def test_data_that_was_moved_and_changed_is_refused(tmp_path):
    with pytest.raises(Stopped):
        ew.fit(recipe(table(tmp_path / "t.csv"), steps=20), out=tmp_path / "run", progress=interrupted_at(9))
    changed = table(tmp_path / "moved.csv", seed=1)
    with pytest.raises(DataError, match="are not those this run was begun with"):
        ew.fit(recipe(changed, steps=20), out=tmp_path / "run", resume=True)
    assert ew.Run.open(tmp_path / "run").recipe.data.path == str(tmp_path / "t.csv")


def test_a_stop_that_arrives_in_the_last_step_is_a_stop(tmp_path):
    declared = recipe(table(tmp_path / "t.csv"), steps=5)
    with pytest.raises(Stopped, match="step 5 of 5"):
        ew.fit(declared, out=tmp_path / "run", progress=interrupted_at(5))
    ew.fit(declared, out=tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "metrics.json").exists()


def test_threads_are_the_callers_again_after_a_training(tmp_path):
    declared = recipe(table(tmp_path / "t.csv"), steps=2)
    ew.fit(declared, out=tmp_path / "run")
    file = tmp_path / "run" / "plan.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "threads": 3}))
    ew.fit(declared, out=tmp_path / "run", resume=True)
    assert torch.get_num_threads() == 1


def test_a_short_first_batch_decides_nothing(tmp_path):
    """128 training rows in batches of 100 and 28, whichever comes first."""
    for seed in range(4):
        plan, _ = dry_run(recipe(table(tmp_path / "t.csv"), batch_size=100, micro_batch=32, seed=seed))
        assert (plan.batch_size, plan.micro_batch) == (100, 32)


# ---- when things go wrong ------------------------------------------------------------------------------------------


class _Trap(Encoder):
    """A number's encoder that misbehaves on purpose: NaN at one step, or out of memory above a batch size."""

    def __init__(self, inner: Encoder, mode: str) -> None:
        super().__init__()
        self.inner, self.mode, self.calls = inner, mode, 0

    def forward(self, values: torch.Tensor, sizes: torch.Tensor) -> Tokens:
        tokens: Tokens = self.inner(values, sizes)
        if not self.training:
            return tokens
        self.calls += 1
        if len(values) > 4 and (self.mode == "memory" or (self.mode == "memory later" and self.calls > 8)):
            raise torch.OutOfMemoryError("CUDA out of memory: a test of ours")
        if self.mode == "always" or (self.mode == "once" and self.calls == 30):
            return tokens.with_values(tokens.values * torch.nan)
        return tokens


@dataclass(frozen=True, kw_only=True)
class Trapped(Number):
    """A number whose encoder misbehaves."""

    type: ClassVar[str] = "trapped"
    mode: str = "once"

    def read(self, raw, fetch):
        if self.mode == "slow":
            time.sleep(0.02)
        return super().read(raw, fetch)

    def encoder(self, contract, size):
        return _Trap(super().encoder(contract, size), self.mode)


def trapped(tmp_path: Path, mode: str) -> ew.Recipe:
    return ew.Recipe(
        name="trapped",
        data=str(table(tmp_path / "t.csv")),
        inputs={"a": Trapped(mode=mode), "b": "number"},
        outputs={"side": "category"},
        train={**TINY, "steps": 40, "micro_batch": 16},
    )


def test_a_step_that_is_not_finite_is_rolled_back_and_named(tmp_path):
    model = ew.fit(trapped(tmp_path, "once"), out=tmp_path / "run")
    back = [event for event in events(tmp_path / "run") if event["event"] == "rollback"]
    assert len(back) == 1
    assert "not finite" in back[0]["message"]
    assert back[0]["rate"] == 0.5
    assert all(bool(torch.isfinite(weight).all()) for weight in model.network.parameters())


def test_a_training_that_keeps_diverging_stops_and_says_where(tmp_path):
    with pytest.raises(TrainingError, match=r"(?s)not finite after 3 rollbacks; first bad layer: .*t\.csv line"):
        ew.fit(trapped(tmp_path, "always"), out=tmp_path / "run")


def test_out_of_memory_halves_the_micro_batch_and_keeps_the_batch(tmp_path):
    """Found out before step 0 where possible, and in the middle of a training where not."""
    ew.fit(trapped(tmp_path, "memory").replace(**{"train.steps": 6}), out=tmp_path / "at-once")
    plan = json.loads((tmp_path / "at-once" / "plan.json").read_text())
    assert (plan["micro_batch"], plan["batch_size"]) == (4, 16)
    ew.fit(trapped(tmp_path, "memory later").replace(**{"train.steps": 12}), out=tmp_path / "later")
    halved = [event["micro_batch"] for event in events(tmp_path / "later") if event["event"] == "oom"]
    assert halved == [8, 4]


def test_a_budget_is_kept_and_leaves_an_evaluated_model(tmp_path):
    """Not a race: the plan is made from the budget and the measured step, and a model is evaluated at the end."""
    declared = recipe(table(tmp_path / "t.csv"), steps=None, budget="8s")
    ew.fit(declared, out=tmp_path / "run")
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert plan["budget_s"] == 8
    steps = [event["step"] for event in events(tmp_path / "run") if event["event"] == "step"]
    assert steps[-1] == plan["steps"]  # whatever the clock said on the way, the last word is in the plan
    assert (tmp_path / "run" / "metrics.json").exists()


def test_the_end_of_a_run_is_foreseen_by_the_rows_it_scores(tmp_path):
    """A few validation rows take as long as what stands around them; many test rows do not take that each."""
    ew.fit(recipe(table(tmp_path / "t.csv"), steps=2), out=tmp_path / "run")
    plan = dataclasses.replace(
        Plan.from_dict(json.loads((tmp_path / "run" / "plan.json").read_text())),
        rows={"train": 36, "val": 4, "test": 100},
        eval_rows=4,
        drafts=1.0,
    )
    assert dataclasses.replace(plan, eval_s=EVALUATION_S).scoring_s(100) == EVALUATION_S
    assert dataclasses.replace(plan, eval_s=EVALUATION_S + 2).scoring_s(100) == pytest.approx(EVALUATION_S + 50)
    searched = dataclasses.replace(plan, eval_s=EVALUATION_S + 2, eval_rows=2, drafts=4.0)
    assert searched.scoring_s(100) == pytest.approx(
        EVALUATION_S + 400
    )  # two drafts were seen, whole answers take four times


def test_validations_of_written_answers_look_at_drafts_of_some_rows_and_the_end_at_all(tmp_path, monkeypatch):
    """A network that has not learnt to end writes on and on: five minutes of beams after each pass, once."""
    monkeypatch.setattr("endwise.plan.DRAFTED_ROWS", 3)
    rows = [{"said": f"say {word}", "word": word} for word in ("ab", "ba", "aab", "bba", "abab", "baba") * 10]
    declared = ew.Recipe(
        data=rows,
        inputs={"said": ew.Text()},
        outputs={"word": ew.Text(decoder="attention", units="characters", beams=4)},
        goal={"output": "word", "metric": "cer", "direction": "min"},
        train=ew.Train(steps=4, batch_size=8, size="tiny"),
    )
    ew.fit(declared, out=tmp_path / "run")
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert (plan["eval_rows"], plan["drafts"]) == (3, 4.0)
    said = [event["message"] for event in events(tmp_path / "run") if event["event"] == "note"]
    assert any("write the answers of 3 of" in line and "without a search" in line for line in said)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["outputs"]["word"]["cer"]["n"] > 3


def test_a_budget_counts_what_every_part_of_a_run_did_before_its_steps(tmp_path):
    """As if reading had taken the first part an hour, which is all that the budget allows."""
    declared = recipe(table(tmp_path / "t.csv"), steps=480, budget="1h")
    with pytest.raises(Stopped):
        ew.fit(declared, out=tmp_path / "run", progress=interrupted_at(3))
    state = tmp_path / "run" / "checkpoints" / "step-00000003" / "state.json"
    facts = json.loads(state.read_text())
    assert facts["before_s"]["reading"] > 0
    facts["before_s"]["reading"] += 3600
    state.write_text(json.dumps(facts))
    ew.fit(declared, out=tmp_path / "run", resume=True)
    assert events(tmp_path / "run")[-1]["step"] < 50


def test_a_budget_that_left_time_for_a_few_steps_only_is_told(tmp_path):
    """In the log before the first step, and beside the scores, with what used it up and how much would do."""
    declared = trapped(tmp_path, "slow").replace(**{"train.steps": None, "train.budget": "1s"})
    ew.fit(declared, out=tmp_path / "run")
    said = [event["message"] for event in events(tmp_path / "run") if "message" in event]
    assert any("leave time for 1 step" in message for message in said), said
    told = json.loads((tmp_path / "run" / "metrics.json").read_text())["notes"][0]
    assert re.search(r"the budget of 1 s was used by reading \([\d.]+ s\), baselines \([\d.]+ s\)", told), told
    assert "only 1 step was trained" in told
    assert re.search(r"raise --budget to at least \d+s", told), told
    ew.fit(recipe(table(tmp_path / "t.csv"), steps=3, budget="1h"), out=tmp_path / "short")
    assert not any("budget" in note for note in json.loads((tmp_path / "short" / "metrics.json").read_text())["notes"])


def test_bf16_and_uncertainty_weighting_train_too(tmp_path):
    declared = recipe(table(tmp_path / "t.csv"), precision="bf16").replace(**{"objective.weighting": "uncertainty"})
    ew.fit(declared, out=tmp_path / "run")
    steps = [event for event in events(tmp_path / "run") if event["event"] == "step"]
    moved = {name: steps[-1]["terms"][name]["weight"] / steps[0]["terms"][name]["weight"] for name in steps[0]["terms"]}
    assert any(abs(ratio - 1) > 0.01 for ratio in moved.values())


def test_a_rare_label_is_weighed_by_its_own_first_loss(tmp_path):
    """Three rows of 160 have it: most batches have none of them, and a loss of nothing is no scale."""
    path = table(tmp_path / "t.csv")
    head, *lines = path.read_text().splitlines()
    lines = [line if index % 50 == 0 else line.rpartition(",")[0] + "," for index, line in enumerate(lines)]
    path.write_text("\n".join([head, *lines]) + "\n")
    ew.fit(recipe(path, steps=2).replace(**{"objective.weighting": "uncertainty"}), out=tmp_path / "run")
    first = next(event for event in events(tmp_path / "run") if event["event"] == "step")
    assert all(term["weight"] < 1e3 for term in first["terms"].values())


def test_a_log_variance_at_its_limit_can_come_back():
    """A term that is learnt by heart drives it there; when the term grows again, it must move again."""
    objective = Objective({"total": Number()}, {"total.error": 1.0}, "uncertainty")
    optimiser = torch.optim.SGD(objective.parameters(), lr=0.5)
    for value in [0.0] * 20 + [1.0]:
        optimiser.zero_grad()
        objective({"total.error": torch.tensor(value)}).backward()
        optimiser.step()
        objective.weighting.bound()
    assert isinstance(objective.weighting, Uncertainty)
    assert objective.weighting.log_variance.item() > -LOG_VARIANCE_LIMIT


def test_missing_labels_and_inputs_are_masked(tmp_path):
    path = table(tmp_path / "t.csv", 120)
    lines = path.read_text().splitlines()
    for index in range(1, 40):
        a, b, side, total = lines[index].split(",")
        lines[index] = ",".join([a if index % 3 else "", b, side if index % 2 else "", total])
    path.write_text("\n".join(lines) + "\n")
    model = ew.fit(recipe(path), out=tmp_path / "run")
    assert model.predict({"b": 5.0})["side"] in ("left", "right")  # 'a' was missing in training, so it may be here


def test_seeds_of_neighbouring_steps_have_nothing_in_common():
    seeds = np.array([mixed_seed(seed, step) for seed in range(8) for step in range(500)])
    assert len(np.unique(seeds)) == len(seeds)
    assert len(np.unique(seeds % 256)) == 256


def test_a_stop_is_an_error_with_its_exit_code():
    assert Stopped("x", 143).exit_code == 143
    assert os.name == "posix"


def test_text_that_is_decided_upon_is_not_learnt_by_heart() -> None:
    """A budget is a limit: it does not make a training longer than its parts profit from."""
    from endwise.recipe import Recipe
    from endwise.train import dry_run

    rows = [
        {"text": f"good film number {i}" if i % 2 else f"bad film number {i}", "fine": i % 2 > 0} for i in range(200)
    ]
    for outputs, passes in (
        ({"fine": "boolean"}, 12),
        ({"said": {"type": "text", "column": "text", "units": "bytes"}}, 60),
    ):
        recipe = Recipe(data=rows, inputs={"text": "text"}, outputs=outputs, train={"size": "tiny", "budget": "10m"})
        plan, _ = dry_run(recipe)
        assert plan.steps <= plan.most_steps == passes * plan.steps_per_epoch


def test_a_part_of_the_labels_is_trained_on_and_scored_by_whoever_chose_it(tmp_path):
    declared = recipe(table(tmp_path / "t.csv"))
    whole = ew.prepare(declared)
    part = whole.with_sides(train=whole.splits.train[::4])
    assert part.fingerprint != whole.fingerprint
    assert part.splits.test.tolist() == whole.splits.test.tolist()
    model = ew.fit(declared, out=tmp_path / "part", dataset=part)
    assert json.loads((tmp_path / "part" / "plan.json").read_text())["rows"]["train"] == len(part.splits.train)
    assert not (tmp_path / "part" / "metrics.json").exists()
    assert model.predict({"a": 1.5, "b": 3.0})["side"] in ("left", "right")
    with pytest.raises(DataError, match="not those this run was begun with"):
        ew.fit(declared, out=tmp_path / "part", resume=True)


def test_under_a_budget_slow_validations_stand_further_apart(tmp_path):
    """A network that has not learnt to end writes to the limit: its validations would eat the budget of its steps."""
    ew.fit(recipe(table(tmp_path / "t.csv"), steps=2), out=tmp_path / "run")
    free = dataclasses.replace(
        Plan.from_dict(json.loads((tmp_path / "run" / "plan.json").read_text())),
        step_s=0.1,
        eval_s=30.0,
        most_steps=8000,
    )
    kept = dataclasses.replace(free, budget_s=840.0)
    assert free.with_steps(8000).eval_every == 400
    assert kept.with_steps(8000).eval_every == 1200  # 30 s of validation after every 120 s of steps
    assert kept.with_steps(500).eval_every == 500  # the last step always shows how it stands
    assert dataclasses.replace(kept, eval_s=1.0).with_steps(8000).eval_every == 400
    going_on = kept.going_on(8000)
    assert (going_on.warmup_steps, going_on.ema_decay) == (kept.warmup_steps, kept.ema_decay)
