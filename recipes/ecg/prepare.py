"""ECG5000: 500 heartbeats of 140 samples and their kind (PhysioNet BIDMC chf07, ODC-BY; UCR archive). Only the archive's
training file; every fifth beat is a test row."""

import shutil

from recipes import source


def main() -> None:
    folder = source.target("ecg")
    file = source.required("ecg5000", "the UCR archive's ECG5000_TRAIN") / "ecg5000_train500.parquet"
    shutil.copyfile(file, folder / "beats.parquet")
    print(f"written to {folder}")


if __name__ == "__main__":
    main()
