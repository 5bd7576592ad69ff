"""Two digits spoken by one speaker, joined with a short silence, and their sum.

Real FSDD recordings; those of the official test indices 0 to 4 are in test rows only, 5 to 7 in validation rows. In
shift.csv the test rows are those of one speaker, whom no other row has; in few.csv the digits of most training rows are
unknown, and only their sums are told.
"""

import io
import zipfile

import numpy as np
import soundfile

from recipes import source

RATE_HZ, GAP_S, HELD_OUT = 8000, (0.02, 0.15), "theo"
COUNTS = {"train": 3000, "val": 300, "test": 600}
NAMED = 300  # training rows of few.csv whose digits are known
NAMES = ["recording", "first", "second", "total", "speaker", "split"]


def main() -> None:
    folder, digits = source.target("staged/spoken-sum"), source.target("spoken-digits") / "recordings.zip"
    if not digits.exists():
        raise SystemExit("run first: python -m recipes.spoken-digits.prepare")
    official, voices = {}, {}  # (split, speaker) -> [(digit, samples)]
    with zipfile.ZipFile(digits) as archive:
        for name in sorted(archive.namelist()):
            digit, speaker, index = name.removesuffix(".wav").split("_")
            spoken = (int(digit), soundfile.read(io.BytesIO(archive.read(name)), dtype="int16")[0])
            side = "val" if 5 <= int(index) < 8 else "train"
            official.setdefault(("test" if int(index) < 5 else side, speaker), []).append(spoken)
            voices.setdefault(("test" if speaker == HELD_OUT else side, speaker), []).append(spoken)
    rows = _write(official, "sums", np.random.default_rng(0))
    _write(voices, "shift", np.random.default_rng(1))
    known = {
        *np.random.default_rng(2).permutation(COUNTS["train"])[:NAMED].tolist(),
        *range(COUNTS["train"], len(rows)),
    }
    few = [row if index in known else [row[0], "", "", *row[3:]] for index, row in enumerate(rows)]
    source.write_csv(folder / "few.csv", NAMES, few)
    print(f"written to {folder}")


def _write(pools: dict, name: str, random: np.random.Generator) -> list[list[object]]:
    folder, rows = source.target("staged/spoken-sum"), []
    with zipfile.ZipFile(folder / f"{name}.zip", "w") as out:
        for split, index in [(split, index) for split, count in COUNTS.items() for index in range(count)]:
            speakers = sorted(speaker for side, speaker in pools if side == split)
            pool = pools[split, speakers[index % len(speakers)]]
            (one, first), (two, second) = (pool[i] for i in random.integers(len(pool), size=2))
            gap = np.zeros(int(random.uniform(*GAP_S) * RATE_HZ), np.int16)
            soundfile.write(sound := io.BytesIO(), np.concatenate([first, gap, second]), RATE_HZ, format="FLAC")
            out.writestr(f"{split}_{index:04d}.flac", sound.getvalue())
            file = f"{name}.zip!{split}_{index:04d}.flac"
            rows.append([file, one, two, one + two, speakers[index % len(speakers)], split])
    source.write_csv(folder / f"{name}.csv", NAMES, rows)
    return rows


if __name__ == "__main__":
    main()
