"""What a comparison was asked for: checked against the recipe, kept in its folder, and taken from there when it goes on.

Not here: what is trained for it (arms.py).
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from endwise import regimes
from endwise.compare.arms import (
    ANEW_LABELS,
    ANEW_SHARE,
    APART,
    HALVED,
    ONE,
    PRETRAINED,
    allowed,
    begun_with,
    with_another,
)
from endwise.errors import RecipeError, refusal, require, unknown_name
from endwise.files import read_json
from endwise.modalities.base import OUTPUT_ROLE, Modality
from endwise.modalities.pretrained import rebased
from endwise.recipe import REGIMES, Recipe, declare, seconds_of

FILE = "settings.json"
QUICK = ("modular_predicted", "warm_joint", "direct")
SHARES = (0.1, 0.3)
SEEDS = 3
TRAINED_SHARE = 0.85  # of a budget for everything: the rest is for measuring what was trained
SHORTEST_S = 1.0  # of any training: less is used up by reading
MOST_INPUTS = 4  # every subset of them is trained: 15 of four


@dataclass(frozen=True)
class Settings:
    """regimes with `seeds` trainings on all labels, and `curve_seeds` on each of the `shares`. budget: seconds for all of
    it; each: for one training on all labels (None: as long as its steps take). shift: 'column' or 'column=value'. inputs:
    subsets of the inputs that are trained by themselves. pretrained: {input: weights} that one more way of training begins
    with. retarget: {column: its declaration as an answer} that the regimes learn in the place of the goal (None: still to be
    proposed); {} for none."""

    regimes: tuple[str, ...]
    seeds: int
    shares: tuple[float, ...]
    curve_seeds: int
    budget: float | None
    each: float | None
    shift: str | None
    inputs: tuple[tuple[str, ...], ...]
    pretrained: Mapping[str, str] = field(default_factory=dict)
    retarget: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)

    @property
    def ways(self) -> tuple[str, ...]:
        """All ways of training: the regimes, and that which begins with other weights."""
        return (*self.regimes, *((PRETRAINED,) if self.pretrained else ()))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def settle(
    recipe: Recipe,
    place: Path,
    *,
    regimes: Sequence[str] | None,
    seeds: int | None,
    quick: bool,
    budget: float | str | None,
    shares: Sequence[float] | None,
    shift: str | None,
    inputs: bool,
    pretrained: Mapping[str, str] | None,
    retarget: str | None,
    resume: bool,
) -> Settings:
    """What is asked for, with what was asked for before in the place of what is not said now. More seeds, regimes, shares,
    inputs, weights and another answer may be asked for when a comparison goes on; another budget or shift, other weights or
    yet another answer would make its trainings unlike."""
    before = _before(place) if resume else None
    names = regimes if regimes is not None else None if before is None or quick else before.regimes
    count = seeds if seeds is not None else SEEDS if before is None else before.seeds
    parts = shares if shares is not None else SHARES if before is None else before.shares
    require(count >= 1, field="seeds", got=count, allowed="at least 1", fix="3 is usual; fewer give no verdict")
    require(
        all(0 < share < 1 for share in parts), field="shares", got=list(parts), allowed="shares between 0 and 1",
        fix="0.1 is a tenth of the labels; all of them are trained on anyway",
    )  # fmt: skip
    found = Settings(
        regimes=_regimes(recipe, names, quick),
        seeds=count,
        shares=tuple(sorted(set(parts))),
        curve_seeds=1 if quick else count if before is None else before.curve_seeds,
        budget=seconds_of(budget),
        each=None,
        shift=shift,
        inputs=_subsets(recipe) if inputs else () if before is None else before.inputs,
        pretrained=_weights(pretrained) or (before.pretrained if before is not None else {}),
        retarget=_another(recipe, retarget, {} if before is None else before.retarget),
    )
    if found.pretrained:
        begun_with(recipe, found.pretrained)  # refused before there is a folder
    if before is None:
        return replace(found, each=_each(recipe, found))
    told: list[tuple[str, Any, Any]] = [("budget", found.budget, before.budget), ("shift", shift, before.shift)]
    told += [(name, new, old) for name, new, old in (("pretrained", found.pretrained, before.pretrained),
                                                     ("retarget", found.retarget, before.retarget)) if old]  # fmt: skip
    for name, new, old in told:
        if new is not None and new != old:
            raise refusal(
                field=name, got=new, allowed=f"{old!r}, which this comparison was begun with",
                fix="leave it out, or start a new one with another --out",
            )  # fmt: skip
    return replace(found, budget=before.budget, each=before.each, shift=before.shift)


def _before(place: Path) -> Settings | None:
    if not (place / FILE).is_file():
        return None
    values = read_json(place / FILE)
    lists = {name: tuple(values[name]) for name in ("regimes", "shares")}
    return Settings(**{**values, **lists, "inputs": tuple(map(tuple, values["inputs"]))})


def _weights(given: Mapping[str, str] | None) -> dict[str, str]:
    """The weights by input, a relative folder as seen from everywhere."""
    return {name: str(rebased(source, Path.cwd())) for name, source in (given or {}).items()}


def _another(recipe: Recipe, asked: str | None, before: Mapping[str, Any]) -> Mapping[str, Any]:
    """{column: declaration} of 'COLUMN' or 'COLUMN:TYPE'; of a column alone what it was before, or None."""
    if asked is None:
        return before
    name, mark, kind = asked.partition(":")
    require(bool(name) and (bool(kind) or not mark), field="retarget", got=asked, allowed="COLUMN or COLUMN:TYPE",
            fix="write parity, or parity:category")  # fmt: skip
    known = {own: item.column or own for own, item in (*recipe.inputs.items(), *recipe.outputs.items())}
    require(
        name not in (*known, *known.values()), field="retarget", got=name,
        allowed=f"a column that the recipe does not use yet ({', '.join(known)})", fix="name another column of the data",
    )  # fmt: skip
    if mark:
        found = answer(name, kind)
        with_another(recipe, goal_output(recipe), name, found)  # refused before there is a folder
        return {name: found.to_dict()}
    return before if name in before else {name: None}


def answer(name: str, declared: Any) -> Modality:
    """The declaration of another answer. RecipeError where it cannot be one that stands in a column."""
    found = declare(declared, where="retarget", role=OUTPUT_ROLE, name=name)
    require(found.of_row == 0, field="retarget", got=f"{name}:{found.type}", allowed="an answer that a column holds",
            fix="name its type, such as category or number")  # fmt: skip
    return found


def goal_output(recipe: Recipe) -> str:
    """The output that decides."""
    return recipe.goal.output if recipe.goal is not None else next(iter(recipe.outputs))


def _each(recipe: Recipe, found: Settings) -> float | None:
    """Seconds for one training on all labels, out of those for everything."""
    if found.budget is None:
        return recipe.train.budget
    shared = max(0, len(HALVED.intersection(found.regimes)) - 1)
    trainings = len(found.ways) - regimes.APART_SHARE * shared  # the stages that they begin with are trained once
    shorter = sum(allowed(1.0, share) or 0.0 for share in found.shares)
    whole = found.seeds * (trainings + len(found.inputs)) + found.curve_seeds * trainings * shorter
    shortest = min((allowed(1.0, share) or 0.0 for share in found.shares), default=1.0)
    if found.retarget:  # each going on and from nothing
        whole += 2 * len(found.ways) * ANEW_SHARE * sum(allowed(1.0, share) or 0.0 for share in ANEW_LABELS)
        shortest = min(shortest, ANEW_SHARE * min(allowed(1.0, share) or 0.0 for share in ANEW_LABELS))
    each = TRAINED_SHARE * found.budget / whole
    require(
        each * shortest >= SHORTEST_S, field="budget", got=f"{found.budget:g}s, of which the shortest training has {each * shortest:.2g} s",
        allowed=f"at least {math.ceil(SHORTEST_S / shortest * whole / TRAINED_SHARE)}s for so many trainings, and mostly much more",
        fix="give more, or fewer regimes, seeds and shares",
    )  # fmt: skip
    return each


def _regimes(recipe: Recipe, names: Sequence[str] | None, quick: bool) -> tuple[str, ...]:
    if not recipe.stages:
        allowed_names: tuple[str, ...] = (ONE, APART) if len(recipe.outputs) > 1 else (ONE,)
        usual = allowed_names
    else:
        allowed_names, usual = tuple(REGIMES), QUICK if quick else tuple(REGIMES)
    for name in names or ():
        if name not in allowed_names:
            raise unknown_name(field="regimes", got=name, names=allowed_names, error=RecipeError)
    require(
        names is None or len(names) > 0, field="regimes", got=names, allowed="at least one of " + ", ".join(allowed_names),
        fix="leave it out for all of them",
    )  # fmt: skip
    found = tuple(dict.fromkeys(names or usual))
    goal = goal_output(recipe)
    require(
        "direct" not in found or goal not in recipe.intermediates, field="goal.output", got=goal,
        allowed="an output that no stage reads: direct has no answers on the way",
        fix="name another goal, or leave direct out of the regimes",
    )  # fmt: skip
    return found


def _subsets(recipe: Recipe) -> tuple[tuple[str, ...], ...]:
    names = list(recipe.inputs)
    require(
        2 <= len(names) <= MOST_INPUTS, field="inputs", got=f"{len(names)} inputs", allowed=f"2 to {MOST_INPUTS} of them",
        fix="leave --inputs out",
    )  # fmt: skip
    return tuple(
        itertools.chain.from_iterable(itertools.combinations(names, size) for size in range(1, len(names) + 1))
    )


__all__ = ["FILE", "Settings", "answer", "settle"]
