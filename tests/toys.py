"""Three modalities in a few lines each, for tests that need some and not those of the package: a number, letters of
any length, and a class. They are what a user's own modality would look like."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from endwise.errors import BadValue
from endwise.metrics import Metric, accuracy, mae
from endwise.modalities.base import Answer, Contract, Fetch, Modality, Role
from endwise.nn.blocks import Transformer
from endwise.nn.interface import Encoder, Head, Tokens
from endwise.nn.size import Size


@dataclass(frozen=True, kw_only=True)
class AmountContract(Contract):
    mean: float
    scale: float


@dataclass(frozen=True, kw_only=True)
class Amount(Modality):
    """A number."""

    type: ClassVar[str] = "amount"
    contract_class = AmountContract

    def read(self, raw: Any, fetch: Fetch) -> np.ndarray:
        try:
            return np.array(float(raw))
        except (TypeError, ValueError):
            raise BadValue(f"{raw!r} is no number") from None

    def fit(self, values: Iterable[np.ndarray], *, missing: int, role: Role) -> AmountContract:
        found = np.array([float(value) for value in values])
        return AmountContract(
            count=len(found), missing=missing, mean=float(found.mean()), scale=float(found.std() or 1)
        )

    def blank(self, contract: Any) -> np.ndarray:
        return np.array(contract.mean)

    def hand_features(self) -> Any:
        from sklearn.preprocessing import FunctionTransformer

        return FunctionTransformer(lambda values: np.array([[float(value)] for value in values]))

    def truth(self, value: np.ndarray, contract: Any) -> float:
        return float(value)

    def write(self, decoded: Mapping[str, np.ndarray], contract: Any) -> Answer:
        return Answer(float(decoded["value"]))

    def metrics(self, contract: Any) -> Sequence[Metric]:
        return [mae()]

    def classical(self, contract: Any) -> Any:
        from sklearn.linear_model import Ridge

        return Ridge()

    def trivial(self, truths: Sequence[Any], contract: Any) -> Answer:
        return Answer(float(np.mean(truths)))

    def from_classical(self, predicted: Any, contract: Any) -> Answer:
        return Answer(float(predicted))

    def encoder(self, contract: Any, size: Size) -> Encoder:
        return _AmountEncoder(contract, size)

    def head(self, contract: Any, size: Size) -> Head:
        return _AmountHead(contract, size)


class _AmountEncoder(Encoder):
    def __init__(self, contract: AmountContract, size: Size) -> None:
        super().__init__()
        self.contract = contract
        self.inward, self.outward = nn.Linear(1, size.width), nn.Linear(size.width, size.width)

    def forward(self, values: Tensor, sizes: Tensor) -> Tokens:
        scaled = ((values - self.contract.mean) / self.contract.scale).to(self.inward.weight.dtype)
        tokens = self.outward(F.silu(self.inward(scaled[:, None, None])))
        return Tokens(tokens, torch.ones_like(tokens[..., 0], dtype=torch.bool))


class _AmountHead(Head):
    def __init__(self, contract: AmountContract, size: Size) -> None:
        super().__init__()
        self.contract, self.out = contract, nn.Linear(size.width, 1)

    def forward(self, tokens: Tokens) -> dict[str, Tensor]:
        return {"value": self.out(tokens.pooled())[:, 0]}

    def loss(self, prediction: dict[str, Tensor], target: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        scaled = (target.float() - self.contract.mean) / self.contract.scale
        return {"square": (prediction["value"].float() - scaled) ** 2}

    def decode(self, prediction: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"value": prediction["value"] * self.contract.scale + self.contract.mean}


@dataclass(frozen=True, kw_only=True)
class Letters(Modality):
    """Text as bytes, through a transformer."""

    type: ClassVar[str] = "letters"
    axes: ClassVar[int] = 1

    def read(self, raw: Any, fetch: Fetch) -> np.ndarray:
        if not isinstance(raw, str) or not raw:
            raise BadValue("the text is empty or no text")
        text = fetch(raw) if raw.endswith(".txt") else raw.encode()
        return np.frombuffer(text, dtype=np.uint8)

    def fit(self, values: Iterable[np.ndarray], *, missing: int, role: Role) -> Contract:
        return Contract(count=sum(1 for _ in values), missing=missing)

    def transform(self, value: np.ndarray, contract: Any) -> np.ndarray:
        return value.astype(np.int64)

    def blank(self, contract: Any) -> np.ndarray:
        return np.zeros(1, dtype=np.int64)

    def length(self, shape: tuple[int, ...]) -> int:
        return shape[0]

    def preview(self, value: np.ndarray, contract: Any) -> dict[str, str]:
        return {"kind": "text", "data": value.tobytes().decode()}

    def encoder(self, contract: Any, size: Size) -> Encoder:
        return _LettersEncoder(size)


class _LettersEncoder(Encoder):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.letters = nn.Embedding(256, size.width)
        self.blocks = Transformer(size, causal=False, rotary=True)

    def forward(self, values: Tensor, sizes: Tensor) -> Tokens:
        mask = torch.arange(values.shape[1], device=values.device) < sizes[:, :1]
        return Tokens(self.blocks(self.letters(values), mask), mask)


@dataclass(frozen=True, kw_only=True)
class KindContract(Contract):
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Kind(Modality):
    """One of a few classes."""

    type: ClassVar[str] = "kind"
    contract_class = KindContract
    roles = frozenset({"output"})

    def read(self, raw: Any, fetch: Fetch) -> np.ndarray:
        return np.frombuffer(str(raw).encode(), dtype=np.uint8)

    def fit(self, values: Iterable[np.ndarray], *, missing: int, role: Role) -> KindContract:
        found = [value.tobytes().decode() for value in values]
        return KindContract(count=len(found), missing=missing, names=tuple(sorted(set(found))))

    def transform(self, value: np.ndarray, contract: Any) -> np.ndarray:
        return np.array(contract.names.index(value.tobytes().decode()))

    def blank(self, contract: Any) -> np.ndarray:
        return np.array(0)

    def truth(self, value: np.ndarray, contract: Any) -> str:
        return value.tobytes().decode()

    def write(self, decoded: Mapping[str, np.ndarray], contract: Any) -> Answer:
        shares = dict(zip(contract.names, decoded["probabilities"].tolist(), strict=True))
        best = max(shares, key=lambda name: shares[name])
        return Answer(best, shares[best], detail={"probabilities": shares})

    def metrics(self, contract: Any) -> Sequence[Metric]:
        return [accuracy()]

    def classical(self, contract: Any) -> Any:
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(max_iter=1000)

    def trivial(self, truths: Sequence[Any], contract: Any) -> Answer:
        return Answer(max(sorted(set(truths)), key=list(truths).count))

    def from_classical(self, predicted: Any, contract: Any) -> Answer:
        best = max(predicted, key=lambda name: predicted[name])
        return Answer(best, predicted[best], detail={"probabilities": dict(predicted)})

    def head(self, contract: Any, size: Size) -> Head:
        return _KindHead(contract, size)


class _KindHead(Head):
    temperature: Tensor

    def __init__(self, contract: KindContract, size: Size) -> None:
        super().__init__()
        self.out = nn.Linear(size.width, len(contract.names))
        self.register_buffer("temperature", torch.ones(()))

    def forward(self, tokens: Tokens) -> dict[str, Tensor]:
        return {"logits": self.out(tokens.pooled())}

    def loss(self, prediction: dict[str, Tensor], target: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        return {"cross_entropy": F.cross_entropy(prediction["logits"].float(), target, reduction="none")}

    def decode(self, prediction: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"probabilities": (prediction["logits"].float() / self.temperature).softmax(-1)}

    def calibrate(self, prediction: dict[str, Tensor], target: Tensor, sizes: Tensor) -> dict[str, float]:
        grid = torch.linspace(0.5, 4, 36)
        losses = torch.stack([F.cross_entropy(prediction["logits"] / t, target) for t in grid])
        self.temperature.fill_(float(grid[losses.argmin()]))
        return {"temperature": float(self.temperature)}


TOYS = (Amount, Letters, Kind)
