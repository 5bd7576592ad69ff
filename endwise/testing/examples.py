"""Raw values of every kind, made on the spot: small, all different, and of different sizes where sizes may differ.

Not here: which declarations they are examples of (cases.py).
"""

import datetime as dt
import io
import json
import math
import wave
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

TEXTS = (
    "a cold day",
    "wind",
    "the sea is calm, and so are we",
    "Regen im März",
    "no",
    "rain and more rain",
    "ice!",
    "sun",
)

BASKETS = (
    ["a", "b"], "c", ["b", "d", "a"], ["a"], ["d", "d", "c", "b"], ["e", "a"], ["f", "b", "c"], ["c", "f", "e", "d", "a"],
)  # fmt: skip

MORNING = dt.datetime(2024, 5, 31)

NEW = ("c", "d", "e", "f", "a", "b", ["d", "e"], "b")  # none of them in its basket
CHOICES = ("b", "a", ["c", "e"], "d", "f", "c", "a", "e")


def graphs() -> tuple[dict[str, Any], ...]:
    """Payments before a moment; each row brings its own, of other people."""
    random, found = np.random.default_rng(1), []
    for index in range(8):
        edges = [
            {
                "source": f"P{random.integers(4)}", "target": f"S{random.integers(3)}", "when": float(place),
                "amount": round(float(random.normal(10 * index, 5)), 2), "kind": "cash" if (place + index) % 3 else "card",
            }
            for place in range(4 + index)
        ]  # fmt: skip
        found.append({"at": ["P0", "S0"], "time": 3.5 + index, "edges": edges})
        edges += [{"source": "P0", "target": "S0", "when": 0.5, "amount": 7.5 * index, "kind": "card"}]
    return tuple(found)


def people() -> tuple[dict[str, Any], ...]:
    """Somebody among those whom they know: a row is one node, of a table of nodes."""
    random, found = np.random.default_rng(3), []
    for index in range(8):
        nodes = [
            {"id": place, "age": int(random.integers(18, 70)), "town": ("Ulm", "Rom", None)[random.integers(3)]}
            for place in range(3 + index)
        ]
        pairs = random.integers(0, 3 + index, (2 * index, 2)).tolist()
        edges = [{"source": one, "target": other} for one, other in pairs]
        found.append({"at": [index % 3], "edges": edges, "nodes": nodes})
    return tuple(found)


def links() -> tuple[dict[str, Any], ...]:
    """Two who may be tied, and the ties around them: a row is one edge, whose own tie is not to be seen."""
    random, found = np.random.default_rng(4), []
    for index in range(8):
        edges = [
            {"source": f"N{random.integers(5)}", "target": f"N{random.integers(5)}", "tie": ("kin", "work")[place % 2]}
            for place in range(5 + index)
        ]
        own = {"source": "N0", "target": "N1", "tie": "kin"}
        found.append({"at": ["N0", "N1"], "edges": [own, *edges, {"source": "N1", "target": "N2", "tie": "work"}]})
    return tuple(found)


def molecules() -> tuple[Any, ...]:
    """Chains of atoms, some of them closed to a ring: a row is a whole graph, as a mapping or as JSON."""
    found: list[Any] = []
    for index in range(8):
        count = 2 + index
        bonds = [(place, place + 1) for place in range(count - 1)] + ([(count - 1, 0)] if index % 3 == 2 else [])
        molecule = {
            "nodes": [{"id": place, "atom": "CCON"[(place * index) % 4]} for place in range(count)],
            "edges": [{"source": one, "target": two, "bond": "-="[(one + index) % 2]} for one, two in bonds],
        }
        found.append(json.dumps(molecule) if index % 2 else molecule)
    return tuple(found)


def wares() -> list[dict[str, Any]]:
    """A catalogue of the items of BASKETS and of two that nobody bought, one of them without a title."""
    return [
        {"item": name, "title": None if name == "h" else TEXTS[place], "price": 2.5 * place, "photo": picture}
        for place, (name, picture) in enumerate(zip("abcdefgh", pictures(), strict=True))
    ]


WORDS = ("ab", "b", "ba", "a", "abba", "bb", "aab", "baa")

SCALARS: dict[str, Sequence[Any]] = {
    "number": (0.5, "-3", 12, 7.25, 1e3, 2.5, -40, 88),
    "category": ("red", "green", "blue", "sea green") * 2,
    "boolean": (True, "no", 1, "false", "yes", False, "true", 0),
    "date": tuple(f"20{10 + i}-0{1 + i}-1{i}" for i in range(8)),
    "tags": (["a", "b"], ["b"], ["a"], [], ["c", "a"], ["c"], ["a", "b", "c"], ["b", "c"]),
}

VECTORS = tuple((float(i), 3.0 - i * i, 0.1 * i) for i in range(8))


def grids(turn: float = 0.0) -> tuple[Any, ...]:
    """Fields of a few waves on grids of different sizes: arrays, nested lists, .npy files. turn: further along."""
    found: list[Any] = []
    for index in range(8):
        rows, columns = np.arange(9 + index % 3)[:, None], np.arange(16 + index)
        phase = 0.7 * index + turn
        values = np.sin(2 * np.pi * columns / len(columns) + phase) + 0.5 * np.cos(2 * np.pi * rows / len(rows) - phase)
        out = io.BytesIO()
        np.save(out, (0.2 * index + values).astype(np.float32))
        found.append((np.round(values, 3).tolist(), out.getvalue(), values)[index % 3 if index != 2 else 0])
    return tuple(found)


SQUARES = (
    "1.3/3.2/.13",
    "12./.31/31.",
    ".23/2.1/.12",
    "1.2/21./3.1",
    "3.1/.23/2..",
    "23./.12/1.3",
    "2.1/1.3/..2",
    ".32/21./1..",
)

SOLVED = (
    "123/312/231",
    "123/231/312",
    "123/231/312",
    "132/213/321",
    "321/123/213",
    "231/312/123",
    "231/123/312",
    "132/213/132",
)

SEQUENCES = ("MKVLAA", "GSHMW", "AAEEKLLR", "PGNDTKV", "LLKEAQRS", "VTVTVG", "MEELLKX", "WYF")


def chains() -> tuple[Any, ...]:
    """A chain for each of SEQUENCES, wound more or less tightly: lists, a flat list, PDB and mmCIF text. Of every third one
    a residue was not resolved."""
    from endwise.chain import Chain

    found: list[Any] = []
    for index, letters in enumerate(SEQUENCES):
        turn = (0.6 + 0.15 * index) * np.arange(len(letters))
        points = np.stack([2.3 * np.cos(turn), 2.3 * np.sin(turn), 2.5 * np.arange(len(letters))], axis=1)
        points -= points.mean(0)
        points[5:6] = np.nan if index % 3 == 2 else points[5:6]
        chain = Chain(points.round(3), letters)
        found.append((chain.to_json(), chain.points.ravel().tolist(), chain.pdb(), chain.mmcif())[index % 4])
    return tuple(found)


def walks() -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Scenes of one to four walkers who swerve, some of them unseen at times: six steps, and the five that follow."""
    random, pasts, futures = np.random.default_rng(2), list[Any](), list[Any]()
    for index in range(8):
        count, steps = 1 + index % 4, np.arange(11)
        start, pace = random.normal(0, 4, (count, 1, 2)), random.normal(0, 0.6, (count, 1, 2))
        swerve = 0.05 * (index - 3) * np.square(steps)[None, :, None] * pace[..., ::-1] * [1, -1]
        points = (start + steps[None, :, None] * pace + swerve).round(3)
        paths: list[Any] = points.tolist()
        if count > 1:
            paths[1][2] = paths[1][8] = None
        past, future = [path[:6] for path in paths], [path[6:] for path in paths]
        named = {f"walker {place}": path for place, path in enumerate(past)}
        pasts.append((past, named, json.dumps(past), points[:, :6])[index % 4 if count == 1 else index % 3])
        futures.append([{"path": path} for path in future] if index % 2 else future)
    return tuple(pasts), tuple(futures)


def waves(steps: int, more: int = 0) -> list[list[float]]:
    """Eight waves of different levels, each `more` steps longer than the one before."""
    return [
        [round(index + 3 * math.sin(0.2 * (1 + index) * step), 3) for step in range(steps + more * index)]
        for index in range(8)
    ]


def visits() -> tuple[tuple[dict[str, list[Any]], ...], tuple[dict[str, list[Any]], ...]]:
    """Levels measured when somebody came by, of different lengths; and what is planned for these steps and the next five."""
    random, pasts, plans = np.random.default_rng(5), list[dict[str, list[Any]]](), list[dict[str, list[Any]]]()
    for index, values in enumerate(waves(18, 2)):
        minutes = np.cumsum(random.choice([10, 60, 300], len(values))).tolist()
        when = [(MORNING + dt.timedelta(minutes=minute)).isoformat(sep=" ") for minute in minutes]
        pasts.append({"level": [None if step == index else value for step, value in enumerate(values)], "when": when})
        plans.append({"plan": random.integers(0, 3 + index, len(values) + 5).tolist()})
    return tuple(pasts), tuple(plans)


def forecasts(pasts: Sequence[Mapping[str, Sequence[float]]]) -> tuple[dict[str, list[float]], ...]:
    """Five steps that go on from the last level of each."""
    return tuple({"level": [past["level"][-1] + 0.2 * step for step in range(1, 6)]} for past in pasts)


def pictures() -> tuple[bytes, ...]:
    """Small pictures of different sizes, colours and formats."""
    from PIL import Image

    random, found = np.random.default_rng(0), []
    for index in range(8):
        height, width = 12 + 3 * index, 30 - 2 * index
        shades = random.integers(0, 256, size=3)
        ramp = np.linspace(0, 60, width)[None, :, None] + np.linspace(0, 40, height)[:, None, None]
        pixels = ((shades + ramp) % 256).astype(np.uint8)
        out = io.BytesIO()
        Image.fromarray(pixels).save(
            out, format="PNG" if index % 2 else "WEBP", **({} if index % 2 else {"lossless": True})
        )
        found.append(out.getvalue())
    return tuple(found)


def films() -> tuple[Any, ...]:
    """A bright square that goes to one side, of different lengths and sizes: lists of pictures, animations, zips, arrays."""
    from PIL import Image

    found: list[Any] = []
    for index in range(8):
        frames, height, width = 2 + index % 3, 12 + 2 * index, 24 - index
        pixels = np.full((frames, height, width, 3), 40 + 10 * index, np.uint8)
        for frame in range(frames):
            place = 2 * frame if index % 2 else width - 4 - 2 * frame
            pixels[frame, 4:8, place : place + 4] = (230, 60, 25 * index)
        pictures, files = [Image.fromarray(item) for item in pixels], list[bytes]()
        for picture in pictures:
            out = io.BytesIO()
            picture.save(out, format="PNG")
            files.append(out.getvalue())
        moving, packed = io.BytesIO(), io.BytesIO()
        pictures[0].save(moving, format="WEBP", save_all=True, append_images=pictures[1:], duration=40, lossless=True)
        with zipfile.ZipFile(packed, "w") as archive:
            for number, file in enumerate(files):
                archive.writestr(f"frame {number}.png", file)
        found.append((files, moving.getvalue(), packed.getvalue(), pixels)[index % 4])
    return tuple(found)


def drawn_boxes() -> tuple[tuple[bytes, ...], tuple[list[dict[str, Any]], ...]]:
    """Pictures with up to three squares of two colours, and the box around each."""
    from PIL import Image

    random, pictures, found = np.random.default_rng(0), [], []
    for index in range(8):
        height, width = 24 + 2 * index, 40 - 2 * index
        pixels, boxes = np.full((height, width, 3), 30, dtype=np.uint8), []
        for kind in range(index % 3 + (index > 0)):
            side = 8 + 2 * kind
            x, y = int(random.integers(0, width - side)), int(random.integers(0, height - side))
            pixels[y : y + side, x : x + side] = (60, 220, 60) if kind % 2 else (220, 60, 60)
            boxes.append({"label": ("red", "green")[kind % 2], "box": [x, y, x + side, y + side]})
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, format="PNG")
        pictures.append(out.getvalue())
        found.append(boxes)
    return tuple(pictures), tuple(found)


def points(boxes: Sequence[Sequence[Mapping[str, Any]]]) -> tuple[list[dict[str, Any]], ...]:
    """The middle of every box."""
    return tuple(
        [{"label": item["label"], "point": np.reshape(item["box"], (2, -1)).mean(0).tolist()} for item in own]
        for own in boxes
    )


def things() -> tuple[list[dict[str, Any]], ...]:
    """The squares of `drawn_boxes` as what is inside their upper left triangle."""
    found = []
    for index, boxes in enumerate(drawn_boxes()[1]):
        size = [24 + 2 * index, 40 - 2 * index]
        corners = [(item["label"], *item["box"]) for item in boxes]
        found.append(
            [
                {"label": label, "mask": {"size": size, "polygons": [[x0, y0, x1, y0, x0, y1]]}}
                for label, x0, y0, x1, y1 in corners
            ]
        )
    return tuple(found)


def masks() -> tuple[np.ndarray, ...]:
    """Three classes for the pixels of `pictures`: what is above, left below and right below."""
    found = []
    for index in range(8):
        height, width = 12 + 3 * index, 30 - 2 * index
        numbers = np.full((height, width), 1, np.uint8)
        numbers[: height // 3], numbers[height // 3 :, width // 2 :] = 0, 7
        found.append(numbers)
    return tuple(found)


def volumes() -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Volumes of different sizes with a bright block in some corner, as arrays, .npy and NIfTI files; and where it is."""
    from endwise.scan import nifti

    random, volumes, masks = np.random.default_rng(0), [], []
    for index in range(8):
        shape = (10 + index, 16 - index, 9 + index % 3)
        block = np.zeros(shape, np.uint8)
        block[tuple(slice(2, 7) if index >> axis & 1 else slice(-7, -2) for axis in range(3))] = 1
        voxels = (80 * block + random.integers(0, 20 + 5 * index, shape)).astype(np.uint8)
        out = io.BytesIO()
        np.save(out, voxels)
        file = nifti(voxels, np.eye(3, 4))
        volumes.append((voxels.astype(np.float32), out.getvalue(), file)[index % 3])
        masks.append(nifti(block, np.eye(3, 4)) if index % 3 == 2 else block)
    return tuple(volumes), tuple(masks)


def lesions() -> tuple[tuple[np.ndarray, ...], tuple[list[dict[str, Any]], ...]]:
    """Volumes with up to two bright cubes or dark ones, and the box around each."""
    random, volumes, found = np.random.default_rng(0), [], []
    for index in range(8):
        shape = (18 + index % 3, 20 - index % 4, 16 + index % 2)
        voxels, boxes = random.normal(100, 2, shape).astype(np.float32), []
        for kind in range(index % 2 + (index > 0)):
            low = [int(random.integers(0, side - 6)) for side in shape]
            voxels[tuple(slice(begin, begin + 6) for begin in low)] = 60 if kind else 140
            box = [*low, *(begin + 6 for begin in low)]
            boxes.append({"label": ("bright", "dark")[kind], "box": box})
        volumes.append(voxels)
        found.append(boxes)
    return tuple(volumes), tuple(found)


def solids() -> tuple[Any, ...]:
    """The cubes of `lesions` as what is inside their low corner, as volumes in which each has a number or as lists of masks."""
    found: list[Any] = []
    for index, (voxels, boxes) in enumerate(zip(*lesions(), strict=True)):
        numbers = np.zeros(voxels.shape, np.uint8)
        near = np.indices((6, 6, 6)).sum(0) < 8
        for number, item in enumerate(boxes, 1):
            numbers[tuple(slice(low, low + 6) for low in item["box"][:3])][near] = number
        labels = {number: item["label"] for number, item in enumerate(boxes, 1)}
        masks = [{"label": label, "mask": (numbers == number).astype(np.uint8)} for number, label in labels.items()]
        found.append(masks if index % 2 else {"numbers": numbers, "labels": labels})
    return tuple(found)


def tones() -> tuple[bytes, ...]:
    """Tones of different pitch and length at 8 kHz, as 16-bit WAV files."""
    found = []
    for index in range(8):
        count = 1600 + 400 * index
        signal = np.sin(2 * np.pi * (200 + 150 * index) * np.arange(count) / 8_000) * 20_000
        out = io.BytesIO()
        with wave.open(out, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8_000)
            file.writeframes(signal.astype("<i2").tobytes())
        found.append(out.getvalue())
    return tuple(found)
