"""Digit strings spoken by five people -> the string with every digit one higher (9 -> 0), in the voice of a sixth.

Real FSDD recordings are joined, none on two sides: 0 to 4 (official) for test, 5 to 19 for the judge, the rest to learn.
"""

import csv
import io
import zipfile

import numpy as np
import soundfile

from recipes import source

RATE_HZ, LONGEST, GAP_S, VOICE = 8000, 3, (0.02, 0.15), "jackson"
COUNTS = {"train": 4000, "val": 60, "test": 300, "judge-train": 2500, "judge-val": 150, "judge-test": 300}
ENDS = {"test": 5, "judge-train": 18, "judge-val": 20, "val": 23, "train": 50}  # of each side's recordings, exclusive
SIDES = {name: range(first, end) for (name, end), first in zip(ENDS.items(), [0, *ENDS.values()], strict=False)}


def main() -> None:
    folder, digits = source.target("speech-to-speech"), source.target("spoken-digits") / "recordings.zip"
    if not digits.exists():
        raise SystemExit("run first: python -m recipes.spoken-digits.prepare")
    recordings = {}
    with zipfile.ZipFile(digits) as archive:
        for name in sorted(archive.namelist()):
            digit, speaker, index = name.removesuffix(".wav").split("_")
            sound, _ = soundfile.read(io.BytesIO(archive.read(name)), dtype="int16")
            recordings[int(digit), speaker, int(index)] = sound
    askers = sorted({speaker for _, speaker, _ in recordings} - {VOICE})
    random = np.random.default_rng(0)
    pairs, judged = [["question", "answer", "digits", "speaker", "split"]], [["recording", "digits", "split"]]
    with zipfile.ZipFile(folder / "strings.zip", "w") as out:
        for split, row in [(split, row) for split, count in COUNTS.items() for row in range(count)]:
            said, name = random.integers(10, size=random.integers(1, LONGEST + 1)), f"{split}_{row:04d}"
            side, higher = SIDES["test" if split == "judge-test" else split], (said + 1) % 10

            def put(digits: np.ndarray, speaker: str, name: str, side: range = side) -> str:
                chosen = [recordings[digit, speaker, random.choice(side)] for digit in digits.tolist()]
                gaps = [np.zeros(int(random.uniform(*GAP_S) * RATE_HZ), np.int16) for _ in chosen]
                parts = [part for pair in zip(gaps, chosen, strict=True) for part in pair][1:]
                soundfile.write(sound := io.BytesIO(), np.concatenate(parts), RATE_HZ, format="FLAC")
                out.writestr(f"{name}.flac", sound.getvalue())
                return f"{name}.flac"

            if split.startswith("judge"):
                written = " ".join(map(str, said))  # with spaces: a column of numbers would lose its zeros
                judged.append([put(said, [*askers, VOICE][row % 6], name), written, split.removeprefix("judge-")])
            else:
                asked, answered = put(said, askers[row % 5], f"{name}_question"), put(higher, VOICE, f"{name}_answer")
                pairs.append([asked, answered, " ".join(map(str, higher)), askers[row % 5], split])
    for file, rows in (("pairs.csv", pairs), ("judge.csv", judged)):
        with (folder / file).open("w", newline="") as table:
            csv.writer(table).writerows(rows)


if __name__ == "__main__":
    main()
