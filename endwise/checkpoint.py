"""Checkpoints: everything that a bit-equal resume needs, in safetensors and JSON, complete or not there at all.

A checkpoint is a folder `step-00001234` that appears by one rename after its files are on disk. Its checksum is
tested before a byte of it is used; a damaged one is set aside by name and the one before it is taken.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

KEPT = 2  # the newest ones


@dataclass(frozen=True)
class State:
    """What a checkpoint holds: tensors by section, and plain facts (step, rates, best result, counters)."""

    tensors: dict[str, dict[str, Tensor]]
    facts: dict[str, Any]


def save(folder: Path, state: State) -> Path:
    """Write the checkpoint of `state.facts['step']` atomically and drop the oldest; returns its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"step-{state.facts['step']:08d}"
    partial = folder / f".partial-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    flat: dict[str, Tensor] = {}
    places: set[int] = set()
    for section, part in state.tensors.items():
        for name, value in part.items():
            there = value.detach().contiguous().cpu()
            # tied weights are written twice here: a state is read back name by name
            flat[f"{section}/{name}"] = there.clone() if there.data_ptr() in places else there
            places.add(there.data_ptr())
    data = save_tensors(flat)
    facts = {**state.facts, "sha256": hashlib.sha256(data).hexdigest()}
    _write(partial / "state.safetensors", data)
    _write(partial / "state.json", json.dumps(facts, indent=1).encode())
    if target.exists():
        shutil.rmtree(target)
    partial.rename(target)
    _sync(folder)
    for old in existing(folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def existing(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(folder.glob("step-????????"))


def latest(folder: Path) -> tuple[State | None, list[str]]:
    """The newest checkpoint that is whole, and a line for each damaged one that was set aside."""
    notes: list[str] = []
    for path in reversed(existing(folder)):
        try:
            return _load(path), notes
        except (OSError, ValueError, KeyError, SafetensorError) as damaged:
            aside = path.with_name(f"damaged-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
            notes.append(f"checkpoint {path.name} is damaged ({damaged}) and was set aside as {aside.name}")
    return None, notes


def _load(path: Path) -> State:
    facts = json.loads((path / "state.json").read_text())
    data = (path / "state.safetensors").read_bytes()
    if hashlib.sha256(data).hexdigest() != facts.pop("sha256"):
        raise ValueError("its checksum does not match")
    tensors: dict[str, dict[str, Tensor]] = {}
    for name, value in load_tensors(data).items():
        section, rest = name.split("/", 1)
        tensors.setdefault(section, {})[rest] = value
    return State(tensors, facts)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """A rename is on disk only when its folder is."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def facts_of(path: Path) -> Mapping[str, Any]:
    """The plain facts of one checkpoint."""
    found: dict[str, Any] = json.loads((path / "state.json").read_text())
    return found
