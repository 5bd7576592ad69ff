"""Yes or no.

Here: the ways to write it, and how a predicted one is written back. Not here: the head and its threshold
(endwise/nn/scalars.py); two classes with names of their own (category).
"""

import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from endwise.certainty import improbability, probable
from endwise.errors import BadValue, ModelError
from endwise.modalities.base import HAND_OFFS, Answer, Contract, Fetch, Modality, Role, output_field
from endwise.modalities.category import balanced_weights, enough_classes

if TYPE_CHECKING:
    from endwise.metrics import Metric
    from endwise.nn.interface import Encoder, Head
    from endwise.nn.size import Size

WORDS = {
    "true": True, "t": True, "yes": True, "y": True, "1": True, "1.0": True,
    "false": False, "f": False, "no": False, "n": False, "0": False, "0.0": False,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class BooleanContract(Contract):
    """How many of the training rows are true."""

    positives: int


@dataclass(frozen=True, kw_only=True)
class Boolean(Modality):
    """True or false; in a table also yes / no, y / n, t / f, 1 / 0, in upper or lower case.

    As an output it is true where its probability reaches a threshold chosen on the validation rows.
    """

    type: ClassVar[str] = "boolean"
    contract_class = BooleanContract
    hand_offs: ClassVar[frozenset[str]] = HAND_OFFS
    can_be_told: ClassVar[bool] = True
    can_be_said: ClassVar[bool] = True

    class_weights: Literal["none", "balanced"] = output_field(
        "none", "balanced: true and false count alike in the loss, however rare one is"
    )
    threshold: Literal["f1", "accuracy", "none"] = output_field(
        "f1", "what the decision threshold is chosen for on the validation rows; none: it stays 0.5"
    )

    # ---- both roles ------------------------------------------------------------------------------------------------

    def read(self, raw: Any, fetch: Fetch) -> np.ndarray:
        """uint8 [], 0 or 1."""
        return np.array(_parsed(raw), dtype=np.uint8)

    def fit(self, values: Iterable[np.ndarray], *, missing: int, role: Role) -> BooleanContract:
        """Count both."""
        counts = [0, 0]
        for value in values:
            counts[int(value)] += 1
        names = [name for name, count in zip(("false", "true"), counts, strict=True) if count]
        enough_classes(names, role, missing, "boolean")
        return BooleanContract(count=sum(counts), missing=missing, positives=counts[1])

    def blank(self, contract: BooleanContract) -> np.ndarray:
        """False."""
        return np.array(0, dtype=np.uint8)

    def example(self, contract: BooleanContract) -> Any:
        """True."""
        return True

    def summary(self, contract: BooleanContract) -> str:
        """'true in 12 % of 500'."""
        return f"true in {100 * contract.positives / contract.count:.3g} % of {contract.count}"

    def preview(self, value: np.ndarray, contract: BooleanContract) -> dict[str, str]:
        """true or false."""
        return {"kind": "text", "data": "true" if value else "false"}

    # ---- inputs ----------------------------------------------------------------------------------------------------

    def hand_features(self) -> Any:
        """Whether it is true, whether it is missing."""
        from endwise.modalities.classical import BooleanFeatures

        return BooleanFeatures()

    # ---- outputs ---------------------------------------------------------------------------------------------------

    def truth(self, value: np.ndarray, contract: BooleanContract) -> bool:
        """True or False."""
        return bool(value)

    def write(self, decoded: Mapping[str, np.ndarray], contract: BooleanContract) -> Answer:
        """True or False; the probability of that answer as confidence (under 0.5 where the threshold is not 0.5)."""
        return _answer(bool(decoded["yes"]), float(decoded["probability"]))

    def about(
        self, which: Any, decoded: Mapping[str, np.ndarray], contract: BooleanContract
    ) -> tuple[str, tuple[int, ...]]:
        """What was answered, or yes or no as it is asked for."""
        yes = bool(decoded["yes"])
        if which is not None:
            try:
                yes = bool(self.read(which, str.encode))
            except BadValue as wrong:
                raise ModelError(f"of: {wrong}. Fix: ask for true or false.") from None
        return str(yes), (int(yes),)

    def said(self, target: np.ndarray, contract: BooleanContract) -> bool:
        """Yes or no."""
        return bool(target)

    def metrics(self, contract: BooleanContract) -> Sequence["Metric"]:
        """auroc, average_precision, f1, accuracy, log_loss, brier, ece."""
        from endwise import metrics

        ranked = [metrics.auroc(("true",)), metrics.average_precision(("true",))]
        return [*ranked, metrics.f1(), metrics.accuracy(), metrics.log_loss(), metrics.brier(), metrics.ece()]

    def risk(self, contract: BooleanContract) -> "Metric":
        """The share of answers that are wrong."""
        from endwise import metrics

        return metrics.accuracy()

    def strangeness(self, truth: Any, answer: Answer, contract: BooleanContract) -> float:
        """1 - the probability of the truth, 0 of the more probable one."""
        return improbability(["true" if truth else "false"], answer)

    def among(self, answer: Answer, limit: float, contract: BooleanContract) -> list[bool]:
        """False, true or both."""
        return [name == "true" for name in probable(answer, limit)]

    def classical(self, contract: BooleanContract) -> Any:
        """Logistic regression or gradient-boosted trees, weighed as the network is."""
        from endwise.modalities.classical import SuitedClassifier

        return SuitedClassifier(balanced=self.class_weights == "balanced")

    def trivial(self, truths: Sequence[Any], contract: BooleanContract) -> Answer:
        """The more frequent one, with the share of true as its probability."""
        share = sum(map(bool, truths)) / max(1, len(truths))
        return _answer(share >= 0.5, share)

    def from_classical(self, predicted: Any, contract: BooleanContract) -> Answer:
        """True from a probability of 0.5 on."""
        if not isinstance(predicted, Mapping):
            return Answer(bool(predicted))
        probability = float(predicted.get(True, 0.0))
        return _answer(probability >= 0.5, probability)

    # ---- network side ----------------------------------------------------------------------------------------------

    def encoder(self, contract: BooleanContract, size: "Size") -> "Encoder":
        """Two learnt vectors."""
        from endwise.nn.scalars import BooleanEncoder

        return BooleanEncoder(size)

    def head(self, contract: BooleanContract, size: "Size") -> "Head":
        """One logit."""
        from endwise.nn.scalars import BooleanHead

        counts = (contract.count - contract.positives, contract.positives)
        weights = balanced_weights(counts) if self.class_weights == "balanced" else None
        return BooleanHead(counts, size, class_weights=weights, threshold_for=self.threshold)


def _answer(yes: bool, probability: float) -> Answer:
    confidence = probability if yes else 1 - probability
    return Answer(yes, confidence, detail={"probabilities": {"false": 1 - probability, "true": probability}})


def _parsed(raw: Any) -> bool:
    if isinstance(raw, np.ndarray) and raw.ndim == 0:
        raw = raw.item()
    if isinstance(raw, bool | np.bool_):
        return bool(raw)
    if isinstance(raw, str):
        found = WORDS.get(raw.strip().lower())
        if found is not None:
            return found
    elif isinstance(raw, numbers.Real) and raw in (0, 1):
        return bool(raw)
    raise BadValue(f"{raw!r:.60} is neither true nor false: expected one of true, false, yes, no, t, f, y, n, 1, 0")
