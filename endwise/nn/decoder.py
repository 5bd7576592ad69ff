"""A decoder that knows no modality: symbols one after the other, each seeing those before it and a memory.

Here: the causal blocks with their cache, teacher forcing (all places at once), and beam search, whose loop runs in
Python or, in an export, as a loop of the graph. Not here: what a symbol means, what a loss is (the modalities').

Two ways to read the memory. Across (Vaswani et al. 2017): each block asks the memory through an attention of its own.
As a prefix (as in Raffel et al. 2020, "prefix LM"): the memory is the beginning of the sequence, goes through the same
blocks, sees itself in both directions, and is what the first symbols look back to.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from endwise.nn.blocks import Dropout, FeedForward, attend, rotate
from endwise.nn.size import Size

END = 0  # the symbol that begins every sequence and ends it
NEVER = -1e9  # a log-probability that no sum of others reaches
STILL_OPEN = 0.7  # of the rows of a search: with so few, it goes on with them alone

State = tuple[Tensor, ...]
Keys = tuple[Float[Tensor, "batch head place d"], Float[Tensor, "batch head place d"]]  # keys and values
Past = tuple[
    Float[Tensor, "batch head place d"], Float[Tensor, "batch head place d"], Int[Tensor, " 1"]
]  # and where to go on


@dataclass(frozen=True)
class Memory:
    """What a decoder looks back to: keys and values of each block, which places are real, and where symbols begin."""

    keys: list[Keys]
    mask: Bool[Tensor, "batch place"]
    first: Int[Tensor, " batch"]  # the position of the first symbol

    def repeated(self, times: int) -> "Memory":
        """Every row `times` times in a row: one for each beam. Always copies: a loop of a graph takes no two tensors that
        share memory."""
        keys = [(key.repeat_interleave(times, 0), value.repeat_interleave(times, 0)) for key, value in self.keys]
        return Memory(keys, self.mask.repeat_interleave(times, 0), self.first.repeat_interleave(times, 0))

    def rows(self, chosen: Int[Tensor, " row"]) -> "Memory":
        """Some of the rows."""
        keys = [(key.index_select(0, chosen), value.index_select(0, chosen)) for key, value in self.keys]
        return Memory(keys, self.mask.index_select(0, chosen), self.first.index_select(0, chosen))


def added(past: Past, new: Keys) -> Keys:
    """Keys and values with those of one more place: in an export as new tensors with room for all places; else in the
    cache itself, as far as it is filled."""
    keys, values, place = past
    if torch.compiler.is_exporting():
        return keys.index_copy(2, place, new[0]), values.index_copy(2, place, new[1])
    here = int(place)
    keys[:, :, here], values[:, :, here] = new[0][:, :, 0], new[1][:, :, 0]
    return keys[:, :, : here + 1], values[:, :, : here + 1]


class CausalBlock(nn.Module):
    """Pre-norm attention to what came before (and to the memory), gated feed-forward; dropout on each branch."""

    def __init__(self, size: Size, *, prefix: bool) -> None:
        super().__init__()
        self.heads, self.prefix = size.heads, prefix
        self.norm_before = nn.RMSNorm(size.width)
        self.inward = nn.Linear(size.width, 3 * size.width, bias=False)
        self.outward = nn.Linear(size.width, size.width, bias=False)
        if not prefix:
            self.norm_across = nn.RMSNorm(size.width)
            self.ask = nn.Linear(size.width, size.width, bias=False)
            self.told = nn.Linear(size.width, 2 * size.width, bias=False)
            self.taken = nn.Linear(size.width, size.width, bias=False)
        self.feed_forward = FeedForward(size)
        self.dropout = Dropout(size.dropout)

    def forward(
        self,
        x: Float[Tensor, "batch token width"],
        positions: Int[Tensor, "batch token"],
        sees: Bool[Tensor, "batch 1 token place"],
        memory: Keys | None,
        past: Past | None = None,
        across: Bool[Tensor, "batch 1 #token memory"] | None = None,
    ) -> tuple[Tensor, Keys]:
        """The tokens, and this block's own keys and values with them added to `past`. sees: which places each token may
        look at: the memory's first (as a prefix), then the own. across: the real places of a memory that is asked apart."""
        query, key, value = (self._split(part) for part in self.inward(self.norm_before(x)).chunk(3, dim=-1))
        query, key = rotate(query, positions), rotate(key, positions)
        own = (key, value) if past is None else added(past, (key, value))
        keys, values = own
        if self.prefix and memory is not None:
            keys, values = torch.cat([memory[0], keys], 2), torch.cat([memory[1], values], 2)
        mixed = attend(query, keys, values, sees)
        x = x + self.dropout(self.outward(self._join(mixed)))
        if not self.prefix:
            assert memory is not None
            assert across is not None
            query = self._split(self.ask(self.norm_across(x)))
            mixed = attend(query, memory[0], memory[1], across)
            x = x + self.dropout(self.taken(self._join(mixed)))
        return self.feed_forward(x), own

    def asked(self, memory: Float[Tensor, "batch place width"]) -> Keys:
        """Keys and values of a memory that is asked apart."""
        key, value = self.told(memory).chunk(2, dim=-1)
        return self._split(key), self._split(value)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, x.shape[2] // self.heads).transpose(1, 2)  # of no token too

    def _join(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(2)


class Writer(nn.Module):
    """Symbols -> scores of the next symbol, asked all at once or step by step."""

    def load_pretrained(self) -> None:
        """Fill in weights that come from elsewhere. Default: there are none."""

    def begin(self, tokens: Float[Tensor, "batch place width"], mask: Bool[Tensor, "batch place"]) -> Memory:
        """What the symbols will look back to, computed once."""
        raise NotImplementedError

    def forward(
        self,
        before: Int[Tensor, "batch token"],
        memory: Memory,
        across: Bool[Tensor, "batch 1 token place"] | None = None,
    ) -> Float[Tensor, "batch token symbol"]:
        """Teacher forcing: the scores after each of `before`, which begins with END. across: which places of a memory that
        is asked apart each symbol may see; default: the real ones."""
        raise NotImplementedError

    def step(
        self,
        last: Int[Tensor, " batch"],
        place: Int[Tensor, ""],
        memory: Memory,
        cache: Float[Tensor, "layer batch h p d"],
        across: Bool[Tensor, "batch 1 1 place"] | None = None,
    ) -> tuple[Float[Tensor, "batch symbol"], Float[Tensor, "layer batch h p d"]]:
        """The scores after one more symbol, at `place`, and the cache with its keys and values (two layers a block).
        across: as in `forward`."""
        raise NotImplementedError

    def empty(self, rows: int, places: int, like: Tensor) -> Float[Tensor, "layer batch h p d"]:
        """A cache for `places` symbols."""
        raise NotImplementedError


class Decoder(Writer):
    """The decoder that is learnt from scratch. Embedding and output share their weights (Press & Wolf 2017)."""

    def __init__(self, size: Size, symbols: int, *, prefix: bool) -> None:
        super().__init__()
        self.prefix, self.width = prefix, size.width
        self.symbol = nn.Embedding(symbols, size.width)
        nn.init.normal_(self.symbol.weight, std=size.width**-0.5)
        self.bias = nn.Parameter(torch.zeros(symbols))
        self.dropout = Dropout(size.dropout)
        self.blocks = nn.ModuleList([CausalBlock(size, prefix=prefix) for _ in range(max(1, size.depth))])
        self.norm = nn.RMSNorm(size.width)
        # with the embedding's weights as the output's, the first answer would be the symbol before, with certainty
        nn.init.constant_(self.norm.weight, size.width**-0.5)

    def begin(self, tokens: Float[Tensor, "batch place width"], mask: Bool[Tensor, "batch place"]) -> Memory:
        if not self.prefix:
            first = torch.zeros(tokens.shape[0], dtype=torch.int64, device=tokens.device)
            return Memory([block.asked(tokens) for block in self._blocks()], mask, first)
        keys = []
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        sees = mask[:, None, None, :].expand(-1, 1, mask.shape[1], -1)
        x = tokens
        for block in self._blocks():
            x, own = block(x, positions, sees, None)
            keys.append(own)
        return Memory(keys, mask, mask.sum(1))

    def forward(
        self,
        before: Int[Tensor, "batch token"],
        memory: Memory,
        across: Bool[Tensor, "batch 1 token place"] | None = None,
    ) -> Float[Tensor, "batch token symbol"]:
        count = before.shape[1]
        causal = torch.ones(count, count, dtype=torch.bool, device=before.device).tril()
        place = torch.arange(count, device=before.device)
        return self._scores(before, place, causal[None, None], memory, None, across)[0]

    def step(
        self,
        last: Int[Tensor, " batch"],
        place: Int[Tensor, ""],
        memory: Memory,
        cache: Float[Tensor, "layer batch h p d"],
        across: Bool[Tensor, "batch 1 1 place"] | None = None,
    ) -> tuple[Float[Tensor, "batch symbol"], Float[Tensor, "layer batch h p d"]]:
        seen = cache.shape[3] if torch.compiler.is_exporting() else int(place) + 1
        sees = (torch.arange(seen, device=cache.device) <= place)[None, None, None]
        scores, own = self._scores(last[:, None], place[None], sees, memory, cache, across)
        if not torch.compiler.is_exporting():
            return scores[:, 0], cache  # filled in place
        return scores[:, 0], torch.stack([part for pair in own for part in pair])

    def empty(self, rows: int, places: int, like: Tensor) -> Float[Tensor, "layer batch h p d"]:
        heads = self._blocks()[0].heads
        return like.new_zeros(2 * len(self.blocks), rows, heads, places, self.width // heads)

    def _scores(
        self,
        symbols: Int[Tensor, "batch token"],
        places: Int[Tensor, " token"],
        sees: Bool[Tensor, "1 1 token place"],
        memory: Memory,
        cache: Float[Tensor, "layer batch h p d"] | None,
        across: Bool[Tensor, "batch 1 #token place"] | None,
    ) -> tuple[Float[Tensor, "batch token symbol"], list[Keys]]:
        positions = memory.first[:, None] + places
        across = memory.mask[:, None, None, :] if across is None else across
        sees = sees.expand(symbols.shape[0], -1, -1, -1)
        if self.prefix:
            sees = torch.cat([across.expand(-1, -1, sees.shape[2], -1), sees], 3)
        x = self.dropout(self.symbol(symbols) * self.width**0.5)
        kept = []
        for index, block in enumerate(self._blocks()):
            past = None if cache is None else (cache[2 * index], cache[2 * index + 1], places)
            x, own = block(x, positions, sees, memory.keys[index], past, across)
            kept.append(own)
        return F.linear(self.norm(x), self.symbol.weight, self.bias), kept

    def _blocks(self) -> list[CausalBlock]:
        return [block for block in self.blocks if isinstance(block, CausalBlock)]


def search(
    decoder: Writer, memory: Memory, *, beams: int, longest: int, penalty: float, best_only: bool = False
) -> tuple[Int[Tensor, "batch beam place"], Int[Tensor, "batch beam"], Float[Tensor, "batch beam"]]:
    """Beam search for the most probable sequences, the best first: symbols (END after the end), how many come before
    END, and the log-probability. beams = 1 is greedy. A sequence is ranked `by_length`. What has not ended after `longest` symbols ends there. best_only: only the first is asked for, and a row
    ends when it stands fast: beams that another has beaten for good stop where they are."""
    rows, device = memory.mask.shape[0], memory.mask.device
    wide = memory.repeated(beams)
    start = torch.zeros(rows, beams, device=device)
    start[:, 1:] = NEVER  # all beams begin alike: only the first counts, or all would stay alike
    state: State = (
        torch.zeros((), dtype=torch.int64, device=device),
        torch.zeros(rows, beams, longest, dtype=torch.int64, device=device),
        start,
        torch.zeros(rows, beams, dtype=torch.bool, device=device),
        decoder.empty(rows * beams, longest, memory.keys[0][0]),
    )

    def going(place: Tensor, _: Tensor, __: Tensor, done: Tensor, ___: Tensor) -> Tensor:
        return (place < longest) & ~done.all()

    def further(place: Tensor, symbols: Tensor, score: Tensor, done: Tensor, cache: Tensor) -> State:
        before = (place - 1).clamp(min=0)
        last = torch.where(place > 0, symbols.index_select(2, before[None])[:, :, 0], END)
        scores, cache = decoder.step(last.flatten(), place, wide, cache)
        score, found = _continued(scores, score, done)
        chosen = found % scores.shape[-1]
        if beams > 1:
            parent = found // scores.shape[-1]
            symbols = symbols.gather(1, parent[..., None].expand_as(symbols))
            done = done.gather(1, parent)
            cache = _moved(cache, parent, place)
        symbols = symbols.index_copy(2, place[None], chosen[..., None])
        done = done | (chosen == END)
        if best_only and beams > 1:
            done = done | _settled(symbols, score, done, penalty)
        return place + 1, symbols, score, done, cache

    if torch.compiler.is_exporting():
        _, symbols, score, _, _ = loop(going, further, state)
    else:
        symbols, score = state[1].clone(), state[2].clone()
        left = torch.arange(rows, device=device)  # of the rows, those that the state is about
        while bool(going(*state)):
            state = further(*state)
            open_rows = (~state[3].all(1)).nonzero()[:, 0]
            if 0 < len(open_rows) <= STILL_OPEN * len(left):  # one text that does not end must not hold up the others
                symbols[left], score[left] = state[1], state[2]
                left, state, wide = _narrowed(open_rows, left, state, wide)
        symbols[left], score[left] = state[1], state[2]
    lengths = (symbols != END).sum(2)
    order = by_length(score, lengths, penalty).argsort(dim=1, descending=True)
    return (
        symbols.gather(1, order[..., None].expand_as(symbols)),
        lengths.gather(1, order),
        score.gather(1, order),
    )


def by_length(
    score: Float[Tensor, "batch beam"], lengths: Int[Tensor, "batch beam"] | int, penalty: float
) -> Float[Tensor, "batch beam"]:
    """What sequences are ranked by: log p / ((5 + n) / 6)^penalty (Wu et al. 2016). A penalty of 0 favours short ones."""
    return score / ((5 + lengths) / 6) ** penalty


def _continued(
    scores: Float[Tensor, "line symbol"], score: Float[Tensor, "batch beam"], done: Bool[Tensor, "batch beam"]
) -> tuple[Float[Tensor, "batch beam"], Int[Tensor, "batch beam"]]:
    """The best of all that the beams of a row can become: their score, and beam times symbols plus symbol. What has ended
    becomes nothing but itself."""
    beams = score.shape[1]
    log_p = scores.float().log_softmax(-1).reshape(-1, beams, scores.shape[-1])
    ended = torch.arange(scores.shape[-1], device=scores.device) == END
    log_p = torch.where(done[..., None], torch.where(ended, 0.0, NEVER), log_p)
    best, found = (score[..., None] + log_p).flatten(1).topk(beams, dim=1)
    return best, found


def _settled(
    symbols: Int[Tensor, "batch beam place"], score: Float[Tensor, "batch beam"], done: Bool[Tensor, "batch beam"], penalty: float
) -> Bool[Tensor, "batch 1"]:  # fmt: skip
    """Whether the best of the beams that have ended stands fast. A score only falls, so the best that a beam can come to is
    its score now at the greatest length."""
    reached = by_length(score, (symbols != END).sum(2), penalty)
    reachable = by_length(score, symbols.shape[2], penalty)
    ended = torch.where(done, reached, NEVER).amax(1, keepdim=True)
    return ended > torch.where(done, NEVER, reachable).amax(1, keepdim=True)


def _narrowed(rows: Int[Tensor, " row"], left: Tensor, state: State, wide: Memory) -> tuple[Tensor, State, Memory]:
    """The search of some of its rows."""
    place, symbols, score, done, cache = state
    beams = score.shape[1]
    lines = (rows[:, None] * beams + torch.arange(beams, device=rows.device)).flatten()
    narrowed = place, symbols[rows], score[rows], done[rows], cache.index_select(1, lines)
    return left[rows], narrowed, wide.rows(lines)


def _moved(
    cache: Float[Tensor, "layer row head place d"], parent: Int[Tensor, "batch beam"], place: Int[Tensor, ""]
) -> Float[Tensor, "layer row head place d"]:
    """The cache with every beam's past that of its parent: in an export a new tensor; else only beams whose parent is
    another are copied, as far as they are filled."""
    rows, beams = parent.shape
    line = (torch.arange(rows, device=parent.device)[:, None] * beams + parent).flatten()
    if torch.compiler.is_exporting():
        return cache.index_select(1, line)
    changed = (line != torch.arange(rows * beams, device=parent.device)).nonzero()[:, 0]
    filled = int(place) + 1
    cache[:, changed, :, :filled] = cache[:, line[changed], :, :filled]
    return cache


def sample(
    decoder: Writer,
    memory: Memory,
    *,
    count: int,
    longest: int,
    temperature: float,
    top_p: float,
    chance: torch.Generator,
) -> tuple[Int[Tensor, "batch draw place"], Int[Tensor, "batch draw"], Float[Tensor, "batch draw"]]:
    """Sequences drawn at random, `count` for each row: symbols (END after the end), lengths, and log-probabilities as the
    decoder has them. temperature: scores are divided by it, 0 takes the most probable symbol. top_p: only the fewest
    symbols that together have this probability are drawn from (Holtzman et al. 2020)."""
    rows, wide = memory.mask.shape[0] * count, memory.repeated(count)
    device = memory.mask.device
    cache = decoder.empty(rows, longest, memory.keys[0][0])
    symbols = torch.zeros(rows, longest, dtype=torch.int64, device=device)
    last, done = symbols[:, 0], torch.zeros(rows, dtype=torch.bool, device=device)
    score = torch.zeros(rows, device=device)
    for place in range(longest):
        scores, cache = decoder.step(last, torch.tensor(place, device=device), wide, cache)
        log_p = scores.float().log_softmax(-1)
        last = torch.where(done, END, drawn(log_p, temperature, top_p, chance))
        score = score + torch.where(done, 0.0, log_p.gather(1, last[:, None])[:, 0])
        symbols[:, place] = last
        done = done | (last == END)
        if bool(done.all()):
            break
    lengths = (symbols != END).sum(1)
    return symbols.view(-1, count, longest), lengths.view(-1, count), score.view(-1, count)


def drawn(
    log_p: Float[Tensor, "row symbol"], temperature: float, top_p: float, chance: torch.Generator
) -> Int[Tensor, " row"]:
    """One symbol a row."""
    if temperature == 0:
        return log_p.argmax(1)
    p, order = (log_p / temperature).softmax(1).sort(dim=1, descending=True)
    kept = torch.where(p.cumsum(1) - p < top_p, p, 0.0)  # the symbol that reaches top_p is still in
    return order.gather(1, torch.multinomial(kept, 1, generator=chance))[:, 0]


def loop(going: Callable[..., Tensor], further: Callable[..., State], state: State) -> State:
    """Repeat `further` while `going`: in Python, or as one loop of the graph in an export, where the number of turns
    depends on the data."""
    if torch.compiler.is_exporting():
        from torch._higher_order_ops.while_loop import while_loop

        found: State = while_loop(going, further, state)  # type: ignore[no-untyped-call]
        return found
    while bool(going(*state)):
        state = further(*state)
    return state
