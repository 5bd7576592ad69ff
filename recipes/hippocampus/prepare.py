"""MRI crops around the hippocampus and a class for every voxel (0 elsewhere, 1 anterior, 2 posterior): task 4 of the Medical
Segmentation Decathlon, CC BY-SA 4.0, the last 36 of 180 as test. `python -m recipes.hippocampus.prepare`.
"""

import zlib

from recipes import source

VALIDATION = 14  # scans of 144
FEW = {"train": 11, "val": 3}  # a tenth of the labels, in few.csv


def main() -> None:
    folder = source.target("hippocampus")
    local = source.required(
        "hippocampus_mri", "udacity/nd320-c3-3d-imaging-starter: volumes.zip and a manifest.csv: image, mask, split"
    )
    archive = folder / "volumes.zip"
    archive.write_bytes((local / "volumes.zip").read_bytes())
    rows = [(row["image"], row["mask"], row["split"]) for row in source.read_csv(local / "manifest.csv")]
    # by a hash of the name: the same scans whatever the order of the table
    train = sorted((row for row in rows if row[2] == "train"), key=lambda row: zlib.crc32(row[0].encode()))
    sides = {
        "train": train[VALIDATION:],
        "val": [(scan, mask, "val") for scan, mask, _ in train[:VALIDATION]],
        "test": [row for row in rows if row[2] == "test"],
    }
    names = ["scan", "mask", "split"]
    source.write_csv(folder / "hippocampus.csv", names, [row for side in sides.values() for row in side])
    few = [row for side, own in sides.items() for row in own[: FEW.get(side)]]
    source.write_csv(folder / "few.csv", names, few)
    print(f"written to {folder}: {len(rows)} rows, {len(few)} of them in few.csv")


if __name__ == "__main__":
    main()
