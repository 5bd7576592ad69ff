"""Chest X-rays of children, with pneumonia or without (PneumoniaMNIST, from Kermany et al. 2018, CC BY 4.0): 28 x 28 grey, as PNG
files in Parquet. What is at hand of the training side is thinned and unequal: 388 of 3,882 are normal."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from recipes import source

NAMES = {"train": 3882, "val": 524, "test": 624}


def main() -> None:
    folder = source.target("chest-xray")
    local = source.required("pneumonia_xray", "PneumoniaMNIST, medmnist.com, as one .npz of images and labels by side")
    data = np.load(local / "pneumoniamnist_subset.npz", allow_pickle=False)
    for split, count in NAMES.items():
        images, labels = data[f"{split}_images"], data[f"{split}_labels"][:, 0]
        if len(images) != count:
            raise SystemExit(f"{split}: {len(images)} pictures, expected {count}")
        table = {"image": [png(image) for image in images], "pneumonia": [bool(label) for label in labels]}
        pq.write_table(pa.table(table), folder / f"{split}.parquet")
    print(f"written to {folder}")


def png(image: np.ndarray) -> bytes:
    """A grey picture as the bytes of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG")
    return file.getvalue()


if __name__ == "__main__":
    main()
