"""AdrenalMNIST3D at 64 x 64 x 64: the shape of an adrenal gland from CT -> normal or hyperplasia, in MedMNIST's own split.
CC BY 4.0. `python -m recipes.adrenal.prepare`.
"""

import numpy as np

from recipes import source

CLASSES = ("normal", "hyperplasia")


def main() -> None:
    folder = source.target("adrenal")
    local = source.required("adrenalmnist3d", "adrenalmnist3d_64.npz of MedMNIST v2+ (zenodo.org/records/10519652)")
    given = np.load(local / "adrenalmnist3d_64.npz")
    rows = []
    for split in ("train", "val", "test"):
        place = folder / split
        place.mkdir(exist_ok=True)
        for index, (shape, label) in enumerate(zip(given[f"{split}_images"], given[f"{split}_labels"], strict=True)):
            np.savez_compressed(place / f"{index:04d}.npz", voxels=shape)
            rows.append([f"{split}/{index:04d}.npz", CLASSES[int(label[0])], split])
    source.write_csv(folder / "adrenal.csv", ["shape", "state", "split"], rows)
    print(f"written to {folder}: {len(rows)} rows")


if __name__ == "__main__":
    main()
