"""Masked prediction: part of an input is hidden, and the network says what stood there. It needs no labels, only rows;
what it learns about the input is for another recipe to begin with (`from_run`).

Here: how the declaration stands among the inputs, and what an answer is. Not here: which parts are hidden, what they
look like then, and what is charged (each encoder's `restorer`, endwise/nn/hiding.py), the head (network.py), taking the
weights over (endwise/transfer.py).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from endwise.errors import BadValue, refusal, require, unknown_name
from endwise.modalities.base import OUTPUT_ROLE, Answer, Contract, Fetch, Modality, Role, output_field

if TYPE_CHECKING:
    from endwise.metrics import Metric
    from endwise.nn.interface import Head
    from endwise.nn.size import Size

TERM = "masked"


@dataclass(frozen=True, kw_only=True)
class Masked(Modality):
    """What was hidden of an input: units of a text (Devlin et al. 2019), patches of a picture (Xie et al. 2022), stretches
    of a recording's spectrogram (Liu et al. 2020). The loss counts hidden places only, each row alike.

    It needs no column and stands alone: another answer would have to be given without the hidden parts. The answer's
    value is what the row cost: nats a unit of text; squared error a number of pictures and spectrograms, where 1 is what
    knowing nothing costs. Outside of training the same places are hidden every time.
    """

    type: ClassVar[str] = "masked"
    unexplained: ClassVar[str] = "it says how well hidden parts are known and answers nothing: ask about another output"
    unsure: ClassVar[str] = (
        "it prepares weights and its answer is what a row cost: an error, which cannot be wrong itself"
    )
    sure_by: ClassVar[str] = "remove abstain; the outputs that the weights are learnt for may"
    roles = frozenset({OUTPUT_ROLE})
    of_row: ClassVar[int] = 1
    read_fields: ClassVar[tuple[str, ...]] = ("of",)

    of: str | None = output_field(None, "the input that is partly hidden; default: the only one")
    share: float | None = output_field(
        None, "how much of it is hidden; null: 0.15 of a text, 0.5 of a picture, 0.3 of a recording"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.column is None,
            field="Masked.column",
            got=self.column,
            allowed="no column: a row is its own target",
            fix="remove it; of: names the input",
        )
        require(
            self.share is None or 0 < self.share < 1,
            field="Masked.share",
            got=self.share,
            allowed="a number above 0 and below 1",
            fix="leave it out for what is usual",
        )

    def beside(self, inputs: Mapping[str, Modality], outputs: Mapping[str, Modality]) -> Self:
        """With `of` written out; refused beside answers that need the whole input."""
        require(
            self.of is not None or len(inputs) == 1,
            field="Masked.of",
            got=None,
            allowed=f"one of {', '.join(inputs)}",
            fix="name the input that is partly hidden",
        )
        hidden = self.of or next(iter(inputs))
        if hidden not in inputs:
            raise unknown_name(field="Masked.of", got=hidden, names=inputs)
        for name, other in outputs.items():
            require(
                isinstance(other, Masked),
                field=f"outputs.{name}",
                got=other.type,
                allowed="nothing but masked beside a masked output",
                fix="train the masked output alone, then this one in a second recipe with from_run: RUN",
            )
        alike = [name for name, other in outputs.items() if isinstance(other, Masked) and other.of in (hidden, None)]
        require(
            len(alike) < 2,
            field=f"outputs.{alike[-1] if alike else ''}.of",
            got=hidden,
            allowed="an input that no other output hides",
            fix="remove one of the two, or name another input",
        )
        return replace(self, of=hidden)

    def made_of(self) -> tuple[str, ...]:
        """The hidden input."""
        if self.of is None:
            raise refusal(field="Masked.of", got=None, allowed="an input", fix="name it, or use it in a recipe")
        return (self.of,)

    # ---- numpy side ------------------------------------------------------------------------------------------------

    def read(self, raw: Any, fetch: Fetch) -> np.ndarray:
        """{input: hash of its value} -> nothing: what stood there is known where it is hidden."""
        if not isinstance(raw, Mapping) or not all(isinstance(item, bytes | type(None)) for item in raw.values()):
            raise BadValue(f"a masked output has no values of its own, got {type(raw).__name__}")
        return np.zeros(0, np.int64)

    def fit(self, values: Iterable[np.ndarray], *, missing: int, role: Role) -> Contract:
        """How many rows there are to learn from."""
        return Contract(count=sum(1 for _ in values), missing=missing)

    def blank(self, contract: Contract) -> np.ndarray:
        """The same nothing."""
        return np.zeros(0, np.int64)

    def summary(self, contract: Contract) -> str:
        """'9003 rows; 30 % of text is hidden'."""
        share = "part" if self.share is None else f"{100 * self.share:g} %"
        return f"{contract.count} rows; {share} of {self.of} is hidden"

    def truth(self, value: np.ndarray, contract: Contract) -> float:
        """What a row costs whose hidden parts are all said right."""
        return 0.0

    def write(self, decoded: Mapping[str, np.ndarray], contract: Contract) -> Answer:
        """The row's cost; None where nothing was hidden, since the input is missing or empty."""
        places = int(decoded["places"])
        return Answer(float(decoded["cost"]) if places else None, detail={"hidden": places})

    def metrics(self, contract: Contract) -> Sequence["Metric"]:
        """loss: the mean cost of a row."""
        from endwise import metrics

        return [metrics.mean_cost("loss", TERM)]

    def classical(self, contract: Contract) -> Any:
        """None: a classical model restores nothing."""
        return None

    def trivial(self, truths: Sequence[Any], contract: Contract) -> Answer:
        """No constant answer restores anything."""
        return Answer(None)

    # ---- network side ----------------------------------------------------------------------------------------------

    def head(self, contract: Contract, size: "Size") -> "Head":
        """What is charged for the hidden places."""
        from endwise.modalities.masked.network import MaskedHead

        return MaskedHead(size, of=self.made_of()[0], share=self.share)
