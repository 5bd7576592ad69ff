"""What is known beforehand, as terms of the objective: an answer that must not fall when an input rises, parts that add
up, bounds, answers that exclude each other.

A prior looks at the network's answers, in a form that gradients go through, and at the inputs; it gives one value a row,
zero where the knowledge holds. It needs no labels, so rows without a target teach it, too, and nobody asks it at
prediction: a model trained with priors is a model like any other. Its weight is its own, whatever weighs the other terms.
Not here: what it sees (`objective.Seen`), how terms are added (objective.py). No torch: a recipe is checked without it.
"""

import builtins
import dataclasses
import math
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from endwise.errors import RecipeError, refusal, require, unknown_name
from endwise.modalities.base import Modality, check_types, frozen
from endwise.modalities.boolean import Boolean
from endwise.modalities.boxes import Boxes
from endwise.modalities.category import Category
from endwise.modalities.mask import Mask
from endwise.modalities.number import Number
from endwise.patches import exceeds

if TYPE_CHECKING:
    from torch import Tensor

    from endwise.objective import Seen

STEP = 0.25  # standard deviations of an input: how far apart two of its values are compared
PICTURE = 2  # axes
EDGE = 0.01  # share of a side within which a box ends where the value does
SLACK = 1e-6  # keeps the logarithm of a chance that should not be 0 finite
Fields = Mapping[str, Modality]


def told(help: str, default: Any = MISSING, *, names: bool = True) -> Any:
    """A field with what it means. names: a text in it is the name of an input or an output."""
    return field(default=default, metadata={"help": help, "names": names})


@dataclass(frozen=True, kw_only=True)
class Prior:
    """A piece of knowledge. Subclass it as a frozen keyword-only dataclass, set `type`, write `loss`, and pass an instance
    in `objective.priors`; nothing has to be registered. It is logged as `prior.<name>`."""

    type: ClassVar[str]

    name: str = told("what it is called in the log and the report; default: its type", "", names=False)
    weight: float = told("its factor in the objective, which no weighting changes", 1.0, names=False)

    def __post_init__(self) -> None:
        check_types(self)
        require(
            self.weight > 0,
            field=f"{builtins.type(self).__name__}.weight",
            got=self.weight,
            allowed="a number above 0",
            fix="remove the prior if it should not count",
        )

    @property
    def term(self) -> str:
        """Its name among the terms."""
        return f"prior.{self.name or self.type}"

    def check(self, inputs: Fields, outputs: Fields) -> None:
        """RecipeError where it does not fit these fields. Default: it does."""

    def needs(self, inputs: Fields) -> tuple[str, ...]:
        """The inputs that a row must have to count. Default: those that it names."""
        return tuple(self.named(inputs))

    def named(self, fields: Iterable[str]) -> list[str]:
        """Those of these fields that stand in its own."""
        said = [getattr(self, item.name) for item in dataclasses.fields(self) if item.metadata.get("names", True)]
        flat = [part for value in said for part in (value if isinstance(value, tuple) else (value,))]
        return [name for name in fields if name in flat]

    def loss(self, seen: "Seen") -> "Tensor":
        """One value of at least 0 a row [batch], with gradient, 0 where the knowledge holds; in units that do not depend
        on the data's, so that one weight suits all. Not divided by anything that depends on other rows."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: the type and every field that is not at its default."""
        out: dict[str, Any] = {"type": self.type}
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if value != item.default:
                out[item.name] = _listed(value)
        return out


@dataclass(frozen=True, kw_only=True)
class Monotone(Prior):
    """An answer that does not fall (or does not rise) when an input does: the network is asked again with the input a
    quarter of a standard deviation higher, and charged for how far the answer goes the wrong way, in deviations of the
    answer for one of the input (of a yes/no answer: of its probability). Costs a second pass of the network."""

    type: ClassVar[str] = "monotone"

    of: str = told("the output: a number, or yes/no")
    along: str = told("the input: a number")
    direction: Literal["up", "down"] = told(
        "up: the answer may not fall where the input rises; down: not rise", "up", names=False
    )

    def check(self, inputs: Fields, outputs: Fields) -> None:
        _one_of(self, "of", self.of, outputs, Number, Boolean)
        _one_of(self, "along", self.along, inputs, Number)

    def loss(self, seen: "Seen") -> "Tensor":
        higher = seen.again({self.along: seen.number(self.along) + STEP * seen.deviation(self.along)})
        rise: Tensor = (_level(higher, self.of) - _level(seen, self.of)) / STEP
        return (-rise if self.direction == "up" else rise).relu()


@dataclass(frozen=True, kw_only=True)
class Sum(Prior):
    """Predicted numbers that add up to a constant or to an input (what goes in comes out): Huber's loss of what is
    missing, in deviations of a sum of numbers that have nothing to do with each other. Lists add up whole."""

    type: ClassVar[str] = "sum"

    of: tuple[str, ...] = told("the outputs: numbers")
    to: float | str = told("a number, or the name of an input")

    def check(self, inputs: Fields, outputs: Fields) -> None:
        _some(self, "of", self.of)
        for name in self.of:
            _one_of(self, "of", name, outputs, Number)
        if isinstance(self.to, str):
            _one_of(self, "to", self.to, inputs, Number)

    def loss(self, seen: "Seen") -> "Tensor":
        import torch

        from endwise import losses

        total = torch.stack([_whole(seen.number(name)) for name in self.of]).sum(0)
        wanted = _whole(seen.number(self.to)) if isinstance(self.to, str) else torch.full_like(total, self.to)
        scale = sum(seen.deviation(name) ** 2 for name in self.of) ** 0.5
        return losses.huber(total / scale, wanted / scale)


@dataclass(frozen=True, kw_only=True)
class Range(Prior):
    """A predicted number within bounds, which may be inputs: how far it is outside, in deviations of the answer."""

    type: ClassVar[str] = "range"

    of: str = told("the output: a number")
    low: float | str | None = told("a number, or the name of an input; null: no bound", None)
    high: float | str | None = told("a number, or the name of an input; null: no bound", None)

    def check(self, inputs: Fields, outputs: Fields) -> None:
        _one_of(self, "of", self.of, outputs, Number)
        bounds = [bound for bound in (self.low, self.high) if bound is not None]
        _some(self, "low", bounds)
        for name in (bound for bound in bounds if isinstance(bound, str)):
            _one_of(self, "low or high", name, inputs, Number)
        ends = [bound for bound in bounds if not isinstance(bound, str)]
        require(
            len(ends) < 2 or ends[0] < ends[1],
            field=f"{self.term}.low",
            got=self.low,
            allowed=f"a number below high = {self.high}",
            fix="exchange the two",
        )

    def loss(self, seen: "Seen") -> "Tensor":
        value, outside = seen.number(self.of), 0.0
        if self.low is not None:
            outside = outside + (_bound(seen, self.low, value) - value).relu()
        if self.high is not None:
            outside = outside + (value - _bound(seen, self.high, value)).relu()
        found: Tensor = _whole(outside) / seen.deviation(self.of)
        return found


@dataclass(frozen=True, kw_only=True)
class Consistent(Prior):
    """Two answers that do not contradict each other: -log of the chance that their classes are a possible pair (semantic
    loss, Xu, Zhang, Friedman, Liang & Van den Broeck 2018). Classes of yes/no are true and false."""

    type: ClassVar[str] = "consistent"

    of: tuple[str, ...] = told("two outputs: category or boolean")
    impossible: tuple[tuple[Any, ...], ...] = told(
        "pairs of classes that cannot be together: [[rain, dry], [snow, hot]]"
    )

    def check(self, inputs: Fields, outputs: Fields) -> None:
        _some(self, "impossible", self.impossible)
        for what, items in (("of", (self.of,)), ("impossible", self.impossible)):
            for pair in items:
                require(
                    len(pair) == 2, field=f"{self.term}.{what}", got=list(pair), allowed="pairs", fix="give two of them"
                )
        for name in self.of:
            _one_of(self, "of", name, outputs, Category, Boolean)

    def loss(self, seen: "Seen") -> "Tensor":
        one, other = (seen.probabilities(name) for name in self.of)
        pairs = [
            [seen.class_id(name, cls) for name, cls in zip(self.of, pair, strict=True)] for pair in self.impossible
        ]
        first, second = zip(*pairs, strict=True)
        contradiction = (one[:, list(first)] * other[:, list(second)]).sum(1)
        possible: Tensor = (1 - contradiction).clamp(min=0) + SLACK
        return -possible.log().clamp(max=0)


@dataclass(frozen=True, kw_only=True)
class Shape(Prior):
    """What is known of the shape of one class of a mask, such as an organ: how large it is (Kervadec et al. 2019,
    Constrained-CNN losses), that it is in one place, that its surface is smooth (after Dolz, Ben Ayed & Desrosiers 2017,
    Unbiased shape compactness). Measured on the probabilities: each is charged as a share of what is allowed. Lengths are
    millimetres in volumes whose masks say their spacing, else places (voxels, pixels). Values must be seen whole."""

    type: ClassVar[str] = "shape"

    of: str = told("the output: a mask of a picture or a volume")
    label: str = told("the class", names=False)
    size: tuple[float, ...] | None = told("the smallest and the largest size; null: any", None, names=False)
    spread: float | None = told(
        "at most how far its places are from their middle, as a root mean square: two pieces lie apart; null: any", None, names=False
    )  # fmt: skip
    rough: float | None = told(
        "at most how many times the surface of a ball of its size it has (in a picture the outline of a disc); null: any", None, names=False
    )  # fmt: skip

    def check(self, inputs: Fields, outputs: Fields) -> None:
        _one_of(self, "of", self.of, outputs, Mask)
        _some(self, "size", [item for item in (self.size, self.spread, self.rough) if item is not None])
        _above(self, "spread", self.spread, 0.0)
        _above(self, "rough", self.rough, 1.0)
        _ordered(self, "size", self.size, "[800, 2400]")

    def loss(self, seen: "Seen") -> "Tensor":
        import torch

        from endwise.nn.placing import centres, seen_at

        item, contract = seen.fields[self.of], seen.contracts[self.of]
        assert isinstance(item, Mask)
        if self.label not in contract.classes:
            raise unknown_name(field=f"{self.term}.label", got=self.label, names=contract.classes)
        self._check_whole(seen, item.under())
        found = seen.answer(self.of)
        place, sizes = found["seen"].float(), found["sizes"].float()
        chances = found["scores"].softmax(1)[:, contract.classes.index(self.label)]
        canvas, axes = tuple(chances.shape[1:]), chances.dim() - 1
        step = torch.tensor(getattr(contract, "spacing_mm", None) or (1.0,) * axes, device=chances.device)
        points = seen_at(place, centres(canvas, chances.device).expand(len(chances), -1, -1))
        inside = ((points >= 0) & (points < 1)).all(2).reshape(chances.shape)
        mass = torch.where(inside, chances, 0.0)
        cells, cost = mass.flatten(1).sum(1), torch.zeros(len(mass), device=mass.device)
        if self.size is not None:
            low, high = self.size
            share = torch.linalg.det(place[:, :, :-1]).abs() * (sizes * step).prod(1) / mass[0].numel()
            cost = cost + ((low - cells * share).relu() + (cells * share - high).relu()) / high
        if self.spread is not None:
            cost = cost + (_spread(mass.flatten(1), points * (sizes * step)[:, None]) / self.spread - 1).relu()
        if self.rough is not None:
            cost = (
                cost
                + (_faces(mass, inside) / (_ball(axes) * cells.clamp(min=1) ** (1 - 1 / axes)) / self.rough - 1).relu()
            )
        return cost

    def _check_whole(self, seen: "Seen", on: str) -> None:
        sides, largest = seen.fields[on].patch(seen.contracts[on]), getattr(seen.contracts[on], "largest", ())
        require(
            not exceeds(largest, sides), field=self.term, got=f"{on} of up to {' x '.join(map(str, largest))}, seen in patches",
            allowed="values that are seen whole: of a patch nobody knows how large the rest is",
            fix=f"write a larger {on}.seen_voxels, a coarser spacing_mm, or remove the prior",
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Extent(Prior):
    """What is known of how large the things in boxes are, as they are measured in the boxes' unit: the length of each side,
    and how long a box is beside its width (a bound on its size, as Kervadec et al. 2019 put one on a mask's). Every box that
    the network proposes is charged as a share of what is allowed, by how sure it is: so an impossible box changes its form, or
    is given up. A box that ends where the value ends may be cut there, and is not too small."""

    type: ClassVar[str] = "extent"

    of: str = told("the output: boxes of a picture or a volume")
    label: str | None = told("the class; null: all", None, names=False)
    sides: tuple[float, ...] | None = told(
        "the smallest and the largest length of a side; null: any", None, names=False
    )
    long: float | None = told(
        "at most how many times its shortest side the longest one is; null: any", None, names=False
    )

    def check(self, inputs: Fields, outputs: Fields) -> None:
        _one_of(self, "of", self.of, outputs, Boxes)
        _some(self, "sides", [item for item in (self.sides, self.long) if item is not None])
        _above(self, "long", self.long, 1.0)
        _ordered(self, "sides", self.sides, "[3, 12]")

    def loss(self, seen: "Seen") -> "Tensor":
        import torch

        item, contract = seen.fields[self.of], seen.contracts[self.of]
        assert isinstance(item, Boxes)
        if self.label is not None and self.label not in contract.classes:
            raise unknown_name(field=f"{self.term}.label", got=self.label, names=contract.classes)
        found = seen.answer(self.of)
        low, high = found["boxes"].float().chunk(2, dim=2)
        whole = seen.predictions[self.of]["sizes"].float()[:, None] if item.in_pixels else torch.ones_like(low)
        if low.shape[2] == PICTURE:
            whole = whole.flip(-1)  # boxes of pictures are written across before down
        if item.world_of is not None:
            step = low.new_tensor(seen.contracts[item.world_of].spacing_mm)
            low, high, whole = low * step, high * step, whole * step
        length = (high - low).clamp(min=SLACK * whole)
        cost = torch.zeros_like(length[..., 0])
        if self.sides is not None:
            least, most = self.sides
            cut = (low <= EDGE * whole) | (high >= (1 - EDGE) * whole)
            short = torch.where(cut, 0.0, (least - length).relu())
            cost = cost + ((short + (length - most).relu()) / most).sum(2)
        if self.long is not None:
            cost = cost + (length.amax(2) / length.amin(2) / self.long - 1).clamp(0.0, 1.0)
        sure = found["scores"].float()
        if self.label is not None:
            sure = torch.where(found["classes"] == contract.classes.index(self.label), sure, 0.0)
        charged: Tensor = (sure * cost).sum(1) / sure.detach().sum(1).clamp(min=1.0)
        return charged


def _spread(mass: "Tensor", where: "Tensor") -> "Tensor":
    """Root mean square distance [batch] from the middle, of mass [batch, place] at places [batch, place, axis]."""
    whole = mass.sum(1, keepdim=True).clamp(min=SLACK)
    middle = (mass[..., None] * where).sum(1, keepdim=True) / whole[..., None]
    found: Tensor = ((mass * (where - middle).square().sum(2)).sum(1) / whole[:, 0] + SLACK).sqrt()
    return found


def _faces(mass: "Tensor", inside: "Tensor") -> "Tensor":
    """Between neighbours that differ, [batch]: the total variation."""
    import torch

    found = torch.zeros(len(mass), device=mass.device)
    for axis in range(1, mass.dim()):
        side = mass.shape[axis] - 1
        both = inside.narrow(axis, 0, side) & inside.narrow(axis, 1, side)
        found = found + torch.where(both, mass.diff(dim=axis).abs(), 0.0).flatten(1).sum(1)
    return found


def _ball(axes: int) -> float:
    """Faces of a digital ball of one cell's size (a disc, with two axes): half as many again as its surface (4 / pi times)."""
    return 1.5 * (36 * math.pi) ** (1 / 3) if axes == 3 else 8 / math.sqrt(math.pi)


BUILT_IN: dict[str, type[Prior]] = {prior.type: prior for prior in (Monotone, Sum, Range, Consistent, Shape, Extent)}


@dataclass(frozen=True, kw_only=True)
class Recorded(Prior):
    """A prior of a class from outside the package, as a run or a model remembers it: enough to predict and to report, not
    to train."""

    type: ClassVar[str] = "recorded"

    values: Mapping[str, Any]

    @property
    def term(self) -> str:
        return f"prior.{self.values.get('name') or self.values['type']}"

    def to_dict(self) -> dict[str, Any]:
        return dict(self.values)

    def loss(self, seen: "Seen") -> "Tensor":
        raise refusal(
            field="objective.priors",
            got=str(self.values["type"]),
            allowed=f"one of {', '.join(BUILT_IN)}, or an object of its class",
            fix="train it from Python, with the class that it was made of",
        )


def remembered(values: Any) -> Any:
    """The `priors` of a recipe that is read from a run or a model: those of unknown type as Recorded."""
    if not isinstance(values, Sequence) or isinstance(values, str):
        return values
    return [
        Recorded(values=item)
        if isinstance(item, Mapping) and isinstance(item.get("type"), str) and item["type"] not in BUILT_IN
        else item
        for item in values
    ]


def prior_of(value: Any, where: str) -> Prior:
    """A prior from its mapping ({type: range, of: price, low: 0}) or itself."""
    if isinstance(value, Prior):
        return value
    require(
        isinstance(value, Mapping) and "type" in value,
        field=where,
        got=value,
        allowed="a mapping with 'type', or in Python an object of your class",
        fix="write {type: range, of: price, low: 0}",
    )
    fields = dict(value)
    kind = fields.pop("type")
    if kind not in BUILT_IN:
        raise unknown_name(field=f"{where}.type", got=str(kind), names=BUILT_IN)
    cls = BUILT_IN[kind]
    known = {item.name: item for item in dataclasses.fields(cls)}
    for name in fields:
        if name not in known:
            raise unknown_name(field=f"{where}: field of type {kind!r}", got=str(name), names=[*known, "type"])
    for name, item in known.items():
        require(
            name in fields or item.default is not MISSING,
            field=f"{where}.{name}",
            got=None,
            allowed=item.metadata["help"],
            fix=f"write {name}:",
        )
    if isinstance(fields.get("of"), str) and typing.get_origin(known["of"].type) is tuple:
        fields["of"] = (fields["of"],)
    try:
        return cls(**{name: frozen(item) for name, item in fields.items()})
    except RecipeError as wrong:
        raise RecipeError(f"{where}: {wrong}") from None


def _one_of(prior: Prior, field: str, name: str, there: Fields, *kinds: type[Modality]) -> None:
    """The name must be that of a field of one of these kinds; a number is a plain one where it is compared."""
    fit = [other for other, item in there.items() if isinstance(item, kinds)]
    what = " or ".join(kind.type for kind in kinds)
    require(
        name in fit,
        field=f"{prior.term}.{field}",
        got=name,
        allowed=f"one of type {what}: {', '.join(fit) or 'there is none'}",
        fix="name one of those, or remove the prior",
    )


def _some(prior: Prior, field: str, values: Sequence[Any]) -> None:
    require(
        len(values) > 0,
        field=f"{prior.term}.{field}",
        got=None,
        allowed="at least one",
        fix=f"write {field}: with a value",
    )


def _above(prior: Prior, field: str, value: float | None, least: float) -> None:
    require(
        value is None or value > least, field=f"{prior.term}.{field}", got=value, allowed=f"a number above {least:g}",
        fix="measure it on a few labels, and leave room",
    )  # fmt: skip


def _ordered(prior: Prior, field: str, bounds: tuple[float, ...] | None, example: str) -> None:
    require(
        bounds is None or (len(bounds) == 2 and 0 <= bounds[0] < bounds[1]), field=f"{prior.term}.{field}",
        got=bounds, allowed="two numbers, the smaller one first", fix=f"write {field}: {example}",
    )  # fmt: skip


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, tuple) else value


def _level(seen: "Seen", output: str) -> "Tensor":
    """An answer in deviations; of yes/no, the probability of yes."""
    if isinstance(seen.fields[output], Number):
        return seen.plain(output) / seen.deviation(output)
    return seen.probabilities(output)[:, 1]


def _bound(seen: "Seen", bound: float | str, like: "Tensor") -> Any:
    return seen.plain(bound).reshape(-1, *[1] * (like.ndim - 1)) if isinstance(bound, str) else bound


def _whole(values: Any) -> Any:
    """The sum of each row."""
    return values.flatten(1).sum(1) if values.ndim > 1 else values
