"""All of FSDD (3,000 recordings, 8 kHz, six speakers; CC BY-SA 4.0), with its official split: indices 0-4 are test."""

import csv
import zipfile
from io import BytesIO

from recipes import source

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def main() -> None:
    folder = source.target("spoken-digits")
    local = source.local("fsdd")
    if local is not None:
        archive = zipfile.ZipFile(local / "recordings.zip")
    else:
        archive = source.github("Jakobovski/free-spoken-digit-dataset", "26eb9aa")
    with zipfile.ZipFile(folder / "recordings.zip", "w") as out, (folder / "digits.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["recording", "word", "speaker", "split"])
        for member in sorted(archive.namelist()):
            name = member.rsplit("/", 1)[-1]
            if not name.endswith(".wav"):
                continue
            digit, speaker, index = name.removesuffix(".wav").split("_")
            out.writestr(name, BytesIO(archive.read(member)).getvalue())
            table.writerow([name, WORDS[int(digit)], speaker, "test" if int(index) < 5 else "train"])
    print(f"written to {folder}")


if __name__ == "__main__":
    main()
