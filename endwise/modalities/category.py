"""One of several classes, known by name.

Here: how names are read, which there are, and how a predicted one is written back. Not here: the embedding and the
head (endwise/nn/scalars.py); yes and no (boolean), several at once (tags), free text (text).
"""

import numbers
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from endwise.certainty import improbability, probable
from endwise.errors import BadValue, DataError, refusal, require
from endwise.modalities.base import (
    HAND_OFFS,
    INPUT_ROLE,
    OUTPUT_ROLE,
    Answer,
    Contract,
    Fetch,
    Modality,
    Role,
    one_of,
    output_field,
    percent,
    shared_field,
)

if TYPE_CHECKING:
    from endwise.metrics import Metric
    from endwise.nn.interface import Encoder, Head
    from endwise.nn.size import Size

UNKNOWN = "<unknown>"
SHOWN = 6  # classes that a summary spells out
MOST_RANKED = 20  # classes; the area under each one's ROC curve takes a second of bootstrap for every few


@dataclass(frozen=True, kw_only=True)
class CategoryContract(Contract):
    """The classes of the training rows, sorted (whole numbers by size), and how many rows each has. A class's id is its
    place; the id after the last stands for every class that is not among them."""

    classes: tuple[str, ...]
    counts: tuple[int, ...]

    @cached_property
    def ids(self) -> dict[bytes, int]:
        """utf-8 name -> id."""
        return {name.encode(): index for index, name in enumerate(self.classes)}


@dataclass(frozen=True, kw_only=True)
class Category(Modality):
    """One of several classes.

    A class is known by its text: 3 and 3.0 are both the class "3", blanks around a name are no part of it, upper and
    lower case differ. A class that training never saw is read as <unknown>: as an input it counts as the average
    class; as a target it teaches nothing and no answer to it can be right.
    """

    type: ClassVar[str] = "category"
    contract_class = CategoryContract
    hand_offs: ClassVar[frozenset[str]] = HAND_OFFS
    can_be_told: ClassVar[bool] = True
    can_be_said: ClassVar[bool] = True

    max_classes: int = shared_field(10_000, "refuse a column with more different values than this")
    class_weights: Literal["none", "balanced"] = output_field(
        "none", "balanced: rare classes count as much as frequent ones in the loss"
    )
    label_smoothing: float = output_field(0.0, "share of each target that is spread over all classes")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.max_classes >= 2,
            field="Category.max_classes",
            got=self.max_classes,
            allowed="a whole number of at least 2",
            fix="leave it out",
        )
        require(
            0 <= self.label_smoothing < 1,
            field="Category.label_smoothing",
            got=self.label_smoothing,
            allowed="a number from 0 up to, but not including, 1",
            fix="0.1 is usual",
        )

    # ---- both roles ------------------------------------------------------------------------------------------------

    def read(self, raw: Any, fetch: Fetch) -> np.ndarray:
        """The name: uint8 [n] of utf-8."""
        return np.frombuffer(class_name(raw).encode(), dtype=np.uint8)

    def fit(self, values: Iterable[np.ndarray], *, missing: int, role: Role) -> CategoryContract:
        """Count the names in one pass; more than `max_classes` are refused as soon as they are there."""
        found: Counter[bytes] = Counter()
        seen = 0
        for value in values:
            found[value.tobytes()] += 1
            seen += 1
            if len(found) > self.max_classes:
                raise refusal(
                    field="Category.max_classes",
                    got=self.max_classes,
                    allowed=f"at least as many as there are classes: the first {seen} rows hold {len(found)}",
                    fix="a quantity is type: number, free text is type: text; else raise max_classes",
                    error=DataError,
                )
        enough_classes([name.decode() for name in found], role, missing, "category")
        classes = sorted((name.decode() for name in found), key=_natural(name.decode() for name in found))
        counts = tuple(found[name.encode()] for name in classes)
        return CategoryContract(count=seen, missing=missing, classes=tuple(classes), counts=counts)

    def transform(self, value: np.ndarray, contract: CategoryContract) -> np.ndarray:
        """The class's id, int64 []; of an unseen class, the number of classes."""
        return np.array(contract.ids.get(value.tobytes(), len(contract.classes)), dtype=np.int64)

    def continued(self, old: Any, new: Any, role: Role) -> Contract | None:
        """An output goes on where the classes are the same, however often each occurs."""
        if role == INPUT_ROLE:
            return super().continued(old, new, role)
        return new if old.classes == new.classes else None

    def blank(self, contract: CategoryContract) -> np.ndarray:
        """The first class."""
        return np.array(0, dtype=np.int64)

    def example(self, contract: CategoryContract) -> Any:
        """The first class."""
        return contract.classes[0] if contract.classes else None

    def summary(self, contract: CategoryContract) -> str:
        """'3 classes: cat (50 %), dog (30 %), owl (20 %)', the most frequent first."""
        ranked = sorted(zip(contract.counts, contract.classes, strict=True), key=lambda item: (-item[0], item[1]))
        shown = [f"{name[:40]} ({percent(count / contract.count)})" for count, name in ranked[:SHOWN]]
        return f"{len(ranked)} classes: {', '.join(shown)}{' …' if len(ranked) > SHOWN else ''}"

    def preview(self, value: np.ndarray, contract: CategoryContract) -> dict[str, str]:
        """The name, marked if training never saw it."""
        unseen = f" {UNKNOWN}" if value.tobytes() not in contract.ids else ""
        return {"kind": "text", "data": value.tobytes().decode() + unseen}

    # ---- inputs ----------------------------------------------------------------------------------------------------

    def hand_features(self) -> Any:
        """One column a class."""
        from endwise.modalities.classical import CategoryFeatures

        return CategoryFeatures()

    # ---- outputs ---------------------------------------------------------------------------------------------------

    def truth(self, value: np.ndarray, contract: CategoryContract) -> str:
        """The name, whether training saw it or not."""
        return value.tobytes().decode()

    def write(self, decoded: Mapping[str, np.ndarray], contract: CategoryContract) -> Answer:
        """The name; its probability as confidence; `detail` has the probabilities of all classes."""
        index, probabilities = int(decoded["id"]), np.asarray(decoded["probabilities"]).tolist()
        named = dict(zip(contract.classes, probabilities, strict=True))
        return Answer(contract.classes[index], probabilities[index], detail={"probabilities": named})

    def write_column(self, decoded: Mapping[str, np.ndarray], contract: CategoryContract) -> dict[str, Any]:
        """The names, how probable each is, and `detail` with an array of probabilities for each class."""
        ids, probabilities = np.asarray(decoded["id"]), np.asarray(decoded["probabilities"])
        names = np.array(contract.classes, dtype=object)
        return {
            "value": names[ids],
            "confidence": probabilities[np.arange(len(ids)), ids],
            "detail": {"probabilities": dict(zip(contract.classes, probabilities.T, strict=True))},
        }

    def about(
        self, which: Any, decoded: Mapping[str, np.ndarray], contract: CategoryContract
    ) -> tuple[str, tuple[int, ...]]:
        """The class that was answered, or the one that is named."""
        place = int(decoded["id"]) if which is None else one_of(which, contract.classes, "class")
        return contract.classes[place], (place,)

    def said(self, target: np.ndarray, contract: CategoryContract) -> str | None:
        """The name of the class."""
        place = int(target)
        return contract.classes[place] if place < len(contract.classes) else None

    def metrics(self, contract: CategoryContract) -> Sequence["Metric"]:
        """accuracy, macro_f1, balanced_accuracy, log_loss, brier, ece; and auroc for at most 20 classes."""
        from endwise import metrics

        usual = [metrics.accuracy(), metrics.macro_f1(), metrics.balanced_accuracy()]
        usual += [metrics.log_loss(), metrics.brier(), metrics.ece()]
        return [*usual, metrics.auroc(contract.classes)] if len(contract.classes) <= MOST_RANKED else usual

    def risk(self, contract: CategoryContract) -> "Metric":
        """The share of answers that are wrong."""
        from endwise import metrics

        return metrics.accuracy()

    def strangeness(self, truth: Any, answer: Answer, contract: CategoryContract) -> float:
        """1 - the probability of the truth, 0 of the most probable class; endless where it is no class."""
        return improbability([truth], answer)

    def among(self, answer: Answer, limit: float, contract: CategoryContract) -> list[str]:
        """The classes that are probable enough."""
        return probable(answer, limit)

    def classical(self, contract: CategoryContract) -> Any:
        """Logistic regression or gradient-boosted trees, classes weighed as for the network."""
        from endwise.modalities.classical import SuitedClassifier

        return SuitedClassifier(balanced=self.class_weights == "balanced")

    def trivial(self, truths: Sequence[Any], contract: CategoryContract) -> Answer:
        """The most frequent class, with the classes' shares as probabilities."""
        counts = Counter(str(truth) for truth in truths)
        shares = {name: counts.get(name, 0) / max(1, len(truths)) for name in contract.classes}
        return _most_probable(shares)

    def from_classical(self, predicted: Any, contract: CategoryContract) -> Answer:
        """The most probable class."""
        if not isinstance(predicted, Mapping):
            return Answer(str(predicted))
        return _most_probable({name: float(predicted.get(name, 0.0)) for name in contract.classes})

    # ---- network side ----------------------------------------------------------------------------------------------

    def encoder(self, contract: CategoryContract, size: "Size") -> "Encoder":
        """One learnt vector a class."""
        from endwise.nn.scalars import CategoryEncoder

        return CategoryEncoder(contract.counts, size)

    def head(self, contract: CategoryContract, size: "Size") -> "Head":
        """Softmax over the classes."""
        from endwise.nn.scalars import CategoryHead

        weights = balanced_weights(contract.counts) if self.class_weights == "balanced" else None
        return CategoryHead(contract.counts, size, class_weights=weights, smoothing=self.label_smoothing)


def class_name(raw: Any) -> str:
    """The name of a class from a table's cell: a whole number has no decimal point, whatever column it came from."""
    if isinstance(raw, np.ndarray) and raw.ndim == 0:
        raw = raw.item()
    if isinstance(raw, bytes):
        try:
            raw = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise BadValue("the name is not utf-8 text") from None
    if isinstance(raw, str):
        name = raw.strip()
    elif isinstance(raw, bool | np.bool_):
        name = str(bool(raw))
    elif isinstance(raw, numbers.Integral):
        name = str(int(raw))
    elif isinstance(raw, numbers.Real | Decimal):
        value = float(raw)
        if not np.isfinite(value):
            raise BadValue(f"{value} is no class; leave the cell empty if the value is missing")
        name = str(int(value)) if value.is_integer() else str(raw)
    else:
        raise BadValue(f"expected the name of a class, got {type(raw).__name__} {raw!r:.60}")
    if not name:
        raise BadValue("the name of the class is empty")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise BadValue("the name holds half a character (a lone surrogate)") from None
    return name


def enough_classes(names: Sequence[str], role: Role, missing: int, kind: str) -> None:
    """Refuse a column without values, and an output with nothing to tell apart."""
    if names and (role != OUTPUT_ROLE or len(names) > 1):
        return
    raise refusal(
        field=kind,
        got=f"only {names[0]!r}" if names else f"{missing} rows without a value",
        allowed="at least two different values among the training rows"
        if names
        else "at least one training row with a value",
        fix="look at the column's name and at the split, or remove the field",
        error=DataError,
    )


def balanced_weights(counts: Sequence[int]) -> list[float]:
    """Inverse to the classes' frequency, mean 1 over the rows: n / (classes x count), as scikit-learn has it."""
    total = sum(counts)
    return [total / (len(counts) * count) if count else 0.0 for count in counts]


def _most_probable(shares: Mapping[str, float]) -> Answer:
    best = max(shares, key=lambda name: shares[name])
    return Answer(best, shares[best], detail={"probabilities": dict(shares)})


def _natural(names: Iterable[str]) -> Any:
    """Sort key: by size if all names are whole numbers, else by text."""
    if all(name.removeprefix("-").isdecimal() for name in names):
        return lambda name: (int(name), name)
    return None
