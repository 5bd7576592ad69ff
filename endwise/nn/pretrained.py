"""Pretrained networks as encoders and decoders: built from their architecture, filled once from safetensors, tuned as declared.

`transformers` builds the network and knows how checkpoints name their weights; `peft` adds the adapters. Both are
imported only here. A saved model holds architecture and weights, so loading one asks for neither the source folder nor
the network. Not here: finding folders (modalities/pretrained.py), reading raw values.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
import xxhash
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from endwise.errors import ModelError, need, refusal
from endwise.nn.efficientnet import LITE, EfficientNetLite
from endwise.nn.gpt2 import GPT2, GPT2Network
from endwise.nn.interface import Encoder, Tokens
from endwise.nn.size import Size
from endwise.nn.vision import BatchNorm

WEIGHT_DECAY = 0.01
MEMORY_BYTES = 2**30  # of what frozen networks said; more is not worth the place
# of a config.json: what would fetch or run code, or undo a choice made here
REMOVED = ("auto_map", "attn_implementation", "_attn_implementation", "experts_implementation", "_name_or_path",
           "torch_dtype", "dtype", "quantization_config", "architectures", "transformers_version", "output_hidden_states",
           "output_attentions", "return_dict", "use_return_dict", "is_decoder", "add_cross_attention")  # fmt: skip


@dataclass(frozen=True)
class Family:
    """Where an architecture keeps what lies under its layers, and its layers."""

    stem: tuple[str, ...]
    layers: str


SPEECH = ("wav2vec2", "hubert")
FAMILIES: dict[str, Family] = {
    "bert": Family(("embeddings",), "encoder.layer"),
    "roberta": Family(("embeddings",), "encoder.layer"),
    "xlm-roberta": Family(("embeddings",), "encoder.layer"),
    "electra": Family(("embeddings", "embeddings_project"), "encoder.layer"),
    "distilbert": Family(("embeddings",), "transformer.layer"),
    "mpnet": Family(("embeddings",), "encoder.layer"),
    **dict.fromkeys(SPEECH, Family(("feature_extractor", "feature_projection"), "encoder.layers")),
    "vit": Family(("embeddings",), "layers"),
    "dinov2": Family(("embeddings",), "encoder.layer"),
    "resnet": Family(("embedder",), "encoder.stages"),
    "convnext": Family(("embeddings",), "encoder.stages"),
    **dict.fromkeys(LITE, Family(("conv_stem", "bn1"), "blocks")),
    GPT2: Family(("wte", "wpe"), "h"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuning:
    """What of a pretrained network learns. way: full, top, lora, frozen. rate: of the top layer (or of the adapters);
    each layer below learns at `decay` times the one above (Clark et al. 2020, ELECTRA). top: layers that learn; None:
    half. unfreeze: share of the steps over which layers begin, top first (Howard & Ruder 2018, ULMFiT). rank: of the
    adapters (Hu et al. 2022, LoRA)."""

    way: str
    rate: float
    decay: float
    top: int | None
    unfreeze: float
    rank: int


class Pretrained(nn.Module):
    """A pretrained network and what of it learns. Encoders hold one, and say how their values enter it.

    weights: what the contract keeps of them (`family`, `config`, `sha256`, `source`). folder: where they lie, asked only
    when they are loaded.
    """

    def __init__(self, weights: Mapping[str, Any], tuning: Tuning, folder: Callable[[], Path]) -> None:
        super().__init__()
        name = str(weights["family"])
        if name not in FAMILIES:
            raise ModelError(f"the pretrained architecture {name!r} is not one of {', '.join(FAMILIES)}.")
        self.tuning, self._folder, self.family = tuning, folder, FAMILIES[name]
        self.network = build(name, weights["config"])
        for part in list(self.network.modules()):
            for own, child in part.named_children():
                if type(child) is nn.BatchNorm2d:  # a last batch of one small picture
                    setattr(part, own, BatchNorm.like(child))
        self.quiet: list[nn.Module] = []  # parts that never learn: their dropout and statistics rest in training too
        self._tune()

    @property
    def config(self) -> Any:
        """The architecture, as `transformers` has it."""
        return self.network.config

    def forward(self, *values: Tensor, **named: Any) -> Any:
        """Whatever the network takes and gives."""
        return self.network(*values, **named)

    def load(self) -> None:
        """Fill the network from its folder; every weight of it must be there."""
        found = read_weights(self._folder(), self.network)
        with torch.no_grad():
            for name, value in self.network.state_dict().items():
                if ".lora_" not in name:
                    value.copy_(found[name.replace(".base_layer.", ".")])

    def train(self, mode: bool = True) -> Self:
        """What never learns stays in evaluation mode."""
        super().train(mode)
        for part in self.quiet:
            part.eval()
        return self

    def layers(self) -> list[nn.Module]:
        """The network's layers, the lowest first."""
        found = _part(self.network, self.family.layers)
        assert isinstance(found, nn.ModuleList | nn.Sequential)
        return list(found)

    def _tune(self) -> None:
        """Which weights learn, in which group of the optimiser."""
        tuning, layers = self.tuning, self.layers()
        if tuning.way in ("frozen", "lora"):
            self.network.requires_grad_(False)
        if tuning.way == "frozen":
            self.quiet = [self.network]
            return
        _rated(self.network, tuning.rate, 0.0)  # what lies above the layers: a last norm
        if tuning.way == "lora":
            adapters(self.network, self.family.layers, tuning.rank)
            self.quiet = [part for part in self.network.modules() if isinstance(part, nn.BatchNorm2d)]
            return
        stem = [part for name in self.family.stem if (part := _part(self.network, name)) is not None]
        learning = len(layers) + 1 if tuning.way == "full" else tuning.top or max(1, len(layers) // 2)
        if tuning.way == "top" and learning > len(layers):
            raise refusal(
                field="top_layers", got=learning, allowed=f"at most {len(layers)}: the network has no more layers",
                fix="write fine_tune: full to learn them all",
            )  # fmt: skip
        for depth, parts in enumerate([*([layer] for layer in reversed(layers)), stem]):
            start = tuning.unfreeze * (depth + 1) / (len(layers) + 1)
            for part in parts:
                if depth < learning:
                    _rated(part, tuning.rate * tuning.decay**depth, start)
                else:
                    part.requires_grad_(False)
                    self.quiet.append(part)


class Memory:
    """What a network that never learns said of single rows: it is asked once, and not again in every epoch.

    It is asked for one row at a time, since what a row gives must not depend on the rows beside which it first came: a resumed
    run meets them in another order. Rows are known by a hash of their values (XXH3, 128 bits). A copy of a network, on which
    something is measured, has an empty one.
    """

    def __init__(self) -> None:
        self.kept: dict[bytes, list[Tensor]] = {}

    def __deepcopy__(self, _: dict[int, Any]) -> "Memory":
        return Memory()

    def said(self, values: Float[Tensor, "batch *place"], ask: Callable[[Tensor], Sequence[Tensor]]) -> list[Tensor]:
        """What `ask` gives for these rows, batch first; it must give detached tensors."""
        found = []
        for row in torch.split(values, 1):
            key = xxhash.xxh3_128_digest(row.contiguous().numpy().tobytes())
            if key not in self.kept:
                with torch.no_grad():
                    self.kept[key] = list(ask(row))
            found.append(self.kept[key])
        return [torch.cat(parts) for parts in zip(*found, strict=True)]


class Outlet(nn.Module):
    """A pretrained network's tokens at the common width: a learnt projection and a norm."""

    def __init__(self, width: int, size: Size) -> None:
        super().__init__()
        self.project = nn.Linear(width, size.width)
        self.norm = nn.LayerNorm(size.width)

    def forward(self, hidden: Float[Tensor, "batch token hidden"]) -> Float[Tensor, "batch token width"]:
        """Token by token."""
        out: Tensor = self.norm(self.project(hidden))
        return out


class TokenEncoder(Encoder):
    """Ids of a pretrained tokenizer -> one token each. window: ids beyond so many are read in windows, none of which knows
    of the others; what comes after sees the tokens of all."""

    def __init__(
        self,
        weights: Mapping[str, Any],
        tuning: Tuning,
        size: Size,
        folder: Callable[[], Path],
        *,
        window: int | None = None,
    ) -> None:
        super().__init__()
        self.pretrained, self.window = Pretrained(weights, tuning, folder), window
        self.outlet = Outlet(int(self.pretrained.config.hidden_size), size)

    def load_pretrained(self) -> None:
        """From the folder."""
        self.pretrained.load()

    def looked_up(self) -> nn.Module:
        """The table of the ids."""
        network: Any = self.pretrained.network
        table = network.get_input_embeddings()
        assert isinstance(table, nn.Embedding)
        return table

    def neutral(self, values: Tensor, sizes: Tensor, found: Tensor) -> Tensor:
        """The mean of all ids' vectors: a length that the network knows, and no meaning."""
        table = self.looked_up()
        assert isinstance(table, nn.Embedding)
        return table.weight.detach().mean(0).to(found.dtype).expand_as(found)

    def forward(self, values: Int[Tensor, "batch unit"], sizes: Int[Tensor, "batch axes"]) -> Tokens:
        """Padding is masked, whatever ids it holds."""
        window = self.window
        mask = torch.arange(values.shape[1], device=values.device) < sizes[:, :1]
        ids = torch.where(mask, values, self.pretrained.config.pad_token_id or 0)
        # asked in this order, so that an export holds for lengths beyond those that it was traced with
        if window is None or not (torch.compiler.is_exporting() or values.shape[1] > window):
            return Tokens(self._read(ids, mask), mask)
        rows, count = values.shape[0], (values.shape[1] + window - 1) // window
        ids, mask = (F.pad(part, (0, window - 1)) for part in (ids, mask))
        # by places and not by `reshape`, which in an export of short rows is taken for nothing at all
        part, place = torch.arange(rows * count, device=ids.device), torch.arange(window, device=ids.device)
        each = torch.full((1,), count, device=ids.device)
        where = (part // each)[:, None], (part % each)[:, None] * window + place
        # a window behind the end of its row sees its first place: attention to nothing would be no number
        hidden = self._read(ids[where], mask[where] | (place == 0))
        row, place = torch.arange(rows, device=ids.device), torch.arange(count * window, device=ids.device)
        return Tokens(hidden[row[:, None] * count + place // window, place % window], mask[:, : count * window])

    def _read(self, ids: Int[Tensor, "row unit"], seen: Bool[Tensor, "row unit"]) -> Float[Tensor, "row unit width"]:
        out: Tensor = self.outlet(self.pretrained(input_ids=ids, attention_mask=seen.long()).last_hidden_state)
        return out


# ---- building and filling ----------------------------------------------------------------------------------------------


def build(family: str, config: Mapping[str, Any]) -> nn.Module:
    """The network of a config.json with random weights, in float32, without the parts that no token passes."""
    if family in LITE:
        return EfficientNetLite(family)
    if family == GPT2:
        return GPT2Network(config)
    library = need("transformers", extra="hub", what="a pretrained encoder")
    values = {name: value for name, value in config.items() if name not in REMOVED}
    settings = library.CONFIG_MAPPING[family].from_dict(values)
    kind = library.MODEL_MAPPING[type(settings)]
    if family in SPEECH:  # changes of the training rows are the modality's, drawn from torch's generator
        settings.apply_spec_augment, settings.layerdrop = False, 0.0
    settings._attn_implementation = "sdpa" if kind._supports_sdpa else "eager"
    with _silent(library):
        network: nn.Module = kind(settings)
    pooler = getattr(network, "pooler", None)
    if pooler is not None and any(True for _ in pooler.parameters()):
        network.pooler = None  # type: ignore[assignment]
    return network.float()


def read_weights(folder: Path, like: nn.Module) -> dict[str, Tensor]:
    """A folder's weights under the names of `like`, as `transformers` reads them: safetensors alone, nothing fetched."""
    if isinstance(like, EfficientNetLite):
        return _own_weights(folder, EfficientNetLite(like.name))  # as it is without adapters
    if isinstance(like, GPT2Network):
        return _own_weights(folder, GPT2Network(like.config))
    library = need("transformers", extra="hub", what="a pretrained encoder")
    kind: Any = library.MODEL_MAPPING[type(like.config)]
    with _silent(library):
        network, report = kind.from_pretrained(
            folder, config=like.config, use_safetensors=True, local_files_only=True, dtype=torch.float32,
            output_loading_info=True,
        )  # fmt: skip
    lacking = sorted(name for name in report["missing_keys"] if not name.startswith("pooler."))
    _complete(folder, [*lacking, *map(str, report["mismatched_keys"])])
    found: dict[str, Tensor] = network.state_dict()
    return found


def _own_weights(folder: Path, like: nn.Module) -> dict[str, Tensor]:
    """Weights of a network that is written here; what classified the original's is left out."""
    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    if isinstance(like, GPT2Network):
        found = like.renamed(found)
    wanted = like.state_dict()
    _complete(folder, [n for n, value in wanted.items() if n not in found or found[n].shape != value.shape])
    return {name: found[name] for name in wanted}


def _complete(folder: Path, odd: Sequence[str]) -> None:
    if odd:
        raise ModelError(
            f"{folder}: {len(odd)} weights are missing or of another shape than config.json says: {', '.join(odd[:3])}. "
            "Fix: copy the folder again; config.json and the weights must belong together."
        )


def adapters(network: nn.Module, layers: str, rank: int) -> None:
    """Low-rank adapters beside every linear map and every dense convolution of the layers; they begin as nothing."""
    library = need("peft", extra="hub", what="fine_tune: lora")
    part = _part(network, layers)
    assert part is not None
    names = [name for name, module in part.named_modules(prefix=layers) if _dense(module)]
    library.inject_adapter_in_model(library.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names), network)


def _dense(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


def _part(network: nn.Module, path: str) -> nn.Module | None:
    part: Any = network
    for name in path.split("."):
        part = getattr(part, name, None)
    return part if isinstance(part, nn.Module) else None


def _rated(part: Any, rate: float, start: float) -> None:
    """Marks for the optimiser: a learning rate of its own, whatever the recipe's, from this share of the steps on."""
    part.peak_rate, part.weight_decay, part.keeps_rate, part.starts = rate, WEIGHT_DECAY, True, start


@contextlib.contextmanager
def _silent(library: Any) -> Iterator[None]:
    """No progress bars and reports on somebody else's standard error; what matters is checked here."""
    logging = library.utils.logging
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
