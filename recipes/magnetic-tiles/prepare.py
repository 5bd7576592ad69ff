"""Magnetic tile defects (Huang et al. 2018): grey pictures of 392 tiles with a defect and 300 without, the kind of the
defect, and which pixels it covers. The masks' smoothed edges are cut at half. Free to use with a citation; no licence file.

tiles.parquet: image, label, mask, defects, split. one_class.parquet: the same pictures; those to learn from have no defect.
"""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from scipy import ndimage

from endwise import silhouettes
from recipes import source

SMALLEST_PX = 20  # of a defect of its own


def main() -> None:
    folder = source.target("magnetic-tiles")
    local = source.required(
        "magnetic_tile", "abin24/Magnetic-tile-defect-datasets., a Parquet table: image, mask, label, split"
    )
    rows = pq.read_table(local / "magnetic_tile.parquet").to_pylist()
    for row in rows:
        row["mask"] = cut(row["mask"])
        row["defects"] = json.dumps(single(row["mask"], row["label"]))
    pq.write_table(pa.Table.from_pylist(rows), folder / "tiles.parquet")
    good = [row for row in rows if row["split"] == "test" or row["label"] == "free"]
    pq.write_table(pa.Table.from_pylist(good), folder / "one_class.parquet")
    print(f"written to {folder}: {len(rows)} tiles, {len(good)} of them for one class")


def cut(mask: bytes) -> bytes:
    """A PNG of 0 and 1."""
    numbers = (np.asarray(Image.open(io.BytesIO(mask)).convert("L")) > 127).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(numbers).save(file, "PNG")
    return file.getvalue()


def single(mask: bytes, label: str) -> list[dict[str, object]]:
    """What hangs together as a thing of its own."""
    pieces, count = ndimage.label(np.asarray(Image.open(io.BytesIO(mask))), np.ones((3, 3)))
    found = [pieces == number for number in range(1, count + 1)]
    return [
        {"label": label, "mask": silhouettes.of_bits(bits, bits.shape)} for bits in found if bits.sum() >= SMALLEST_PX
    ]


if __name__ == "__main__":
    main()
