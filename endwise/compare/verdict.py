"""Which wins, by one rule that is stated here and printed in the report; and an answer on the way that has drifted.

Numbers in, words out: no data, no network.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from endwise.metrics import Estimate

WINS, PIPELINE, SAME, NONE = "end-to-end wins", "use the pipeline", "no difference", "no verdict"
PIPELINES = ("modular", "modular_predicted")
FEWEST_SEEDS = 3
POWER = 1 + 0.8416 / 1.96  # of an interval's half: a true difference of so much is seen in 80 % of comparisons
DRIFTED = 0.2  # of what the pipeline's answers on the way know beyond a constant answer

RULE = (
    "One end-to-end regime and one pipeline are chosen by the goal on the validation rows, never on the test rows. The goal of "
    "the one minus that of the other is taken on the same test rows, with a 95 % interval over rows and seeds. If the whole "
    f"interval is on one side, that one wins; else there is no difference, and the smallest one that would have been seen in "
    f"80 % of such comparisons is said. Fewer than {FEWEST_SEEDS} seeds on either side, or no interval: no verdict."
)


@dataclass(frozen=True)
class Verdict:
    """The words, and what they rest on. gain: of end-to-end over the pipeline in the goal's unit, above 0 where it is
    better. detectable: the smallest difference that would have been seen in 80 % of such comparisons."""

    words: str
    because: str
    end_to_end: str | None = None
    pipeline: str | None = None
    gain: Estimate | None = None
    detectable: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "end_to_end": self.end_to_end, "pipeline": self.pipeline, "because": self.because,
            "gain": None if self.gain is None else self.gain.to_dict(), "detectable": self.detectable,
        }  # fmt: skip


def judge(end_to_end: str, pipeline: str, gain: Estimate, seeds: tuple[int, int], goal: str) -> Verdict:
    """The rule. seeds: finished trainings of each side. goal: how it is called in the sentence."""
    if min(seeds) < FEWEST_SEEDS:
        few = f"{min(seeds)} {'seed' if min(seeds) == 1 else 'seeds'} of {end_to_end if seeds[0] < seeds[1] else pipeline}"
        because = f"{few}: chance in a training cannot be told from a difference with fewer than {FEWEST_SEEDS}"
        return Verdict(NONE, because, end_to_end, pipeline, gain)
    if not all(map(math.isfinite, (gain.value, gain.low, gain.high))):
        return Verdict(NONE, f"{goal} has no interval on these {gain.n} rows", end_to_end, pipeline, gain)
    detectable = POWER * (gain.high - gain.low) / 2
    between = f"{goal}, {end_to_end} against {pipeline}: {gain.value:+.4g} [{gain.low:+.3g}, {gain.high:+.3g}] (above 0: better)"
    if gain.low > 0:
        return Verdict(WINS, between, end_to_end, pipeline, gain, detectable)
    if gain.high < 0:
        return Verdict(PIPELINE, between, end_to_end, pipeline, gain, detectable)
    seen = f"; a difference of {detectable:.3g} would have been seen in 80 % of such comparisons"
    return Verdict(SAME, between + seen, end_to_end, pipeline, gain, detectable)


def best(values: Mapping[str, float], direction: str) -> str | None:
    """The name with the best value; None where none is defined."""
    defined = {name: value for name, value in values.items() if math.isfinite(value)}
    if not defined:
        return None
    return (max if direction == "max" else min)(defined, key=lambda name: defined[name])


def drifted(loss: Estimate, apart: float, trivial: float | None) -> bool:
    """Whether an answer on the way has lost its meaning: its metric is worse than in the pipeline (the whole interval of
    the `loss`, above 0 where worse), by more than a fifth of what the pipeline's answer knows beyond a constant one (of
    its value, where no constant answer is known)."""
    if not all(map(math.isfinite, (loss.value, loss.low))):
        return False
    scale = abs(apart) if trivial is None or not math.isfinite(trivial) else abs(apart - trivial)
    return loss.low > 0 and loss.value > DRIFTED * scale


__all__ = [
    "FEWEST_SEEDS",
    "NONE",
    "PIPELINE",
    "PIPELINES",
    "RULE",
    "SAME",
    "WINS",
    "Verdict",
    "best",
    "drifted",
    "judge",
]
