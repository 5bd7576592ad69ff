"""What an advice is asked for: checked before anything is read, and written down, so that it is gone on with as it was
begun."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from endwise import curves
from endwise.advise.decide import parse_needs
from endwise.errors import refusal, require, unknown_name
from endwise.files import plain, read_json
from endwise.metrics import Metric
from endwise.plan import resolve_goal
from endwise.recipe import Recipe, seconds_of
from endwise.run import differing

PLAN = "plan.json"


@dataclass(frozen=True)
class Question:
    """The arguments of `advise`, as they were given. RecipeError where one is not allowed."""

    recipe: Recipe
    target: Mapping[str, float] | None
    labels: int | None
    price_per_label: float | None
    needs: Sequence[str]
    seeds: int
    fractions: Sequence[float]
    budget: float | str | None
    margin: float | None
    weights: Mapping[str, str]

    def __post_init__(self) -> None:
        parse_needs(self.needs)
        require(
            self.labels is None or self.labels >= 1, field="labels", got=self.labels, allowed="a number of labels",
            fix="--labels 5000",
        )  # fmt: skip
        require(
            self.price_per_label is None or self.price_per_label >= 0, field="price_per_label", got=self.price_per_label,
            allowed="0 or more", fix="0.10 is ten cents",
        )  # fmt: skip
        require(self.seeds >= 1, field="seeds", got=self.seeds, allowed="at least 1", fix="3 is usual")
        require(
            self.margin is None or self.margin > 0, field="margin", got=self.margin, allowed="a number above 0",
            fix="leave it out",
        )  # fmt: skip
        good = len(set(self.fractions)) >= curves.FEWEST_SIZES and all(0 < share <= 1 for share in self.fractions)
        require(
            good and 1.0 in self.fractions, field="fractions", got=list(self.fractions),
            allowed=f"at least {curves.FEWEST_SIZES} different shares above 0, among them 1", fix="leave them out",
        )  # fmt: skip

    @property
    def wanted(self) -> float | None:
        """The value of the metric that is to be reached."""
        return next(iter((self.target or {}).values()), None)

    def to_dict(self) -> dict[str, Any]:
        """All that the answer depends on, as plan.json has it."""
        return {
            "recipe": self.recipe.to_dict(), "target": dict(self.target or {}), "labels": self.labels,
            "needs": list(self.needs), "seeds": self.seeds, "fractions": list(self.fractions),
            "budget": seconds_of(self.budget), "margin": self.margin, "weights": dict(self.weights),
        }  # fmt: skip

    def begun(self, folder: Path, *, resume: bool) -> dict[str, Any] | None:
        """The plan that is there, if it is to be gone on with and was made of the same question."""
        said = plain(self.to_dict())
        if not (folder / PLAN).is_file():
            require(
                not folder.exists() or not any(folder.iterdir()), field="out", got=str(folder), allowed="a new or empty folder",
                fix="choose another --out",
            )  # fmt: skip
            return None
        require(
            resume, field="out", got=str(folder), allowed="a folder without an advice in it",
            fix="--resume goes on with it; another --out starts a new one",
        )  # fmt: skip
        there: dict[str, Any] = read_json(folder / PLAN)
        for name, value in said.items():
            before = there["asked"][name]
            if any(differing(before, value)) if name == "recipe" else before != value:
                raise refusal(
                    field=name, got=value, allowed=f"{before!r}, which this advice was begun with",
                    fix="give the old value, or another --out",
                )  # fmt: skip
        return there

    def judged_by(self, contracts: Mapping[str, Any]) -> tuple[str, Metric]:
        """The output and the metric that arms are compared by."""
        goal = resolve_goal(self.recipe, contracts)
        names = {metric.name: metric for metric in self.recipe.outputs[goal.output].metrics(contracts[goal.output])}
        require(
            self.target is None or len(self.target) == 1, field="target", got=self.target, allowed="one metric",
            fix="accuracy=0.9",
        )  # fmt: skip
        wanted = next(iter(self.target)) if self.target else goal.metric
        if wanted not in names:
            raise unknown_name(field="target", got=wanted, names=names)
        return goal.output, names[wanted]
