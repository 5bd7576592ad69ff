"""100 trials of 28 EEG channels, 50 samples at 100 Hz, before a left or a right finger moves (BCI competition II, set IV, its
labelled test part; Blankertz et al. 2002, free for research)."""

import shutil

from recipes import source


def main() -> None:
    folder = source.target("bci-fingers")
    file = source.required("bci_fingers", "data set IV of BCI competition II") / "bci_fingers.parquet"
    shutil.copyfile(file, folder / "trials.parquet")
    print(f"written to {folder}")


if __name__ == "__main__":
    main()
