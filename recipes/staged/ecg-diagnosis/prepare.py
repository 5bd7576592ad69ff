"""ECG5000 (PhysioNet BIDMC chf07, ODC-BY; UCR archive): 500 beats of 140 samples, and twelve measurements of each.

Only the archive's 500 training beats are used; every fifth is a test row.
"""

import json

import numpy as np
import pyarrow.parquet

from recipes import source


def main() -> None:
    folder = source.target("staged/ecg-diagnosis")
    file = source.required("ecg5000", "the UCR archive's ECG5000_TRAIN") / "ecg5000_train500.parquet"
    rows = [
        [json.dumps([round(float(value), 5) for value in row["series"]]), json.dumps(measured(row["series"])), row["label"],
         row["split"]]
        for row in pyarrow.parquet.read_table(file).to_pylist()
    ]  # fmt: skip
    source.write_csv(folder / "beats.csv", ["beat", "features", "kind", "split"], rows)
    print(f"written to {folder}")


def measured(series: list[float]) -> list[float]:
    """Height and place of the highest and the lowest sample, range, mean, spread, slope, skew, energy of the two halves,
    and how often the beat crosses its mean."""
    beat = np.asarray(series, float)
    middle, spread = beat.mean(), beat.std()
    first, second = np.array_split(beat, 2)
    found = [
        beat.max(), beat.argmax() / len(beat), beat.min(), beat.argmin() / len(beat), np.ptp(beat), middle, spread,
        np.polyfit(np.linspace(0, 1, len(beat)), beat, 1)[0], (((beat - middle) / spread) ** 3).mean(),
        (first**2).mean(), (second**2).mean(), float((np.diff(np.sign(beat - middle)) != 0).sum()),
    ]  # fmt: skip
    return [round(float(value), 5) for value in found]


if __name__ == "__main__":
    main()
