"""Of every output that there is, one part can be asked about by what a command line can say: `--of answer=part`."""

from typing import Any

import numpy as np
import pytest

from endwise.errors import ModelError
from endwise.explain import explain
from endwise.modalities.base import OUTPUT_ROLE
from endwise.testing import Case, cases

# of which the first part has another name than 0
PARTS: dict[str, str] = {
    "boolean": "yes", "series": "1,0", "board": "1,0", "image": "2,3", "field": "0,1,1", "embedding": "0,0", "audio": "0.0",
}  # fmt: skip
WHOLE = {"drawn image out", "anomaly out"}  # has no parts
OUTPUTS = [case for case in cases() if case.role == OUTPUT_ROLE and not case.declaration.unexplained]


@pytest.mark.parametrize("case", OUTPUTS, ids=lambda case: case.label)
def test_a_part_of_every_answer_is_explained(case: Case) -> None:
    model, name = case.trained(), case.output_name
    part = PARTS.get(case.declaration.type, "0")
    told: list[str] = []
    for row in (case.raw_rows[-1], case.raw_rows[0]):
        try:
            found = explain(model, row, of=f"{name}={part}", method="gradient_x_input", grade=False)
        except ModelError as refused:  # an answer without a word, a box or a region; nothing else
            told.append(str(refused))
            continue
        assert found.output == name
        assert found.about
        for values in found.attributions.values():
            assert np.isfinite(values).all()
        whole: Any = explain(model, row, of=name, method="gradient_x_input", grade=False)
        assert whole.output == name
        return
    assert all("Fix:" in line for line in told)
    if case.label not in WHOLE:
        assert all("the answer has" in line for line in told), told
