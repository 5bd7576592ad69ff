"""Text that is written while the input is still coming in: symbol n once so much of it is there (wait-k; Ma et al. 2019).

The first symbol waits for `wait` seconds or units, each later one for as much more as one symbol stands for in the
training rows, so the writer neither runs ahead nor falls behind. Where it finds nothing to write before the input has
ended, it waits for the next chunk. It learns with a lag drawn anew for every row (Elbayad et al. 2020), so one network
serves several. Not here: the decoder itself (nn/decoder.py), what a symbol means (`Text.write`).
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from endwise.modalities.text.sequence import SequenceHead
from endwise.nn.decoder import END, Decoder, Keys, Memory, State, loop
from endwise.nn.interface import Aim, Tokens
from endwise.nn.size import Size
from endwise.nn.streaming import average_lag

LAGS = 2.0  # training draws lags from none to this many times `wait`


@dataclass(frozen=True)
class Written:
    """What was written of a stream so far, and what the next symbol needs."""

    keys: list[Keys]
    known: Float[Tensor, "1 token"]
    symbols: tuple[int, ...]
    when: tuple[float, ...]  # how much of the input was there, symbol by symbol
    score: float
    due: float  # how much has to be there before the next symbol
    ended: bool
    cache: Tensor


class WaitingHead(SequenceHead):
    """`SequenceHead`, greedy, whose symbol n sees only what is there when it is due: see `due`.

    Needs tokens that say what is `known` when. `wait` may be changed between predictions; so may no weight.
    """

    streams = True
    seen: Tensor

    def __init__(self, symbols: int, size: Size, *, wait: float, longest: int, smoothing: float) -> None:
        decoder = Decoder(size, symbols, prefix=False)
        super().__init__(decoder, size, beams=1, longest=longest, penalty=0.0, smoothing=smoothing)
        self.wait = wait
        self.register_buffer("seen", torch.zeros(2))  # symbols and input of the training rows: their ratio is the pace

    def forward(self, tokens: Tokens) -> dict[str, Tensor]:
        """As `SequenceHead`, and 'known': float32 [batch, token]."""
        assert tokens.known is not None
        return {**super().forward(tokens), "known": torch.where(tokens.mask, tokens.known, -1.0)}

    @property
    def step(self) -> Float[Tensor, ""]:
        """How much input one symbol stands for."""
        return torch.where(self.seen[0] > 0, self.seen[1] / self.seen[0].clamp(min=1), 1.0)

    def loss(self, prediction: dict[str, Tensor], target: Tensor, sizes: Tensor) -> dict[str, Float[Tensor, " batch"]]:
        """{'cross_entropy'}: per symbol, each from what is there when it is due."""
        known, real = prediction["known"], prediction["real"]
        if self.training:
            with torch.no_grad():
                self.seen += torch.stack([sizes[:, 0].sum().float() + len(sizes), known.amax(1).sum()])
            wait = torch.rand(len(target), device=target.device) * LAGS * self.wait
        else:
            wait = known.new_full((len(target),), self.wait)
        before, after = F.pad(target, (1, 0), value=END), F.pad(target, (0, 1), value=END)
        due = wait[:, None] + torch.arange(before.shape[1], device=target.device) * self.step
        across = real[:, None, None, :] & (chunk_before(known)[:, None, None, :] < due[:, None, :, None])
        scores = self.decoder(before, self.decoder.begin(prediction["memory"], real), across)
        smoothing = self.smoothing if self.training else 0.0
        cost = F.cross_entropy(
            scores.flatten(0, 1).float(), after.flatten(), reduction="none", label_smoothing=smoothing
        )
        inside = torch.arange(after.shape[1], device=after.device) <= sizes
        cost = torch.where(inside, cost.view(after.shape), 0.0)
        return {"cross_entropy": cost.sum(1) / (sizes[:, 0] + 1)}

    def decode(self, prediction: dict[str, Tensor]) -> dict[str, Tensor]:
        """As `SequenceHead.decode`, and 'lag': float32 [batch]. What a stream of the same input would have written."""
        known = prediction["known"]
        memory = self.decoder.begin(prediction["memory"], prediction["real"]).repeated(1)  # a loop needs copies
        rows, whole, step = known.shape[0], known.amax(1), self.step
        state = (
            torch.zeros((), dtype=torch.int64, device=known.device),
            torch.zeros(rows, self.longest, dtype=torch.int64, device=known.device),
            torch.zeros(rows, device=known.device),
            torch.zeros(rows, dtype=torch.bool, device=known.device),
            known.new_full((rows,), self.wait),
            torch.zeros(rows, self.longest, device=known.device),
            self.decoder.empty(rows, self.longest, memory.keys[0][0]),
        )

        def going(place: Tensor, _: Tensor, __: Tensor, done: Tensor, *___: Tensor) -> Tensor:
            return (place < self.longest) & ~done.all()

        def further(
            place: Tensor, symbols: Tensor, score: Tensor, done: Tensor, due: Tensor, when: Tensor, cache: Tensor
        ) -> State:
            last = torch.where(place > 0, symbols.index_select(1, (place - 1).clamp(min=0)[None])[:, 0], END)
            there = reached(due, known, whole)
            across = (prediction["real"] & (known <= there[:, None]))[:, None, None, :]
            scores, cache = self.decoder.step(last, place, memory, cache, across)
            best, chosen = scores.float().log_softmax(-1).max(-1)
            chosen = torch.where(done, END, chosen)
            waits = (chosen == END) & (there < whole) & ~done
            settled = ~waits.any()  # else all try this place again, those who need not with the same outcome
            symbols = symbols.index_copy(1, place[None], chosen[:, None])
            when = when.index_copy(1, place[None], there[:, None])
            score = score + torch.where(settled & ~done, best, 0.0)
            next_due = torch.maximum(there, self.wait + (place + 1) * step)
            due = torch.where(waits, after(there, known, whole), torch.where(settled, next_due, due))
            return place + settled.long(), symbols, score, done | (settled & (chosen == END)), due, when, cache

        _, symbols, score, _, _, when, _ = loop(going, further, state)
        length = (symbols != END).sum(1)
        return {"symbols": symbols, "length": length, "score": score, "lag": average_lag(when, symbols != END, whole)}

    def aimed(self, symbols: Int[Tensor, "1 place"], about: tuple[int, ...]) -> Aim:
        """Each symbol from what is there when it is due."""
        before, after = F.pad(symbols, (1, 0), value=END), F.pad(symbols, (0, 1), value=END)
        places = slice(*about) if about[1] > about[0] else slice(None)

        def surer(other: dict[str, Tensor]) -> Tensor:
            rows, known, real = len(other["memory"]), other["known"], other["real"]
            due = self.wait + torch.arange(before.shape[1], device=known.device) * self.step
            across = real[:, None, None, :] & (chunk_before(known)[:, None, None, :] < due[None, None, :, None])
            memory = self.decoder.begin(other["memory"], real)
            scores = self.decoder(before.expand(rows, -1), memory, across).float().log_softmax(-1)
            found: Tensor = scores.gather(2, after[..., None].expand(rows, -1, 1))[:, places, 0].sum(1)
            return found

        return surer

    def feed(self, tokens: Tokens, past: Written | None, *, last: bool) -> tuple[dict[str, Tensor], Written]:
        """What can be written with these tokens too."""
        assert tokens.known is not None
        memory = self.decoder.begin(self.norm(tokens.values), tokens.mask)
        if past is None:
            cache = self.decoder.empty(1, self.longest, memory.keys[0][0])
            past = Written(memory.keys, tokens.known, (), (), 0.0, self.wait, False, cache)
        else:
            keys = [
                (torch.cat([old[0], new[0]], 2), torch.cat([old[1], new[1]], 2))
                for old, new in zip(past.keys, memory.keys, strict=True)
            ]
            past = replace(past, keys=keys, known=torch.cat([past.known, tokens.known], 1))
        past = self._written(past, last=last)
        device = tokens.values.device
        rest = [END] * (self.longest - len(past.symbols))  # as many places as `decode` gives: there is room for the end
        found = {
            "symbols": torch.tensor([[*past.symbols, *rest]], device=device),
            "length": torch.tensor([len(past.symbols)], device=device),
            "score": torch.tensor([past.score], device=device),
        }
        if last:
            when = torch.tensor([past.when], device=device).view(1, -1)
            all_written = torch.ones_like(when, dtype=torch.bool)
            if past.symbols:
                found["lag"] = average_lag(when, all_written, past.known[:, -1])
        return found, past

    def _written(self, past: Written, *, last: bool) -> Written:
        known = past.known
        if known.shape[1] == 0:
            return past
        whole = known[:, -1]
        memory = Memory(past.keys, torch.ones_like(known, dtype=torch.bool), torch.zeros_like(whole).long())
        while not past.ended and len(past.symbols) < self.longest and (last or past.due <= float(whole)):
            place = torch.tensor(len(past.symbols), device=known.device)
            there = reached(known.new_tensor([past.due]), known, whole)
            before = torch.tensor([past.symbols[-1] if past.symbols else END], device=known.device)
            across = (known <= there[:, None])[:, None, None, :]
            scores, cache = self.decoder.step(before, place, memory, past.cache, across)
            best, chosen = (float(found) for found in scores.float().log_softmax(-1).max(-1))
            if chosen == END and float(there) < float(whole):
                past = replace(past, due=float(after(there, known, whole)), cache=cache)
                continue
            if chosen == END and not last:
                break  # the input may end here or go on: asked again when that is known
            past = replace(past, score=past.score + best, cache=cache, ended=chosen == END)
            if chosen != END:
                due = torch.maximum(there, self.wait + (place + 1) * self.step)
                past = replace(
                    past,
                    symbols=(*past.symbols, int(chosen)),
                    when=(*past.when, float(there)),
                    due=float(due),
                )
        return past

    def notes(self) -> list[str]:
        """The lag and the pace, for the report."""
        return [f"written with wait = {self.wait:g} and {float(self.step):.3g} of the input for each symbol"]


def reached(
    due: Float[Tensor, " batch"], known: Float[Tensor, "batch token"], whole: Tensor
) -> Float[Tensor, " batch"]:
    """How much is there when at least `due` is: the end of a chunk, or all of it."""
    return torch.minimum(torch.where(known >= due[:, None], known, torch.inf).amin(1), whole)


def after(
    there: Float[Tensor, " batch"], known: Float[Tensor, "batch token"], whole: Tensor
) -> Float[Tensor, " batch"]:
    """How much is there one chunk later."""
    return torch.minimum(torch.where(known > there[:, None], known, torch.inf).amin(1), whole)


def chunk_before(known: Float[Tensor, "batch token"]) -> Float[Tensor, "batch token"]:
    """What was known before each token's own chunk; below 0 in the first."""
    earlier = F.pad(known, (1, 0), value=-1.0)[:, :-1]
    return torch.where(known != earlier, earlier, -1.0).cummax(1).values
