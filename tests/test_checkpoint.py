"""Checkpoints: whole or not there; damage is detected, named, and the one before is taken."""

import random

import pytest
import torch

from endwise.checkpoint import KEPT, State, existing, latest, save


def state(step: int) -> State:
    torch.manual_seed(step)
    return State(
        {"network": {"w": torch.randn(20, 3), "n": torch.tensor(step)}, "average": {"w": torch.randn(20, 3)}},
        {"step": step, "rate": 0.5},
    )


def test_what_is_saved_is_what_is_loaded(tmp_path):
    save(tmp_path, state(3))
    found, notes = latest(tmp_path)
    assert notes == []
    assert found.facts == {"step": 3, "rate": 0.5}
    for section, part in state(3).tensors.items():
        for name, value in part.items():
            assert torch.equal(found.tensors[section][name], value)


def test_only_the_newest_are_kept(tmp_path):
    for step in range(5):
        save(tmp_path, state(step))
    assert [path.name for path in existing(tmp_path)] == [f"step-{step:08d}" for step in range(5 - KEPT, 5)]


@pytest.mark.parametrize("seed", range(20))
def test_any_damage_is_detected_and_the_one_before_is_taken(tmp_path, seed):
    chosen = random.Random(seed)
    save(tmp_path, state(1))
    file = save(tmp_path, state(2)) / chosen.choice(["state.safetensors", "state.safetensors", "state.json"])
    data = bytearray(file.read_bytes())
    how = chosen.choice(["flip", "cut", "empty"])
    if how == "flip" and file.suffix != ".json":
        data[chosen.randrange(len(data))] ^= 1 << chosen.randrange(8)
    elif how == "cut":
        del data[chosen.randrange(len(data)) :]
    else:
        data.clear()
    file.write_bytes(data)
    found, notes = latest(tmp_path)
    assert found.facts["step"] == 1
    assert len(notes) == 1 and "step-00000002" in notes[0]


def test_nothing_there_is_nothing(tmp_path):
    assert latest(tmp_path / "none") == (None, [])


def test_a_save_that_was_interrupted_leaves_no_checkpoint(tmp_path):
    save(tmp_path, state(1))
    (tmp_path / ".partial-1").mkdir()
    (tmp_path / ".partial-1" / "state.safetensors").write_bytes(b"half")
    found, notes = latest(tmp_path)
    assert found.facts["step"] == 1 and notes == []
