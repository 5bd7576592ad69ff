"""Every modality and head of the package keeps the contract that outsiders' have to keep (endwise/testing)."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from endwise import testing
from endwise.modalities import TABLE, modality_class
from endwise.modalities.base import Contract, Fetch, Modality, Role
from endwise.nn.interface import Encoder, Tokens
from endwise.nn.size import Size
from endwise.testing import Case, Check, ContractBroken, check_modality
from endwise.testing.capabilities import capabilities_page, run_case
from endwise.testing.checks import CAPABILITIES, CHECKS
from endwise.testing.exports import EXPORT_GROUPS, check_export_group, goes_with

PAGE = Path(__file__).parent.parent / "docs" / "capabilities.md"
CASES = testing.cases()
BY_LABEL = {case.label: case for case in CASES}
FAST = [check for case in CASES for check in testing.checks_of(case, slow=False)]
KEPT: dict[tuple[str, str], bool] = {}  # what the tests of this session have found, for the page


@pytest.mark.parametrize("check", FAST, ids=str)
def test_a_promise_is_kept(check: Check) -> None:
    KEPT[check.case.label, check.name] = False
    check()
    KEPT[check.case.label, check.name] = True


@pytest.mark.parametrize(("inputs", "outputs"), EXPORT_GROUPS, ids=lambda labels: "+".join(labels).replace(" ", "-"))
def test_exported_equals_reloaded_on_raw_values(inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
    for label in (*inputs, *outputs):
        KEPT[label, "exports"] = False
    check_export_group([BY_LABEL[label] for label in inputs], [BY_LABEL[label] for label in outputs])
    for label in (*inputs, *outputs):
        KEPT[label, "exports"] = True


def go_together(given: Case, output: Case) -> bool:
    """What lies on a picture lies on nothing else, and what relates the inputs of a row is tested with two."""
    on = output.declaration.lies_on_axes
    return not output.declaration.of_row and (not on or given.declaration.canvas_axes in on)


PAIRS = [
    (given, output)
    for given in CASES if given.is_input
    for output in CASES if not output.is_input and go_together(given, output)
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("given", "output"), PAIRS, ids=lambda case: case.label)
def test_every_input_exports_with_every_output(given: Case, output: Case) -> None:
    if not goes_with(given, output):
        pytest.skip("such an output lies on another kind of input")
    check_export_group([given], [output])


def test_every_modality_and_role_is_in_the_suite() -> None:
    wanted = {(name, role) for name in TABLE for role in modality_class(name).roles}
    assert wanted == {(case.declaration.type, case.role) for case in CASES}


def test_every_modality_and_head_is_exported() -> None:
    listed = [label for group in EXPORT_GROUPS for side in group for label in side]
    assert set(listed) == set(BY_LABEL)  # the partner of a head may be an input that another group has tested


def test_the_page_of_capabilities_is_what_the_tests_found() -> None:
    results = {case.label: run_case(case, known=KEPT) for case in CASES}
    if not all((label, "exports") in KEPT for label in BY_LABEL):
        pytest.skip("the page is compared when the export tests of this file have run with it")
    for label, kept in results.items():
        kept["exports"] = KEPT[label, "exports"]
    assert PAGE.read_text(encoding="utf-8") == capabilities_page(results), (
        "docs/capabilities.md is stale: python -m endwise.testing --capabilities"
    )


def test_a_cell_of_the_page_without_a_passing_test_is_empty() -> None:
    page = capabilities_page({"sound in": {"declared": True, "learns": False}})
    row = next(line for line in page.splitlines() if line.startswith("| sound in"))
    assert row.count("✓") == 1
    assert len(row.split("|")) == len(CAPABILITIES) + 3


@dataclass(frozen=True, kw_only=True)
class Sloppy(Modality):
    """A modality that breaks promises: it reads anything, rounds, and looks at its neighbours in the batch."""

    type: ClassVar[str] = "sloppy"

    def read(self, raw: Any, fetch: Fetch) -> np.ndarray:
        try:
            return np.array(float(raw))
        except TypeError:
            return np.array(0.0)

    def fit(self, values: Iterable[np.ndarray], *, missing: int, role: Role) -> Contract:
        return Contract(count=0, missing=missing)

    def blank(self, contract: Contract) -> np.ndarray:
        return np.array(0.0)

    def encoder(self, contract: Contract, size: Size) -> Encoder:
        return SloppyEncoder(size)


class SloppyEncoder(Encoder):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.inward = nn.Linear(1, size.width)

    def forward(self, values: Tensor, sizes: Tensor) -> Tokens:
        values = values.float()
        rounded = (values - values.mean()).round()
        tokens = self.inward(rounded[:, None, None])
        return Tokens(tokens, torch.ones_like(tokens[..., 0], dtype=torch.bool))


def test_a_broken_promise_is_said() -> None:
    """The suite can fail: a modality that reads anything, rounds and looks at its neighbours is named for each."""
    broken = {}
    for check in check_modality(Sloppy(), [1.0, 2.0, 3.5, 5.0, 8.0], role="input", slow=False):
        try:
            check()
        except ContractBroken as wrong:
            broken[check.name] = str(wrong)
    assert set(broken) >= {
        "a_value_that_cannot_be_read_is_refused",
        "a_contract_survives_being_saved",
        "the_loss_reaches_the_raw_input",
        "a_row_alone_is_answered_as_in_a_batch",
    }
    assert "raw value of rows [0, 1, 2, 3, 4]" in broken["the_loss_reaches_the_raw_input"]
    assert "row 0" in broken["a_row_alone_is_answered_as_in_a_batch"]


def test_every_check_says_what_it_promises() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert {check.capability for check in CHECKS} == set(CAPABILITIES)
