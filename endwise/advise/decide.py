"""The rule by which an advice is given, as a function of what was measured. No training, no files.

1. An arm that does not meet a declared need (`audit`, `reuse`, `latency_ms=20`, `train_s=600`) is put aside, whatever its
   score.
2. The others are compared two by two at the labels that count: those at hand, or those the user could get. At the labels
   at hand the difference is measured on the same test rows (paired bootstrap, 95 %), its interval widened by what seeds
   differ by; elsewhere it comes from the learning curves (80 %).
3. If one kind of answer is clearly better than all others, it is the advice.
4. If some are not told apart, the simplest of them is the advice, provided that it is not worse than any of the others by
   more than the margin anywhere in its interval. Simple is what has fewer parts to train and to keep: a classical
   pipeline, then one network from scratch, then declared stages, then these as one network, then others' weights.
5. Otherwise, and always where nothing is better than a constant answer or where there is nothing to compare with, the
   advice is "cannot-tell", with how many more labels would decide.

End-to-end is never the advice because nothing else was tried: a lone network is only advised for reaching the user's
own target. The margin is 5 % of the way from the constant answer to the best arm unless the caller gives one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from endwise.curves import FARTHEST
from endwise.errors import require, unknown_name
from endwise.metrics import Estimate

MARGIN_SHARE = 0.05
NORMAL_95 = 1.96
CANNOT_TELL = "cannot-tell"
NEEDS = {"audit": False, "reuse": False, "latency_ms": True, "train_s": True}  # name -> does it take a number


@dataclass(frozen=True, slots=True)
class Standing:
    """An arm where it is judged. value: at the labels that count. fails: why it does not meet the needs, or None.
    reaches: whether it gets to the user's target there; None without a target."""

    name: str
    advice: str
    simplicity: int
    value: Estimate
    beats_trivial: bool
    fails: str | None = None
    reaches: bool | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """advice: a kind, or CANNOT_TELL. arm: the arm that stands for it. rivals: the two that are not told apart."""

    advice: str
    arm: str | None
    reasons: tuple[str, ...]
    rivals: tuple[str, str] | None = None


def parse_needs(needs: Sequence[str]) -> dict[str, float | None]:
    """{'audit': None, 'latency_ms': 20.0} of ('audit', 'latency_ms=20'); RecipeError for what is no need."""
    found: dict[str, float | None] = {}
    for item in needs:
        name, mark, text = item.partition("=")
        if name not in NEEDS:
            raise unknown_name(field="--need", got=name, names=NEEDS)
        wanted = f"{name}=NUMBER" if NEEDS[name] else name
        require(bool(mark) == NEEDS[name], field="--need", got=item, allowed=wanted, fix=f"write {wanted}")
        found[name] = _positive(text, item) if mark else None
    return found


def _positive(text: str, item: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    require(
        value > 0 and math.isfinite(value), field="--need", got=item, allowed="a number above 0", fix="latency_ms=20"
    )
    return value


def decide(
    standings: Sequence[Standing], gains: Mapping[tuple[str, str], Estimate], margin: float, metric: str
) -> Verdict:
    """The advice and its reasons. gains: of every ordered pair, how much better the first is than the second."""
    reasons = [f"{item.name} is put aside: {item.fails}" for item in standings if item.fails]
    left = [item for item in standings if not item.fails]
    if not left:
        return Verdict(CANNOT_TELL, None, (*reasons, "no arm meets the needs"))
    useful = [item for item in left if item.beats_trivial]
    if not useful:
        return Verdict(
            CANNOT_TELL, None, (*reasons, f"nothing is shown to be better than a constant answer ({metric})")
        )
    if len(standings) == 1:
        return _alone(useful[0], reasons)
    best = _best(left, gains)
    tied = [item for item in left if item is best or not gains[best.name, item.name].low > 0]
    for item in left:
        if item not in tied:
            reasons.append(f"{best.name} is better than {item.name} by {_by(gains[best.name, item.name])} in {metric}")
    if len({item.advice for item in tied}) == 1:
        if len(left) == 1 and len(standings) > 1:
            reasons.append(f"{best.name} is the only one that meets the needs")
        return Verdict(best.advice, best.name, tuple(reasons))
    simplest = min(tied, key=lambda item: item.simplicity)
    others = [item for item in tied if item is not simplest]
    doubtful = [item for item in others if not gains[simplest.name, item.name].low >= -margin]
    for item in others:
        reasons.append(
            f"{simplest.name} and {item.name} are not told apart in {metric} (difference {_by(gains[simplest.name, item.name])})"
        )
    if not doubtful and simplest.beats_trivial:
        reasons.append(f"{simplest.name} is the simpler, and not worse by more than the margin of {margin:.3g}")
        return Verdict(simplest.advice, simplest.name, tuple(reasons))
    rival = doubtful[0] if doubtful else best
    reasons.append(f"{simplest.name} may be worse than {rival.name} by more than the margin of {margin:.3g}")
    return Verdict(CANNOT_TELL, None, tuple(reasons), (simplest.name, rival.name))


def _alone(only: Standing, reasons: list[str]) -> Verdict:
    """One arm says nothing about others; a target says what it is for."""
    if only.reaches:
        reasons.append(f"{only.name} reaches the target, and there was nothing to compare it with")
        return Verdict(only.advice, only.name, tuple(reasons))
    reasons.append(
        f"there is nothing to compare {only.name} with: no classical model for this kind of answer, no weights at hand"
    )
    return Verdict(CANNOT_TELL, None, tuple(reasons))


def _best(left: Sequence[Standing], gains: Mapping[tuple[str, str], Estimate]) -> Standing:
    """The one that no other is ahead of; of equals the simpler."""
    ordered = sorted(left, key=lambda item: item.simplicity)
    best = ordered[0]
    for item in ordered[1:]:
        if gains[item.name, best.name].value > 0:
            best = item
    return best


def _by(gain: Estimate) -> str:
    return f"{gain.value:.3g} [{gain.low:.3g}, {gain.high:.3g}]"


def widened(paired: Estimate, seeds: float) -> Estimate:
    """A paired difference with the deviation between trainings (`seeds`, of the difference) in its interval."""
    more = NORMAL_95 * seeds
    low = paired.value - math.hypot(paired.value - paired.low, more)
    high = paired.value + math.hypot(paired.high - paired.value, more)
    return Estimate(paired.value, low, high, paired.n)


def labels_to_decide(
    gain: Estimate, paired: Estimate, margin: float, *, labels: int, test_rows: int, wanted: int
) -> int:
    """How many more labels would tell two arms apart, or show that they differ by less than the margin.

    More test rows narrow the part of the interval that comes from them; what seeds differ by stays. Where that does not
    do, or where the labels that count are not there yet, it is the next doubling of the training rows. Two digits.
    """
    if wanted > labels:
        return _rounded(min(wanted, 2 * labels) - labels)
    half = (paired.high - paired.low) / 2
    seeds = math.sqrt(max(0.0, ((gain.high - gain.low) / 2) ** 2 - half**2))
    enough = max(abs(gain.value), margin - abs(gain.value))
    most = (FARTHEST - 1) * labels
    if seeds >= enough or half == 0:
        return _rounded(labels)
    more = test_rows * (half**2 / (enough**2 - seeds**2) - 1)
    return _rounded(min(most, max(1.0, more)))


def _rounded(value: float) -> int:
    """Up, to two digits: an estimate of an estimate."""
    step = 10 ** max(0, math.floor(math.log10(max(1.0, value))) - 1)
    return int(math.ceil(value / step) * step)


__all__ = ["CANNOT_TELL", "MARGIN_SHARE", "Standing", "Verdict", "decide", "labels_to_decide", "parse_needs", "widened"]
