"""Any number of tags out of a known set: the topics of a text, the findings on a picture.

Here: how a cell of tags is read, which tags there are, and how predicted ones are written back. Not here: the head
and its thresholds (endwise/nn/scalars.py); exactly one of several (category).
"""

import json
import math
import numbers
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from endwise.errors import BadValue, DataError, refusal, require
from endwise.modalities.base import (
    HAND_OFFS,
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
from endwise.modalities.category import class_name

if TYPE_CHECKING:
    from endwise.metrics import Metric
    from endwise.nn.interface import Encoder, Head
    from endwise.nn.size import Size

SHOWN = 6  # tags that a summary spells out
MOST_RANKED = 20


@dataclass(frozen=True, kw_only=True)
class TagsContract(Contract):
    """The tags of the training rows, sorted, how many rows have each, and how many rows have none."""

    tags: tuple[str, ...]
    counts: tuple[int, ...]
    without: int

    @cached_property
    def ids(self) -> dict[str, int]:
        """Name -> column."""
        return {name: index for index, name in enumerate(self.tags)}


@dataclass(frozen=True, kw_only=True)
class Tags(Modality):
    """A set of tags: a list cell, a JSON list, or text with `separator` between the tags. Order and repetition say
    nothing; blanks around a tag are no part of it.

    An empty list is a value, "none of them"; an empty cell of a table is a missing value, so write [] there. A tag
    that training never saw: as an input it counts as the average tag; as a target it teaches nothing, and no answer
    to its row can be an exact match.
    """

    type: ClassVar[str] = "tags"
    contract_class = TagsContract
    hand_offs: ClassVar[frozenset[str]] = HAND_OFFS

    separator: str = shared_field(",", "what stands between two tags in a cell of text")
    max_tags: int = shared_field(10_000, "refuse a column with more different tags than this")
    threshold: Literal["f1", "accuracy", "none"] = output_field(
        "f1", "what each tag's threshold is chosen for on the validation rows; none: it stays 0.5"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            bool(self.separator),
            field="Tags.separator",
            got=self.separator,
            allowed="at least one character",
            fix="write separator: ';' or whatever stands between the tags",
        )
        require(
            self.max_tags >= 1,
            field="Tags.max_tags",
            got=self.max_tags,
            allowed="a whole number of at least 1",
            fix="leave it out",
        )

    # ---- both roles ------------------------------------------------------------------------------------------------

    def read(self, raw: Any, fetch: Fetch) -> np.ndarray:
        """The sorted set as a JSON list: uint8 [n] of utf-8."""
        tags = sorted({class_name(item) for item in self._items(raw)})
        return np.frombuffer(json.dumps(tags, ensure_ascii=False).encode(), dtype=np.uint8)

    def _items(self, raw: Any) -> list[Any]:
        if isinstance(raw, np.ndarray) and raw.ndim == 1:
            raw = raw.tolist()
        if isinstance(raw, list | tuple | set | frozenset):
            return list(raw)
        if isinstance(raw, numbers.Real):
            return [raw]  # a column of bare numbers: one tag each
        if not isinstance(raw, str):
            raise BadValue(f"expected a list of tags or text, got {type(raw).__name__} {raw!r:.60}")
        text = raw.strip()
        if text.startswith("["):
            try:
                found = json.loads(text)
            except (ValueError, RecursionError):
                raise BadValue(f"{text[:60]!r} starts like a JSON list of tags and is none") from None
            return list(found)
        items = [item.strip() for item in text.split(self.separator)] if text else []
        if any(not item for item in items):
            raise BadValue(f"{text[:60]!r} has nothing between two separators ({self.separator!r})")
        return items

    def fit(self, values: Iterable[np.ndarray], *, missing: int, role: Role) -> TagsContract:
        """Count the tags in one pass; more than `max_tags` are refused as soon as they are there."""
        found: Counter[str] = Counter()
        seen = without = 0
        for value in values:
            tags = tags_of(value)
            found.update(tags)
            seen += 1
            without += not tags
            if len(found) > self.max_tags:
                raise refusal(
                    field="Tags.max_tags",
                    got=self.max_tags,
                    allowed=f"at least as many as there are tags: the first {seen} rows hold {len(found)}",
                    fix="is separator right? free text is type: text; else raise max_tags",
                    error=DataError,
                )
        if not found:
            raise refusal(
                field="tags", got=f"{seen} rows without any tag, {missing} without a value",
                allowed="at least one tag among the training rows",
                fix="look at the column's name, or remove the field", error=DataError,
            )  # fmt: skip
        names = tuple(sorted(found))
        counts = tuple(found[name] for name in names)
        return TagsContract(count=seen, missing=missing, tags=names, counts=counts, without=without)

    def transform(self, value: np.ndarray, contract: TagsContract) -> np.ndarray:
        """float32 [tags + 1]: 1 for each tag that is there; in the last place how many are there that training never
        saw."""
        out = np.zeros(len(contract.tags) + 1, dtype=np.float32)
        for name in tags_of(value):
            out[contract.ids.get(name, len(contract.tags))] += 1
        return out

    def blank(self, contract: TagsContract) -> np.ndarray:
        """No tags."""
        return np.zeros(len(contract.tags) + 1, dtype=np.float32)

    def example(self, contract: TagsContract) -> Any:
        """Two of them."""
        return list(contract.tags[:2])

    def summary(self, contract: TagsContract) -> str:
        """'12 tags, 2.1 a row: sport (40 %), politics (31 %) …', the most frequent first."""
        ranked = sorted(zip(contract.counts, contract.tags, strict=True), key=lambda item: (-item[0], item[1]))
        shown = [f"{name[:40]} ({percent(count / contract.count)})" for count, name in ranked[:SHOWN]]
        mean = sum(contract.counts) / contract.count
        return f"{len(ranked)} tags, {mean:.2g} a row: {', '.join(shown)}{' …' if len(ranked) > SHOWN else ''}"

    def preview(self, value: np.ndarray, contract: TagsContract) -> dict[str, str]:
        """The tags, or a dash for none."""
        return {"kind": "text", "data": ", ".join(tags_of(value)) or "—"}

    # ---- inputs ----------------------------------------------------------------------------------------------------

    def onto(self, places: np.ndarray, whole: np.ndarray, contract: TagsContract) -> np.ndarray:
        """The row's own tags; unknown ones share what is theirs."""
        ids = [contract.ids.get(name, len(contract.tags)) for name in tags_of(whole)]
        return np.array([places[place] / ids.count(place) for place in ids])

    def named(self, whole: np.ndarray, contract: TagsContract) -> Sequence[str]:
        """The tags."""
        return tags_of(whole)

    def hand_features(self) -> Any:
        """One column a tag."""
        from endwise.modalities.classical import TagsFeatures

        return TagsFeatures()

    # ---- outputs ---------------------------------------------------------------------------------------------------

    def truth(self, value: np.ndarray, contract: TagsContract) -> list[str]:
        """The tags, sorted, whether training saw them or not."""
        return tags_of(value)

    def write(self, decoded: Mapping[str, np.ndarray], contract: TagsContract) -> Answer:
        """The tags; as confidence the probability that all of them are right and none is missing, taking tags as
        independent; `detail` has the probability of each."""
        chosen = np.asarray(decoded["chosen"], dtype=bool)
        return _answer(contract.tags, chosen, np.asarray(decoded["probabilities"], dtype=np.float64))

    def about(
        self, which: Any, decoded: Mapping[str, np.ndarray], contract: TagsContract
    ) -> tuple[str, tuple[int, ...]]:
        """The tag that is named; else the surest."""
        place = int(np.argmax(decoded["probabilities"])) if which is None else one_of(which, contract.tags, "tag")
        return contract.tags[place], (place,)

    def metrics(self, contract: TagsContract) -> Sequence["Metric"]:
        """macro_f1, micro_f1, exact_match; and auroc (mean over the tags) for at most 20 tags."""
        from endwise import metrics

        usual = [metrics.tags_macro_f1(), metrics.tags_micro_f1()]
        ranked = [metrics.tags_auroc(contract.tags)] if len(contract.tags) <= MOST_RANKED else []
        return [*usual, *ranked, metrics.tags_exact_match()]

    def risk(self, contract: TagsContract) -> "Metric":
        """The share of rows in which a tag is missing or wrong."""
        from endwise import metrics

        return metrics.tags_exact_match()

    def strangeness(self, truth: Any, answer: Answer, contract: TagsContract) -> float:
        """1 - the smallest probability of a true tag, so that a set holds all of them."""
        chances = answer.detail["probabilities"]
        return max((1 - chances.get(tag, -math.inf) for tag in truth), default=0.0)

    def among(self, answer: Answer, limit: float, contract: TagsContract) -> list[str]:
        """The tags that are probable enough; where none is, none."""
        return [tag for tag, chance in answer.detail["probabilities"].items() if 1 - chance <= limit]

    def classical(self, contract: TagsContract) -> Any:
        """Logistic regression or gradient-boosted trees for each tag."""
        from endwise.modalities.classical import SuitedTagger

        return SuitedTagger(contract.tags)

    def trivial(self, truths: Sequence[Any], contract: TagsContract) -> Answer:
        """The tags that at least half of the rows have; the shares as probabilities."""
        counts = Counter(tag for truth in truths for tag in truth)
        shares = np.array([counts.get(tag, 0) / max(1, len(truths)) for tag in contract.tags])
        return _answer(contract.tags, shares >= 0.5, shares)

    def from_classical(self, predicted: Any, contract: TagsContract) -> Answer:
        """The tags with a probability of at least 0.5; `predicted` is {tag: probability}."""
        probabilities = np.array([float(predicted.get(tag, 0.0)) for tag in contract.tags])
        return _answer(contract.tags, probabilities >= 0.5, probabilities)

    # ---- network side ----------------------------------------------------------------------------------------------

    def encoder(self, contract: TagsContract, size: "Size") -> "Encoder":
        """The sum of learnt vectors."""
        from endwise.nn.scalars import TagsEncoder

        return TagsEncoder(contract.counts, size)

    def head(self, contract: TagsContract, size: "Size") -> "Head":
        """One logit a tag."""
        from endwise.nn.scalars import TagsHead

        return TagsHead(contract.counts, contract.count, size, threshold_for=self.threshold)


def tags_of(value: np.ndarray) -> list[str]:
    """The tags of a decoded value."""
    found: list[str] = json.loads(value.tobytes())
    return found


def _answer(tags: Sequence[str], chosen: np.ndarray, probabilities: np.ndarray) -> Answer:
    given = [tag for tag, there in zip(tags, chosen, strict=True) if there]
    confidence = float(np.where(chosen, probabilities, 1 - probabilities).prod())
    return Answer(given, confidence, detail={"probabilities": dict(zip(tags, probabilities.tolist(), strict=True))})
