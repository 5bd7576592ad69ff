"""The folder a model lives in: written so that a kill leaves the old model or the new one, and read with suspicion.

It holds `model.json` (format, recipe, contracts, size, facts, checksum) and `weights.safetensors`, and nothing beside them
is read: no pickle, no code, no link. Not here: what a model does (model.py), the folder of its training (run.py).
"""

import dataclasses
import hashlib
import math
import os
import platform
import struct
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor
from torch.overrides import TorchFunctionMode

from endwise import __version__
from endwise.errors import EndwiseError, ModelError, nearest, require, unknown_name
from endwise.files import atomic, check_regular, kind_of, parse_json, read_json, write_json
from endwise.modalities import TABLE, modality_class
from endwise.modalities.base import Contract, Modality
from endwise.network import Network
from endwise.nn.size import Size
from endwise.priors import remembered
from endwise.recipe import Elsewhere, Recipe
from endwise.stages import network_of

FORMAT = "endwise model"
VERSION = 2
DESCRIPTION, WEIGHTS = "model.json", "weights.safetensors"
ENTRIES = frozenset({"format", "version", "recipe", "contracts", "size", "outside", "info", "aliases", "weights"})
MAX_HEADER_BYTES = 16_000_000  # of a safetensors file: about 100,000 tensors
MAX_WIDTH, MAX_DEPTH = 65_536, 512  # a size beyond these is damage, not a network
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
SLACK_NUMBERS = 32_000_000  # what a constructor may compute on the way: windows, filter banks, masks
FACTORIES = frozenset(
    {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.eye, torch.arange}
)
Entry = tuple[list[int], torch.dtype | None]  # of a tensor on disk


def write(
    folder: Path,
    recipe: Recipe,
    contracts: Mapping[str, Contract],
    network: Network,
    size: Size,
    info: Mapping[str, Any],
) -> None:
    """The model folder: the weights go beside the old ones first, `model.json` with their checksum replaces the old, then
    they move in."""
    require(
        not folder.exists() or folder.is_dir(),
        field="model folder",
        got=str(folder),
        allowed="a folder",
        fix="choose another place",
        error=ModelError,
    )
    tensors, aliases = _distinct(getattr(network, "_orig_mod", network).state_dict())
    _check_finite(tensors, "this model")
    data = tensors_to_bytes(tensors)
    description = {
        "format": FORMAT,
        "version": VERSION,
        "recipe": recipe.to_dict(),
        "contracts": {name: contract.to_dict() for name, contract in contracts.items()},
        "size": dataclasses.asdict(size),
        "outside": _outside(recipe),
        "info": {**info, "versions": versions()},
        "aliases": aliases,
        "weights": {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)},
    }
    new = folder / f"{WEIGHTS}.new"
    with atomic(new) as file:
        file.write(data)
    write_json(folder / DESCRIPTION, description)
    new.replace(folder / WEIGHTS)


def read(
    folder: str | Path,
    modalities: Sequence[type[Modality]] = (),
    functions: Mapping[str, Any] = types.MappingProxyType({}),
) -> tuple[Recipe, dict[str, Contract], Network, Size, dict[str, Any]]:
    """Recipe, contracts, network, size and facts of a model folder, or of the one inside a run; everything is checked
    before it is used. ModelError for a file that is not what it should be."""
    place = find_model(folder)
    try:
        description = _description(place)
        recipe = _recipe(description, modalities, functions)
        contracts = _contracts(description, recipe)
        size = _size(description)
        file = _weights_file(place, str(description["weights"].get("sha256")))
        stored = _header(file)
        network = _network(recipe, contracts, size, file.stat().st_size)
        _load_weights(network, file, stored, description["aliases"])
    except (OSError, ValueError, SafetensorError) as wrong:
        raise ModelError(
            f"{place}: the model cannot be read: {wrong}. Fix: copy the folder again, or train anew."
        ) from None
    except EndwiseError as wrong:
        raise ModelError(f"{place}: {wrong}") from None
    network.eval()
    return recipe, contracts, network, size, description["info"]


def versions() -> dict[str, str]:
    """What made this model, for the report and for whoever must make it again."""
    return {
        "endwise": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def find_model(folder: str | Path) -> Path:
    """The model folder that a path means: itself, or `model/` inside a run; refused with what was probably meant."""
    place = Path(folder)
    for found in (place, place / "model"):
        if os.path.lexists(found / DESCRIPTION):
            return found
    if place.is_file():
        with place.open("rb") as file:
            kind = kind_of(file.read(8))
        raise ModelError(
            f"{place} is a file{f' ({kind})' if kind else ''}, not a model: a model is a folder with {DESCRIPTION} and "
            f"{WEIGHTS}. Fix: give the run or its model/ folder; pickles and archives are never loaded."
        )
    if place.is_dir():
        raise ModelError(
            f"{place} holds no model: expected {DESCRIPTION} in it or in its model/ folder. Fix: "
            "'endwise train' makes one; an interrupted run is finished with --resume."
        )
    beside = [item.name for item in place.parent.iterdir() if item.is_dir()] if place.parent.is_dir() else []
    meant = nearest(place.name, beside)
    fix = f"did you mean {str(place.parent / meant)!r}?" if meant else "'endwise train' makes one"
    raise ModelError(f"there is no model at {str(place)!r}. Fix: {fix}.")


def known_types(
    values: Mapping[str, Any],
    modalities: Sequence[type[Modality]],
    functions: Mapping[str, Any] = types.MappingProxyType({}),
) -> dict[str, Any]:
    """Plain recipe values with the type names of `modalities` replaced by the classes that were passed, functions of stages by
    those that were, and priors of other classes, which nothing but training asks, as what they were."""
    classes = {cls.type: cls for cls in modalities}
    out = dict(values)
    for section in ("inputs", "outputs"):
        fields = out.get(section)
        if isinstance(fields, Mapping):
            out[section] = {name: _with_class(item, classes) for name, item in fields.items()}
    if isinstance(out.get("stages"), Mapping):
        out["stages"] = {
            name: {**item, "by": functions.get(name) or Elsewhere(name, str(item["by"]))}
            if isinstance(item, Mapping) and "by" in item
            else item
            for name, item in out["stages"].items()
        }
    if isinstance(out.get("objective"), Mapping) and "priors" in out["objective"]:
        out["objective"] = {**out["objective"], "priors": remembered(out["objective"]["priors"])}
    return out


def _with_class(item: Any, classes: Mapping[str, type[Modality]]) -> Any:
    kind = item.get("type") if isinstance(item, Mapping) else item
    if isinstance(kind, str) and kind in classes:
        return {**(item if isinstance(item, Mapping) else {}), "type": classes[kind]}
    return item


def _description(place: Path) -> dict[str, Any]:
    try:
        values = read_json(place / DESCRIPTION)
    except (OSError, ValueError) as wrong:
        raise ModelError(f"{DESCRIPTION} cannot be read: {wrong}. Fix: copy the folder again, or train anew.") from None
    require(
        isinstance(values, dict) and values.get("format") == FORMAT,
        field=f"{DESCRIPTION}: format",
        error=ModelError,
        got=values.get("format") if isinstance(values, dict) else values,
        allowed=repr(FORMAT),
        fix="is this the model of another program?",
    )
    version = values.get("version")
    require(
        version == VERSION,
        field=f"{DESCRIPTION}: version",
        got=version,
        allowed=str(VERSION),
        error=ModelError,
        fix="it was made by a newer endwise: upgrade"
        if isinstance(version, int) and version > VERSION
        else "train anew",
    )
    require(
        set(values) == ENTRIES,
        field=f"{DESCRIPTION}: entries",
        got=sorted(set(values) ^ ENTRIES),
        error=ModelError,
        allowed="exactly " + ", ".join(sorted(ENTRIES)),
        fix="copy the folder again, or train anew",
    )
    for entry in ("recipe", "contracts", "size", "outside", "info", "aliases", "weights"):
        require(
            isinstance(values[entry], dict),
            field=f"{DESCRIPTION}: {entry}",
            got=values[entry],
            allowed="a mapping",
            fix="copy the folder again",
            error=ModelError,
        )
    return dict(values)


def _recipe(
    description: Mapping[str, Any], modalities: Sequence[type[Modality]], functions: Mapping[str, Any]
) -> Recipe:
    values = description["recipe"]
    given = {cls.type: f"{cls.__module__}:{cls.__qualname__}" for cls in modalities}
    for name, made_by in description["outside"].items():
        require(
            name in given,
            field="modality type",
            got=name,
            error=ModelError,
            allowed="one of this package, or a class that is passed in",
            fix=f"Model.load(folder, modalities=[...]) with the class it was trained with ({str(made_by)[:80]})",
        )
    for section in ("inputs", "outputs"):
        for name, item in values.get(section, {}).items() if isinstance(values.get(section), dict) else ():
            kind = item.get("type") if isinstance(item, dict) else item
            if not isinstance(kind, str) or (kind not in given and kind not in TABLE):
                raise unknown_name(
                    field=f"{section}.{name}.type", got=str(kind), names=[*TABLE, *given], error=ModelError
                )
            modality_class(kind) if kind not in given else None
    return Recipe(**known_types(values, modalities, functions))


def _outside(recipe: Recipe) -> dict[str, str]:
    """Types that do not come with the package, and the class that was used: compared and shown, never imported."""
    declared = [*recipe.inputs.values(), *recipe.outputs.values()]
    return {
        item.type: f"{type(item).__module__}:{type(item).__qualname__}"
        for item in declared
        if item.type not in TABLE or type(item) is not modality_class(item.type)
    }


def _contracts(description: Mapping[str, Any], recipe: Recipe) -> dict[str, Contract]:
    declared = {**recipe.inputs, **recipe.outputs}
    stored = description["contracts"]
    require(
        set(stored) == set(declared),
        field=f"{DESCRIPTION}: contracts",
        got=sorted(stored),
        error=ModelError,
        allowed="one for each of " + ", ".join(declared),
        fix="copy the folder again, or train anew",
    )
    contracts = {}
    for name, item in declared.items():
        require(
            isinstance(stored[name], dict),
            field=f"{DESCRIPTION}: contracts.{name}",
            got=stored[name],
            allowed="a mapping",
            fix="copy the folder again",
            error=ModelError,
        )
        kind: Any = item.contract_class
        contracts[name] = kind.from_dict(stored[name])
    return contracts


def _size(description: Mapping[str, Any]) -> Size:
    values = description["size"]
    names = [item.name for item in dataclasses.fields(Size)]
    whole = all(type(values.get(name)) is int for name in ("dial", "width", "depth", "heads"))
    require(
        set(values) == set(names)
        and whole
        and isinstance(values["dropout"], int | float)
        and isinstance(values["attention"], bool)
        and 0 < values["heads"] <= values["width"] <= MAX_WIDTH
        and 0 <= values["depth"] <= MAX_DEPTH
        and 0 <= values["dropout"] < 1,
        field=f"{DESCRIPTION}: size",
        got=values,
        allowed=f"{', '.join(names)} of a real network",
        fix="copy the folder again",
        error=ModelError,
    )
    return Size(**values)


class _Bounded(TorchFunctionMode):
    """Refuses to make more numbers than the weights on disk can account for: a hostile contract may ask for a
    terabyte. (Building on the meta device would tell the shapes too, and costs a second of imports.)"""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.left = limit

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in FACTORIES:
            sizes = args[0] if args and isinstance(args[0], list | tuple) else args or (kwargs or {}).get("size", ())
            self.left -= math.prod(size for size in sizes if isinstance(size, int))
            if self.left < 0:
                raise ModelError(
                    "the contracts ask for a far larger network than the weights are. Fix: copy the folder again."
                )
        return func(*args, **(kwargs or {}))


def _network(recipe: Recipe, contracts: Mapping[str, Contract], size: Size, stored_bytes: int) -> Network:
    try:
        with torch.random.fork_rng(devices=[]), _Bounded(SLACK_NUMBERS + stored_bytes):
            return network_of(recipe, contracts, size)
    except EndwiseError:
        raise
    except Exception as wrong:  # a contract from a damaged file can be wrong in any way
        raise ModelError(
            f"the contracts do not make a network ({type(wrong).__name__}: {wrong}). Fix: copy the folder again."
        ) from wrong


def _load_weights(network: Network, file: Path, stored: Mapping[str, Entry], aliases: Mapping[str, Any]) -> None:
    """Fill the network; every tensor has the name, shape and dtype that the network has, or nothing is loaded."""
    expected = network.state_dict()
    for name, kept in aliases.items():
        known = name in expected and isinstance(kept, str) and kept in expected and kept not in aliases
        require(
            known,
            field=f"{DESCRIPTION}: aliases",
            got=name,
            allowed="names of weights",
            fix="copy the folder again",
            error=ModelError,
        )
    wanted = {name for name in expected if name not in aliases}
    missing, surplus = sorted(wanted - set(stored)), sorted(set(stored) - wanted)
    require(
        not missing,
        field=f"{file.name}: tensors",
        got=f"no {missing[:3]}",
        allowed=f"all {len(wanted)} of this network",
        fix="copy the folder again",
        error=ModelError,
    )
    require(
        not surplus,
        field=f"{file.name}: tensors",
        got=surplus[:3],
        allowed="only those of this network",
        fix="copy the folder again",
        error=ModelError,
    )
    for name, (shape, dtype) in stored.items():
        require(
            shape == list(expected[name].shape) and dtype == expected[name].dtype,
            field=f"{file.name}: {name}",
            got=(shape, str(dtype)),
            allowed=f"{list(expected[name].shape)} of {expected[name].dtype}",
            fix="these weights belong to another recipe",
            error=ModelError,
        )
    tensors = load_file(file)
    _check_finite(tensors, file.name)
    network.load_state_dict({**tensors, **{name: tensors[kept] for name, kept in aliases.items()}})


def _weights_file(place: Path, sha256: str) -> Path:
    """The weights that `model.json` names by checksum: in place, or, after a kill between two renames, beside it."""
    for file in (place / WEIGHTS, place / f"{WEIGHTS}.new"):
        if not os.path.lexists(file):
            continue
        check_regular(file)
        with file.open("rb") as opened:
            kind = kind_of(opened.read(8))
            if kind:
                raise ValueError(f"{file.name} is {kind}, not safetensors; it is never loaded")
            opened.seek(0)
            if hashlib.file_digest(opened, "sha256").hexdigest() == sha256:
                return file
    if not os.path.lexists(place / WEIGHTS):
        raise ValueError(f"{WEIGHTS} is missing")
    raise ValueError(f"the checksum of {WEIGHTS} is not the one in {DESCRIPTION}: it is damaged or of another model")


def _header(file: Path) -> dict[str, Entry]:
    """Shapes and dtypes in a safetensors file, after every count, offset and length has been added up."""
    total = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(MAX_HEADER_BYTES, total - 8):
            raise ValueError(f"{file.name} is no safetensors file: its header claims {length} bytes of {total}")
        values = parse_json(opened.read(length))
    if not isinstance(values, dict):
        raise ValueError(f"the header of {file.name} is no mapping")
    values.pop("__metadata__", None)
    found: dict[str, Entry] = {}
    spans = []
    for name, entry in values.items():
        shape, dtype, (begin, end) = _entry(name, entry)
        found[name] = (shape, dtype)
        spans.append((begin, end))
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise ValueError(f"the tensors of {file.name} overlap or leave holes")
        position = end
    if position != total - 8 - length:
        raise ValueError(f"{file.name} holds {total - 8 - length} bytes of tensors where its header says {position}")
    return found


def _entry(name: str, entry: Any) -> tuple[list[int], torch.dtype | None, tuple[int, int]]:
    match entry:
        case {"dtype": str(kind), "shape": list(shape), "data_offsets": [int(begin), int(end)], **rest} if not rest:
            dtype = DTYPES.get(kind)
            good = dtype is not None and all(type(n) is int and n >= 0 for n in shape) and 0 <= begin <= end
            if good and dtype is not None and math.prod(shape) * dtype.itemsize == end - begin:
                return shape, dtype, (begin, end)
    raise ValueError(f"the header entry of tensor {name[:80]!r} is wrong: {str(entry)[:120]}")


def _check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ModelError(
                f"{where}: weight {name!r} holds NaN or infinity. Fix: take an earlier checkpoint, or train anew."
            )


def _distinct(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors to store, each once, and {name: name of the same tensor} for tied ones."""
    kept: dict[tuple[Any, ...], str] = {}
    tensors, aliases = {}, {}
    for name, value in state.items():
        identity = (value.data_ptr(), value.shape, value.stride(), value.dtype) if value.numel() else (name,)
        if identity in kept:
            aliases[name] = kept[identity]
        else:
            kept[identity] = name
            tensors[name] = value.detach().cpu().contiguous()
    return tensors, aliases
