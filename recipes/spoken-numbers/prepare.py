"""Digit strings: one to five real FSDD recordings of one speaker joined with short silences.

Test strings are made of test recordings only (official indices 0-4), so no recording is on two sides.
"""

import csv
import io
import zipfile

import numpy as np
import soundfile

from recipes import source

RATE_HZ, LONGEST, GAP_S = 8000, 5, (0.02, 0.15)
COUNTS = {"train": 3000, "val": 200, "test": 500}
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def main() -> None:
    folder = source.target("spoken-numbers")
    digits = source.target("spoken-digits") / "recordings.zip"
    if not digits.exists():
        raise SystemExit("run first: python -m recipes.spoken-digits.prepare")
    recordings: dict[tuple[str, str], list[tuple[str, np.ndarray]]] = {}
    with zipfile.ZipFile(digits) as archive:
        for name in sorted(archive.namelist()):
            digit, speaker, index = name.removesuffix(".wav").split("_")
            split = "test" if int(index) < 5 else "val" if int(index) < 8 else "train"
            samples, _ = soundfile.read(io.BytesIO(archive.read(name)), dtype="int16")
            recordings.setdefault((split, speaker), []).append((WORDS[int(digit)], samples))
    random = np.random.default_rng(0)
    speakers = sorted({speaker for _, speaker in recordings})
    with zipfile.ZipFile(folder / "strings.zip", "w") as out, (folder / "strings.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["recording", "words", "speaker", "split"])
        for split, count in COUNTS.items():
            for index in range(count):
                speaker = speakers[index % len(speakers)]
                pool = recordings[split, speaker]
                chosen = [pool[i] for i in random.integers(len(pool), size=random.integers(1, LONGEST + 1))]
                parts = [
                    part
                    for _, samples in chosen
                    for part in (samples, np.zeros(int(random.uniform(*GAP_S) * RATE_HZ), np.int16))
                ][:-1]
                sound = io.BytesIO()
                soundfile.write(sound, np.concatenate(parts), RATE_HZ, format="FLAC")
                name = f"{split}_{index:04d}.flac"
                out.writestr(name, sound.getvalue())
                table.writerow([name, " ".join(word for word, _ in chosen), speaker, split])
    print(f"written to {folder}")


if __name__ == "__main__":
    main()
