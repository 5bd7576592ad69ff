"""A stream: one row whose input is still coming in, and the answers that are certain so far.

    stream = model.stream()
    for piece in microphone:
        print(stream.feed(piece)["words"])     # grows; what has been said is never taken back
    print(stream.finish()["words"])            # what `predict` gives for the whole

Here: buffering until there is enough for the network's next chunk, and the pasts of encoder and heads from piece to piece.
A feed costs its own piece. Not here: the layers (nn/streaming.py), how pieces are read (`Modality.reader`).
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from endwise.errors import BadValue, DataError, ModelError, refusal, require, unknown_name
from endwise.modalities.base import Answer, Contract, Fetch
from endwise.network import Network
from endwise.nn.interface import Tokens
from endwise.recipe import Recipe

AT_ONCE = 32  # chunks computed together at most: a long piece must not take more memory than a short one


@dataclass(frozen=True, slots=True)
class Partial:
    """What can be said after a piece: `partial["words"]` is the value, `partial.answers["words"]` all there is to say.

    heard: how much of the input had come in, in `unit` ('s' or 'units'). compute_s: what this piece cost. An output that
    needs the whole input is there when the stream has finished.
    """

    answers: Mapping[str, Answer]
    heard: float
    unit: str
    compute_s: float

    def __getitem__(self, output: str) -> Any:
        if output not in self.answers:
            raise unknown_name(field="output", got=output, names=self.answers, error=ModelError)
        return self.answers[output].value

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        outputs = {name: answer.to_dict() for name, answer in self.answers.items()}
        return {"heard": self.heard, "unit": self.unit, "compute_s": self.compute_s, "outputs": outputs}

    def __str__(self) -> str:
        said = ", ".join(f"{name}: {answer.value}" for name, answer in self.answers.items())
        return f"{self.heard:7.2f} {self.unit}  {1000 * self.compute_s:6.1f} ms  {said}"


class Stream:
    """Made by `Model.stream`. One input, fed from its beginning to its end; not for several threads."""

    def __init__(self, recipe: Recipe, contracts: Mapping[str, Contract], network: Network) -> None:
        self.input, chunk = _streaming_input(recipe, network)
        self._chunk = chunk
        self._outputs, self._contracts, self._network = recipe.outputs, contracts, network
        self._declared = recipe.inputs[self.input]
        self._unit = self._declared.streams_in
        self._reader = self._declared.reader(contracts[self.input])
        self._waiting = np.zeros(0, np.int64)
        self._past: Any = None
        self._pasts: dict[str, Any] = dict.fromkeys(self._growing)
        self._kept: list[Tokens] = []  # for the outputs that need them all
        self._answers: dict[str, Answer] = {}
        self._finished = False

    @property
    def _growing(self) -> list[str]:
        return [name for name in self._outputs if self._network.head(name).streams]

    def of(self, raw: Any, fetch: Fetch) -> Iterator[Partial]:
        """A whole raw value (a path ...) as if it came in: what is said after every piece, and at the end. Raises
        DataError where it cannot be read."""
        try:
            for piece in self._declared.pieces(raw, fetch):
                yield self.feed(piece)
        except BadValue as wrong:
            raise DataError(f"{str(raw)[:120]}: {wrong}") from None
        yield self.finish()

    def feed(self, piece: Any) -> Partial:
        """One more piece: samples, `(rate, samples)`, or text; of any length. Raises DataError where it cannot be read."""
        self._still_open()
        start = time.perf_counter()
        try:
            found = self._reader.take(piece)
        except BadValue as wrong:
            raise DataError(f"the stream: field {self.input!r}: {wrong}") from None
        self._hear(found, last=False)
        return self._partial(start)

    def finish(self) -> Partial:
        """The input has ended: the last of the answers."""
        self._still_open()
        start = time.perf_counter()
        try:
            found = self._reader.rest()
        except BadValue as wrong:
            raise DataError(f"the stream: field {self.input!r}: {wrong}") from None
        self._finished = True
        self._hear(found, last=True)
        return self._partial(start)

    def _still_open(self) -> None:
        require(
            not self._finished, field="stream", got="a piece after finish()", allowed="pieces before finish()",
            fix="begin another one with model.stream()", error=DataError,
        )  # fmt: skip

    def _partial(self, start: float) -> Partial:
        return Partial(dict(self._answers), self._reader.length, self._unit, time.perf_counter() - start)

    @torch.inference_mode()
    def _hear(self, found: np.ndarray, *, last: bool) -> None:
        waiting = np.concatenate([self._waiting, found]) if len(self._waiting) else found
        ready = len(waiting) if last else len(waiting) // self._chunk * self._chunk
        step = self._chunk * AT_ONCE
        places = list(range(0, ready, step))
        for place in places:
            ended = last and place == places[-1]
            self._answer(self._tokens(waiting[place : min(place + step, ready)]), last=ended)
        if not places and (last or not self._answers):
            self._answer(self._no_tokens(), last=last)
        self._waiting = waiting[ready:]

    def _tokens(self, values: np.ndarray) -> Tokens:
        device = next(self._network.parameters()).device
        sizes = torch.tensor([[len(values)]], device=device)
        field = torch.from_numpy(np.ascontiguousarray(values))[None].to(device)
        tokens, self._past = self._network.feed(self.input, field, sizes, self._past)
        return tokens

    def _no_tokens(self) -> Tokens:
        weight = next(self._network.parameters())
        nothing = torch.zeros(1, 0, device=weight.device)
        values = torch.zeros(1, 0, self._network.size.width, device=weight.device)
        return Tokens(values, nothing.bool(), known=nothing)

    def _answer(self, tokens: Tokens, *, last: bool) -> None:
        for name in self._growing:
            decoded, self._pasts[name] = self._network.head(name).feed(tokens, self._pasts[name], last=last)
            self._write(name, decoded, last=last)
        late = [name for name in self._outputs if name not in self._pasts]
        if not late:
            return
        self._kept.append(tokens)
        if last:
            whole = Tokens(
                torch.cat([part.values for part in self._kept], 1), torch.cat([part.mask for part in self._kept], 1)
            )
            for name in late:
                head = self._network.head(name)
                self._write(name, head.decode(head(whole)), last=True)

    def _write(self, name: str, decoded: Mapping[str, torch.Tensor], *, last: bool) -> None:
        row = {key: value[0].cpu().numpy() for key, value in decoded.items()}
        self._answers[name] = self._outputs[name].write_so_far(row, self._contracts[name], last=last)


def _streaming_input(recipe: Recipe, network: Network) -> tuple[str, int]:
    """The one input and its chunk, or why there can be no stream."""
    names = list(recipe.inputs)
    require(
        len(names) == 1, field="stream", got=f"a model with the inputs {', '.join(names)}",
        allowed="a model with one input: a trunk over several looks at all of them as a whole",
        fix="train one with the input that streams", error=ModelError,
    )  # fmt: skip
    declared, encoder = recipe.inputs[names[0]], network.encoder(names[0])
    if encoder.chunk is None:
        hint = {"audio": "chunk_s: 0.32", "text": "causal: true"}.get(declared.type)
        raise refusal(
            field="stream", got=f"{names[0]}: {declared.type}, which is heard as a whole", allowed="an input that streams",
            fix=f"train with {names[0]}: {{type: {declared.type}, {hint}}}" if hint
            else "audio (chunk_s:) and text (causal:) can stream",
            error=ModelError,
        )  # fmt: skip
    require(
        any(network.head(name).streams for name in recipe.outputs), field="stream",
        got=f"a model that answers {', '.join(f'{name}: {item.type}' for name, item in recipe.outputs.items())}",
        allowed="an answer that can be given in parts",
        fix="train with a text output, decoder: ctc, or decoder: attention with wait:", error=ModelError,
    )  # fmt: skip
    return names[0], encoder.chunk
