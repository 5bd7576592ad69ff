"""A space in which a row's inputs lie at one place: picture, caption and speech of one thing, a sentence and its
translation. What it is for is finding one by another.

Here: how the declaration stands among the inputs, what the identity of a row is, and what an answer looks like. Not
here: the head and its loss (network.py, endwise/losses.py), recall (recall.py), the classical rival (classical.py),
looking things up (endwise/search.py).

It has no column: a row is its own target. All that is kept of a row is which of its inputs are equal to another row's,
since two equal captions in a batch must not be pushed apart.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from endwise.errors import BadValue, ModelError, refusal, require, unknown_name
from endwise.modalities.base import OUTPUT_ROLE, Answer, Contract, Fetch, Modality, Role, one_of, output_field

if TYPE_CHECKING:
    from endwise.metrics import Metric
    from endwise.nn.interface import Head
    from endwise.nn.size import Size

DIMENSIONS = 128
MOST_DIMENSIONS = 4_096
FEWEST = 2  # inputs that have to be there for a row to teach anything


@dataclass(frozen=True, kw_only=True)
class EmbeddingContract(Contract):
    """The inputs that share the space, in order, and how many training rows have each."""

    inputs: tuple[str, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Embedding(Modality):
    """A unit vector for each of several inputs, near each other where the inputs belong to one row (contrastive
    learning; van den Oord et al. 2018, Radford et al. 2021).

    It needs no column. At prediction one input is enough: the answer's value is its vector; of several inputs, the
    direction of their sum. `detail` has the vector of each input that was given.
    """

    type: ClassVar[str] = "embedding"
    unsure: ClassVar[str] = (
        "a vector is near to others or far from them: what it finds is right or wrong only among given candidates"
    )
    sure_by: ClassVar[str] = (
        "remove abstain; where the candidates are known beforehand, an output of type category or items may"
    )
    roles = frozenset({OUTPUT_ROLE})
    contract_class = EmbeddingContract
    of_row: ClassVar[int] = FEWEST
    read_fields: ClassVar[tuple[str, ...]] = ("of",)

    of: tuple[str, ...] | None = output_field(None, "the inputs that share the space; default: all of them")
    dimensions: int = output_field(DIMENSIONS, "numbers in a vector")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.column is None,
            field="Embedding.column",
            got=self.column,
            allowed="no column: a row is its own target",
            fix="remove it; of: [...] names the inputs",
        )
        require(
            2 <= self.dimensions <= MOST_DIMENSIONS,
            field="Embedding.dimensions",
            got=self.dimensions,
            allowed=f"a whole number from 2 to {MOST_DIMENSIONS}",
            fix=f"leave it out for {DIMENSIONS}",
        )
        require(
            self.of is None or len(set(self.of)) == len(self.of) >= FEWEST,
            field="Embedding.of",
            got=self.of,
            allowed="at least two different inputs",
            fix="name the inputs that belong together, or leave it out for all of them",
        )

    def beside(self, inputs: Mapping[str, Modality], outputs: Mapping[str, Modality]) -> Self:
        """With `of` written out."""
        if self.of is None:
            require(
                len(inputs) >= FEWEST,
                field="inputs",
                got=list(inputs),
                allowed="at least two inputs beside an embedding",
                fix="declare what each one is to be found by",
            )
            return replace(self, of=tuple(inputs))
        for name in self.of:
            if name not in inputs:
                raise unknown_name(field="Embedding.of", got=name, names=inputs)
        return self

    def made_of(self) -> tuple[str, ...]:
        """The inputs that share the space."""
        if self.of is None:
            raise refusal(
                field="Embedding.of", got=None, allowed="at least two inputs", fix="name them, or use it in a recipe"
            )
        return self.of

    # ---- numpy side ------------------------------------------------------------------------------------------------

    def read(self, raw: Any, fetch: Fetch) -> np.ndarray:
        """{input: hash of its value} -> int64 [inputs]: a number for each, 0 where the row does not have it."""
        if not isinstance(raw, Mapping) or not all(isinstance(item, bytes | type(None)) for item in raw.values()):
            raise BadValue(f"an embedding has no values of its own, got {type(raw).__name__}")
        sums = [raw.get(name) for name in self.made_of()]
        return np.array([0 if item is None else int.from_bytes(item[:8], "big") >> 1 | 1 for item in sums], np.int64)

    def fit(self, values: Iterable[np.ndarray], *, missing: int, role: Role) -> EmbeddingContract:
        """How many rows have each input."""
        names = self.made_of()
        counts, seen = np.zeros(len(names), np.int64), 0
        for value in values:
            counts += value != 0
            seen += 1
        return EmbeddingContract(count=seen, missing=missing, inputs=names, counts=tuple(counts.tolist()))

    def blank(self, contract: EmbeddingContract) -> np.ndarray:
        """A row that has none of the inputs."""
        return np.zeros(len(contract.inputs), np.int64)

    def summary(self, contract: EmbeddingContract) -> str:
        """'picture (785), caption (674): 128 numbers each'."""
        parts = [f"{name} ({count})" for name, count in zip(contract.inputs, contract.counts, strict=True)]
        return f"{', '.join(parts)}: {self.dimensions} numbers each"

    def truth(self, value: np.ndarray, contract: EmbeddingContract) -> dict[str, int]:
        """{input: a number that equal values share} of the inputs that the row has."""
        return {name: int(item) for name, item in zip(contract.inputs, value.tolist(), strict=True) if item}

    def write(self, decoded: Mapping[str, np.ndarray], contract: EmbeddingContract) -> Answer:
        """A unit vector as a list of floats; None where no input was given."""
        given = np.asarray(decoded["present"], dtype=bool)
        vectors = np.asarray(decoded["vectors"], dtype=np.float64)
        own = {name: vectors[index].tolist() for index, name in enumerate(contract.inputs) if given[index]}
        return Answer(joined(list(own.values())), detail={"vectors": own})

    def about(
        self, which: Any, decoded: Mapping[str, np.ndarray], contract: EmbeddingContract
    ) -> tuple[str, tuple[int, ...]]:
        """How near two inputs of the row are, as 'one,other'; else the first two that it has."""
        there = [index for index, given in enumerate(np.asarray(decoded["present"], bool)) if given]
        pair = [there[0], there[min(1, len(there) - 1)]]
        if which is not None:
            pair = [one_of(name.strip(), contract.inputs, "input") for name in str(which).split(",")]
            require(
                len(pair) == 2 and set(pair) <= set(there), field="of", got=which, allowed="two inputs that the row has",
                fix=f"write {','.join(contract.inputs[index] for index in there[:2])}", error=ModelError,
            )  # fmt: skip
        names = [contract.inputs[index] for index in pair]
        return (f"{names[0]} near {names[1]}" if pair[0] != pair[1] else f"the vector of {names[0]}"), (
            pair[0],
            pair[1],
        )

    def metrics(self, contract: EmbeddingContract) -> Sequence["Metric"]:
        """recall@1, recall@5, recall@10 and median_rank: the mean over all ordered pairs of inputs, then of each."""
        from endwise.modalities.embedding.recall import recall

        return recall(contract.inputs)

    def classical(self, contract: EmbeddingContract) -> Any:
        """Hand features of each input, and the directions in which they go together."""
        from endwise.modalities.embedding.classical import CommonDirections

        return CommonDirections(contract.inputs)

    def trivial(self, truths: Sequence[Any], contract: EmbeddingContract) -> Answer:
        """One place for everything: all ranks are ties, so recall is what chance gives."""
        return Answer([1.0], detail={"vectors": {name: [1.0] for name in contract.inputs}})

    def from_classical(self, predicted: Any, contract: EmbeddingContract) -> Answer:
        """`predicted`: {input: vector}."""
        own = {name: [float(item) for item in vector] for name, vector in predicted.items()}
        return Answer(joined(list(own.values())), detail={"vectors": own})

    # ---- network side ----------------------------------------------------------------------------------------------

    def head(self, contract: EmbeddingContract, size: "Size") -> "Head":
        """A projection for each input, and one temperature."""
        from endwise.modalities.embedding.network import EmbeddingHead

        return EmbeddingHead(contract, size, dimensions=self.dimensions)


def joined(vectors: Sequence[Sequence[float]]) -> list[float] | None:
    """The direction of the sum of unit vectors; None of none."""
    if len(vectors) < 2:
        return list(vectors[0]) if vectors else None
    total = np.sum(np.asarray(vectors, dtype=np.float64), axis=0)
    made: list[float] = (total / max(1e-12, float(np.linalg.norm(total)))).tolist()
    return made
