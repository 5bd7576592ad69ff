"""Digit strings spoken by five people -> the string with every digit one higher (9 -> 0), in the voice of a sixth.

Real FSDD recordings are joined. No recording is on two sides: test strings, questions and answers, are made of the
official test recordings (0 to 4), the judge (judge.yaml) learns from 5 to 19, the network is validated on 20 to 22 and
trained on 23 to 49.
"""

import csv
import io
import zipfile

import numpy as np
import soundfile

from recipes import source

RATE_HZ, LONGEST, GAP_S, VOICE = 8000, 4, (0.02, 0.15), "jackson"
COUNTS = {"train": 4000, "val": 100, "test": 500, "judge-train": 2500, "judge-val": 150, "judge-test": 300}
SIDES = {
    "test": range(5),
    "judge-train": range(5, 18),
    "judge-val": range(18, 20),
    "val": range(20, 23),
    "train": range(23, 50),
}
Recordings = dict[tuple[int, str, int], np.ndarray]


def main() -> None:
    folder, digits = source.target("speech-to-speech"), source.target("spoken-digits") / "recordings.zip"
    if not digits.exists():
        raise SystemExit("run first: python -m recipes.spoken-digits.prepare")
    recordings: Recordings = {}
    with zipfile.ZipFile(digits) as archive:
        for name in sorted(archive.namelist()):
            digit, speaker, index = name.removesuffix(".wav").split("_")
            recordings[int(digit), speaker, int(index)] = soundfile.read(io.BytesIO(archive.read(name)), dtype="int16")[
                0
            ]
    speakers = sorted({speaker for _, speaker, _ in recordings})
    askers = [speaker for speaker in speakers if speaker != VOICE]
    random = np.random.default_rng(0)
    with zipfile.ZipFile(folder / "strings.zip", "w") as out:
        pairs, judged = [["question", "answer", "digits", "speaker", "split"]], [["recording", "digits", "split"]]
        for split, count in COUNTS.items():
            for row in range(count):
                said = random.integers(10, size=random.integers(1, LONGEST + 1)).tolist()
                name = f"{split}_{row:04d}"
                if split.startswith("judge"):
                    side = SIDES["test" if split == "judge-test" else split]
                    written = joined(recordings, said, speakers[row % 6], side, random, out, name)
                    judged.append([written, spelt(said), split.removeprefix("judge-")])
                    continue
                speaker, higher = askers[row % 5], [(digit + 1) % 10 for digit in said]
                asked = joined(recordings, said, speaker, SIDES[split], random, out, f"{name}_question")
                answered = joined(recordings, higher, VOICE, SIDES[split], random, out, f"{name}_answer")
                pairs.append([asked, answered, spelt(higher), speaker, split])
    for file, rows in (("pairs.csv", pairs), ("judge.csv", judged)):
        with (folder / file).open("w", newline="") as table:
            csv.writer(table).writerows(rows)
    print(f"written to {folder}")


def spelt(digits: list[int]) -> str:
    """With spaces: a column of numbers would lose its zeros."""
    return " ".join(map(str, digits))


def joined(recordings: Recordings, digits: list[int], speaker: str, side: range, random: np.random.Generator,
           out: zipfile.ZipFile, name: str) -> str:  # fmt: skip
    """Recordings of these digits from `side` with short silences between, as a file of the zip; its name."""
    parts = []
    for digit in digits:
        parts += [
            recordings[digit, speaker, int(random.choice(side))],
            np.zeros(int(random.uniform(*GAP_S) * RATE_HZ), np.int16),
        ]
    sound = io.BytesIO()
    soundfile.write(sound, np.concatenate(parts[:-1]), RATE_HZ, format="FLAC")
    out.writestr(f"{name}.flac", sound.getvalue())
    return f"{name}.flac"


if __name__ == "__main__":
    main()
