"""Lesions that never were, in MRI crops that are real: round spots and threads are laid into the scans of the hippocampus
recipe, and only the spots are labelled. SYNTHETIC: nothing here says how well anything is found in a patient.
`python -m recipes.nodules.prepare`, after recipes.hippocampus.prepare.
"""

import gzip
import json
import zipfile

import nibabel
import numpy as np

from recipes import source
from recipes.nodules.spots import spot, thread

TIMES = {"train": 3, "val": 2, "test": 2}  # each scan, with other spots
MOST_SPOTS, MOST_THREADS = 3, 3
CONTRAST = (0.7, 1.8)  # deviations of the scan
TEXTURE = 0.3


def main() -> None:
    folder, random = source.target("nodules"), np.random.default_rng(0)
    scans = source.target("hippocampus")
    if not (scans / "hippocampus.csv").is_file():
        raise SystemExit("run python -m recipes.hippocampus.prepare first: the scans are its own")
    rows = []
    with zipfile.ZipFile(scans / "volumes.zip") as archive:
        names = {name.rpartition("/")[2]: name for name in archive.namelist() if "/images/" in f"/{name}"}
        for row in source.read_csv(scans / "hippocampus.csv"):
            stem = row["scan"].rpartition("/")[2]
            image = nibabel.as_closest_canonical(
                nibabel.Nifti1Image.from_bytes(gzip.decompress(archive.read(names[stem])))
            )
            for turn in range(TIMES[row["split"]]):
                voxels, boxes = np.asarray(image.dataobj, np.float32), []
                strength = float(voxels.std())
                for kind in ["spot"] * int(random.integers(0, MOST_SPOTS + 1)) + ["thread"] * int(
                    random.integers(0, MOST_THREADS + 1)
                ):
                    made, box = spot(random, voxels.shape) if kind == "spot" else (thread(random, voxels.shape), None)
                    grain = 1 + TEXTURE * random.normal(size=voxels.shape)
                    voxels = voxels + made * grain * random.uniform(*CONTRAST) * strength
                    boxes += [{"label": "nodule", "box": box}] if box else []
                file = f"{stem.partition('.')[0]}-{turn}.npz"
                np.savez_compressed(folder / file, voxels=voxels.astype(np.float32), affine=image.affine)
                rows.append([file, json.dumps(boxes), row["split"]])
    source.write_csv(folder / "nodules.csv", ["scan", "nodules", "split"], rows)
    print(f"written to {folder}: {len(rows)} rows")


if __name__ == "__main__":
    main()
