"""Digit strings: one to five real FSDD recordings of one speaker joined with short silences.

strings.csv: test strings are made of test recordings only (official indices 0-4), so no recording is on two sides.
speaker.csv: all strings of one speaker are test, so no voice is on two sides.
"""

import io
import zipfile
from pathlib import Path

import numpy as np
import soundfile

from recipes import source

RATE_HZ, LONGEST, GAP_S = 8000, 5, (0.02, 0.15)
COUNTS = {"train": 3000, "val": 200, "test": 500}
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
HELD_OUT = "theo"


def main() -> None:
    folder = source.target("spoken-numbers")
    digits = source.target("spoken-digits") / "recordings.zip"
    if not digits.exists():
        raise SystemExit("run first: python -m recipes.spoken-digits.prepare")
    recordings, voices = {}, {}  # (split, speaker) -> [(word, samples)]
    with zipfile.ZipFile(digits) as archive:
        for name in sorted(archive.namelist()):
            digit, speaker, index = name.removesuffix(".wav").split("_")
            spoken = (WORDS[int(digit)], soundfile.read(io.BytesIO(archive.read(name)), dtype="int16")[0])
            side = "val" if 5 <= int(index) < 8 else "train"
            recordings.setdefault(("test" if int(index) < 5 else side, speaker), []).append(spoken)
            voices.setdefault(("test" if speaker == HELD_OUT else side, speaker), []).append(spoken)
    _write(recordings, folder, "strings", np.random.default_rng(0))
    _write(voices, folder, "speaker", np.random.default_rng(1))
    print(f"written to {folder}")


def _write(pools: dict, folder: Path, name: str, random: np.random.Generator) -> None:
    rows = []
    with zipfile.ZipFile(folder / f"{name}.zip", "w") as out:
        for split, count in COUNTS.items():
            speakers = sorted(speaker for side, speaker in pools if side == split)
            for index in range(count):
                speaker = speakers[index % len(speakers)]
                pool = pools[split, speaker]
                chosen = [pool[i] for i in random.integers(len(pool), size=random.integers(1, LONGEST + 1))]
                gaps = [np.zeros(int(random.uniform(*GAP_S) * RATE_HZ), np.int16) for _ in chosen]
                parts = [part for (_, spoken), gap in zip(chosen, gaps, strict=True) for part in (spoken, gap)][:-1]
                sound = io.BytesIO()
                soundfile.write(sound, np.concatenate(parts), RATE_HZ, format="FLAC")
                out.writestr(f"{split}_{index:04d}.flac", sound.getvalue())
                words = " ".join(word for word, _ in chosen)
                rows.append([f"{name}.zip!{split}_{index:04d}.flac", words, speaker, split])
    source.write_csv(folder / f"{name}.csv", ["recording", "words", "speaker", "split"], rows)


if __name__ == "__main__":
    main()
