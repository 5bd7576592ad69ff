"""Tokens to speech: the units of an answer one after the other, and the fine sound of each.

One network and one objective, in three terms: which unit comes next, the units as a whole along the inputs' tokens
(CTC, which teaches the encoder what is said and in which order long before the decoder can), and the levels of the
sound that the true units stand for. The units themselves are in the contract (units.py); sound from levels is
arithmetic (nn/vocoder.py).
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from endwise import losses
from endwise.modalities.audio import AudioContract
from endwise.modalities.audio.network import FULL_SCALE
from endwise.modalities.audio.units import FRAMES, as_lists, smooth
from endwise.nn.decoder import END, Decoder, search
from endwise.nn.interface import Aim, Head, Tokens, surer
from endwise.nn.mel import Framing, fourier, mel_filters
from endwise.nn.scalars import full_precision
from endwise.nn.size import Size
from endwise.nn.sound import real
from endwise.nn.vocoder import FLOOR, full_scale

LONGER = 1.25  # of the longest training answer: where an answer that does not end is cut off, and says so
SMOOTHING = 0.05
PLACES = 2  # for units in each token, so that 40 ms of an input have room for two units or a unit and a pause


class SpeechHead(Head):
    """Tokens -> units (a causal decoder that looks back at the tokens) -> log-mel levels.

    The terms of a row are means over its units, and its weight is their number, so that every 40 ms count alike.
    """

    def __init__(self, contract: AudioContract, size: Size) -> None:
        super().__init__()
        self.codec = Codec(contract, size)
        self.longest = int(LONGER * contract.longest_units) + 1
        self.norm = nn.RMSNorm(size.width)
        self.decoder = Decoder(size, 1 + len(contract.units), prefix=False)
        self.along = nn.Linear(size.width, PLACES * (1 + len(contract.units)))

    def forward(self, tokens: Tokens) -> dict[str, Tensor]:
        """{'memory': float32 [batch, token, width], 'mask': bool [batch, token]}: what the decoder looks back to, each
        token with its place among the real ones (encoders tell neighbours apart, and repeated words are alike)."""
        place = (tokens.mask.cumsum(1) - 1).clamp(min=0)
        values = self.norm(tokens.values) + sines(place, tokens.values.shape[2]).to(tokens.values.dtype)
        return {"memory": values, "mask": tokens.mask}

    def loss(self, prediction: dict[str, Tensor], target: Tensor, sizes: Tensor) -> dict[str, Float[Tensor, " batch"]]:
        """{'unit': cross-entropy of the next unit, 'along': CTC, 'level': distance of levels in deviations}."""
        memory, mask = prediction["memory"], prediction["mask"]
        levels, spelt, counts = self.codec.spelt(target, sizes[:, 0])
        inside = real(counts, spelt.shape[1])
        before = F.pad(spelt * inside, (1, 0), value=END)
        after = F.pad(spelt * inside, (0, 1), value=END)  # END comes after the last unit
        scores = self.decoder(before, self.decoder.begin(memory, mask)).float()
        costs = F.cross_entropy(
            scores.transpose(1, 2), after, reduction="none", label_smoothing=SMOOTHING if self.training else 0.0
        )
        unit = (costs * real(counts + 1, after.shape[1])).sum(1) / (counts + 1)
        places = self.along(memory).unflatten(-1, (PLACES, -1)).flatten(1, 2)
        along = losses.ctc(places, PLACES * mask.sum(1), spelt * inside, counts) / counts
        apart = (self.codec(spelt * inside, counts, manner(memory, mask)) - self.codec.scaled(levels)).abs().mean(-1)
        heard = inside.repeat_interleave(FRAMES, 1)
        level = (apart * heard).sum(1) / (FRAMES * counts)
        return {"unit": unit, "along": along.float(), "level": level.float()}

    def weight(self, target: Tensor, sizes: Tensor) -> Float[Tensor, " batch"]:
        """Units of the target."""
        return self.codec.counts(sizes[:, 0]).float()

    def decode(self, prediction: dict[str, Tensor]) -> dict[str, Tensor]:
        """{'levels': float32 [batch, frame, mel], 'units': int64 [batch] how many are real, 'score': their
        log-probability, 'ended': whether the answer came to its end}: the most probable unit at each place."""
        memory = self.decoder.begin(prediction["memory"], prediction["mask"])
        found, counts, score = search(self.decoder, memory, beams=1, longest=self.longest, penalty=0.0)
        spelt, count = found[:, 0], counts[:, 0]
        levels = self.codec.loud(self.codec(spelt, count, manner(prediction["memory"], prediction["mask"])))
        return {"levels": levels, "units": count, "score": score[:, 0], "ended": count < self.longest}

    def aim(self, prediction: dict[str, Tensor], about: tuple[int, ...]) -> Aim:
        """The log-probability of the units from `about[0]` to before `about[1]`, each behind those before it."""
        with torch.no_grad():
            memory = self.decoder.begin(prediction["memory"], prediction["mask"])
            found, counts, _ = search(self.decoder, memory, beams=1, longest=self.longest, penalty=0.0)
        spelt = found[:, 0, : int(counts[0, 0])]
        before, after = F.pad(spelt, (1, 0), value=END), F.pad(spelt, (0, 1), value=END)
        places = slice(*about) if about[1] > about[0] else slice(None)

        def said(other: dict[str, Tensor]) -> Tensor:
            memory = self.decoder.begin(other["memory"], other["mask"])
            scores = self.decoder(before.expand(len(other["memory"]), -1), memory)
            return surer(scores, after[0])[:, places].sum(1)

        return said


class Codec(nn.Module):
    """Sound to units by the contract's alphabet, and units back to log-mel levels: the centre of each unit, and what
    convolutions over its neighbours add to it (pitch, and what smooth cepstra leave out)."""

    kernel: Tensor
    mel: Tensor
    smooth: Tensor
    centres: Tensor

    def __init__(self, contract: AudioContract, size: Size) -> None:
        super().__init__()
        self.framing, self.bands = Framing.of(contract.rate_hz), contract.bands
        self.mean, self.deviation = contract.band_mean, contract.band_deviation
        table = smooth(self.bands)
        for name, values in (
            ("kernel", fourier(self.framing)[:, None]),
            ("mel", mel_filters(contract.rate_hz, self.framing.fft, self.bands)),
            ("smooth", table),
            ("centres", as_lists(contract.units)),
        ):
            self.register_buffer(name, torch.tensor(np.asarray(values), dtype=torch.float32), persistent=False)
        width = size.width
        self.symbol = nn.Embedding(1 + len(contract.units), width)
        self.manner = nn.Linear(width, width, bias=False)
        nn.init.normal_(self.manner.weight, std=0.01)
        self.around = nn.ModuleList([nn.Conv1d(width, width, 3, padding=1) for _ in range(2)])
        self.norms = nn.ModuleList([nn.RMSNorm(width) for _ in range(2)])
        self.outward = nn.Linear(width, FRAMES * self.bands)
        nn.init.normal_(self.outward.weight, std=0.01)

    def counts(self, samples: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Units of so many samples."""
        return ((samples.clamp(min=1) - 1) // self.framing.hop) // FRAMES + 1

    def spelt(
        self, values: Tensor, samples: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch frame mel"], Int[Tensor, "batch unit"], Int[Tensor, " batch"]]:
        """Log-mel levels of recordings as `nn.vocoder.levels` has them, the last one repeated to fill a unit; the
        units (from 1) nearest to them; how many of them are real."""
        counts = self.counts(samples)
        with full_precision(values), torch.no_grad():
            wave = values.float() / FULL_SCALE.get(values.dtype, 1.0)
            wave = torch.where(real(samples, wave.shape[1]), wave, 0.0)
            places = self.counts(torch.tensor(wave.shape[1], device=wave.device)) * FRAMES
            reach = int(places) * self.framing.hop + self.framing.window
            padded = F.pad(wave, (self.framing.before, reach - self.framing.before - wave.shape[1]))
            cosine, sine = F.conv1d(padded[:, None], self.kernel, stride=self.framing.hop)[..., : int(places)].chunk(
                2, 1
            )
            energy = (cosine.square() + sine.square()).transpose(1, 2) / full_scale(self.framing)
            levels = torch.log(energy @ self.mel + FLOOR)
            last = ((samples.clamp(min=1) - 1) // self.framing.hop)[:, None]
            place = torch.minimum(torch.arange(levels.shape[1], device=levels.device), last)
            levels = levels.gather(1, place[..., None].expand(-1, -1, self.bands))
            features = levels.reshape(len(levels), -1, FRAMES * self.bands) @ self.smooth
            apart = self.centres.square().sum(1) - 2 * features @ self.centres.T
            return levels, 1 + apart.argmin(-1), counts

    def forward(
        self, spelt: Int[Tensor, "batch unit"], counts: Int[Tensor, " batch"], how: Float[Tensor, "batch width"]
    ) -> Float[Tensor, "batch frame mel"]:
        """Levels, scaled to mean 0 and deviation 1, of the units said in that manner (loud, high, hurried: what the
        inputs have to say beside the units); what lies beyond a row's count plays no part."""
        inside = real(counts, spelt.shape[1])[..., None]
        x = self.symbol(spelt) + self.manner(how)[:, None]
        for around, norm in zip(self.around, self.norms, strict=True):
            x = x + F.silu(around((norm(x) * inside).transpose(1, 2)).transpose(1, 2))
        centre = self.scaled((self.centres @ self.smooth.T).reshape(-1, FRAMES * self.bands))
        found = self.outward(x).float() + centre[(spelt - 1).clamp(min=0)]
        levels: Tensor = found.reshape(found.shape[0], -1, self.bands)
        return levels

    def scaled(self, levels: Float[Tensor, "*rest"]) -> Float[Tensor, "*rest"]:
        """Levels in deviations from the mean."""
        found: Tensor = (levels - self.mean) / self.deviation
        return found

    def loud(self, scaled: Float[Tensor, "*rest"]) -> Float[Tensor, "*rest"]:
        """The inverse."""
        return scaled * self.deviation + self.mean


def manner(
    memory: Float[Tensor, "batch token width"], mask: Bool[Tensor, "batch token"]
) -> Float[Tensor, "batch width"]:
    """The mean of the real tokens."""
    weight = mask[..., None].to(memory.dtype)
    mean: Tensor = (memory * weight).sum(1) / weight.sum(1).clamp(min=1)
    return mean


def sines(place: Int[Tensor, "batch token"], width: int) -> Float[Tensor, "batch token width"]:
    """Sines and cosines of a place (Vaswani et al. 2017)."""
    half = width // 2
    rates = 10_000.0 ** (-torch.arange(half, device=place.device, dtype=torch.float32) / half)
    angles = place[..., None].float() * rates
    return F.pad(torch.cat([angles.sin(), angles.cos()], -1), (0, width - 2 * half))
