"""How sure an answer is in a number that means what it says, which other values are possible, and when nothing is said.

Here: what a recipe declares (`Abstain`), what validation rows taught about an output's answers (`Certainty`), and both
applied to an answer. A bundle carries this file, so that it says and withholds what the model does. Not here: learning it
and judging it (calibration.py), temperatures of heads (`Head.calibrate`). The standard library only.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from endwise.errors import ModelError, RecipeError, refusal, require, unknown_name

if TYPE_CHECKING:
    from endwise.modalities.base import Answer, Contract, Modality

SET_COVERAGE = 0.9  # share of the rows whose set holds the truth, as of the interval of a number
LEAST_CHANCE = 1e-6  # a confidence of 0 or 1 has no log-odds
ENTRY = "certainty"  # of a model's facts
EXPECTED = "expected_error"  # in `Answer.detail`, and in what a head says


@dataclass(frozen=True, kw_only=True)
class Abstain:
    """When an output says nothing. coverage: the surest answers are given, to this share of the rows. risk: as many as can
    be while the mean error of those that are given stays under it (with 90 % confidence, rows taken as independent)."""

    coverage: float | None = None
    risk: float | None = None

    @classmethod
    def of(cls, value: Any, where: str) -> Self:
        """From a recipe's mapping, `{coverage: 0.9}` or `{risk: 0.02}`, or one of these. Raises RecipeError."""
        if isinstance(value, cls):
            return value
        names = [item.name for item in dataclasses.fields(cls)]
        if not isinstance(value, Mapping):
            raise refusal(
                field=where, got=value, allowed="{coverage: SHARE} or {risk: ERROR}", fix="write {coverage: 0.9}"
            )
        for name in value:
            if name not in names:
                raise unknown_name(field=where, got=str(name), names=names, error=RecipeError)
        found = cls(**value)
        given = [name for name in names if getattr(found, name) is not None]
        require(
            len(given) == 1,
            field=where,
            got=dict(value),
            allowed="one of coverage and risk",
            fix="write {coverage: 0.9}",
        )
        size = getattr(found, given[0])
        number = isinstance(size, int | float) and not isinstance(size, bool) and math.isfinite(size) and size > 0
        require(number and (given[0] == "risk" or size < 1), field=f"{where}.{given[0]}", got=size,
                allowed="a number above 0" + (", and under 1" if given[0] == "coverage" else ""),
                fix="0.9 answers nine rows of ten" if given[0] == "coverage" else "0.02 lets two answers of a hundred be wrong")  # fmt: skip
        return found

    def to_dict(self) -> dict[str, float]:
        """What was declared."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Certainty:
    """What validation rows taught about the answers of one output. Plain JSON, saved in the model.

    rows: how many there were. scale, shift: the confidence is the logistic of scale x log-odds of what the answer says +
    shift, which keeps the order (Platt 1999); of an answer that expects an error of itself, what that is multiplied by, each
    of several numbers by its own; null: the answer's own. limit: the set holds what is no stranger. gives: all answers, none,
    or some: those at least as sure as at_least.
    """

    rows: int
    scale: float | list[float] | None = None
    shift: float = 0.0
    limit: float | None = None
    gives: Literal["all", "some", "none"] = "all"
    at_least: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """The inverse of `to_dict`. Raises ModelError for anything else."""
        kinds: dict[str, Any] = {"rows": int, "scale": float | list | None, "shift": float, "limit": float | None, "gives": str,
                                 "at_least": float}  # fmt: skip
        whole = isinstance(values, Mapping) and set(values) == set(kinds)
        if not whole or not all(isinstance(values[name], kind) for name, kind in kinds.items()):
            raise ModelError(
                f"what the model says of its certainty is damaged: {str(values)[:120]}. Fix: copy it again."
            )
        return cls(**values)

    def confidence(self, said: float) -> float:
        """What a confidence as the answer says it means."""
        if self.scale is None:
            return said
        assert isinstance(self.scale, float)  # a list is of expected errors
        return logistic(self.scale * log_odds(said) + self.shift)

    def withholds(self, sureness: float) -> bool:
        """Whether an answer as sure as this is kept back."""
        return self.gives == "none" or (self.gives == "some" and not sureness >= self.at_least)


def log_odds(chance: float) -> float:
    """Of a chance in [0, 1], with the ends a millionth away."""
    inside = min(max(chance, LEAST_CHANCE), 1 - LEAST_CHANCE)
    return math.log(inside / (1 - inside))


def logistic(odds: float) -> float:
    """The inverse of `log_odds`."""
    return 1 / (1 + math.exp(-odds)) if odds >= 0 else math.exp(odds) / (1 + math.exp(odds))


def certainties(facts: Mapping[str, Any]) -> dict[str, Certainty]:
    """Of each output that was calibrated, from a model's facts. Raises ModelError."""
    found = facts.get(ENTRY, {})
    if not isinstance(found, Mapping):
        raise ModelError(f"{ENTRY} is no mapping in this model: {str(found)[:80]}. Fix: copy it again, or train anew.")
    return {str(name): Certainty.from_dict(values) for name, values in found.items()}


def judged(item: "Modality", contract: "Contract", answer: "Answer", learnt: Certainty | None) -> "Answer":
    """The answer with the confidence that it deserves or the error to be expected of it, and the set of values that are possible
    beside its own."""
    if learnt is None or not item.can_abstain:
        return answer
    confidence, detail = answer.confidence, answer.detail
    if learnt.scale is not None and item.expects_error:
        detail = {**detail, EXPECTED: (np.array(learnt.scale) * np.array(detail[EXPECTED])).tolist()}
    elif learnt.scale is not None:
        confidence = learnt.confidence(item.sureness(answer, contract))
    if learnt.limit is not None:
        detail = {**detail, "set": item.among(answer, learnt.limit, contract)}
    return dataclasses.replace(answer, confidence=confidence, detail=detail)


def given(item: "Modality", contract: "Contract", answer: "Answer", learnt: Certainty | None) -> "Answer":
    """As `judged`, and withheld where the recipe says that the output abstains and the answer is not sure enough: its value
    is then None and `detail["best_guess"]` what it would have been. Nothing is given before it is known what is sure."""
    found = judged(item, contract, answer, learnt)
    if item.abstain is None or not (learnt is None or learnt.withholds(item.sureness(answer, contract))):
        return found
    guess = found.value.to_json() if hasattr(found.value, "to_json") else found.value
    return dataclasses.replace(found, value=None, abstained=True, detail={"best_guess": guess, **found.detail})


def in_columns(
    item: "Modality", contract: "Contract", decoded: Mapping[str, np.ndarray], learnt: Certainty | None
) -> dict[str, Any]:
    """What `given` says of every row, as `Modality.write_column` says it: all at once where the answer's own confidence is how sure
    it is, else row by row. Sets are left out; what is withheld stands in `detail["best_guess"]`."""
    if item.can_abstain and (item.abstain is not None or (learnt is not None and learnt.scale is not None)):
        if item.sureness_is_confidence:
            return _shaded(item, item.write_column(decoded, contract), learnt)
        count = len(next(iter(decoded.values())))
        rows = [item.write({key: value[row] for key, value in decoded.items()}, contract) for row in range(count)]
        answers = [given(item, contract, answer, learnt) for answer in rows]
        return {
            "value": [answer.value for answer in answers],
            "confidence": [answer.confidence for answer in answers],
            "detail": [dict(answer.detail) for answer in answers],
        }
    return item.write_column(decoded, contract)


def _shaded(item: "Modality", column: dict[str, Any], learnt: Certainty | None) -> dict[str, Any]:
    """A column with the confidence that its answers deserve, and without the values that are withheld."""
    said = np.array([0.0 if one is None else one for one in column["confidence"]], np.float64)
    if learnt is not None and learnt.scale is not None:
        inside = np.clip(said, LEAST_CHANCE, 1 - LEAST_CHANCE)
        odds = np.array(learnt.scale) * np.log(inside / (1 - inside)) + learnt.shift
        column = {**column, "confidence": 1 / (1 + np.exp(-odds))}
    if item.abstain is None:
        return column
    kept = learnt is not None and learnt.gives == "all"
    enough = said >= learnt.at_least if learnt is not None and learnt.gives == "some" else np.full(len(said), kept)
    guesses = list(column["value"])
    value = [guess if given else None for guess, given in zip(guesses, enough, strict=True)]
    detail = column["detail"] if isinstance(column["detail"], Mapping) else {}
    return {**column, "value": value, "detail": {**detail, "best_guess": guesses}}


def improbability(names: Iterable[Any], answer: "Answer") -> float:
    """1 - the largest probability of these classes in an answer, 0 for its most probable one; endless where it has none."""
    chances: Mapping[str, float] = answer.detail["probabilities"]
    first = _first(chances)
    found = (0.0 if name == first else 1 - chances.get(name, -math.inf) for name in map(str, names))
    return min(found, default=math.inf)


def probable(answer: "Answer", limit: float) -> list[str]:
    """The classes of an answer that are no more improbable than `limit`, in their order: the most probable one always (least
    ambiguous sets, Sadinle et al. 2019, none of them empty)."""
    chances: Mapping[str, float] = answer.detail["probabilities"]
    first = _first(chances)
    return [name for name, chance in chances.items() if name == first or 1 - chance <= limit]


def _first(chances: Mapping[str, float]) -> str | None:
    return max(chances, key=lambda name: chances[name], default=None)
