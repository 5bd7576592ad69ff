"""The package's own modalities and heads, each with examples, and which of them are exported together.

Not here: the raw values (examples.py), the checks (checks.py).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from endwise.errors import RecipeError
from endwise.modalities import modality_class
from endwise.modalities.base import INPUT_ROLE, OUTPUT_ROLE
from endwise.rows import file_fetcher
from endwise.testing.case import FIELD, PARTNER, WAYS, WIDTH, Case, contents
from endwise.testing.checks import check_export, made_cautious
from endwise.testing.examples import (
    BASKETS,
    CHOICES,
    NEW,
    SCALARS,
    SEQUENCES,
    SOLVED,
    SQUARES,
    TEXTS,
    VECTORS,
    WORDS,
    chains,
    drawn_boxes,
    films,
    graphs,
    grids,
    lesions,
    masks,
    pictures,
    points,
    solids,
    things,
    tones,
    volumes,
    walks,
    waves,
)


def cases() -> list[Case]:
    """Every modality of the package in every role it has."""
    from endwise.modalities.audio import Audio
    from endwise.modalities.board import Board
    from endwise.modalities.boxes import Boxes
    from endwise.modalities.field import Field
    from endwise.modalities.graph import Graph
    from endwise.modalities.image import Image
    from endwise.modalities.items import Items
    from endwise.modalities.number import Number
    from endwise.modalities.residues import Residues
    from endwise.modalities.structure import Structure
    from endwise.modalities.text import Text
    from endwise.modalities.trajectories import Trajectories
    from endwise.modalities.volume import Volume
    from endwise.modalities.volume.boxes import VolumeBoxes

    sound, heard = Audio(rate_hz=8_000), Audio(rate_hz=8_000, chunk_s=0.12)
    waiting = Text(decoder="attention", wait=0.2, label_smoothing=0.0)
    found = [
        Case(modality_class("image")(), pictures(), INPUT_ROLE),
        Case(modality_class("video")(), films(), INPUT_ROLE),
        Case(sound, tones(), INPUT_ROLE),
        Case(sound, tones(), OUTPUT_ROLE),
        Case(modality_class("text")(), TEXTS, INPUT_ROLE),
        Case(modality_class("text")(), WORDS, OUTPUT_ROLE, (sound, tones())),
        *(
            Case(written, WORDS, OUTPUT_ROLE, (sound, tones()), label=f"text by {written.decoder} out")
            for written in (  # softened targets cannot be learnt by heart
                Text(decoder="attention", beams=2, label_smoothing=0.0),
                Text(decoder="ctc+attention", beams=2, label_smoothing=0.0),
                Text(decoder="lm", beams=2),
            )
        ),
        Case(heard, tones(), INPUT_ROLE, (Text(decoder="ctc"), WORDS), label="audio in chunks in"),
        Case(Text(causal=True), TEXTS, INPUT_ROLE, (waiting, WORDS), label="causal text in"),
        Case(waiting, WORDS, OUTPUT_ROLE, (heard, tones()), label="text by waiting attention out"),
        Case(modality_class("embedding")(), WORDS, OUTPUT_ROLE),
        Case(modality_class("boxes")(), drawn_boxes()[1], OUTPUT_ROLE, (modality_class("image")(), drawn_boxes()[0])),
        Case(
            Boxes(radius=5.0),
            points(drawn_boxes()[1]),
            OUTPUT_ROLE,
            (modality_class("image")(), drawn_boxes()[0]),
            label="points out",
        ),
        Case(modality_class("instances")(), things(), OUTPUT_ROLE, (modality_class("image")(), drawn_boxes()[0])),
        Case(modality_class("image")(), pictures(), OUTPUT_ROLE, (modality_class("image")(), pictures())),
        Case(Image(decoder="flow", side_px=16, steps=3), pictures(), OUTPUT_ROLE, label="drawn image out"),
        Case(
            modality_class("anomaly")(),
            (0, "no", *[0] * 4, 1, masks()[7]),
            OUTPUT_ROLE,
            (modality_class("image")(), pictures()),
        ),
        Case(modality_class("mask")(), masks(), OUTPUT_ROLE, (modality_class("image")(), pictures())),
        Case(modality_class("volume")(), volumes()[0], INPUT_ROLE),
        Case(Volume(seen_voxels=(16, 16, 8)), volumes()[0], INPUT_ROLE, label="volume in windows in"),
        Case(modality_class("volume_mask")(), volumes()[1], OUTPUT_ROLE, (modality_class("volume")(), volumes()[0])),
        Case(modality_class("volume_boxes")(), lesions()[1], OUTPUT_ROLE, (modality_class("volume")(), lesions()[0])),
        Case(modality_class("volume_instances")(), solids(), OUTPUT_ROLE, (modality_class("volume")(), lesions()[0])),
        Case(
            VolumeBoxes(radius=3.0),
            points(lesions()[1]),
            OUTPUT_ROLE,
            (modality_class("volume")(), lesions()[0]),
            label="points in volumes out",
        ),
        Case(Board(), SQUARES, INPUT_ROLE),
        Case(Board(steps=6), SOLVED, OUTPUT_ROLE, (Board(), SQUARES)),
        Case(Residues(), SEQUENCES, INPUT_ROLE),
        Case(Structure(recycles=0), chains(), OUTPUT_ROLE, (Residues(), SEQUENCES)),
        Case(Trajectories(), walks()[0], INPUT_ROLE),
        Case(Trajectories(), walks()[1], OUTPUT_ROLE, (Trajectories(), walks()[0])),
        Case(Field(units=("K",)), grids(), INPUT_ROLE),
        Case(Field(units=("K",)), grids(turn=0.4), OUTPUT_ROLE, (Field(units=("K",)), grids())),
        *(
            Case(modality_class("masked")(), TEXTS, OUTPUT_ROLE, partner, label=f"masked {partner[0].type} out")
            for partner in ((Text(), TEXTS), (modality_class("image")(), pictures()), (sound, tones()))
        ),
    ]
    baskets, after = modality_class("items")(), Items(seen="left_out")
    found += [
        Case(baskets, BASKETS, INPUT_ROLE),
        Case(baskets, CHOICES, OUTPUT_ROLE),
        Case(after, NEW, OUTPUT_ROLE, (baskets, BASKETS), label="items after items out"),
    ]
    payments = Graph(time="when", numbers=("amount",), classes=("kind",))
    found.append(Case(payments, graphs(), INPUT_ROLE))
    roles: tuple[Role, Role] = (INPUT_ROLE, OUTPUT_ROLE)
    for name, examples in SCALARS.items():
        scalar = modality_class(name)()
        found += [Case(scalar, examples, role) for role in roles if role in scalar.roles]
        if name == "number":
            found += [Case(scalar, VECTORS, role, label=f"number[3] {WAYS[role]}") for role in roles]
            banded = Number(interval="quantile")
            found.append(Case(banded, examples, OUTPUT_ROLE, label="number with quantiles out"))
    found += _series_cases()
    return found


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
    (("graph in",), ("category out",)),
    (("items in",), ("items after items out",)),
    (("text in",), ("items out",)),
    (("image in",), ("masked image out",)),
    (("audio in",), ("masked audio out",)),
    (("audio in",), ("text by ctc+attention out",)),
    (("audio in chunks in",), ("text out",)),
    (("causal text in",), ("text by waiting attention out",)),
    (("text in",), ("text by attention out", "text by lm out")),
    (("series in", "patches of series in"), ("series out", "continued series out")),
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
        data=[{"in memory": True}],
        inputs={name: case.declaration for name, case in takes.items()},
        outputs={name: case.declaration for name, case in gives.items()},
        trunk={"width": WIDTH, "depth": 1},
        train={"size": "tiny"},
    )
    contracts = {name: case.contract for name, case in {**takes, **gives}.items()}
    for name in gives:
        contracts |= recipe.standing(name).agreed(name, contracts)
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


def _series_cases() -> list[Case]:
    """Series of any length, of one length, and forecasts of what no input has and of what one has."""
    from endwise.modalities.series import Series

    level = Series(columns=("level",))
    pasts = tuple({"level": values} for values in waves(32))
    futures = tuple({"level": [wave["level"][-1] + 0.2 * step for step in range(1, 6)]} for wave in pasts)
    pairs = tuple(
        [[None if index == 1 and step == 3 else value for step, value in enumerate(wave)], wave[::-1]]
        for index, wave in enumerate(waves(20, 7))
    )
    return [
        Case(Series(), pairs, INPUT_ROLE),
        Case(dataclasses.replace(level, form="patches"), pasts, INPUT_ROLE, label="patches of series in"),
        Case(Series(), waves(6), OUTPUT_ROLE),
        Case(level, futures, OUTPUT_ROLE, (level, pasts), label="continued series out"),
    ]
