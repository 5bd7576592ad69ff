"""What every test shares: one thread (the cores are shared), a store of its own, shapes checked at run time."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The prepared store of a test never touches the user's."""
    folder = tmp_path_factory.mktemp("store")
    monkeypatch.setenv("ENDWISE_CACHE", str(folder))
    return folder
