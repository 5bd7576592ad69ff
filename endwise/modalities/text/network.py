"""The network side of text: units to tokens, and tokens to letters.

Here: the encoder of text inputs and the CTC head of text outputs. Not here: cutting text into units (tokenizer.py),
putting letters together (`Text.write`), what the loss is (endwise/losses.py).
"""

import dataclasses
import math
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from endwise import losses
from endwise.modalities.text import BLANK, TextContract
from endwise.modalities.text.tokenizer import CASES, START
from endwise.nn.blocks import Dropout, Transformer
from endwise.nn.hiding import PADDING, SymbolRestorer, hidden_places
from endwise.nn.interface import Aim, Encoder, Handed, Head, Hidden, Tokens
from endwise.nn.size import Size
from endwise.nn.streaming import Past, StreamedBlock, Window, average_lag, behind

SPREAD = 0.01  # of a unit's first vector: one that training seldom sees must not shout
FEW_UNITS, MANY_UNITS = 1e6, 1e8  # training units between which dropping units fades out
DROP_FEW, DROP_MANY = 0.5, 0.1
CHARS_A_UNIT = 4.5  # of English bpe
GAIN = 10.0  # of the vectors: they begin small, and reach the scale of other tokens while the rate is still warm
VECTOR_DROPOUT = 0.3  # of single numbers of a token's vector
HIDDEN_SHARE = 0.15  # of the units, as in BERT (Devlin et al. 2019)
LOOKBACK = 512  # tokens that a stream's attention sees: what it costs must not grow with the text
LONGEST_TOKENS = 1_024  # beyond it, attention over every unit of a small network is not worth its time

PAUSE_SHARE = 0.75  # of all frames that give no letter, at the first step (0.1 and 0.5 take two to three times as long to leave it)
NEVER = -1e4  # the score of a symbol that cannot be
SURE = 30.0  # the logit that makes a frame beyond a row's end a pause


class TextEncoder(Encoder):
    """Units -> tokens, each the sum of two views.

    The bag: a unit's vector, its case's, and its phrase's; the mean over tokens is then a linear model of words and
    word pairs, which is what small text data can support. The context: a small transformer over the same vectors with
    rotary positions, behind a gate that starts at zero (as in ReZero; Bachlechner et al. 2020): without it the context
    drowns the bag (banking77: 88.7 % instead of 91.3 % of validation rows). In training, units and phrases are dropped by themselves at random (word dropout; Iyyer et al.
    2015, "Deep Unordered Composition Rivals Syntactic Methods"), see `drop_of`.

    The context has half the dial's blocks. in_context, and of bytes, which mean nothing by themselves: all blocks, and the
    gate is open.
    """

    peak_rate = 2e-3
    passes = 12  # SST-2 and banking77 are best after about ten; after sixty, 1.5 points worse

    def __init__(
        self, contract: TextContract, size: Size, *, in_context: bool = False, drop: float | None = None
    ) -> None:
        """drop: the share of units left out in training; default by the amount of text, see `drop_of`."""
        super().__init__()
        self.vocabulary = contract.vocabulary
        self.stride = stride_of(contract.longest_units)
        self.drop = drop_of(contract) if drop is None else drop
        self.unit = nn.Embedding(contract.vocabulary, size.width)
        self.case = nn.Embedding(CASES, size.width)
        self.phrase = nn.Embedding(1 + len(contract.phrases), size.width, padding_idx=0)
        nn.init.normal_(self.unit.weight, std=SPREAD)
        nn.init.zeros_(self.case.weight)
        nn.init.zeros_(self.phrase.weight)
        # single bytes mean nothing: two convolutions make them runs of nine before anything is added up
        self.stem = Runs(size.width) if contract.units == "bytes" else None
        self.dropout = Dropout(VECTOR_DROPOUT if drop is None else min(VECTOR_DROPOUT, drop / 2))
        in_context = in_context or self.stem is not None
        depth = size.depth if in_context else min(size.depth, max(1, size.depth // 2))
        self.context = Transformer(dataclasses.replace(size, depth=depth), causal=False, rotary=True)
        self.gate = nn.Parameter(torch.full((size.width,), 1.0 if in_context else 0.0))
        self.as_vectors = nn.Identity()
        self.hidden_share = 0.0
        self.stand_in: nn.Parameter | None = None

    def restorer(self, share: float | None) -> nn.Module:
        """One learnt vector stands in the place of the hidden units; nothing else is dropped then."""
        self.hidden_share, self.drop = share or HIDDEN_SHARE, 0.0
        self.stand_in = nn.Parameter(torch.randn_like(self.unit.weight[0]) * SPREAD)
        return SymbolRestorer(self.unit, self.stride, gain=GAIN)

    def forward(self, values: Int[Tensor, "batch unit"], sizes: Int[Tensor, "batch axes"]) -> Tokens:
        """A token for every `stride` units."""
        units = torch.arange(values.shape[1], device=values.device) < sizes[:, :1]
        hidden = self.hide(values, units) if self.hidden_share else {}
        where = hidden["text"].where if hidden else None
        bag, mask = merged(self.bag(values, units, where), units, self.stride)
        bag = self.dropout(bag)
        mixed = self.gate.to(bag.dtype) * self.context(bag, mask) + bag
        return Tokens(torch.where(mask[..., None], mixed, 0.0), mask, hidden=hidden)

    def hide(self, values: Int[Tensor, "batch unit"], real: Bool[Tensor, "batch unit"]) -> dict[str, Hidden]:
        """Which tokens are hidden with all their units, and these units without their case. What begins every text is no
        question, unless a token holds more than that."""
        tokens = real[:, :: self.stride]
        asked = tokens & (torch.arange(tokens.shape[1], device=real.device) >= (1 if self.stride == 1 else 0))
        where = hidden_places(asked, self.hidden_share, training=self.training)
        units = F.pad(torch.where(real, values % self.vocabulary, PADDING), (0, self.stride - 1), value=PADDING)
        stood = rearrange(units[:, : tokens.shape[1] * self.stride], "b (t unit) -> b t unit", unit=self.stride)
        return {"text": Hidden(where, stood)}

    def bag(
        self,
        values: Int[Tensor, "batch unit"],
        mask: Bool[Tensor, "batch unit"],
        where: Bool[Tensor, "batch token"] | None = None,
    ) -> Float[Tensor, "batch unit w"]:
        """The vectors of units with their case, and of phrases. `where`: hidden tokens, whose units stand in no phrase."""
        vectors = self.vectors(values, where)
        return vectors if self.stem is None else self.stem(vectors, mask)

    def vectors(
        self, values: Int[Tensor, "batch unit"], where: Bool[Tensor, "batch token"] | None = None
    ) -> Float[Tensor, "batch unit w"]:
        """The same before neighbours are looked at."""
        rest = values // self.vocabulary
        vectors = self._dropped(self.unit(values % self.vocabulary) + self.case(rest % CASES))
        phrases = self._dropped(self.phrase(rest // CASES))
        if where is not None:
            assert self.stand_in is not None
            hidden = where.repeat_interleave(self.stride, dim=1)[:, : values.shape[1], None]
            vectors = torch.where(hidden, self.stand_in, vectors)
            # a phrase is a unit and the one before it: it would give either away
            phrases = torch.where(hidden | F.pad(hidden, (0, 0, 1, 0))[:, :-1], 0.0, phrases)
        out: Tensor = self.as_vectors(GAIN * (vectors + phrases))
        return out

    def looked_up(self) -> nn.Module:
        """The vectors of units, their case and their phrases."""
        return self.as_vectors

    def neutral(self, values: Int[Tensor, "batch unit"], sizes: Int[Tensor, "batch axes"], found: Tensor) -> Tensor:
        """No vector at all, as of a unit that training drops; what begins every text stays."""
        return torch.where((values % self.vocabulary == START)[..., None], found, 0.0)

    def _dropped(self, vectors: Float[Tensor, "batch unit w"]) -> Float[Tensor, "batch unit w"]:
        if not self.training or self.drop == 0:
            return vectors
        kept = torch.rand(vectors.shape[:2], device=vectors.device) >= self.drop
        return vectors * (kept / (1 - self.drop)).to(vectors.dtype)[..., None]


class SymbolEncoder(Encoder):
    """The symbols that an output is written in -> a token each, behind one for the beginning; in context. What one stage
    wrote is read by the next one here, as symbols or as chances of each."""

    def __init__(self, symbols: int, size: Size) -> None:
        super().__init__()
        self.symbol = nn.Parameter(torch.randn(symbols, size.width) * size.width**-0.5)
        self.dropout = Dropout(size.dropout)
        self.context = Transformer(size, causal=False, rotary=True)

    def forward(self, values: Tensor, sizes: Int[Tensor, "batch 1"]) -> Tokens:
        """int64 [batch, place], or the chance of each symbol [batch, place, symbol]."""
        vectors = F.embedding(values, self.symbol) if values.ndim == 2 else (values @ self.symbol).float()
        first = self.symbol[BLANK].expand(values.shape[0], 1, -1)
        place = torch.arange(values.shape[1] + 1, device=values.device)
        mask = place <= sizes
        tokens = self.context(self.dropout(torch.cat([first, vectors], 1)), mask)
        return Tokens(torch.where(mask[..., None], tokens, 0.0), mask)


class Runs(nn.Module):
    """Two convolutions over neighbours with a residual: a vector that knows the four before and the four after it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(width, width, 5, padding=2)
        self.second = nn.Conv1d(width, width, 5, padding=2)

    def forward(
        self, vectors: Float[Tensor, "batch unit w"], mask: Bool[Tensor, "batch unit"]
    ) -> Float[Tensor, "batch unit w"]:
        """Padding stays out of every window."""
        real = mask[:, None, :].to(vectors.dtype)
        x = vectors.transpose(1, 2)
        hidden = F.silu(self.first(x * real)) * real
        out: Tensor = (x + self.second(hidden)).transpose(1, 2)
        return out


@dataclass(frozen=True)
class Spelt:
    """What CTC said of a stream so far: the best symbol of each frame, the log-probability of them all, and how much of
    the input each had."""

    path: Int[Tensor, "1 frame"]
    score: Float[Tensor, " 1"]
    known: Float[Tensor, "1 frame"]


def _lag(path: Int[Tensor, "batch frame"], known: Float[Tensor, "batch frame"], whole: Tensor) -> Tensor:
    begins = path != F.pad(path, (1, 0), value=BLANK)[:, :-1]
    return average_lag(known, begins & (path != BLANK), whole)


class StreamedRuns(Runs):
    """The same over the eight before."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.first.padding = self.second.padding = (0,)

    def feed(
        self, vectors: Float[Tensor, "batch unit w"], mask: Bool[Tensor, "batch unit"], past: tuple[Tensor | None, ...]
    ) -> tuple[Float[Tensor, "batch unit w"], tuple[Tensor | None, ...]]:
        """The vectors, and what the next piece looks back to."""
        real = mask[..., None].to(vectors.dtype)
        longer, one = behind(past[0], vectors * real, 4)
        hidden = F.silu(self.first(longer.transpose(1, 2))).transpose(1, 2) * real
        longer, two = behind(past[1], hidden, 4)
        return vectors + self.second(longer.transpose(1, 2)).transpose(1, 2), (one, two)


@dataclass(frozen=True)
class Read:
    """What a stream of text keeps: the tails of its convolutions, the blocks' pasts, and how many units there were."""

    tails: tuple[Tensor | None, ...]
    blocks: tuple[Past, ...]
    units: int


class StreamedText(TextEncoder):
    """`TextEncoder` for text that is still being written: no token depends on a later one, and attention sees the last
    LOOKBACK tokens."""

    def __init__(
        self, contract: TextContract, size: Size, *, in_context: bool = False, drop: float | None = None
    ) -> None:
        super().__init__(contract, size, in_context=in_context, drop=drop)
        self.chunk, self.window = self.stride, Window(chunk=1, back=LOOKBACK)
        if self.stem is not None:
            self.stem = StreamedRuns(size.width)
        self.context.blocks = nn.ModuleList([StreamedBlock(size, self.window) for _ in self.context.blocks])

    def restorer(self, share: float | None) -> nn.Module:
        """None: what a hidden unit was may be told by what comes after it, which no token sees."""
        return Encoder.restorer(self, share)

    def forward(self, values: Int[Tensor, "batch unit"], sizes: Int[Tensor, "batch axes"]) -> Tokens:
        """The whole, as one piece."""
        return self.feed(values, sizes, None)[0]

    def feed(
        self, values: Int[Tensor, "batch unit"], sizes: Int[Tensor, "batch axes"], past: Read | None
    ) -> tuple[Tokens, Read]:
        """A token for every `stride` units of one more piece."""
        mask = torch.arange(values.shape[1], device=values.device) < sizes[:, :1]
        vectors, tails = self.vectors(values), past.tails if past else (None, None)
        if isinstance(self.stem, StreamedRuns):
            vectors, tails = self.stem.feed(vectors, mask, tails)
        bag, mask = merged(vectors, mask, self.stride)
        bag = self.dropout(bag)
        before = past.units if past else 0
        place = before // self.stride
        kept = past.blocks[0].keys[0].shape[2] if past else 0
        sees, x, pasts = self.window.sees(mask, place, kept), bag, []
        for index, block in enumerate(self.context.blocks):
            assert isinstance(block, StreamedBlock)
            x, later = block.feed(x, sees, place, past.blocks[index] if past else None)
            pasts.append(later)
        mixed = self.gate.to(bag.dtype) * self.context.norm(x) + bag
        ends = before + (torch.arange(bag.shape[1], device=values.device) + 1) * self.stride
        known = torch.minimum(ends, before + sizes[:, :1]).float() - 1  # the unit that begins every text is no word
        tokens = Tokens(torch.where(mask[..., None], mixed, 0.0), mask, known=known)
        return tokens, Read(tails, tuple(pasts), before + values.shape[1])


class CTCHead(Head):
    """Tokens -> letters in their order (connectionist temporal classification; Graves et al. 2006).

    Every token becomes `frames` frames, and every frame is a letter, a pause, or the letter before it going on. A row
    can hold as many letters as it has frames (less one for each doubled letter); a longer target has no alignment, so
    it cannot be learnt from: such rows are counted in `impossible`, and `notes` says what to do. With several inputs
    their tokens are read one after the other, without the gaps that padding leaves.

    A row's loss is -log p(target) per letter of the target, and its weight is its number of letters, so that the mean
    counts every letter alike; an empty target counts as one letter.
    """

    passes = 60

    impossible: Tensor
    streams = True

    def __init__(self, contract: TextContract, size: Size, *, frames: int) -> None:
        super().__init__()
        self.frames = frames
        self.norm = nn.RMSNorm(size.width)
        self.inward = nn.Linear(size.width, frames * size.width)
        self.dropout = Dropout(size.dropout)
        self.outward = nn.Linear(size.width, contract.num_symbols)
        self.register_buffer("impossible", torch.zeros((), dtype=torch.int64), persistent=False)
        nn.init.zeros_(self.inward.bias)
        with torch.no_grad():
            self.outward.weight.mul_(0.1)
            self.outward.bias.copy_(first_bias(contract))

    def forward(self, tokens: Tokens) -> dict[str, Tensor]:
        """{'logits': float32 [batch, frame, symbol], 'frames': int64 [batch]}; frames beyond a row's end are pauses. Of an
        input that streams also 'known': float32 [batch, frame], how much of it each frame had."""
        if len(tokens.spans) > 1:
            tokens = without_gaps(tokens)
        hidden = self.inward(self.norm(tokens.values))
        hidden = self.dropout(F.silu(hidden.unflatten(-1, (self.frames, -1)).flatten(1, 2)))
        logits = self.outward(hidden).float()
        real = tokens.mask[..., None].expand(-1, -1, self.frames).flatten(1)
        pause = F.one_hot(torch.tensor(BLANK, device=logits.device), logits.shape[-1]) * SURE
        found = {"logits": torch.where(real[..., None], logits, pause), "frames": real.sum(1)}
        if tokens.known is not None:
            found["known"] = torch.where(tokens.mask, tokens.known, 0.0).repeat_interleave(self.frames, 1)
        return found

    def loss(self, prediction: dict[str, Tensor], target: Tensor, sizes: Tensor) -> dict[str, Float[Tensor, " batch"]]:
        """{'ctc'}: per letter; 0 for a row that has no alignment, which is counted."""
        target, letters = F.pad(target, (0, 1)), sizes[:, 0]  # a batch of empty texts has no column at all
        frames = prediction["frames"]
        with torch.no_grad():
            self.impossible += losses.ctc_impossible(frames, target, letters).sum()
        found = losses.ctc(prediction["logits"], frames, target, letters, blank=BLANK)
        return {"ctc": found / letters.clamp(min=1)}

    def weight(self, target: Tensor, sizes: Tensor) -> Float[Tensor, " batch"]:
        """Letters of the target, at least one."""
        return sizes[:, 0].clamp(min=1).float()

    def decode(self, prediction: dict[str, Tensor]) -> dict[str, Tensor]:
        """{'path': int64 [batch, frame], the most probable symbol of each frame; 'score': float32 [batch], the
        log-probability of that path; 'frames': int64 [batch]}, and 'lag': float32 [batch] of an input that streams.
        `Text.write` makes the text of it."""
        scores = prediction["logits"].log_softmax(-1)
        best, path = scores.max(-1)
        inside = torch.arange(path.shape[1], device=path.device) < prediction["frames"][:, None]
        found = {"path": path, "score": torch.where(inside, best, 0.0).sum(1), "frames": prediction["frames"]}
        if "known" in prediction:
            found["lag"] = _lag(path, prediction["known"], prediction["known"].amax(1))
        return found

    def handed(self, prediction: dict[str, Tensor], *, greedy: bool) -> Handed:
        """The letters of the best path. A letter's scores are the mean log-probabilities of the frames that say it, the
        pause left out: which frames those are is decided, what they say has a gradient."""
        log_p = prediction["logits"].float().log_softmax(-1)
        path = log_p.argmax(-1)
        inside = torch.arange(path.shape[1], device=path.device) < prediction["frames"][:, None]
        spoken = (path != BLANK) & inside
        begins = spoken & (path != F.pad(path, (1, 0), value=BLANK)[:, :-1])
        letter = torch.where(spoken, begins.long().cumsum(1), 0)  # 0: of no letter
        count = begins.sum(1)
        most = path.shape[1] if torch.compiler.is_exporting() else int(count.max())
        frames = F.one_hot(letter, most + 1)[..., 1:].to(log_p.dtype)  # [batch, frame, letter]
        share = frames / frames.sum(1, keepdim=True).clamp(min=1)
        scores = torch.einsum("bfl,bfs->bls", share, log_p)
        scores = torch.where(torch.arange(scores.shape[-1], device=path.device) == BLANK, NEVER, scores)
        return Handed(scores.argmax(-1), count[:, None], scores)

    def aim(self, prediction: dict[str, Tensor], about: tuple[int, ...]) -> Aim:
        """The log-probability of the symbols from `about[0]` to before `about[1]` over all their alignments to the frames
        between their neighbours; of all symbols, or of none in an empty answer, over all frames. A symbol that is said
        a frame sooner is still said: the one frame that said it first would call it lost."""
        path = prediction["logits"][0].argmax(-1)[: int(prediction["frames"][0])]
        spoken = path != BLANK
        begins = (spoken & (path != F.pad(path, (1, 0), value=BLANK)[:-1])).nonzero()[:, 0]
        ends = (spoken & (path != F.pad(path, (0, 1), value=BLANK)[1:])).nonzero()[:, 0] + 1
        first, last = about if about[1] > about[0] else (0, len(begins))
        start = 0 if first == 0 else int(ends[first - 1] + begins[first]) // 2
        stop = len(path) if last == len(begins) else int(ends[last - 1] + begins[last] + 1) // 2
        symbols = F.pad(path[begins[first:last]], (0, 1))  # an empty answer has no column at all

        def surer(other: dict[str, Tensor]) -> Tensor:
            logits = other["logits"][:, start:stop]
            rows = torch.full((len(logits),), stop - start, device=path.device)
            return -losses.ctc(
                logits, rows, symbols.expand(len(logits), -1), torch.full_like(rows, last - first), blank=BLANK
            )

        return surer

    def feed(self, tokens: Tokens, past: Spelt | None, *, last: bool) -> tuple[dict[str, Tensor], Spelt]:
        """The best path so far: a frame that has been decided stays."""
        assert tokens.known is not None
        prediction = self(tokens)
        now = self.decode({"logits": prediction["logits"], "frames": prediction["frames"]})
        new = Spelt(now["path"], now["score"], tokens.known.repeat_interleave(self.frames, 1))
        if past is not None:
            new = Spelt(
                torch.cat([past.path, new.path], 1), past.score + new.score, torch.cat([past.known, new.known], 1)
            )
        found = {"path": new.path, "score": new.score, "frames": new.score.new_full((1,), new.path.shape[1]).long()}
        if last:
            found["lag"] = _lag(new.path, new.known, new.known[:, -1])
        return found, new

    def notes(self) -> list[str]:
        """Named lines for the report: how often a target had no room, since the head was made."""
        count = int(self.impossible)
        if count == 0:
            return []
        return [
            f"{count} times a target had more letters than frames and taught nothing: write frames: {self.frames + 1}"
        ]


def merged(
    vectors: Float[Tensor, "batch unit w"], mask: Bool[Tensor, "batch unit"], stride: int
) -> tuple[Float[Tensor, "batch token w"], Bool[Tensor, "batch token"]]:
    """The mean of every `stride` neighbours, over the real ones."""
    if stride == 1:
        return vectors, mask
    real = F.pad(mask.to(vectors.dtype), (0, stride - 1))[:, None]
    summed = F.avg_pool1d(F.pad(vectors.transpose(1, 2), (0, stride - 1)) * real, stride)
    share = F.avg_pool1d(real, stride)
    return (summed / share.clamp(min=1 / (2 * stride))).transpose(1, 2), share[:, 0] > 0


def without_gaps(tokens: Tokens) -> Tokens:
    """The real tokens first, in their order: padding between two inputs would pull equal letters apart."""
    count = tokens.mask.shape[1]
    place = torch.arange(count, device=tokens.mask.device)
    order = torch.where(tokens.mask, place, place + count).argsort(1)
    values = tokens.values.gather(1, order[..., None].expand_as(tokens.values))
    return Tokens(values, tokens.mask.gather(1, order))


def stride_of(longest_units: int) -> int:
    """Units a token stands for: the power of two that brings the longest training text to 1024 tokens or fewer."""
    return int(2 ** max(0, math.ceil(math.log2(max(1, longest_units) / LONGEST_TOKENS))))


def drop_of(contract: TextContract) -> float:
    """Share of units that training drops: 0.5 below a million training units, 0.1 above a hundred million, in between
    along the logarithm. Of bytes 0.1: half the bytes of a word are no word."""
    if contract.units == "bytes":
        return DROP_MANY
    units = max(1.0, contract.count * contract.mean / CHARS_A_UNIT)
    share = math.log(units / FEW_UNITS) / math.log(MANY_UNITS / FEW_UNITS)
    return DROP_FEW + (DROP_MANY - DROP_FEW) * min(1.0, max(0.0, share))


def first_bias(contract: TextContract) -> Float[Tensor, " symbol"]:
    """Log-frequencies of the letters, and PAUSE_SHARE for the pause.

    Without it the first thing CTC learns is that pauses fit everywhere, and it stays there for long ("all blank").
    """
    given = contract.alphabet_counts or [1] * (contract.num_symbols - 1)  # bpe: as long as it is even, anything will do
    counts = torch.tensor([*given], dtype=torch.float64) + 1
    letters = (counts / counts.sum().clamp(min=1)) * (1 - PAUSE_SHARE)
    unseen = [1e-6] * (contract.num_symbols - 1 - len(letters))
    shares = torch.cat(
        [torch.tensor([PAUSE_SHARE], dtype=torch.float64), letters, torch.tensor(unseen, dtype=torch.float64)]
    )
    return shares.log().float()
