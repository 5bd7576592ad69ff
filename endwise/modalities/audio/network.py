"""How a recording becomes tokens: samples -> log-mel frames -> strided convolutions -> attention and convolution.

All inside the network, differentiable down to the samples, the same in training, prediction and export. Not here: the
layers themselves (nn/sound.py), reading files (the main file).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from endwise.modalities.audio import Audio, AudioContract
from endwise.nn.blocks import Dropout
from endwise.nn.hiding import NumberRestorer, hidden_places
from endwise.nn.interface import Encoder, Grid, Hidden, Tokens
from endwise.nn.mel import Framing
from endwise.nn.pretrained import Outlet, Pretrained
from endwise.nn.scalars import full_precision
from endwise.nn.size import Size
from endwise.nn.sound import LearntMel, LogMel, Norm, SoundBlock, Subsample, add_noise, hide, real, respeed
from endwise.nn.streaming import Past, StreamedSoundBlock, StreamedSubsample, Window, behind, running_levels

FULL_SCALE = {torch.int16: 32_768.0, torch.uint8: 128.0}
SHORT_S = 1.0  # recordings of single words and commands
SHIFT_S = 0.03
LOOKBACK_S = 10.0  # of a stream: a sentence and more; a memory without an end would cost more with every second
HIDDEN_SHARE = 0.3  # of the tokens ...
HIDDEN_S = 0.2  # ... in stretches of about a syllable: a shorter one is read off its neighbours
QUIET_SHARE = 0.3  # of the frames: a recording in its pauses, where an explanation takes something away
QUIET = 1e-7  # of a variance, as in the feature extractor of transformers


def token_stride(contract: AudioContract) -> int:
    """Frames (10 ms each) a token: 4 in long recordings, 2 where the median is below 1 s.

    CTC needs more tokens than letters plus repeats. Running speech has up to 20 letters a second, which 25 tokens a
    second can carry; a single word said in a hurry has 5 letters in 0.2 s, which they cannot, and short recordings
    have few tokens to pay for.
    """
    return 2 if contract.seconds_median < SHORT_S else 4


class AudioEncoder(Encoder):
    """Samples [batch, sample] (int16, or floats in [-1, 1]) and sizes [batch, 1] -> tokens every 20 or 40 ms.

    `augment` False leaves the training rows as they are; dropout is the trainer's to switch.
    """

    def __init__(self, declaration: Audio, contract: AudioContract, size: Size) -> None:
        super().__init__()
        self.declaration = declaration
        self.stride = token_stride(contract)
        self.framing = Framing.of(declaration.rate_hz)
        self.shift = round(SHIFT_S * declaration.rate_hz) if declaration.shift else 0
        front = LogMel if declaration.frontend == "spectrogram" else LearntMel
        self.front: LogMel | LearntMel = front(declaration.rate_hz, declaration.mels)
        self.subsample = Subsample(declaration.mels, self.stride, size.width)
        self.dropout = Dropout(size.dropout)
        self.blocks = nn.ModuleList([SoundBlock(size) for _ in range(size.depth)])
        self.norm = Norm(size.width)
        self.as_frames = nn.Identity()
        self.hidden_share = 0.0

    def restorer(self, share: float | None) -> nn.Module:
        """Stretches of frames are set to the mean, as in SpecAugment, which rests then; asked for are their levels."""
        self.hidden_share = share or HIDDEN_SHARE
        return NumberRestorer(self.norm.normalized_shape[0], self.stride * self.declaration.mels)

    def looked_up(self) -> nn.Module:
        """The frames, every 10 ms: a way from silence to sound leads over nothing that training has seen."""
        return self.as_frames

    def neutral(self, values: Tensor, sizes: Int[Tensor, "batch 1"], found: Tensor) -> Tensor:
        """What the recording is like where it is quiet."""
        return found.float().quantile(QUIET_SHARE, dim=1, keepdim=True).to(found.dtype).expand_as(found)

    def forward(
        self, values: Float[Tensor, "batch sample"] | Int[Tensor, "batch sample"], sizes: Int[Tensor, "batch 1"]
    ) -> Tokens:
        """Padding changes nothing, whatever it holds: a row alone gives the answer it gives among longer ones."""
        wave = values / FULL_SCALE[values.dtype] if values.dtype in FULL_SCALE else values
        with full_precision(wave):  # a sum over 200 to 1100 products and a logarithm: bf16 has too few digits for it
            frames, lengths = self.frames(wave.float(), sizes[:, 0])
        hidden: dict[str, Hidden] = {}
        if self.hidden_share:
            frames, hidden = self.hide(frames, lengths)
        x, mask = self.subsample(self.as_frames(frames), lengths)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, mask)
        samples_a_token = float(self.framing.hop * self.stride)
        grid: Grid = ((x.shape[1],), (samples_a_token,))
        return Tokens(values=self.norm(x), mask=mask, grids={"audio": grid}, hidden=hidden)

    def hide(
        self, frames: Float[Tensor, "batch frame mel"], lengths: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch frame mel"], dict[str, Hidden]]:
        """The frames with some tokens' at the mean, and what stood there."""
        count = frames.shape[1]
        whole = F.pad(frames, (0, 0, 0, self.stride - 1))
        tokens = (count - 1) // self.stride + 1
        stood = rearrange(whole[:, : tokens * self.stride], "b (t frame) mel -> b t (frame mel)", frame=self.stride)
        longest = max(1, round(HIDDEN_S * self.declaration.rate_hz / (self.framing.hop * self.stride)))
        rows = real((lengths - 1) // self.stride + 1, tokens)
        where = hidden_places(rows, self.hidden_share, training=self.training, longest=longest)
        frames = frames.masked_fill(where.repeat_interleave(self.stride, dim=1)[:, :count, None], 0.0)
        return frames, {"audio": Hidden(where, stood)}

    def samples(
        self, wave: Float[Tensor, "batch sample"], sizes: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch sample"], Int[Tensor, " batch"]]:
        """The recordings, zero past each row's end, and their sizes; changed at random in training."""
        changing = self.training and self.augment
        if changing and (self.declaration.speed > 0 or self.shift):
            wave, sizes = respeed(wave, sizes, most=self.declaration.speed, shift=self.shift)
        sounding = real(sizes, wave.shape[1])
        wave = torch.where(sounding, wave, 0.0)
        return add_noise(wave, sounding) if changing and self.declaration.noise else wave, sizes

    def frames(
        self, wave: Float[Tensor, "batch sample"], sizes: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch frame mel"], Int[Tensor, " batch"]]:
        """Normalised log-mel frames, zero past each row's end, and how many each row has; changed at random in training."""
        wave, sizes = self.samples(wave, sizes)
        lengths = (sizes.clamp(min=1) - 1) // self.framing.hop + 1
        frames = self.front(wave, real(lengths, (wave.shape[1] - 1) // self.framing.hop + 1))
        if self.training and self.augment and self.declaration.mask and not self.hidden_share:
            frames = hide(frames, lengths)
        return frames, lengths


@dataclass(frozen=True)
class Heard:
    """What a stream of sound keeps: the last samples, sums of levels, the convolutions' tails, the blocks' pasts, and how
    many tokens there were."""

    samples: Tensor
    sums: Tensor
    tails: tuple[Tensor, Tensor]
    blocks: tuple[Past, ...]
    place: int


class StreamedSound(AudioEncoder):
    """The same from sound that is still coming in: tokens come in chunks of `chunk_s`, and none depends on a sample
    after its chunk. Levels are relative to what was heard so far; attention sees the chunk and LOOKBACK_S before it."""

    def __init__(self, declaration: Audio, contract: AudioContract, size: Size) -> None:
        super().__init__(declaration, contract, size)
        assert declaration.chunk_s is not None
        token = self.framing.hop * self.stride
        self.window = Window(
            chunk=max(1, round(declaration.chunk_s * declaration.rate_hz / token)),
            back=math.ceil(LOOKBACK_S / declaration.chunk_s),
        )
        self.chunk = self.window.chunk * token
        self.subsample = StreamedSubsample(declaration.mels, self.stride, size.width)
        self.blocks = nn.ModuleList([StreamedSoundBlock(size, self.window) for _ in range(size.depth)])

    def restorer(self, share: float | None) -> nn.Module:
        """Nothing is hidden of what comes in pieces."""
        return Encoder.restorer(self, share)

    def forward(
        self, values: Float[Tensor, "batch sample"] | Int[Tensor, "batch sample"], sizes: Int[Tensor, "batch 1"]
    ) -> Tokens:
        """The whole, as one piece."""
        return self.feed(values, sizes, None)[0]

    def feed(
        self,
        values: Float[Tensor, "batch sample"] | Int[Tensor, "batch sample"],
        sizes: Int[Tensor, "batch 1"],
        past: Heard | None,
    ) -> tuple[Tokens, Heard]:
        """A token every 20 or 40 ms of one more piece."""
        wave = values / FULL_SCALE[values.dtype] if values.dtype in FULL_SCALE else values
        with full_precision(wave):
            wave, lengths = self.samples(wave.float(), sizes[:, 0])
            frames, samples, sums = self.heard(wave, lengths, past)
        counts = (lengths.clamp(min=1) - 1) // self.framing.hop + 1
        if self.training and self.augment and self.declaration.mask:
            frames = hide(frames, counts)
        assert isinstance(self.subsample, StreamedSubsample)
        x, mask, tails = self.subsample.feed(self.as_frames(frames), counts, past.tails if past else (None, None))
        x = self.dropout(x)
        place = past.place if past else 0
        kept = past.blocks[0].keys[0].shape[2] if past and past.blocks else 0
        sees = self.window.sees(mask, place, kept)
        pasts = []
        for index, block in enumerate(self.blocks):
            assert isinstance(block, StreamedSoundBlock)
            x, after = block.feed(x, mask, sees, place, past.blocks[index] if past else None)
            pasts.append(after)
        token = self.framing.hop * self.stride
        tokens = Tokens(
            self.norm(x),
            mask,
            grids={"audio": ((x.shape[1],), (float(token),))},
            known=self.known(place, x.shape[1], lengths),
        )
        return tokens, Heard(samples, sums, tails, tuple(pasts), place + x.shape[1])

    def heard(
        self, wave: Float[Tensor, "batch sample"], lengths: Int[Tensor, " batch"], past: Heard | None
    ) -> tuple[Float[Tensor, "batch frame mel"], Tensor, Tensor]:
        """Frames that end where their hop ends, at running levels; the samples and the sums that go on."""
        hop = self.framing.hop
        longer, samples = behind(past.samples if past else None, wave, self.front.reach - hop)
        mask = real((lengths.clamp(min=1) - 1) // hop + 1, (wave.shape[1] - 1) // hop + 1)
        energy = self.front.energy(F.pad(longer, (0, hop - 1)))
        frames, sums = running_levels(energy, mask, self.window.chunk * self.stride, past.sums if past else None)
        return frames, samples, sums

    def known(self, place: int, tokens: int, lengths: Int[Tensor, " batch"]) -> Float[Tensor, "batch token"]:
        """Seconds of sound behind each token: to the end of its chunk, or of the recording."""
        chunk = torch.div(place + torch.arange(tokens, device=lengths.device), self.window.chunk, rounding_mode="floor")
        token = self.framing.hop * self.stride
        whole = place * token + lengths[:, None]
        return torch.minimum((chunk + 1) * self.window.chunk * token, whole).float() / self.declaration.rate_hz


class PretrainedSound(Encoder):
    """A pretrained network that hears samples: its convolutions, its transformer, a token every 20 ms.

    In training, samples are changed as in the encoder from scratch, and stretches of features hidden.
    """

    def __init__(self, declared: Audio, contract: AudioContract, size: Size, folder: Callable[[], Path]) -> None:
        super().__init__()
        assert contract.weights is not None
        self.declaration = declared
        self.normalise = bool(contract.weights["scale"]["normalise"])
        self.shift = round(SHIFT_S * declared.rate_hz) if declared.shift else 0
        self.pretrained = Pretrained(contract.weights, declared.tuning(), folder)
        config = self.pretrained.config
        self.windows = tuple(zip(config.conv_kernel, config.conv_stride, strict=True))
        self.hop = math.prod(stride for _, stride in self.windows)
        self.reach = 1  # samples that one frame hears
        for kernel, stride in reversed(self.windows):
            self.reach = (self.reach - 1) * stride + kernel
        self.outlet = Outlet(int(config.hidden_size), size)
        self.as_frames = nn.Identity()

    def load_pretrained(self) -> None:
        """From the folder."""
        self.pretrained.load()

    def looked_up(self) -> nn.Module:
        """The features of frames."""
        return self.as_frames

    def neutral(self, values: Tensor, sizes: Int[Tensor, "batch 1"], found: Tensor) -> Tensor:
        """What the recording is like on average."""
        return found.mean(1, keepdim=True).expand_as(found)

    def forward(
        self, values: Float[Tensor, "batch sample"] | Int[Tensor, "batch sample"], sizes: Int[Tensor, "batch 1"]
    ) -> Tokens:
        """Padding changes nothing; a recording shorter than a frame is heard with silence behind it."""
        wave = values / FULL_SCALE[values.dtype] if values.dtype in FULL_SCALE else values
        with full_precision(wave):
            wave, lengths = self.samples(wave.float(), sizes[:, 0])
        network: Any = self.pretrained.network
        x = F.pad(wave, (0, self.reach - 1))[:, None]
        for layer in network.feature_extractor.conv_layers:  # its own forward would make the samples a leaf
            x = layer(x)
        features = self.as_frames(x.transpose(1, 2))
        mask = real(self.frames(lengths), features.shape[1])
        projected = network.feature_projection(features)
        hidden = projected[0] if isinstance(projected, tuple) else projected
        if self.training and self.augment and self.declaration.mask:
            hidden = hide(hidden, self.frames(lengths))
        hidden = network.encoder(torch.where(mask[..., None], hidden, 0.0), attention_mask=mask).last_hidden_state
        return Tokens(self.outlet(hidden), mask, grids={"audio": ((hidden.shape[1],), (float(self.hop),))})

    def samples(
        self, wave: Float[Tensor, "batch sample"], sizes: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch sample"], Int[Tensor, " batch"]]:
        """Each recording at mean 0 and deviation 1 where the weights want that, zero past its end."""
        changing = self.training and self.augment
        if changing and (self.declaration.speed > 0 or self.shift):
            wave, sizes = respeed(wave, sizes, most=self.declaration.speed, shift=self.shift)
        sounding = real(sizes, wave.shape[1])
        wave = torch.where(sounding, wave, 0.0)
        if changing and self.declaration.noise:
            wave = add_noise(wave, sounding)
        if self.normalise:
            count = sizes.clamp(min=1)[:, None]
            centred = torch.where(sounding, wave - wave.sum(1, keepdim=True) / count, 0.0)
            wave = centred / (centred.square().sum(1, keepdim=True) / count + QUIET).sqrt()
        return wave, sizes

    def frames(self, sizes: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """How many frames hear nothing but a recording's own samples, at least one."""
        for kernel, stride in self.windows:
            sizes = torch.div(sizes - kernel, stride, rounding_mode="floor") + 1
        return sizes.clamp(min=1)
