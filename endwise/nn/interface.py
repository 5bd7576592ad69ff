"""What a modality's network side must be: an Encoder for inputs, a Head for outputs, and Tokens between them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from endwise.errors import refusal
from endwise.nn.placing import Placed

Grid = tuple[tuple[int, ...], tuple[float, ...]]  # (shape in tokens, stride in raw units per axis)
Aim = Callable[[dict[str, Tensor]], Tensor]  # predictions of some rows -> how much of one answer is in each, [batch]


@dataclass(frozen=True)
class Hidden:
    """What an encoder kept from the network. where: the tokens whose raw values it hid. stood: [batch, token, own], what
    was there, as the encoder's `restorer` takes it."""

    where: Bool[Tensor, "batch token"]
    stood: Tensor


@dataclass(frozen=True)
class Handed:
    """What a head says, as the next stage takes it. hard: what was decoded, [batch, *sizes]: symbols (int64), 0 and 1, or
    values. scores: what it was decoded from, as far as a gradient can go back through it: one for each symbol
    [batch, *sizes, symbol], or with `each`, which are questions of their own, of the shape of `hard`. None: `hard` itself is
    a value with a gradient."""

    hard: Tensor
    sizes: Int[Tensor, "batch axes"]
    scores: Tensor | None = None
    each: bool = False


@dataclass(frozen=True)
class Map:
    """A feature map of an encoder: its channels, and how many pixels of the canvas a cell is long along each axis. Cell i
    stands for the pixels from i x stride to (i + 1) x stride; the last ones may reach beyond the canvas."""

    channels: int
    stride: tuple[float, ...]


@dataclass(frozen=True)
class Observed:
    """The steps of a series as its encoder got them: values in deviations of the training rows, 0 where nothing is there."""

    values: Float[Tensor, "batch step channel"]
    there: Bool[Tensor, "batch step channel"]

    def of(self, present: Bool[Tensor, " batch"]) -> "Observed":
        """The same, with nothing there in rows without the input."""
        there = self.there & present[:, None, None]
        return Observed(torch.where(there, self.values, 0.0), there)


@dataclass(frozen=True)
class Poses:
    """Of each agent of an input where it was seen last (raw units), the unit vector that it faces along, how far it came in its
    last step (seen along `facing`), and how many steps ago that was."""

    origin: Float[Tensor, "batch agent 2"]
    facing: Float[Tensor, "batch agent 2"]
    pace: Float[Tensor, "batch agent 2"]
    late: Float[Tensor, "batch agent"]

    def of(self, present: Bool[Tensor, " batch"]) -> "Poses":
        """The same, with everybody standing at the origin in rows without the input."""
        there = present[:, None, None]
        along = self.facing.new_tensor([1.0, 0.0]).expand_as(self.facing)
        return Poses(
            torch.where(there, self.origin, 0.0),
            torch.where(there, self.facing, along),
            torch.where(there, self.pace, 0.0),
            torch.where(there[..., 0], self.late, 0.0),
        )


@dataclass(frozen=True)
class Tokens:
    """The common representation: values [batch, token, width] and which of them are real.

    spans: {input: slice} where each input's tokens lie. grids: {input: (shape, stride)} for inputs whose tokens lie on
    a grid of the raw value (pixels, samples), row by row. levels: {input: feature maps [batch, channel, *shape], the finest
    first}, those of `Encoder.maps`: before the trunk, and of no meaning in rows without the input. placed: {input:
    where its raw values lie on the canvas}, of inputs that an output can lie on. observed: {input: its own steps}, of series
    that an output may continue.
    present: {input: bool [batch]}, which rows have it; the others' tokens are a learnt stand-in. own_values: the values
    before the trunk, where there is one. known: of an input that is heard in pieces, how much of it (seconds, units) has
    to be there before a token is known. hidden: {input: Hidden} of inputs that are partly hidden. symbols: {input: int64
    [batch, token]}, the symbol at each token, of inputs that are made of some and have outputs of the same kind. pair:
    {input: what is known of every two of its tokens}, of inputs that relate them. extents: {input: real sizes under its
    levels}, of inputs whose levels are padded. poses: {input: those of its agents}, of inputs whose tokens are agents.
    full: every token of every row is real, and known to be so before anything is computed.
    """

    values: Float[Tensor, "batch token width"]
    mask: Bool[Tensor, "batch token"]
    spans: dict[str, slice] = field(default_factory=dict)
    grids: dict[str, Grid] = field(default_factory=dict)
    levels: dict[str, list[Tensor]] = field(default_factory=dict)
    placed: dict[str, Placed] = field(default_factory=dict)
    observed: dict[str, Observed] = field(default_factory=dict)
    present: dict[str, Bool[Tensor, " batch"]] = field(default_factory=dict)
    own_values: Float[Tensor, "batch token width"] | None = None
    known: Float[Tensor, "batch token"] | None = None
    hidden: dict[str, Hidden] = field(default_factory=dict)
    symbols: dict[str, Int[Tensor, "batch token"]] = field(default_factory=dict)
    pair: dict[str, Float[Tensor, "batch token token channel"]] = field(default_factory=dict)
    extents: dict[str, Int[Tensor, "batch axes"]] = field(default_factory=dict)
    poses: dict[str, Poses] = field(default_factory=dict)
    full: bool = False

    def with_values(self, values: Float[Tensor, "batch token width"]) -> "Tokens":
        """The same tokens after a layer that keeps their order."""
        return replace(self, values=values)

    def pooled(self) -> Float[Tensor, "batch width"]:
        """Mean over the real tokens."""
        if self.full:
            return self.values.mean(1)
        weight = self.mask.unsqueeze(-1).to(self.values.dtype)
        return (self.values * weight).sum(1) / weight.sum(1).clamp(min=1)


class Encoder(nn.Module):
    """Transformed raw values -> Tokens. Everything between the stored array and the tokens is inside, differentiable
    down to the raw value (for symbols, to their embedding). Augmentation happens when `self.training` and `self.augment`,
    which is what `train.augment` says.

    peak_rate: the learning rate this kind of encoder trains best with; the optimiser gives it a group of its own
    unless the recipe sets `train.learning_rate`. None: the platform's. peak_batch: the rows of a batch from which on that rate is
    meant; smaller batches, whose gradients are noisier, take the root of their share of it (Malladi et al. 2022, "On the SDEs and
    scaling rules for adaptive gradient algorithms"). None: whatever the batch. passes: most passes over the training rows that
    it profits from when its tokens serve a decision; beyond, it learns the rows by heart. None: the platform's. maps: the
    feature maps in `Tokens.levels`, the finest first; canvas_px: the canvas they and `Tokens.placed` are of; reduced: how many
    of the input's own pixels one of its is long, where that is the same for all rows. A head that lies on an input learns
    these in `meet`; empty where nothing can lie on it. single: every value is one token."""

    augment: bool = True
    peak_rate: float | None = None
    peak_batch: int | None = None
    passes: int | None = None
    weight_decay: float | None = None
    maps: tuple[Map, ...] = ()
    canvas_px: tuple[int, ...] = ()
    reduced: float | None = None
    chunk: int | None = None  # of an encoder with `feed`: raw places (samples, units) that make whole tokens
    single: ClassVar[bool] = False
    colours: ClassVar[int] = 0  # trailing axes of a raw number array that are one place (the colours of a pixel)

    def load_pretrained(self) -> None:
        """Fill in weights that come from elsewhere: called once when a network is made to be trained, never when a
        saved one is read. Default: there are none."""

    def recall(self, rows: int) -> None:
        """Called before training on so many different rows. An encoder of which a part never learns and sees the same of a row
        each time may keep what that part says. Default: everything is said anew."""

    def restorer(self, share: float | None) -> nn.Module:
        """Hide about `share` (None: as much as is usual for this kind of value) of what is read from now on, see
        `Tokens.hidden`. Gives the layer that is charged for it: (tokens [place, width], stood [place, own]) -> cost
        [place] in float32. Called once, when a network is made. Default: this encoder cannot hide anything."""
        raise refusal(
            field="Masked.of",
            got=type(self).__name__,
            allowed="an input whose encoder can hide parts of it: text, image or audio without pretrained:, chunk_s: and causal:",
            fix="mask another input, or begin without pretrained weights",
        )

    def forward(self, values: Tensor, sizes: Int[Tensor, "batch axes"]) -> Tokens:
        """values [batch, *largest] as the store gave them (uint8 pixels, int16 or float samples, token ids ...)."""
        raise NotImplementedError

    # What an answer leans on is found by giving the network less of a value, place by place: `neutral` in its stead.

    def looked_up(self) -> nn.Module | None:
        """Of symbols: the layer whose output, [batch, *places, width], stands for them. None: the raw value is numbers.
        Default: the first embedding there is."""
        return next((layer for layer in self.modules() if isinstance(layer, nn.Embedding)), None)

    def as_numbers(self, values: Tensor) -> Tensor:
        """Raw numbers as the floats that `forward` takes in their place. Default: their own values."""
        return values if values.is_floating_point() else values.float()

    def neutral(self, values: Tensor, sizes: Int[Tensor, "batch axes"], found: Tensor) -> Tensor:
        """What says nothing, in the place of `found`: of the vectors that were looked up, or of `as_numbers`. Where it is
        `found` itself there is nothing to leave out. Default: zeros."""
        return torch.zeros_like(found)

    def feed(self, values: Tensor, sizes: Int[Tensor, "batch axes"], past: Any) -> tuple[Tokens, Any]:
        """The tokens of one more piece, whole `chunk`s of it but for the last, and the past of the next piece; the past
        of the first is None. What `forward` gives for all pieces in one, piece by piece, and never changed later."""
        raise NotImplementedError


class Head(nn.Module):
    """Tokens -> a prediction, the loss of that prediction, and its decoding to a final answer (all in the graph).

    own_tokens: True for a head that wants each input's tokens as its encoder gave them, before the trunk mixes them.
    compares_rows: True for a head whose loss sets the rows of a batch against each other. Such a batch is never cut
    into micro-batches, and the target of a row that has none is zero in `loss`. passes: as in `Encoder`, for a head
    that needs another number whatever it reads; it wins. symbols: about how many symbols a row's answer has, for a head
    that writes one after the other: a row is as many decisions, and a batch needs fewer of them; 0 for one decision.
    drafts: how many times as long `decode` takes as `draft`. draws: its answer is one of many, drawn by chance: which
    one, a whole number in its prediction says, 'seed' int64 [batch], 0 from `forward`.
    """

    own_tokens: ClassVar[bool] = False
    compares_rows: ClassVar[bool] = False
    passes: ClassVar[int | None] = None
    symbols: float = 0.0
    drafts: float = 1.0
    streams: bool = False  # has `feed`
    draws: ClassVar[bool] = False

    def load_pretrained(self) -> None:
        """As `Encoder.load_pretrained`."""

    def meet(self, encoders: Mapping[str, Encoder]) -> None:
        """The encoders of all inputs, once, when the network is made: for a head whose target is made by one of them."""

    def forward(self, tokens: Tokens) -> dict[str, Tensor]:
        """Raw predictions by name, batch first: {'logits': ...}."""
        raise NotImplementedError

    def loss(self, prediction: dict[str, Tensor], target: Tensor, sizes: Tensor) -> dict[str, Float[Tensor, " batch"]]:
        """Unreduced terms by name, one value a row (in float32 whatever the autocast). Not divided by anything that
        depends on other rows, unless the head says `compares_rows`. What only helps to learn (smoothed labels) is for
        `self.training`: elsewhere a term is what metrics `of_term` and the published losses are made of."""
        raise NotImplementedError

    def bound(self) -> None:
        """Called after every step: parameters that have limits, back inside them. A clamp on the way to the loss has no
        gradient beyond its limit, so that a parameter would stay there for good. Default: there are none."""

    def weight(self, target: Tensor, sizes: Tensor) -> Float[Tensor, " batch"]:
        """What each row counts for in the mean of its terms (labelled pixels, words ...). Default: one each."""
        return torch.ones(len(target), device=target.device)

    def measures(
        self, prediction: dict[str, Tensor], target: Tensor, sizes: Tensor
    ) -> dict[str, Float[Tensor, "batch 2"]]:
        """What metrics `of_term` look at beside the terms of the loss, by name: two numbers a row that a decoded answer does not
        hold (the place of the truth among all there is). Nothing is learnt from them. Default: nothing."""
        return {}

    def decode(self, prediction: dict[str, Tensor]) -> dict[str, Tensor]:
        """The final answer as tensors (ids, numbers, scores), batch first, exportable: `Modality.write` names them."""
        raise NotImplementedError

    def draft(self, prediction: dict[str, Tensor]) -> dict[str, Tensor]:
        """As `decode`, of an answer that need not be the best one: what validations while training look at. For heads that
        search. Default: `decode`."""
        return self.decode(prediction)

    def handed(self, prediction: dict[str, Tensor], *, greedy: bool) -> Handed:
        """What the carrier of this output's modality takes at the next stage. greedy: the first best answer will do, which
        is found faster than the best. Only of modalities whose `hand_offs` are more than latent."""
        raise NotImplementedError

    def certain(self, target: Tensor) -> dict[str, Tensor]:
        """The prediction that decodes to this target (as in `loss`), for an answer that no network gives. Only of modalities
        that `can_be_told`."""
        raise NotImplementedError

    def sample(
        self, prediction: dict[str, Tensor], *, count: int, temperature: float, top_p: float, chance: torch.Generator
    ) -> dict[str, Tensor]:
        """As `decode`, but `count` answers drawn at random for each row: [batch, draw, ...]. Only of heads that write
        their answer symbol after symbol; the others have one answer and its probabilities."""
        raise NotImplementedError

    def feed(self, tokens: Tokens, past: Any, *, last: bool) -> tuple[dict[str, Tensor], Any]:
        """The answer so far, as `decode` gives it, after one more piece of tokens of one row (none, where the piece before
        was the last to make some), and the past of the next piece; the past of the first is None. What is answered once
        stays. last: the input has ended."""
        raise NotImplementedError

    def aim(self, prediction: dict[str, Tensor], about: tuple[int, ...]) -> Aim:
        """What of an answer is explained, as a number with a gradient: larger, the more of it there is. prediction: of the
        one row whose answer it is; about: which part, as `Modality.about` says it. The answer is decided here and fixed:
        the aim then says how much of *this* answer any prediction holds. Default: the whole prediction, by its
        projection on this one."""
        return onto_itself(prediction, [name for name, value in prediction.items() if value.is_floating_point()])

    def notes(self) -> list[str]:
        """Counted lines for the evaluation: what was left out since the head was made. Default: none."""
        return []

    def uncalibrated(self, prediction: dict[str, Tensor]) -> dict[str, Tensor]:
        """A prediction that decodes to what this one would without the temperature that `calibrate` set: what confidence was
        worth before. Default: itself, of heads that set none."""
        return prediction

    def calibrate(self, prediction: dict[str, Tensor], target: Tensor, sizes: Tensor) -> dict[str, float]:
        """Set decision thresholds and temperatures (buffers) on validation rows; what was set, for the report."""
        return {}


def onto_itself(prediction: dict[str, Tensor], names: Sequence[str]) -> Aim:
    """How much of some of these tensors another prediction holds: their projection, 1 for the same and 0 for none."""
    kept = {name: prediction[name].detach().float() for name in names}
    whole = torch.stack([value.square().sum() for value in kept.values()]).sum().clamp(min=1e-12)

    def left(other: dict[str, Tensor]) -> Tensor:
        parts = [(other[name].float() * value).reshape(len(other[name]), -1).sum(1) for name, value in kept.items()]
        return torch.stack(parts).sum(0) / whole

    return left


def surer(logits: Float[Tensor, "batch place symbol"], said: Int[Tensor, " place"]) -> Float[Tensor, "batch place"]:
    """The log-probability of what was said at each place."""
    return logits.float().log_softmax(-1).gather(2, said[None, :, None].expand(len(logits), -1, 1))[..., 0]
