"""The network side of pictures: from stored pixels to a grid of tokens.

Scaling, resizing to one canvas, normalising by the contract, augmentation and the encoder, all in the graph, and
differentiable down to the pixels. The canvas is the contract's, bounded by the size dial unless `side_px` says it.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from endwise.modalities.image import LITE_NAMES, OWN_SIDE_PX, Image, ImageContract, canvas
from endwise.nn.blocks import Transformer
from endwise.nn.efficientnet import FEATURES, EfficientNetLite
from endwise.nn.hiding import NumberRestorer, hidden_places
from endwise.nn.interface import Encoder, Hidden, Map, Tokens
from endwise.nn.placing import Placed, in_place
from endwise.nn.pretrained import MEMORY_BYTES, Memory, Outlet, Pretrained
from endwise.nn.size import Size
from endwise.nn.vision import Changes, ConvNet, augment, resize, resize_alike, scaled

if TYPE_CHECKING:
    from collections.abc import Sequence

SIDE_PX_BY_DIAL = {1: 96, 2: 128, 3: 224, 4: 224}  # of the canvas's area; cost grows with its square
STEM_SIDE_PX = 48  # the stem halves larger canvases to about this
TOKENS_A_SIDE = 8
HIDDEN_SHARE = 0.5  # of the patches
ASKED_PX = 8  # a side of a patch is asked for at no more than that: finer texture cannot be known
AUTO_ZOOM, AUTO_TURN_DEG, AUTO_LIGHT, AUTO_SHIFT = 0.15, 5.0, 0.2, 0.125


class PictureEncoder(Encoder):
    """What every picture encoder shares: stored pixels to a normalised canvas, changed at random in training.

    `augment` False leaves the training pictures as they are.
    """

    colours = 1
    mean: Tensor
    deviation: Tensor

    def __init__(self, declared: Image, contract: ImageContract, size: Size, *, multiple: int = 1) -> None:
        super().__init__()
        pretrained = contract.weights is not None
        self.height, self.width = self.canvas_px = _canvas(declared, contract, None if pretrained else size, multiple)
        self.alike = contract.uniform
        self.changes = _changes(declared, math.sqrt(self.height * self.width))
        scale = contract.weights["scale"] if contract.weights is not None else {}
        self.register_buffer("mean", torch.tensor(scale.get("mean", contract.mean)), persistent=False)
        self.register_buffer("deviation", torch.tensor(scale.get("std", contract.deviation)), persistent=False)

    def canvas(
        self, values: Tensor, sizes: Int[Tensor, "batch 2"]
    ) -> tuple[Float[Tensor, "batch channel height width"], Placed]:
        """`still`, changed at random in training."""
        x, placed = self.still(values, sizes)
        if self.training and self.augment:
            x, seen = augment(x, self.changes)
            placed = Placed(placed.canvas, sizes, seen, x)
        return x, placed

    def still(
        self, values: Tensor, sizes: Int[Tensor, "batch 2"]
    ) -> tuple[Float[Tensor, "batch channel height width"], Placed]:
        """Pixels [batch, height, width, channel] of any sizes -> float32 [batch, channel, canvas height, width], and where
        they lie on it."""
        x = scaled(values)
        if self.training and self.alike and not torch.compiler.is_exporting():
            x = resize_alike(x, self.height, self.width)  # training rows are what the contract was fitted on
        elif torch.compiler.is_exporting():
            x = resize(x, sizes, self.height, self.width)
        else:
            with torch.autocast(x.device.type, enabled=False):
                x = resize(x, sizes, self.height, self.width)
        x = ((x - self.mean) / self.deviation).permute(0, 3, 1, 2)
        return x, Placed((self.height, self.width), sizes, in_place(x.shape[0], 2, x.device), x)

    def forward(self, values: Tensor, sizes: Int[Tensor, "batch 2"]) -> Tokens:
        """Grid tokens, row by row."""
        return self.told(*self.canvas(values, sizes))

    def told(self, x: Float[Tensor, "batch channel height width"], placed: Placed) -> Tokens:
        """Grid tokens of canvases, row by row."""
        raise NotImplementedError

    def looked_up(self) -> None:
        """Pixels are numbers."""

    def as_numbers(self, values: Tensor) -> Tensor:
        """Full scale = 1."""
        return scaled(values)

    def neutral(self, values: Tensor, sizes: Int[Tensor, "batch 2"], found: Tensor) -> Tensor:
        """The mean colour of the training pictures."""
        return self.mean.to(found.dtype).expand_as(found)

    def hidden_in(
        self, x: Float[Tensor, "batch channel height width"], grid: tuple[int, int], share: float
    ) -> tuple[Float[Tensor, "batch channel height width"], dict[str, Hidden]]:
        """The canvas with a share of its patches, one for each token of the grid, at the mean colour; and their pixels.
        With a share of 0, as it is."""
        if not share:
            return x, {}
        down, across = grid
        real = torch.ones(x.shape[0], down * across, dtype=torch.bool, device=x.device)
        where = hidden_places(real, share, training=self.training)
        tall, wide = _asked(self.height, down), _asked(self.width, across)
        stood = x.permute(0, 2, 3, 1)
        if (down * tall, across * wide) != (self.height, self.width):
            sizes = torch.tensor([self.height, self.width], device=x.device).expand(x.shape[0], 2)
            stood = resize(stood, sizes, down * tall, across * wide)
        stood = rearrange(stood, "b (gh h) (gw w) c -> b (gh gw) (h w c)", gh=down, gw=across)
        patches = rearrange(where, "b (gh gw) -> b gh gw", gh=down)
        rows = torch.arange(self.height, device=x.device) * down // self.height
        columns = torch.arange(self.width, device=x.device) * across // self.width
        covered = patches.index_select(1, rows).index_select(2, columns)
        return x.masked_fill(covered[:, None], 0.0), {"image": Hidden(where, stood)}

    def restores(self, width: int, grid: tuple[int, int], channels: int) -> nn.Module:
        """What says the pixels that `hidden_in` hides."""
        return NumberRestorer(width, _asked(self.height, grid[0]) * _asked(self.width, grid[1]) * channels)


class ConvEncoder(PictureEncoder):
    """The residual convolutional net; the tokens are its last feature map, the levels those of its stem and all stages."""

    peak_rate, peak_batch = 5e-3, 32

    def __init__(self, declared: Image, contract: ImageContract, size: Size) -> None:
        super().__init__(declared, contract, size)
        self.net, self.maps = conv_net(contract.channels, self.canvas_px, size)
        self.project = nn.Linear(self.maps[-1].channels, size.width, bias=False)
        self.norm = nn.LayerNorm(size.width)
        self.channels, self.hidden_share = contract.channels, 0.0

    @property
    def grid(self) -> tuple[int, int]:
        """Of the last feature map: each convolution with a stride and each pooling halves it, rounded up."""
        down, across = self.maps[-1].stride
        return math.ceil(self.height / down), math.ceil(self.width / across)

    def restorer(self, share: float | None) -> nn.Module:
        """Patches of the canvas are hidden before the first convolution, so that none of it looks around their edges."""
        self.hidden_share = share or HIDDEN_SHARE
        return self.restores(self.project.out_features, self.grid, self.channels)

    def told(self, x: Float[Tensor, "batch channel height width"], placed: Placed) -> Tokens:
        """Grid tokens, row by row."""
        x, hidden = self.hidden_in(x, self.grid, self.hidden_share)
        levels = self.net(x)
        last = levels[-1]
        tokens = self.norm(self.project(last.flatten(2).transpose(1, 2)))
        return on_grid(tokens, (last.shape[2], last.shape[3]), placed, levels, hidden)


class PatchEncoder(PictureEncoder):
    """A vision transformer (Dosovitskiy et al. 2021) with a convolution before the patches, which spares it much data
    (Xiao et al. 2021). Needs more training pictures than the convolutional net to be as good."""

    peak_rate = 1e-3

    def __init__(self, declared: Image, contract: ImageContract, size: Size) -> None:
        side = math.sqrt(math.prod(_canvas(declared, contract, size, 1)))
        patch = max(2, 2 ** round(math.log2(side / TOKENS_A_SIDE)))
        super().__init__(declared, contract, size, multiple=patch)
        self.grid = (self.height // patch, self.width // patch)
        early = max(16, size.width // 4)
        self.early = nn.Sequential(nn.Conv2d(contract.channels, early, 3, stride=2, padding=1), nn.GELU())
        self.patches = nn.Conv2d(early, size.width, patch // 2, stride=patch // 2)
        self.place = nn.Parameter(torch.randn(1, math.prod(self.grid), size.width) * 0.02)
        self.blocks = Transformer(size, causal=False)
        self.channels, self.hidden_share = contract.channels, 0.0
        self.maps = (_map(early, 2), _map(size.width, patch))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def restorer(self, share: float | None) -> nn.Module:
        """Patches of the canvas are hidden before the first convolution."""
        self.hidden_share = share or HIDDEN_SHARE
        return self.restores(self.place.shape[2], self.grid, self.channels)

    def told(self, x: Float[Tensor, "batch channel height width"], placed: Placed) -> Tokens:
        """One token a patch, row by row."""
        x, hidden = self.hidden_in(x, self.grid, self.hidden_share)
        early = self.early(x)
        x = self.patches(early).flatten(2).transpose(1, 2) + self.place
        mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        tokens = self.blocks(x, mask)
        level = tokens.transpose(1, 2).unflatten(2, self.grid)
        return on_grid(tokens, self.grid, placed, [early, level], hidden)


class PretrainedPicture(PictureEncoder):
    """A pretrained network on the canvas: the tokens are its last feature map, or its patches without the class token.

    Pictures are scaled as the weights' own were. A transformer's places are interpolated where the canvas is not the
    one it was trained on.
    """

    def __init__(self, declared: Image, contract: ImageContract, size: Size, folder: Callable[[], Path]) -> None:
        assert contract.weights is not None
        config, self.own = contract.weights["config"], contract.weights["family"] in LITE_NAMES
        self.patch = int(config.get("patch_size", 0)) if contract.weights["family"] in ("vit", "dinov2") else 0
        super().__init__(declared, contract, size, multiple=self.patch or 1)
        self.pretrained = Pretrained(contract.weights, declared.tuning(), folder)
        if self.own:
            channels = FEATURES
        elif self.patch:
            channels = int(self.pretrained.config.hidden_size)
        else:
            channels = int(self.pretrained.config.hidden_sizes[-1])
        self.outlet = Outlet(channels, size)
        self.maps = self._maps()
        self.memory: Memory | None = None

    def _maps(self) -> tuple[Map, ...]:
        """Of the architectures: a stage halves the sides, the first one of a ResNet where its config says so; a transformer
        has one map."""
        config = self.pretrained.config if not self.own else None
        if config is None:
            assert isinstance(self.pretrained.network, EfficientNetLite)
            channels = self.pretrained.network.map_channels
            return tuple(_map(count, 4 << stage) for stage, count in enumerate(channels))
        if self.patch:
            return (_map(int(config.hidden_size), self.patch),)
        first = int(getattr(config, "patch_size", 4)) << bool(getattr(config, "downsample_in_first_stage", False))
        return tuple(_map(int(count), first << stage) for stage, count in enumerate(config.hidden_sizes))

    def load_pretrained(self) -> None:
        """From the folder."""
        self.pretrained.load()

    def recall(self, rows: int) -> None:
        """Where nothing of the network learns, no picture is changed and there is place for what it says of all of them. (An accelerator
        asks again sooner than it would have the pixels back to hash them.)"""
        fixed = self.pretrained.tuning.way == "frozen" and not self.augment and self.mean.device.type == "cpu"
        cells = [
            math.prod(math.ceil(px / step) for px, step in zip(self.canvas_px, level.stride, strict=True))
            for level in self.maps
        ]
        each = 4 * sum(level.channels * count for level, count in zip(self.maps, cells, strict=True))
        self.memory = Memory() if fixed and rows * each <= MEMORY_BYTES else None

    def told(self, x: Float[Tensor, "batch channel height width"], placed: Placed) -> Tokens:
        """Grid tokens, row by row."""
        recalled = self.memory if self.training else None
        levels = self.levels(x) if recalled is None else recalled.said(x, self.levels)
        last = levels[-1]
        tokens = self.outlet(last.flatten(2).transpose(1, 2))
        return on_grid(tokens, (last.shape[2], last.shape[3]), placed, levels, {})

    def levels(self, x: Tensor) -> "Sequence[Tensor]":
        """Feature maps [batch, channel, height, width], the last one for the tokens."""
        if self.own:
            found: list[Tensor] = self.pretrained(x)
            return found
        if not self.patch:
            said = self.pretrained(pixel_values=x, output_hidden_states=True)
            return [*said.hidden_states[1:-1], said.last_hidden_state]  # the last one after its norm, where it has one
        grid = (self.height // self.patch, self.width // self.patch)
        places = {"interpolate_pos_encoding": True} if self.pretrained.config.model_type == "vit" else {}
        hidden = self.pretrained(pixel_values=x, **places).last_hidden_state[:, -grid[0] * grid[1] :]
        return [hidden.transpose(1, 2).unflatten(2, grid)]


def _map(channels: int, stride_px: float) -> Map:
    return Map(channels, (float(stride_px), float(stride_px)))


def conv_net(channels: int, canvas: tuple[int, ...], size: Size) -> tuple[ConvNet, tuple[Map, ...]]:
    """The net for a canvas, and the maps that it gives. Widths follow the dial: a quarter, a half, once and twice the token
    width; `depth` residual blocks, given to the stages from the last to the first in turn."""
    widths = tuple(max(8, size.width * times // 4) for times in (1, 2, 4, 8))
    halvings = max(0, round(math.log2(math.sqrt(math.prod(canvas)) / STEM_SIDE_PX)))
    net = ConvNet(channels, widths, _dealt(size.depth, len(widths) - 1), halvings=halvings)
    return net, tuple(_map(width, 2 ** (halvings + stage)) for stage, width in enumerate(widths))


def on_grid(
    tokens: Tensor,
    grid: tuple[int, int],
    placed: Placed,
    levels: "Sequence[Tensor]",
    hidden: dict[str, Hidden],
) -> Tokens:
    """Tokens of a picture, row by row of a grid over its canvas."""
    return Tokens(
        values=tokens,
        mask=torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device),
        grids={"image": (grid, (placed.canvas[0] / grid[0], placed.canvas[1] / grid[1]))},
        levels={"image": list(levels)},
        placed={"image": placed},
        hidden=hidden,
    )


def _asked(length: int, places: int) -> int:
    """Pixels a side of a patch that are asked for."""
    return max(1, min(ASKED_PX, round(length / places)))


def _canvas(declared: Image, contract: ImageContract, size: Size | None, multiple: int) -> tuple[int, int]:
    """The contract's canvas, no larger than the dial's (pretrained weights have none), rounded to whole patches."""
    height, width = contract.height, contract.width
    side = math.sqrt(height * width)
    most = SIDE_PX_BY_DIAL[size.dial] if size is not None else math.inf
    if declared.side_px is None and side > most:
        height, width = canvas(height, width, float(most))
    return tuple(max(1, round(length / multiple)) * multiple for length in (height, width))  # type: ignore[return-value]


def _changes(declared: Image, side: float) -> Changes:
    """What `null` means for a canvas of this side."""
    large = side > OWN_SIDE_PX

    def auto(given: float | None, otherwise: float) -> float:
        return otherwise if given is None else given

    return Changes(
        mirror=bool(declared.mirror),
        shift=auto(declared.shift_share, AUTO_SHIFT),
        zoom=auto(declared.zoom_share, AUTO_ZOOM if large else 0.0),
        turn_deg=auto(declared.turn_deg, AUTO_TURN_DEG if large else 0.0),
        light=auto(declared.light_share, AUTO_LIGHT if large else 0.0),
        erase=declared.erase_share,
    )


def _dealt(blocks: int, stages: int) -> tuple[int, ...]:
    """Blocks dealt one by one from the last stage to the first: 2 of 3 stages are (0, 1, 1), 4 are (1, 1, 2)."""
    return tuple(blocks // stages + (stage >= stages - blocks % stages) for stage in range(stages))
