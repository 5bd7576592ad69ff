"""Reproduce: train a finished run again in a new folder, from what it wrote down, and say whether the same came out.

The recipe, the seed and the plan (steps, batches, threads, precision: what a clock once decided) are those of the run; data files
are held against its manifest before anything is trained. Afterwards the weights and every metric are set side by side, with what
is other than it was: packages, code, machine. Not here: what a run writes down, and hashing it again (lineage.py).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from endwise import lineage, regimes
from endwise.errors import DataError, ModelError, refusal, require
from endwise.lineage import ENTRY, ENVIRONMENT
from endwise.recipe import Recipe
from endwise.run import Run
from endwise.stages import stage_recipe

FILE, PLAN, STAGES = "reproduced.json", "plan.json", "stages"
Progress = Callable[[Mapping[str, Any]], None]
Verdict = Literal["the same network", "the same numbers", "within the intervals", "other numbers"]


@dataclass(frozen=True)
class Reproduction:
    """Frozen result. run: the new one. verdict: the weights are the same to the bit; every metric is; each lies within the interval
    it had; or some do not. numbers: {"output", "metric", "before", "now", "low", "high"} of each metric. differs: what was other
    than it was, and what keeps the two from being the same to the bit."""

    run: Path
    of: Path
    verdict: Verdict
    numbers: tuple[Mapping[str, Any], ...]
    differs: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing lies outside the interval that it had."""
        return self.verdict != "other numbers"

    def to_dict(self) -> dict[str, Any]:
        """The documented JSON."""
        numbers = [dict(item) for item in self.numbers]
        return {"run": str(self.run), "of": str(self.of), "verdict": self.verdict, "numbers": numbers, "differs": list(self.differs)}  # fmt: skip

    def __str__(self) -> str:
        said = {
            "the same network": "the same network, to the bit, and so the same numbers",
            "the same numbers": "the same numbers, from weights that differ",
            "within the intervals": "other numbers, each within the interval that it had",
            "other numbers": "OTHER NUMBERS, outside the intervals that they had",
        }[self.verdict]
        lines = [said] if self.ok or self.differs else [said, "  nothing that was written down is other than it was"]
        shown = [item for item in self.numbers if item["before"] != item["now"]]
        lines += [f"  {item['output']} {item['metric']}: {_spelled(item['before'])} [{_spelled(item['low'])}, {_spelled(item['high'])}], "
                  f"now {_spelled(item['now'])}" for item in shown]  # fmt: skip
        same = len(self.numbers) - len(shown)
        lines += [f"  {same} of {len(self.numbers)} metrics are the same"] if shown else []
        return "\n".join([*lines, *(f"differs: {line}" for line in self.differs)])


def reproduce(
    run: "Run | str | Path",
    *,
    out: str | Path | None = None,
    other_data: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> Reproduction:
    """Train a run again and compare; the new run is `.run`, and holds this result as `reproduced.json`.

    out: default the run's folder with '-again' behind its name. other_data: go on where data files are not what they were.
    resume: go on after a stop. A time limit is replaced by the steps that were made in it. Folds are not trained again. Raises
    DataError where files are changed or gone, ModelError and RecipeError for a run that nothing can be compared with.
    """
    before = Run.open(run)
    recipe, metrics = _finished(before)
    differs = _data(before, other_data, progress)
    place = Path(out) if out is not None else before.path.with_name(f"{before.path.resolve().name}-again")
    recipe = recipe.replace(**{"train.budget": None})
    again = _begun(before, recipe, place, resume)
    again = regimes.fit(recipe, out=place, resume=True, progress=progress).run or again
    found = _compared(before, again, metrics, differs)
    again.write(FILE, found.to_dict())
    return found


def _finished(run: Run) -> tuple[Recipe, dict[str, Any]]:
    """The recipe and the metrics of a run that was trained and scored on data in files."""
    if not (run.has("metrics.json") and run.has(PLAN) and run.has("recipe.yaml")):
        raise ModelError(
            f"{run.path} has no plan or no metrics, so there is nothing to compare with. Fix: name a run that 'endwise train' has "
            "finished; the runs of a comparison or an advice are made again by that command with another --out."
        )
    recipe = run.recipe
    sources = [getattr(recipe.data, name) for name in ("path", "train", "val", "test")]
    memory = [item for item in sources if isinstance(item, str) and item.startswith("memory:")]
    require(
        not memory, field="run", got=str(run.path), allowed="a run whose data are files: this one learnt from values in memory",
        fix="run the program that made it again", error=DataError,
    )  # fmt: skip
    return recipe, run.read("metrics.json")


def _data(run: Run, other_data: bool, progress: Progress | None) -> list[str]:
    """What is not known or not as it was about the data files. DataError where they changed, unless that is allowed."""

    def tell(done: int, total: int) -> None:
        if progress is not None:
            progress({"event": "prepare", "what": "hashing the data files", "done": done, "total": total})

    link = lineage.of_data(run.path, run.info().get(ENTRY) or {}, True, tell)
    if link.state == "same":
        return []
    if link.holds or other_data:
        return [f"data: {link.detail}"]
    raise refusal(
        field="data", got=link.detail, allowed="the files that the run learnt from, as they were",
        fix="restore them, or say --other-data to train on what is there now", error=DataError,
    )  # fmt: skip


def _begun(before: Run, recipe: Recipe, place: Path, resume: bool) -> Run:
    """The new run, with the plan of the old one, and so for each stage that was trained apart."""
    again = Run.create(recipe, out=place, resume=resume)
    pairs = [(before, again)]
    for name in recipe.stages:
        old = Run(before.path / STAGES / name)
        if old.has(PLAN):
            own = Run.create(stage_recipe(recipe, name), out=again.path / STAGES / name, resume=resume)
            pairs.append((old, own))
    for old, new in pairs:
        if not new.has(PLAN):
            new.write(PLAN, old.read(PLAN))
    return again


def _compared(before: Run, again: Run, metrics: Mapping[str, Any], differs: list[str]) -> Reproduction:
    now, numbers = again.read("metrics.json")["outputs"], []
    for output, values in metrics["outputs"].items():
        for metric, item in values.items():
            at = now.get(output, {}).get(metric, {}).get("value")
            numbers.append({"output": output, "metric": metric, "before": item["value"], "now": at, "low": item["low"], "high": item["high"]})  # fmt: skip
    verdict: Verdict = "other numbers"
    if all(item["before"] == item["now"] for item in numbers):
        verdict = "the same network" if _weights(before) == _weights(again) else "the same numbers"
    elif all(_within(item) for item in numbers):
        verdict = "within the intervals"
    differs += _surroundings(before, again)
    if any(event["event"] == "replan" for event in before.events()):
        differs.append(
            "plan: the clock changed it while the first one trained, so that steps before that had another learning rate"
        )
    return Reproduction(again.path, before.path, verdict, tuple(numbers), tuple(differs))


def _within(item: Mapping[str, Any]) -> bool:
    values = [item[name] for name in ("now", "low", "high")]
    if any(value is None for value in values):
        return bool(item["now"] == item["before"])
    return bool(item["low"] <= item["now"] <= item["high"])


def _weights(run: Run) -> str:
    return lineage.sha256_of(run.model_folder / "weights.safetensors")


def _surroundings(before: Run, again: Run) -> list[str]:
    """Code, packages and machine that are not those of the first run."""
    if not before.has(ENVIRONMENT):
        return ["environment: the run does not say what it was"]
    old, new = before.read(ENVIRONMENT), again.read(ENVIRONMENT)
    machines = [item.get("machine") or {} for item in (old, new)]
    odd = [f"machine: {name} {machines[0].get(name)}, now {machines[1].get(name)}"
           for name in sorted({*machines[0], *machines[1]}) if machines[0].get(name) != machines[1].get(name)]  # fmt: skip
    return [*lineage.differences(old, new), *odd]


def _spelled(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


__all__ = ["Reproduction", "reproduce"]
