"""The EEG sets of Bonn: 500 segments of 4,097 samples at 173.61 Hz, five sets of 100 (Andrzejak et al. 2001); and a column
that says whether it is a seizure."""

import pyarrow as pa
from pyarrow import parquet

from recipes import source


def main() -> None:
    folder = source.target("eeg")
    found = parquet.read_table(
        source.required("eeg_bonn", "the five sets Z, O, N, F and S of the University of Bonn") / "eeg_bonn.parquet"
    )
    seizure = pa.array([label == "S" for label in found["label"].to_pylist()])
    parquet.write_table(found.append_column("seizure", seizure), folder / "segments.parquet")
    print(f"written to {folder}")


if __name__ == "__main__":
    main()
