"""Heads that write text symbol after symbol: by attention, as a language model, and together with CTC.

Here: teacher forcing, its loss, and which of the sequences that were found is the answer. Not here: the decoder and
its search (endwise/nn/decoder.py), the CTC head (network.py), what a symbol means (`Text.write`).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from endwise.modalities.text import BLANK
from endwise.modalities.text.network import CTCHead
from endwise.nn.decoder import END, NEVER, State, Writer, by_length, loop, sample, search
from endwise.nn.interface import Aim, Handed, Head, Tokens
from endwise.nn.size import Size

JUDGE = 0.3  # what CTC has to say about a written sequence, as a share (Watanabe et al. 2017)


class SequenceHead(Head):
    """Tokens -> symbols one after the other, each from those before it and all tokens.

    While it learns it sees the right symbols (teacher forcing). A row's loss is -log p per symbol, the end included,
    and its weight is its number of symbols, so that the mean counts every symbol alike.
    """

    passes = 60  # to write takes longer to learn than to decide

    def __init__(
        self, decoder: Writer, size: Size, *, beams: int, longest: int, penalty: float, smoothing: float
    ) -> None:
        super().__init__()
        self.beams, self.longest, self.penalty, self.smoothing = beams, longest, penalty, smoothing
        self.drafts = float(beams)
        self.norm = nn.RMSNorm(size.width)
        self.decoder = decoder

    def load_pretrained(self) -> None:
        """The decoder's."""
        self.decoder.load_pretrained()

    def forward(self, tokens: Tokens) -> dict[str, Tensor]:
        """{'memory': float32 [batch, token, width], 'real': bool [batch, token]}: what is looked at while writing."""
        return {"memory": self.norm(tokens.values), "real": tokens.mask}

    def loss(self, prediction: dict[str, Tensor], target: Tensor, sizes: Tensor) -> dict[str, Float[Tensor, " batch"]]:
        """{'cross_entropy'}: per symbol; softened only while training."""
        before, after = F.pad(target, (1, 0), value=END), F.pad(target, (0, 1), value=END)  # padding is END already
        scores = self.decoder(before, self.decoder.begin(prediction["memory"], prediction["real"]))
        smoothing = self.smoothing if self.training else 0.0
        cost = F.cross_entropy(
            scores.flatten(0, 1).float(), after.flatten(), reduction="none", label_smoothing=smoothing
        )
        inside = torch.arange(after.shape[1], device=after.device) <= sizes
        cost = torch.where(inside, cost.view(after.shape), 0.0)
        return {"cross_entropy": cost.sum(1) / (sizes[:, 0] + 1)}

    def weight(self, target: Tensor, sizes: Tensor) -> Float[Tensor, " batch"]:
        """Symbols of the target, and its end."""
        return sizes[:, 0].float() + 1

    def decode(self, prediction: dict[str, Tensor]) -> dict[str, Tensor]:
        """{'symbols': int64 [batch, place], 'length': int64 [batch], 'score': float32 [batch], its log-probability}."""
        return self._best(prediction, beams=self.beams)

    def draft(self, prediction: dict[str, Tensor]) -> dict[str, Tensor]:
        """As `decode`: each symbol the most probable one."""
        return self._best(prediction, beams=1)

    def _best(self, prediction: dict[str, Tensor], *, beams: int) -> dict[str, Tensor]:
        memory = self.decoder.begin(prediction["memory"], prediction["real"])
        found = search(self.decoder, memory, beams=beams, longest=self.longest, penalty=self.penalty, best_only=True)
        symbols, length, score = found
        return {"symbols": symbols[:, 0], "length": length[:, 0], "score": score[:, 0]}

    def sample(
        self, prediction: dict[str, Tensor], *, count: int, temperature: float, top_p: float, chance: torch.Generator
    ) -> dict[str, Tensor]:
        """{'symbols': int64 [batch, draw, place], 'length', 'score': [batch, draw]}."""
        memory = self.decoder.begin(prediction["memory"], prediction["real"])
        symbols, length, score = sample(
            self.decoder, memory, count=count, longest=self.longest, temperature=temperature, top_p=top_p, chance=chance
        )
        return {"symbols": symbols, "length": length, "score": score}

    def handed(self, prediction: dict[str, Tensor], *, greedy: bool) -> Handed:
        """What was written, and its scores as if it had been taught: the search itself has no gradient."""
        with torch.no_grad():
            if greedy:
                memory = self.decoder.begin(prediction["memory"], prediction["real"])
                symbols, length, _ = search(self.decoder, memory, beams=1, longest=self.longest, penalty=0.0)
                symbols, length = symbols[:, 0], length[:, 0]
            else:
                found = self.decode(prediction)
                symbols, length = found["symbols"], found["length"]
        return self.retold(prediction, symbols, length)

    def retold(
        self, prediction: dict[str, Tensor], symbols: Int[Tensor, "batch place"], length: Int[Tensor, " batch"]
    ) -> Handed:
        """Symbols with the scores that each had behind those before it."""
        if not torch.compiler.is_exporting():
            symbols = symbols[:, : int(length.max())]
        before = F.pad(symbols, (1, 0), value=END)[:, :-1]
        scores = self.decoder(before, self.decoder.begin(prediction["memory"], prediction["real"])).float()
        scores = torch.where(torch.arange(scores.shape[-1], device=symbols.device) == END, NEVER, scores)
        return Handed(symbols, length[:, None], scores)

    def aim(self, prediction: dict[str, Tensor], about: tuple[int, ...]) -> Aim:
        """The log-probability of the symbols from `about[0]` to before `about[1]`, each behind those that were written
        before it; of an empty answer that of its end."""
        with torch.no_grad():
            found = self.decode(prediction)
        return self.aimed(found["symbols"][:, : int(found["length"][0])], about)

    def aimed(self, symbols: Int[Tensor, "1 place"], about: tuple[int, ...]) -> Aim:
        """The same of symbols that somebody else chose."""
        before, after = F.pad(symbols, (1, 0), value=END), F.pad(symbols, (0, 1), value=END)
        places = slice(*about) if about[1] > about[0] else slice(None)

        def surer(other: dict[str, Tensor]) -> Tensor:
            rows = len(other["memory"])
            memory = self.decoder.begin(other["memory"], other["real"])
            scores = self.decoder(before.expand(rows, -1), memory).float().log_softmax(-1)
            found: Tensor = scores.gather(2, after[..., None].expand(rows, -1, 1))[:, places, 0].sum(1)
            return found

        return surer

    def found(self, prediction: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """All beams: symbols [batch, beam, place], lengths and log-probabilities [batch, beam], the best first."""
        memory = self.decoder.begin(prediction["memory"], prediction["real"])
        return search(self.decoder, memory, beams=self.beams, longest=self.longest, penalty=self.penalty)


class JointHead(Head):
    """CTC and attention over the same tokens. CTC keeps the two in step while they learn; of what attention wrote, the
    answer is the sequence that both together find most probable."""

    passes = 60

    def __init__(self, spelt: CTCHead, written: SequenceHead) -> None:
        super().__init__()
        self.spelt, self.written = spelt, written
        self.drafts = written.drafts

    def forward(self, tokens: Tokens) -> dict[str, Tensor]:
        """What both predict."""
        return {**self.spelt(tokens), **self.written(tokens)}

    def loss(self, prediction: dict[str, Tensor], target: Tensor, sizes: Tensor) -> dict[str, Float[Tensor, " batch"]]:
        """{'ctc', 'cross_entropy'}, both per symbol with the end: CTC has no end to spell, but one weight is both terms',
        and a row must not count for more letters than it has."""
        letters = self.spelt.weight(target, sizes) / self.weight(target, sizes)
        spelt = {name: term * letters for name, term in self.spelt.loss(prediction, target, sizes).items()}
        return {**spelt, **self.written.loss(prediction, target, sizes)}

    def weight(self, target: Tensor, sizes: Tensor) -> Float[Tensor, " batch"]:
        """Symbols of the target, and its end."""
        return self.written.weight(target, sizes)

    def decode(self, prediction: dict[str, Tensor]) -> dict[str, Tensor]:
        """As `SequenceHead.decode`; the score is what both agreed on."""
        symbols, length, score = self.written.found(prediction)
        judged = spelt_log_p(prediction["logits"].log_softmax(-1), prediction["frames"], symbols, length)
        both = (1 - JUDGE) * score + JUDGE * judged
        best = by_length(both, length, self.written.penalty).argmax(1, keepdim=True)
        return {
            "symbols": symbols.gather(1, best[..., None].expand(-1, -1, symbols.shape[2]))[:, 0],
            "length": length.gather(1, best)[:, 0],
            "score": both.gather(1, best)[:, 0],
        }

    def draft(self, prediction: dict[str, Tensor]) -> dict[str, Tensor]:
        """As `SequenceHead.draft`; CTC has no say."""
        return self.written.draft(prediction)

    def sample(
        self, prediction: dict[str, Tensor], *, count: int, temperature: float, top_p: float, chance: torch.Generator
    ) -> dict[str, Tensor]:
        """As `SequenceHead.sample`; CTC has no say."""
        return self.written.sample(prediction, count=count, temperature=temperature, top_p=top_p, chance=chance)

    def handed(self, prediction: dict[str, Tensor], *, greedy: bool) -> Handed:
        """As `SequenceHead.handed`; of the best answer, what both agreed on."""
        if greedy:
            return self.written.handed(prediction, greedy=True)
        with torch.no_grad():
            found = self.decode(prediction)
        return self.written.retold(prediction, found["symbols"], found["length"])

    def aim(self, prediction: dict[str, Tensor], about: tuple[int, ...]) -> Aim:
        """As `SequenceHead.aim`, of what both agreed on."""
        with torch.no_grad():
            found = self.decode(prediction)
        return self.written.aimed(found["symbols"][:, : int(found["length"][0])], about)

    def notes(self) -> list[str]:
        """Those of CTC."""
        return self.spelt.notes()


def spelt_log_p(
    log_p: Float[Tensor, "batch frame symbol"],
    frames: Int[Tensor, " batch"],
    symbols: Int[Tensor, "batch beam place"],
    lengths: Int[Tensor, "batch beam"],
) -> Float[Tensor, "batch beam"]:
    """Log-probability of each sequence over all its alignments (the forward pass of Graves et al. 2006): the same as
    -`losses.ctc`, as a loop over frames that an exported graph can hold."""
    _, beams, places = symbols.shape
    # the states of a sequence: pause, letter, pause, letter ... pause
    states = 2 * places + 1
    state = torch.arange(states, device=symbols.device)
    letter = symbols.index_select(2, (state // 2).clamp(max=places - 1))
    label = torch.where(state % 2 == 1, letter, BLANK)
    two_back = F.pad(label, (2, 0), value=-1)[..., :states]
    leaps = (label != BLANK) & (label != two_back)  # past the pause between two different letters

    def heard(place: Tensor) -> Tensor:
        now = log_p.index_select(1, place[None])  # [batch, 1, symbol]
        return now.expand(-1, beams, -1).gather(2, label)

    def going(place: Tensor, _: Tensor) -> Tensor:
        return place < log_p.shape[1]

    def further(place: Tensor, alpha: Tensor) -> State:
        one = F.pad(alpha, (1, 0), value=NEVER)[..., :states]
        two = torch.where(leaps, F.pad(alpha, (2, 0), value=NEVER)[..., :states], NEVER)
        moved = torch.stack([alpha, one, two]).logsumexp(0) + heard(place)
        return place + 1, torch.where((place < frames)[:, None, None], moved, alpha)

    first = torch.zeros((), dtype=torch.int64, device=symbols.device)
    alpha = torch.where(state < 2, heard(first), NEVER)
    _, alpha = loop(going, further, (first + 1, alpha))
    last = 2 * lengths[..., None]
    ends = alpha.gather(2, last)
    before = torch.where(last > 0, alpha.gather(2, (last - 1).clamp(min=0)), NEVER)
    return torch.logaddexp(ends, before)[..., 0]
