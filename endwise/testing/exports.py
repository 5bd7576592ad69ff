"""Which of the package's cases are exported together, and the check of one such network.

Not here: the cases (cases.py), what an exported model has to keep (checks.py).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from endwise.data.lookup import opened
from endwise.errors import RecipeError
from endwise.modalities.base import OUTPUT_ROLE
from endwise.rows import file_fetcher
from endwise.testing.case import FIELD, PARTNER, WIDTH, Case, contents
from endwise.testing.checks import check_export, made_cautious

EXPORT_GROUPS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (  # every modality once and every head once
    (("image in",), ("category out",)),
    (("image in",), ("boxes out", "points out", "instances out")),
    (("image in",), ("mask out", "image out", "anomaly out")),
    (("volume in windows in",), ("volume_mask out", "volume_boxes out", "points in volumes out")),
    (("volume in",), ("category out", "volume_instances out")),
    (("audio in",), ("text out",)),
    (("text in",), ("tags out",)),
    (("text in",), ("audio out",)),
    (("text in",), ("drawn image out",)),
    (("text in",), ("masked text out",)),
    (("graph in", "node of a graph in", "edge of a graph in", "whole graph in"), ("category out",)),
    (("items in",), ("items after items out",)),
    (("items in",), ("items by their words out",)),
    (("text in",), ("items out", "items by their pictures out")),
    (("image in",), ("masked image out",)),
    (("audio in",), ("masked audio out",)),
    (("audio in",), ("text by ctc+attention out",)),
    (("audio in chunks in",), ("text out",)),
    (("causal text in",), ("text by waiting attention out",)),
    (("text in",), ("text by attention out", "text by lm out")),
    (("series in", "patches of series in", "irregular series in"), ("series out", "continued series out")),
    (("series in windows in", "irregular series in windows in", "known series in"), ("forecast from windows out",)),
    (("field in",), ("field out",)),
    (("board in",), ("board out",)),
    (("residues in",), ("structure out",)),
    (("trajectories in",), ("trajectories out",)),
    (("video in",), ("category out",)),
    (
        ("number in", "category in", "boolean in", "date in", "tags in", "number[3] in"),
        ("number out", "boolean out", "number[3] out", "number with quantiles out", "embedding out"),
    ),
)


def goes_with(given: Case, output: Case) -> bool:
    """Whether a recipe may answer this output from this input alone."""
    try:
        output.declaration.beside({FIELD: given.declaration}, {PARTNER: output.declaration})
    except RecipeError:
        return False
    return True


def check_export_group(inputs: Sequence[Case], outputs: Sequence[Case]) -> None:
    """One network with all these inputs and outputs, exported; of each scalar input one value is missing."""
    from endwise.model import Model
    from endwise.recipe import Recipe

    takes = {_field_name(case): case for case in inputs}
    gives = {_field_name(case): case for case in outputs}
    recipe = Recipe(
        name="export-suite",
        data={
            "path": [{"in memory": True}],
            "tables": {name: table for case in outputs for name, table in case.tables.items()},
        },
        inputs={name: case.declaration for name, case in takes.items()},
        outputs={name: case.declaration for name, case in gives.items()},
        trunk={"width": WIDTH, "depth": 1},
        train={"size": "tiny"},
    )
    contracts = {name: case.contract for name, case in {**takes, **gives}.items()}
    for name in gives:
        contracts |= recipe.standing(name).agreed(name, contracts)
        contracts |= recipe.standing(name).furnished(name, contracts, lambda: opened(recipe))
    content = contents({name: case.decoded[FIELD] for name, case in takes.items()})
    for name, item in recipe.outputs.items():
        if item.of_row:
            targets = [item.read(row, file_fetcher(".")) for row in content]
            contracts[name] = item.fit(iter(targets), missing=0, role=OUTPUT_ROLE)
    rows: list[dict[str, Any]] = [{name: case.examples[row] for name, case in takes.items()} for row in range(8)]
    if len(takes) > 1:
        for row, name in enumerate(takes):
            contracts[name] = dataclasses.replace(contracts[name], missing=1)
            rows[row][name] = None
    model = Model.build(recipe, contracts, seed=0)
    answers = model.predict(rows)
    said = {name: [row.answers[name] for row in answers] for name in recipe.outputs}
    check_export(made_cautious(model, said), rows)


def _field_name(case: Case) -> str:
    return case.label.replace("[", "_").replace("]", "").replace(" ", "_").replace("+", "_")
