"""Which trainings an advice is bought with, so that all of them together cost at most three times one training (or a
quarter of a minute, where that is more).

Costs are foreseen in row passes (epochs x rows) and the measured seconds of a step; a small subset gets more passes
than the whole, since it needs as many steps to converge, up to a cap; fewer more where a rival could not be trained on
all labels otherwise. Not here: the trainings (arms.py).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

LIMIT = 3.0  # times one training
PLANNED = 2.7  # of them; the rest is slack for a busy machine
FREE_S = 15.0  # seconds nobody asks about: small tables get their seeds whatever one training takes
MOST_SHARE = 0.5  # of one training: what any smaller subset may cost
MORE_PASSES = (4.0, 2.0, 1.0)  # a subset makes at most so many times the passes of the whole; the first that serves
STEP_BASE = 0.4  # share of a step's time that does not depend on its rows


@dataclass(frozen=True, slots=True)
class Cost:
    """What a training of a network costs. passes: of the whole; usual: of so many labels when nothing limits them."""

    labels: int
    passes: float
    batch_size: int
    step_s: float
    other_s: float  # measuring, calibrating, scoring
    validating_s: float = 0.0  # of the whole; a part has fewer rows to validate with

    def passes_of(self, labels: int, usual: float, ceiling: float, more: float = MORE_PASSES[0]) -> float:
        """Passes over a subset: as many steps as the whole has, within `more` times its passes, `usual` and the cap on its
        cost. ceiling: passes x labels that it may make."""
        wanted = min(max(usual, self.passes), self.passes * min(more, math.sqrt(self.labels / labels)))
        return max(1.0, min(wanted, ceiling / labels)) if labels < self.labels else self.passes

    def halved(self) -> "Cost":
        """Without the stages that another arm has trained."""
        return replace(self, step_s=self.step_s / 2, validating_s=self.validating_s / 2)

    def seconds(self, labels: int, passes: float, batch_size: int) -> float:
        """Of one training."""
        steps = passes * math.ceil(labels / batch_size)
        share = STEP_BASE + (1 - STEP_BASE) * min(1.0, batch_size / self.batch_size)
        return steps * self.step_s * share + self.other_s + self.validating_s * labels / self.labels


@dataclass(frozen=True, slots=True)
class Training:
    """One planned training. steps: None for what has none. optional: left out when the clock disagrees with the plan."""

    arm: str
    share: float
    labels: int
    seed: int
    steps: int | None
    seconds: float
    optional: bool

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.arm}-{self.labels}-seed{self.seed}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def planned(
    offer: Callable[[float], Mapping[str, Sequence[Training]]], one_s: float, *, limit_s: float
) -> tuple[list[Training], list[str]]:
    """`chosen` with as many passes over the small subsets as leave room for every rival on all labels, or else for most
    of them. offer: what each arm offers when its subsets make at most so many times the passes of the whole."""
    found = []
    for more in MORE_PASSES:
        offered = offer(more)
        taken, notes = chosen(offered, one_s, limit_s=limit_s)
        whole = max(item.labels for items in offered.values() for item in items)
        found.append((sum(item.labels == whole for item in taken), len({item.arm for item in taken}), taken, notes))
        if found[-1][0] == len(offered):
            break
    *_, taken, notes = max(found, key=lambda item: item[:2])  # the first of the best
    return taken, notes


def chosen(
    offered: Mapping[str, Sequence[Training]], one_s: float, *, limit_s: float
) -> tuple[list[Training], list[str]]:
    """Of what each arm offers, the trainings that fit into the limit, the most telling first, and what was left out.

    The first arm is the recipe's own: its whole training and its two most useful subsets are always in, whatever they
    cost; other arms get their curve if three of their sizes fit. What is beyond these three sizes may be left out
    by the clock; extra seeds come last, the small subsets' first.
    """
    first, *others = offered
    own = _by_use(offered[first])
    taken = own[:3]
    left = max(0.0, limit_s - sum(item.seconds for item in taken))  # what costs nothing is in, whatever the own takes
    notes = []
    for arm in others:
        base = sorted((item for item in offered[arm] if item.seed == 0), key=lambda item: item.labels)
        curve = _affordable(base, left)
        if not curve:
            cheapest = sum(item.seconds for item in base[:3])
            notes.append(
                f"{arm} is left out: three of its subsets take {cheapest / one_s:.1f}x one training, beyond the limit"
            )
            continue
        taken += curve
        left -= sum(item.seconds for item in curve)
    arms = {item.arm for item in taken}
    rest = [item for arm in offered if arm in arms for item in offered[arm] if item not in taken]
    for item in sorted(rest, key=lambda item: (item.seed, item.share if item.seed else -item.share)):
        if item.seconds <= left:
            taken.append(replace(item, optional=True))
            left -= item.seconds
    return sorted(taken, key=lambda item: (item.optional, item.labels, item.arm, item.seed)), notes


def _by_use(offered: Sequence[Training]) -> list[Training]:
    """The whole, a quarter, the smallest, and then the rest of the first seed, the larger first."""
    base = sorted((item for item in offered if item.seed == 0), key=lambda item: -item.labels)
    whole, smallest = base[0], base[-1]
    quarter = min(base[1:-1] or base[1:], key=lambda item: abs(math.log(item.share * 4)))
    ordered = [whole, quarter, smallest]
    return list(dict.fromkeys([*ordered, *base]))


def _affordable(base: Sequence[Training], left: float) -> list[Training]:
    """Three sizes that fit: with the whole if it does, else as large as can be."""
    for largest in reversed(range(2, len(base))):
        curve = [base[0], base[(largest + 1) // 2], base[largest]]
        if sum(item.seconds for item in curve) <= left:
            return curve
    return []


__all__ = ["FREE_S", "LIMIT", "MOST_SHARE", "PLANNED", "Cost", "Training", "chosen", "planned"]
