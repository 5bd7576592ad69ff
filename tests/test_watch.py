"""What goes wrong in silence is named: by the events of a log, in whole trainings, and in their reports."""

import random
from pathlib import Path
from typing import Any

import pytest

import endwise as ew
from endwise.metrics import Estimate
from endwise.recipe import Recipe
from endwise.report import build
from endwise.run import Run
from endwise.watch import MEASUREMENTS, Meaning, Watch, worse_than_alone
from tests.test_stages import staged
from tests.test_train import events, recipe, table

GROUPS = {"hear": ["hear.inputs.recording", "hear.outputs.words"], "add": ["add.outputs.total"]}
OWN = {"hear": ["words.ctc"], "add": ["total.error"]}


def watch() -> Watch:
    return Watch(GROUPS, OWN, {"words": Meaning("wer", "min", 1.0, 40)})


def step(number: int, heard: float, *, weight: float = 0.0, value: float = 2.0) -> dict[str, Any]:
    return {
        "event": "step",
        "step": number,
        "parts": {"hear.inputs.recording": heard, "hear.outputs.words": heard, "add.outputs.total": 0.5},
        "terms": {"words.ctc": {"value": value, "weight": weight}, "total.error": {"value": 1.0, "weight": 1.0}},
    }


def looked(number: int, wer: float | None, *, final: bool = False) -> dict[str, Any]:
    return {"event": "meaning", "step": number, "final": final, "val": {"words": {"wer": wer}}}


# ---- by the log ------------------------------------------------------------------------------------------------------


def test_a_stage_without_a_gradient_is_named_once_and_forgotten_when_one_comes() -> None:
    seen = watch()
    told = [seen.see(step(number, 0.0)) for number in range(MEASUREMENTS + 2)]
    (alarm,) = [alarm for found in told for alarm in found]
    assert (alarm.name, alarm.where, alarm.step) == ("no_gradient", "hear", 0)
    assert told[MEASUREMENTS - 1] == [alarm]
    assert "Fix" in alarm.message
    assert seen.see(step(9, 1e-3)) == []
    assert seen.alarms == []
    again = [alarm for number in range(20, 20 + MEASUREMENTS) for alarm in seen.see(step(number, 0.0))]
    assert [alarm.step for alarm in again] == [20]


def test_a_short_training_is_told_at_its_end_and_one_look_is_not_enough() -> None:
    seen = watch()
    seen.see(step(1, 0.0))
    assert seen.end() == []
    seen.see(step(51, 0.0))
    assert [alarm.where for alarm in seen.end()] == ["hear"]
    assert seen.end() == []


def test_a_batch_without_a_label_is_no_evidence() -> None:
    seen = watch()
    for number in range(5):
        seen.see(step(number, 0.0, weight=1.0, value=0.0))
    assert seen.end() == []


@pytest.mark.parametrize("recovers", [False, True])
def test_an_answer_that_loses_what_it_had_drifts(recovers: bool) -> None:
    """0.1 is 0.9 better than the constant answer, 0.5 no longer 0.63 of it."""
    seen = watch()
    assert seen.see(looked(0, 0.1)) == []
    assert seen.see(looked(10, 0.3)) == []
    assert seen.see(looked(20, 0.5)) == []  # one may be noise
    (alarm,) = seen.see(looked(30, 0.6))
    assert (alarm.name, alarm.where, alarm.step) == ("drift", "words", 30)
    assert "was 0.1 and is 0.6 on 40 validation rows" in alarm.message
    seen.see(looked(40, 0.2 if recovers else 0.7, final=True))
    assert [alarm.name for alarm in seen.alarms] == ([] if recovers else ["drift"])


def test_an_answer_no_better_than_a_constant_means_nothing() -> None:
    seen = watch()
    seen.see(looked(0, 1.2))
    (alarm,) = seen.see(looked(10, 1.0, final=True))
    assert (alarm.name, alarm.where) == ("no_meaning", "words")
    assert watch().see(looked(10, None, final=True)) == []
    assert watch().see(looked(10, 0.95, final=True)) == []


def test_a_handful_of_rows_says_nothing_about_a_meaning() -> None:
    few = Watch(GROUPS, OWN, {"words": Meaning("wer", "min", 1.0, 2)})
    assert few.see(looked(0, 0.1)) == []
    assert few.see(looked(10, 1.3, final=True)) == []


def trained(losses: list[float], goals: list[float], constant: float | None) -> list[Any]:
    """The alarms after some steps and, each after as many of them, evaluations."""
    meaning = None if constant is None else Meaning("accuracy", "max", constant, 40)
    seen = Watch({}, {}, {}, ("kind", lambda: meaning))
    for number, loss in enumerate(losses):
        seen.see({"event": "step", "step": number, "loss": loss})
    for goal in goals:
        seen.see({"event": "eval", "step": len(losses), "val": {}, "goal": goal})
    return seen.alarms


def test_a_training_that_learns_nothing_says_what_to_try() -> None:
    (alarm,) = trained([0.69, 0.7] * 10, [0.5, 0.4, 0.5], 0.5)
    assert (alarm.name, alarm.where) == ("nothing_learnt", "kind")
    assert all(
        word in alarm.message for word in ("0.5 at best", "train.learning_rate", "train.augment", "class_weights")
    )


@pytest.mark.parametrize(
    ("losses", "goals", "constant"),
    [
        ([0.69, 0.7] * 10, [0.5, 0.5], 0.5),  # two may be a warm-up
        ([0.69, 0.7] * 10, [0.5, 0.6, 0.5], 0.5),  # it was better once
        ([0.7 - 0.01 * step for step in range(20)], [0.5] * 3, 0.5),  # the loss falls
        ([0.7] * 4, [0.5] * 3, 0.5),  # too few losses to tell
        ([0.69, 0.7] * 10, [0.5] * 3, None),  # no constant answer can be scored
    ],
)
def test_what_may_still_learn_is_left_alone(losses: list[float], goals: list[float], constant: float | None) -> None:
    assert trained(losses, goals, constant) == []


def test_worse_together_than_alone_only_where_the_intervals_say_so() -> None:
    def estimate(value: float) -> Estimate:
        return Estimate(value, value - 0.1, value + 0.1, 50)

    alarm = worse_than_alone("speaker", estimate(0.5), estimate(0.8), "max")
    assert alarm is not None
    assert (alarm.name, alarm.where) == ("worse_than_alone", "speaker")
    assert worse_than_alone("speaker", estimate(0.7), estimate(0.8), "max") is None
    assert worse_than_alone("speaker", estimate(0.5), estimate(0.8), "min") is None
    assert worse_than_alone("speaker", estimate(0.9), estimate(0.5), "min") is not None
    assert worse_than_alone("speaker", Estimate(0.5, float("nan"), 0.6, 9), estimate(0.8), "max") is None


# ---- in a training ---------------------------------------------------------------------------------------------------


def pair(regime: str, hand_off: str, steps: int, **train: Any) -> Recipe:
    """The colour of a number, and from the colour alone a word's length."""
    declared = staged().to_dict()
    return staged(
        outputs={"dark": "boolean"},
        stages={
            "see": {"from": "x", "to": {"colour": declared["outputs"]["colour"]}},
            "judge": {"from": "colour", "to": "dark", "hand_off": hand_off},
        },
        regime=regime,
        train={"size": "tiny", "batch_size": 32, "seed": 0, "steps": steps, **train},
    )


def test_every_stage_says_who_pulls_at_it_and_the_report_draws_it(tmp_path: Path) -> None:
    model = ew.fit(pair("joint", "soft", 52), out=tmp_path / "run")
    measured = [event for event in events(tmp_path / "run") if event["event"] == "step" and "parts" in event]
    assert [event["step"] for event in measured] == [1, 51]
    for event in measured:
        assert set(event["stages"]) == {"see", "judge"}
        assert set(event["stages"]["see"]["norms"]) == {"colour.cross_entropy", "dark.cross_entropy"}
        assert set(event["stages"]["judge"]["norms"]) == {"dark.cross_entropy"}
        (cosine,) = event["stages"]["see"]["cosines"].values()
        assert -1 <= next(iter(cosine.values())) <= 1
        assert {name.partition(".")[0] for name in event["parts"]} == {"see", "judge"}
    assert model.run is not None
    page = build(model.run).read_text(encoding="utf-8")
    for words in ("at the tokens of stage see", "two terms at the tokens of stage see", "weights of each stage"):
        assert words in page
    assert model.run.read("metrics.json")["alarms"] == []


def test_a_stage_that_nothing_teaches_is_named_everywhere(tmp_path: Path) -> None:
    """The goal alone counts, and a hard hand-off sends nothing back."""
    told: list[Any] = []
    model = ew.fit(pair("joint_goal_only", "hard", 52), out=tmp_path / "run", progress=told.append)
    assert model.run is not None
    alarms = model.run.read("metrics.json")["alarms"]
    assert ("no_gradient", "see") in [(alarm["name"], alarm["where"]) for alarm in alarms]
    said = [event for event in told if event["event"] == "alarm"]
    assert [event["name"] for event in said].count("no_gradient") == 1
    page = build(model.run).read_text(encoding="utf-8")
    assert '<span class="wrong">no gradient</span>: see gets no gradient' in page


def test_answers_on_the_way_are_looked_at_before_and_after(tmp_path: Path) -> None:
    """As `modular` left them, and as the kept weights have them."""
    ew.fit(pair("warm_joint", "soft", 30), out=tmp_path / "run")
    looks = [event for event in events(tmp_path / "run") if event["event"] == "meaning"]
    assert [(event["step"] == 0, event["final"]) for event in looks] == [(True, False), (False, True)]
    assert all(0 <= event["val"]["colour"]["accuracy"] <= 1 for event in looks)


def test_one_network_measures_its_parts_and_has_no_alarm(tmp_path: Path) -> None:
    ew.fit(recipe(table(tmp_path / "t.csv", 60), steps=3), out=tmp_path / "run")
    (measured,) = [event for event in events(tmp_path / "run") if "parts" in event]
    assert set(measured["parts"]) == {"inputs.a", "inputs.b", "trunk", "outputs.side", "outputs.total"}
    assert all(norm > 0 for norm in measured["parts"].values())
    assert "trunk 1" in measured["layers"]
    assert all(norm > 0 for norm in measured["layers"].values())
    assert Run.open(tmp_path / "run").read("metrics.json")["alarms"] == []


def test_a_training_of_noise_at_no_rate_says_so_in_its_report(tmp_path: Path) -> None:
    chosen = random.Random(0)
    rows = [f"{chosen.gauss(0, 1)},{chosen.gauss(0, 1)},{'right' if row % 10 else 'left'},0" for row in range(200)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,side,total", *rows]))
    # a loss that neither dropout nor other rows move, and a class that any untrained network answers as often as a constant
    declared = recipe(tmp_path / "t.csv", steps=60, learning_rate=1e-9, batch_size=1000).replace(
        **{"trunk.dropout": 0.0}
    )
    model = ew.fit(declared, out=tmp_path / "run")
    assert model.run is not None
    (alarm,) = model.run.read("metrics.json")["alarms"]
    assert alarm["name"] == "nothing_learnt"
    assert '<span class="wrong">nothing learnt</span>' in build(model.run).read_text(encoding="utf-8")
