"""The network side of films: a picture's encoder for every frame, then each place looks along time.

Not here: how a picture becomes tokens (modalities/image/network.py).
"""

import dataclasses

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from endwise.modalities.image.network import PictureEncoder
from endwise.nn.blocks import Transformer
from endwise.nn.interface import Encoder, Tokens
from endwise.nn.placing import Placed, in_place
from endwise.nn.size import Size
from endwise.nn.vision import augment

MIXING_DEPTH = 1


class VideoEncoder(Encoder):
    """Pixels [batch, frame, height, width, channel] of any sizes, and sizes [batch, 3] -> a token for each place, the mean over
    the frames, and a token for each frame, the mean over the places, after each place has looked along time (after the
    factorised encoders of ViViT; Arnab et al. 2021).

    Padding is no part of the batch that norms of pictures look at.
    """

    colours = 1

    def __init__(self, picture: PictureEncoder, size: Size) -> None:
        super().__init__()
        self.picture = picture
        self.peak_rate, self.peak_batch = picture.peak_rate, picture.peak_batch
        self.passes, self.weight_decay = picture.passes, picture.weight_decay
        self.time = Transformer(dataclasses.replace(size, depth=MIXING_DEPTH), causal=False, rotary=True)

    def looked_up(self) -> None:
        """Pixels are numbers."""

    def as_numbers(self, values: Tensor) -> Tensor:
        """Full scale = 1."""
        return self.picture.as_numbers(values)

    def neutral(self, values: Tensor, sizes: Int[Tensor, "batch 3"], found: Tensor) -> Tensor:
        """The mean colour of the training films."""
        return self.picture.mean.to(found.dtype).expand_as(found)

    def load_pretrained(self) -> None:
        """Those of the pictures."""
        self.picture.load_pretrained()

    def forward(self, values: Tensor, sizes: Int[Tensor, "batch 3"]) -> Tokens:
        frames = values.shape[1]
        real = torch.arange(frames, device=values.device) < sizes[:, :1]
        each = sizes[:, None, 1:].expand(-1, frames, -1).flatten(0, 1)
        x, placed = self.picture.still(values.flatten(0, 1), each)
        if self.training and self.augment:  # changed each for itself, pictures make a film that trembles
            films = rearrange(x, "(b f) c h w -> b (f c) h w", f=frames)
            x = rearrange(augment(films, self.picture.changes)[0], "b (f c) h w -> (b f) c h w", f=frames)
        tokens = rearrange(self._seen(x, placed, real.flatten()).float(), "(b f) p w -> b p f w", f=frames)
        places = tokens.shape[1]
        mixed = self.time(tokens.flatten(0, 1), real.repeat_interleave(places, 0)).unflatten(0, (-1, places))
        share = real[:, None, :, None].to(mixed.dtype)
        over_time = (mixed * share).sum(2) / share.sum(2).clamp(min=1)
        both = torch.cat([over_time, mixed.mean(1)], dim=1)
        return Tokens(both, torch.cat([torch.ones_like(over_time[..., 0], dtype=torch.bool), real], dim=1))

    def _seen(
        self, x: Float[Tensor, "frame channel height width"], placed: Placed, real: Bool[Tensor, " frame"]
    ) -> Float[Tensor, "frame place width"]:
        """Tokens of every picture; in training those of padding are zero and nobody has looked at it."""
        if not self.training or torch.compiler.is_exporting():
            return self.picture.told(x, placed).values
        own = Placed(placed.canvas, placed.sizes[real], in_place(int(real.sum()), 2, x.device), x[real])
        said = self.picture.told(x[real], own).values
        found = said.new_zeros(len(x), *said.shape[1:])
        found[real] = said
        return found


__all__ = ["VideoEncoder"]
