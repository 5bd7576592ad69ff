"""The package's own modalities and heads, each with examples: a table by kind of value.

Not here: the raw values (examples.py), the checks (checks.py), which cases are exported together (exports.py).
"""

import dataclasses
from typing import Any

from endwise.modalities import modality_class
from endwise.modalities.audio import Audio
from endwise.modalities.base import INPUT_ROLE, OUTPUT_ROLE, Role
from endwise.modalities.board import Board
from endwise.modalities.boxes import Boxes
from endwise.modalities.field import Field
from endwise.modalities.graph import Graph
from endwise.modalities.image import Image
from endwise.modalities.items import Items
from endwise.modalities.number import Number
from endwise.modalities.residues import Residues
from endwise.modalities.series import Series
from endwise.modalities.structure import Structure
from endwise.modalities.text import Text
from endwise.modalities.trajectories import Trajectories
from endwise.modalities.volume import Volume
from endwise.modalities.volume.boxes import VolumeBoxes
from endwise.testing.case import WAYS, Case
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
    forecasts,
    graphs,
    grids,
    lesions,
    links,
    masks,
    molecules,
    people,
    pictures,
    points,
    solids,
    things,
    tones,
    visits,
    volumes,
    walks,
    wares,
    waves,
)

SOUND, HEARD = Audio(rate_hz=8_000), Audio(rate_hz=8_000, chunk_s=0.12)
WAITING = Text(decoder="attention", wait=0.2, label_smoothing=0.0)


def cases() -> list[Case]:
    """Every modality of the package in every role it has."""
    return [
        *_pictures(),
        *_sounds_and_texts(),
        *_volumes(),
        *_masked(),
        *_boards_chains_and_fields(),
        *_items(),
        *_graphs(),
        *_scalars(),
        *_series(),
    ]


def _pictures() -> list[Case]:
    image = modality_class("image")()
    seen, drawn = (image, pictures()), (image, drawn_boxes()[0])
    boxes = drawn_boxes()[1]
    return [
        Case(image, pictures(), INPUT_ROLE),
        Case(modality_class("video")(), films(), INPUT_ROLE),
        Case(modality_class("boxes")(), boxes, OUTPUT_ROLE, drawn),
        Case(Boxes(radius=5.0), points(boxes), OUTPUT_ROLE, drawn, label="points out"),
        Case(modality_class("instances")(), things(), OUTPUT_ROLE, drawn),
        Case(image, pictures(), OUTPUT_ROLE, seen),
        Case(Image(decoder="flow", side_px=16, steps=3), pictures(), OUTPUT_ROLE, label="drawn image out"),
        Case(modality_class("anomaly")(), (0, "no", *[0] * 4, 1, masks()[7]), OUTPUT_ROLE, seen),
        Case(modality_class("mask")(), masks(), OUTPUT_ROLE, seen),
    ]


def _sounds_and_texts() -> list[Case]:
    recording = (SOUND, tones())
    written = (  # softened targets cannot be learnt by heart
        Text(decoder="attention", beams=2, label_smoothing=0.0),
        Text(decoder="ctc+attention", beams=2, label_smoothing=0.0),
        Text(decoder="lm", beams=2),
    )
    return [
        Case(SOUND, tones(), INPUT_ROLE),
        Case(SOUND, tones(), OUTPUT_ROLE),
        Case(modality_class("text")(), TEXTS, INPUT_ROLE),
        Case(modality_class("text")(), WORDS, OUTPUT_ROLE, recording),
        *(Case(item, WORDS, OUTPUT_ROLE, recording, label=f"text by {item.decoder} out") for item in written),
        Case(HEARD, tones(), INPUT_ROLE, (Text(decoder="ctc"), WORDS), label="audio in chunks in"),
        Case(Text(causal=True), TEXTS, INPUT_ROLE, (WAITING, WORDS), label="causal text in"),
        Case(WAITING, WORDS, OUTPUT_ROLE, (HEARD, tones()), label="text by waiting attention out"),
        Case(modality_class("embedding")(), WORDS, OUTPUT_ROLE),
    ]


def _volumes() -> list[Case]:
    volume = modality_class("volume")()
    scan, scanned = (volume, volumes()[0]), (volume, lesions()[0])
    found = points(lesions()[1])
    return [
        Case(volume, volumes()[0], INPUT_ROLE),
        Case(Volume(seen_voxels=(16, 16, 8)), volumes()[0], INPUT_ROLE, label="volume in windows in"),
        Case(modality_class("volume_mask")(), volumes()[1], OUTPUT_ROLE, scan),
        Case(modality_class("volume_boxes")(), lesions()[1], OUTPUT_ROLE, scanned),
        Case(modality_class("volume_instances")(), solids(), OUTPUT_ROLE, scanned),
        Case(VolumeBoxes(radius=3.0), found, OUTPUT_ROLE, scanned, label="points in volumes out"),
    ]


def _masked() -> list[Case]:
    return [
        Case(modality_class("masked")(), TEXTS, OUTPUT_ROLE, partner, label=f"masked {partner[0].type} out")
        for partner in ((Text(), TEXTS), (modality_class("image")(), pictures()), (SOUND, tones()))
    ]


def _boards_chains_and_fields() -> list[Case]:
    heat = Field(units=("K",))
    return [
        Case(Board(), SQUARES, INPUT_ROLE),
        Case(Board(steps=6), SOLVED, OUTPUT_ROLE, (Board(), SQUARES)),
        Case(Residues(), SEQUENCES, INPUT_ROLE),
        Case(Structure(recycles=0), chains(), OUTPUT_ROLE, (Residues(), SEQUENCES)),
        Case(Trajectories(), walks()[0], INPUT_ROLE),
        Case(Trajectories(), walks()[1], OUTPUT_ROLE, (Trajectories(), walks()[0])),
        Case(heat, grids(), INPUT_ROLE),
        Case(heat, grids(turn=0.4), OUTPUT_ROLE, (heat, grids())),
    ]


def _items() -> list[Case]:
    """Rankings of what was bought, and of a catalogue some of which nobody bought."""
    baskets, after = modality_class("items")(), Items(seen="left_out")
    history, tables = (baskets, BASKETS), {"wares": wares()}
    named = Items(catalogue="wares", content={"title": "text", "price": "number"})
    shown = Items(catalogue="wares", content={"photo": {"type": "image", "side_px": 8}})
    return [
        Case(baskets, BASKETS, INPUT_ROLE),
        Case(baskets, CHOICES, OUTPUT_ROLE),
        Case(after, NEW, OUTPUT_ROLE, history, label="items after items out"),
        Case(named, NEW, OUTPUT_ROLE, history, label="items by their words out", tables=tables),
        Case(shown, CHOICES, OUTPUT_ROLE, label="items by their pictures out", tables=tables),
    ]


def _graphs() -> list[Case]:
    """What a row may be: any nodes of a graph before its time, one node, one edge, or a whole graph."""
    payments = Graph(time="when", numbers=("amount",), classes=("kind",))
    near: dict[str, Any] = {"cap": (4,), "neighbours": (3,)}
    person = Graph(at=("id",), nodes="people", node_numbers=("age",), node_classes=("town",), **near)
    tie = Graph(at=("source", "target"), classes=("tie",), **near)
    molecule = Graph(node_classes=("atom",), classes=("bond",), **near)
    return [
        Case(payments, graphs(), INPUT_ROLE),
        Case(person, people(), INPUT_ROLE, label="node of a graph in"),
        Case(tie, links(), INPUT_ROLE, label="edge of a graph in"),
        Case(molecule, molecules(), INPUT_ROLE, label="whole graph in"),
    ]


def _scalars() -> list[Case]:
    found: list[Case] = []
    roles: tuple[Role, Role] = (INPUT_ROLE, OUTPUT_ROLE)
    for name, examples in SCALARS.items():
        scalar = modality_class(name)()
        found += [Case(scalar, examples, role) for role in roles if role in scalar.roles]
        if name == "number":
            found += [Case(scalar, VECTORS, role, label=f"number[3] {WAYS[role]}") for role in roles]
            banded = Number(interval="quantile")
            found.append(Case(banded, examples, OUTPUT_ROLE, label="number with quantiles out"))
    return found


def _series() -> list[Case]:
    """Series of any length, of one length, and forecasts of what no input has and of what one has."""
    level = Series(columns=("level",))
    pasts = tuple({"level": values} for values in waves(32))
    pairs = tuple(
        [[None if index == 1 and step == 3 else value for step, value in enumerate(wave)], wave[::-1]]
        for index, wave in enumerate(waves(20, 7))
    )
    return [
        Case(Series(), pairs, INPUT_ROLE),
        Case(dataclasses.replace(level, form="patches"), pasts, INPUT_ROLE, label="patches of series in"),
        Case(Series(columns=("level",), times="when"), visits()[0], INPUT_ROLE, label="irregular series in"),
        Case(Series(), waves(6), OUTPUT_ROLE),
        Case(level, forecasts(pasts), OUTPUT_ROLE, (level, pasts), label="continued series out"),
        *_windows(),
    ]


def _windows() -> list[Case]:
    """Series that are windows of a long table, from examples that begin before the window; with what is known of the steps
    ahead, and with steps that differ."""
    level, visited = Series(columns=("level",)), Series(columns=("level",), times="when")
    plan = Series(columns=("plan",), known=True)
    pasts, plans = visits()
    past, answer = (level, pasts), (level, forecasts(pasts))
    return [
        Case(level, pasts, INPUT_ROLE, answer, "series in windows in", windows=True),
        Case(visited, pasts, INPUT_ROLE, answer, "irregular series in windows in", windows=True),
        Case(plan, plans, INPUT_ROLE, answer, "known series in", beside=past, windows=True),
        Case(*answer, OUTPUT_ROLE, (visited, pasts), "forecast from windows out", beside=(plan, plans), windows=True),
    ]
