"""How a recording becomes tokens: samples -> log-mel frames -> strided convolutions -> attention and convolution.

All inside the network, differentiable down to the samples, the same in training, prediction and export. Not here: the
layers themselves (nn/sound.py), reading files (the main file).
"""

import contextlib

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from endwise.modalities.audio import Audio, AudioContract
from endwise.nn.interface import Encoder, Tokens
from endwise.nn.mel import Framing
from endwise.nn.size import Size
from endwise.nn.sound import LearntMel, LogMel, Norm, SoundBlock, Subsample, add_noise, hide, real, respeed

FULL_SCALE = {torch.int16: 32_768.0, torch.uint8: 128.0}
SHORT_S = 3.0  # recordings of single words and commands
SHIFT_S = 0.03


def token_stride(contract: AudioContract) -> int:
    """Frames (10 ms each) a token: 4 in long recordings, 2 where the median is below 3 s.

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
        self.augment = True
        self.stride = token_stride(contract)
        self.framing = Framing.of(declaration.rate_hz)
        self.shift = round(SHIFT_S * declaration.rate_hz) if declaration.shift else 0
        front = LogMel if declaration.frontend == "spectrogram" else LearntMel
        self.front: nn.Module = front(declaration.rate_hz, declaration.mels)
        self.subsample = Subsample(declaration.mels, self.stride, size.width)
        self.dropout = nn.Dropout(size.dropout)
        self.blocks = nn.ModuleList([SoundBlock(size) for _ in range(size.depth)])
        self.norm = Norm(size.width)

    def forward(
        self, values: Float[Tensor, "batch sample"] | Int[Tensor, "batch sample"], sizes: Int[Tensor, "batch 1"]
    ) -> Tokens:
        """Padding changes nothing, whatever it holds: a row alone gives the answer it gives among longer ones."""
        wave = values / FULL_SCALE[values.dtype] if values.dtype in FULL_SCALE else values
        with _full_precision(wave):  # a sum over 200 to 1100 products and a logarithm: bf16 has too few digits for it
            frames, lengths = self.frames(wave.float(), sizes[:, 0])
        x, mask = self.subsample(frames, lengths)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, mask)
        samples_a_token = float(self.framing.hop * self.stride)
        return Tokens(values=self.norm(x), mask=mask, grids={"audio": ((x.shape[1],), (samples_a_token,))})

    def frames(
        self, wave: Float[Tensor, "batch sample"], sizes: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch frame mel"], Int[Tensor, " batch"]]:
        """Normalised log-mel frames, zero past each row's end, and how many each row has; changed at random in training."""
        changing = self.training and self.augment
        if changing and (self.declaration.speed > 0 or self.shift):
            wave, sizes = respeed(wave, sizes, most=self.declaration.speed, shift=self.shift)
        sounding = real(sizes, wave.shape[1])
        wave = torch.where(sounding, wave, 0.0)
        if changing and self.declaration.noise:
            wave = add_noise(wave, sounding)
        lengths = (sizes.clamp(min=1) - 1) // self.framing.hop + 1
        frames = self.front(wave, real(lengths, (wave.shape[1] - 1) // self.framing.hop + 1))
        if changing and self.declaration.mask:
            frames = hide(frames, lengths)
        return frames, lengths


def _full_precision(like: Tensor) -> contextlib.AbstractContextManager[object]:
    """Autocast off, where it is on; an export, which has none, is left without the context in its graph."""
    kind = like.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else contextlib.nullcontext()
