"""A modality from outside the package: one class, nothing registered, no file of ours edited. It trains from a table,
is saved, reloaded, exported, and keeps the same contract as ours."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import endwise as ew
from endwise.errors import BadValue, ModelError, RecipeError
from endwise.modalities.base import Fetch, Role
from endwise.nn.interface import Encoder, Tokens
from endwise.nn.size import Size
from endwise.runner import differences
from endwise.testing import Check, check_modality

# ---- the whole of it: a strand of DNA, of any length -------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Dna(ew.Modality):
    """A strand of DNA."""

    type: ClassVar[str] = "dna"
    roles = frozenset({"input"})
    axes: ClassVar[int] = 1  # strands differ in length

    def read(self, raw: Any, fetch: Fetch) -> np.ndarray:
        if not isinstance(raw, str) or not raw or set(raw) - set("ACGT"):
            raise BadValue(f"expected letters A, C, G and T, got {raw!r:.40}")
        return np.frombuffer(raw.encode(), dtype=np.uint8)

    def fit(self, values: Iterable[np.ndarray], *, missing: int, role: Role) -> ew.Contract:
        return ew.Contract(count=sum(1 for _ in values), missing=missing)

    def transform(self, value: np.ndarray, contract: ew.Contract) -> np.ndarray:
        return np.searchsorted(np.frombuffer(b"ACGT", dtype=np.uint8), value).astype(np.int64)

    def blank(self, contract: ew.Contract) -> np.ndarray:
        return np.zeros(1, dtype=np.int64)

    def length(self, shape: tuple[int, ...]) -> int:
        return shape[0]

    def encoder(self, contract: ew.Contract, size: Size) -> Encoder:
        return DnaEncoder(size)


class DnaEncoder(Encoder):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.bases = nn.Embedding(4, size.width)
        self.pairs = nn.Conv1d(size.width, size.width, 3, padding=1)

    def forward(self, values: Tensor, sizes: Tensor) -> Tokens:
        mask = torch.arange(values.shape[1], device=values.device) < sizes
        bases = self.bases(values) * mask[..., None]
        return Tokens(bases + self.pairs(bases.transpose(1, 2)).relu().transpose(1, 2), mask)


# ---- what follows is the test ------------------------------------------------------------------------------------------


def strand(chosen: np.random.Generator) -> str:
    return "".join(chosen.choice(list("ACGT"), size=chosen.integers(4, 24)))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Strands, and whether they hold TATA."""
    chosen, lines = np.random.default_rng(0), ["strand,promoter"]
    for row in range(200):
        text = strand(chosen)
        lines.append(
            f"{text + 'TATA' + strand(chosen) if row % 2 else text.replace('TATA', 'GGGG')},{'yes' if row % 2 else 'no'}"
        )
    file = tmp_path_factory.mktemp("data") / "strands.csv"
    file.write_text("\n".join(lines) + "\n")
    return file


def recipe(table: Path, strand: Any = Dna) -> ew.Recipe:
    return ew.Recipe(
        name="promoters",
        data=str(table),
        inputs={"strand": strand},
        outputs={"promoter": "category"},
        trunk={"width": 32, "depth": 1},
        train={"size": "tiny", "steps": 60, "batch_size": 32, "precision": "fp32"},
    )


ROWS = [{"strand": text} for text in ("ACGT", "TATA", "GGGTATACCA", "A", "CCCCCCCCCCCCCC", "ACTATAGGTATACC")]


def test_it_trains_is_reloaded_and_exported(table: Path, tmp_path: Path) -> None:
    model = ew.fit(recipe(table), out=tmp_path / "run")
    expected = [prediction.to_dict() for prediction in model.predict(ROWS)]

    again = ew.Model.load(tmp_path / "run", modalities=[Dna])
    assert [prediction.to_dict() for prediction in again.predict(ROWS)] == expected

    from endwise.export import export_run

    result = export_run(ew.Run.open(tmp_path / "run", modalities=[Dna]))  # the gate takes its own held-out rows
    assert result.folder == tmp_path / "run" / "export"
    assert result.rows > 5
    bundle = ew.Bundle.load(result.folder, modalities=[Dna])
    assert differences(expected, bundle.predict(ROWS)) == []


def test_without_its_class_a_model_of_it_is_refused_and_nothing_is_imported(table: Path, tmp_path: Path) -> None:
    declared = recipe(table)
    contract = Dna().fit([np.zeros(3, np.uint8)], missing=0, role="input")
    classes = ew.Category().fit([np.frombuffer(name, np.uint8) for name in (b"yes", b"no")], missing=0, role="output")
    ew.Model.build(declared, {"strand": contract, "promoter": classes}, seed=0).save(tmp_path / "model")
    with pytest.raises(ModelError, match="dna"):
        ew.Model.load(tmp_path / "model")
    assert ew.Model.load(tmp_path / "model", modalities=[Dna]).predict(ROWS[0])["promoter"] in ("yes", "no")


def test_in_yaml_its_name_is_refused_with_what_there_is(table: Path) -> None:
    with pytest.raises(RecipeError, match=r"inputs\.strand\.type"):
        recipe(table, {"type": "dna"})


CHECKS = list(check_modality(Dna(), ["ACGT", "GG", "TATACC", "A", "CATCATCAT", "TTTT"], role="input", slow=False))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_it_keeps_the_contract(check: Check) -> None:
    check()
