"""Inputs, and texts that are written, that begin with somebody else's weights: which, where, and how much of them learns.

Here: the fields that every such input has, finding the folder, and what of it the contract keeps (architecture,
licence, sha256 of every weight file), so that a saved model needs the folder no more. Not here: the network made of it
(nn/pretrained.py), tokenizers and pictures (the modalities). A bundle carries this file: the standard library alone.

    hf:models/minilm               a folder in the layout of the Hugging Face hub: config.json, *.safetensors
    hf:sentence-transformers/all-MiniLM-L6-v2      the same, by its name on the hub (or from the hub's cache)
    timm:models/lite0, timm:tf_efficientnet_lite0.in1k      a folder in timm's layout, or a name: for pictures
    package:some_package/model     a folder inside an installed package, which is not imported
"""

import hashlib
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from endwise.errors import RecipeError, SetupError, need, refusal, require
from endwise.files import read_json
from endwise.modalities.base import Modality, input_field

if TYPE_CHECKING:
    from endwise.nn.pretrained import Tuning

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
HUB_FILES = (CONFIG, "*.safetensors", INDEX, "tokenizer.json", "preprocessor_config.json", "README.md", "LICENSE*")
HUB_NAME = re.compile(r"^[\w.\-]+(/[\w.\-]+)?$")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
NOT_STATED = "not stated"
FULL_RATE, LORA_RATE = 1e-4, 1e-3
LAYER_DECAY = 0.8
LORA_RANK = 8
HINTS = ("fine_tune", "top_layers", "pretrained_rate", "layer_decay", "unfreeze", "lora_rank")
HELP = {
    "pretrained": "weights to begin with: hf:FOLDER or hf:NAME (Hugging Face), timm:... (pictures), package:NAME/FOLDER; "
    "null: none",
    "fine_tune": "what of them learns. full: all (null); top: the last layers; lora: low-rank adapters; frozen: nothing",
    "top_layers": "how many layers learn with fine_tune: top; null: the upper half",
    "pretrained_rate": "peak learning rate of the top pretrained layer, train.learning_rate being the rest's; null: 1e-4, or "
    "1e-3 of adapters",
    "layer_decay": "each layer learns at this share of the rate of the one above; null: 0.8",
    "unfreeze": "share of the steps over which layers begin to learn, one after the other from the top; null: all at once",
    "lora_rank": "rank of the adapters of fine_tune: lora; null: 8",
}
USED_BY = {  # which ways of tuning a field changes anything for
    "top_layers": ("top",),
    "pretrained_rate": ("full", "top", "lora"),
    "layer_decay": ("full", "top"),
    "unfreeze": ("full", "top"),
    "lora_rank": ("lora",),
}


@dataclass(frozen=True, kw_only=True)
class PretrainedInput(Modality):
    """An input whose encoder may begin with pretrained weights. `instead`: fields of the encoder from scratch, which
    mean nothing beside them. `families`: the architectures (`model_type` of config.json) this kind of value has."""

    instead: ClassVar[tuple[str, ...]] = ()
    families: ClassVar[tuple[str, ...]] = ()

    pretrained: str | None = input_field(None, HELP["pretrained"])
    fine_tune: Literal["full", "top", "lora", "frozen"] | None = input_field(None, HELP["fine_tune"])
    top_layers: int | None = input_field(None, HELP["top_layers"])
    pretrained_rate: float | None = input_field(None, HELP["pretrained_rate"])
    layer_decay: float | None = input_field(None, HELP["layer_decay"])
    unfreeze: float | None = input_field(None, HELP["unfreeze"])
    lora_rank: int | None = input_field(None, HELP["lora_rank"])

    def __post_init__(self) -> None:
        super().__post_init__()
        kind = type(self).__name__
        given = [name for name in HINTS if getattr(self, name) is not None]
        if self.pretrained is None:
            for name in given:
                raise refusal(
                    field=f"{kind}.{name}", got=getattr(self, name), allowed="only beside pretrained:",
                    fix="name the weights with pretrained: hf:FOLDER, or remove it",
                )  # fmt: skip
            return
        split_source(self.pretrained, f"{kind}.pretrained")
        for name in self.instead:
            require(
                getattr(self, name) == type(self).__dataclass_fields__[name].default,
                field=f"{kind}.{name}", got=getattr(self, name), allowed="nothing beside pretrained:",
                fix="it belongs to a network from scratch: remove one of the two",
            )  # fmt: skip
        way = self.fine_tune or "full"
        for name in given:
            if way not in USED_BY.get(name, (way,)):
                raise refusal(
                    field=f"{kind}.{name}", got=getattr(self, name),
                    allowed=f"only with fine_tune: {' or '.join(USED_BY[name])}",
                    fix=f"remove it: fine_tune is {way}",
                )  # fmt: skip
        for name, low, high in (("top_layers", 1, 1000), ("lora_rank", 1, 1024)):
            value = getattr(self, name)
            require(
                value is None or low <= value <= high, field=f"{kind}.{name}", got=value,
                allowed=f"a whole number from {low} to {high}", fix="leave it out for the default",
            )  # fmt: skip
        for name, most in (("pretrained_rate", 1.0), ("layer_decay", 1.0), ("unfreeze", 1.0)):
            value = getattr(self, name)
            require(
                value is None or 0 < value <= most, field=f"{kind}.{name}", got=value,
                allowed=f"a number above 0, at most {most:g}", fix="leave it out for the default",
            )  # fmt: skip

    def tuning(self) -> "Tuning":
        """What of the pretrained network learns, and how fast."""
        from endwise.nn.pretrained import Tuning

        way = self.fine_tune or "full"
        return Tuning(
            way=way,
            rate=self.pretrained_rate or (LORA_RATE if way == "lora" else FULL_RATE),
            decay=self.layer_decay or LAYER_DECAY,
            top=self.top_layers,
            unfreeze=self.unfreeze or 0.0,
            rank=self.lora_rank or LORA_RANK,
        )

    def weights_description(self) -> dict[str, Any] | None:
        """What a contract keeps of the weights; None from scratch. Raises RecipeError or SetupError with the fix."""
        if self.pretrained is None:
            return None
        return describe(self.pretrained, type(self).families, f"{type(self).__name__}.pretrained")


def describe(source: str, families: tuple[str, ...], field: str) -> dict[str, Any]:
    """Plain JSON: where the weights came from, their sha256 by file, the licence, and the architecture."""
    folder = find(source, field)
    config = _json(folder / CONFIG, field)
    family = config.get("model_type") or config.get("architecture")  # timm's word
    require(
        family in families, field=f"{field}: config.json", got=family, allowed=f"one of {', '.join(families)}",
        fix="take a model of these architectures, or of this kind of input",
    )  # fmt: skip
    return {
        "source": source,
        "family": family,
        "sha256": {name: _sha256(folder / name) for name in weight_files(folder, field)},
        "licence": licence(folder, config),
        "config": config,
    }


def picture_scale(source: str, weights: Mapping[str, Any], field: str) -> dict[str, Any]:
    """How a picture must be given to the weights: mean and std per channel (full scale = 1), and the side in pixels
    they were trained on."""
    config = weights["config"]
    if isinstance(config.get("pretrained_cfg"), dict):
        given = config["pretrained_cfg"]
        mean, deviation, side = given.get("mean"), given.get("std"), (given.get("input_size") or [None])[-1]
    else:
        given = _json(find(source, field) / "preprocessor_config.json", field)
        mean, deviation, sides = (
            given.get("image_mean"),
            given.get("image_std"),
            given.get("crop_size") or given.get("size"),
        )
        if isinstance(sides, dict):
            sides = sides.get("height") or sides.get("shortest_edge")
        side = sides or config.get("image_size")
    good = all(isinstance(item, list) and len(item) == 3 for item in (mean, deviation)) and isinstance(side, int)
    require(
        good, field=field, got={"mean": mean, "std": deviation, "side": side},
        allowed="the mean and std of three channels and the side of the pictures the weights were trained on",
        fix="preprocessor_config.json (image_mean, image_std, size) or timm's pretrained_cfg says them",
    )  # fmt: skip
    return {"mean": mean, "std": deviation, "side_px": side}


def sound_scale(source: str, weights: Mapping[str, Any], rate_hz: int, field: str) -> dict[str, Any]:
    """How samples must be given to the weights: whether each recording is brought to mean 0 and deviation 1."""
    given, config = _json(find(source, field) / "preprocessor_config.json", field), weights["config"]
    wanted = given.get("sampling_rate", 16_000)
    require(
        wanted == rate_hz, field="Audio.rate_hz", got=rate_hz, allowed=f"{wanted}, the rate of the pretrained weights",
        fix=f"write rate_hz: {wanted}; recordings are resampled",
    )  # fmt: skip
    require(
        config.get("feat_extract_norm") == "layer", field=f"{field}: feat_extract_norm",
        got=config.get("feat_extract_norm", "group"), allowed="'layer'",
        fix="'group' normalises over a recording and its padding, so that an answer would depend on its neighbours in "
        "the batch: take a large model, or XLS-R",
    )  # fmt: skip
    return {"normalise": bool(given.get("do_normalize", True))}


def summary_of(weights: Mapping[str, Any]) -> str:
    """For people: 'bert of hf:models/minilm (apache-2.0, sha256 53aa5117)'."""
    first = next(iter(weights["sha256"].values()))
    return f"{weights['family']} of {weights['source']} ({weights['licence']}, sha256 {first[:8]})"


# ---- where the weights lie -------------------------------------------------------------------------------------------


def split_source(source: str, field: str) -> tuple[str, str]:
    """('hf', 'timm' or 'package', what follows the colon)."""
    kind, colon, place = source.partition(":")
    require(
        kind in ("hf", "timm", "package") and bool(colon) and bool(place.strip()), field=field, got=source,
        allowed="hf:FOLDER, hf:NAME, timm:FOLDER, timm:NAME or package:NAME/FOLDER", fix="write hf: before the folder of config.json and *.safetensors",
    )  # fmt: skip
    return kind, place


def rebased(source: Any, base: Path) -> Any:
    """A relative folder as seen from `base`, where there is one; anything else as it is."""
    if not isinstance(source, str) or not source.startswith(("hf:", "timm:")):
        return source
    kind, _, place = source.partition(":")
    return f"{kind}:{base / place}" if (base / place).is_dir() else source


def find(source: str, field: str) -> Path:
    """The folder of a source. A name is looked up in the hub's cache and then on the hub; a package is not imported."""
    kind, place = split_source(source, field)
    if kind == "package":
        return _in_package(place, field)
    folder = Path(place).expanduser()
    if folder.is_dir():
        return folder
    require(
        bool(HUB_NAME.match(place)) and not place.startswith("."), field=field, got=source,
        allowed="an existing folder, or the name of a model on the hub",
        fix="relative folders are taken from the recipe's; is the preparation still to be run?",
    )  # fmt: skip
    name = f"timm/{place}" if kind == "timm" and "/" not in place else place
    hub = need("huggingface_hub", extra="hub", what=f"{field}: {source}")
    try:
        return Path(hub.snapshot_download(name, allow_patterns=list(HUB_FILES)))
    except Exception as wrong:  # offline, unknown, gated, disk: the hub's library has its own tree of errors
        reason = str(wrong).strip().splitlines()[0][:200] if str(wrong).strip() else type(wrong).__name__
        raise SetupError(
            f"{field} = {source!r}: there is no such folder, and the hub gives no such model ({reason}). Fix: with a "
            f"network, 'hf download {name} --local-dir FOLDER'; then write {kind}:FOLDER."
        ) from None


def _in_package(place: str, field: str) -> Path:
    name, _, rest = place.partition("/")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    roots = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not roots:
        raise SetupError(f"{field}: the package {name!r} is not installed. Fix: pip install it, or write hf:FOLDER.")
    folder = (Path(roots[0]) / rest).resolve()
    require(
        folder.is_dir() and folder.is_relative_to(Path(roots[0]).resolve()), field=field, got=f"package:{place}",
        allowed=f"a folder inside {name}", fix=f"it has: {', '.join(sorted(p.name for p in Path(roots[0]).iterdir() if p.is_dir()))[:200]}",
    )  # fmt: skip
    return folder


def weight_files(folder: Path, field: str) -> list[str]:
    """The names of a folder's safetensors: one file, or the shards its index names."""
    if (folder / WEIGHTS).is_file():
        return [WEIGHTS]
    if (folder / INDEX).is_file():
        names = sorted(set(_json(folder / INDEX, field).get("weight_map", {}).values()))
        lacking = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
        require(
            bool(names) and not lacking, field=field, got=str(folder), allowed="all the files that its index names",
            fix=f"copy the folder again: {', '.join(map(str, lacking[:3])) or INDEX} is missing",
        )  # fmt: skip
        return names
    pickled = sorted(file.name for pattern in PICKLES for file in folder.glob(pattern))
    fix = "copy the folder again"
    if pickled:
        fix = f"{pickled[0]} is a pickle, which may run code and is never loaded: save the model again with save_pretrained"
    raise refusal(field=field, got=str(folder), allowed=f"a folder with {WEIGHTS}", fix=fix)


def licence(folder: Path, config: Mapping[str, Any]) -> str:
    """What the folder says of its licence: the model card's `license:`, or the first line of a licence file."""
    card = folder / "README.md"
    if card.is_file():
        found = re.search(r"^license:\s*[\"']?([^\s\"'#]+)", card.read_text(encoding="utf-8", errors="replace"), re.M)
        if found:
            return found[1]
    for place in (config, config.get("pretrained_cfg")):
        if isinstance(place, dict) and isinstance(place.get("license"), str):
            return str(place["license"])
    for file in sorted([*folder.glob("LICENSE*"), *folder.glob("LICENCE*")]):
        lines = [line.strip() for line in file.read_text(encoding="utf-8", errors="replace").splitlines()]
        return next((line[:80] for line in lines if line), NOT_STATED)
    return NOT_STATED


def verified(weights: Mapping[str, Any], field: str) -> Path:
    """The folder again, its weights proved to be those that the contract was made of."""
    folder = find(weights["source"], field)
    for name, wanted in weights["sha256"].items():
        require(
            (folder / name).is_file() and _sha256(folder / name) == wanted, field=field, got=str(folder / name),
            allowed=f"the file with sha256 {wanted[:16]}…", fix="the weights changed since the data was read: train into a new run",
        )  # fmt: skip
    return folder


def _json(file: Path, field: str) -> dict[str, Any]:
    try:
        values = read_json(file)
    except (OSError, ValueError) as wrong:
        raise RecipeError(
            f"{field}: {file} cannot be read: {wrong}. Fix: give a folder as save_pretrained writes it."
        ) from None
    require(
        isinstance(values, dict), field=f"{field}: {file.name}", got=type(values).__name__, allowed="a mapping",
        fix="copy the folder again",
    )  # fmt: skip
    return dict(values)


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
