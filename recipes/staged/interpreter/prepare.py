"""The strings of recipes/speech-to-speech with what is said in them: the digits asked, in English words, and the digits
answered, in French ones. No recording is on two sides."""

import shutil

from recipes import source

ENGLISH = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FRENCH = ("zéro", "un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf")


def main() -> None:
    folder, pairs = source.target("staged/interpreter"), source.target("speech-to-speech")
    if not (pairs / "pairs.csv").exists():
        raise SystemExit("run first: python -m recipes.speech-to-speech.prepare")
    shutil.copyfile(pairs / "strings.zip", folder / "strings.zip")
    rows = []
    for row in source.read_csv(pairs / "pairs.csv"):
        higher = [int(digit) for digit in row["digits"].split()]
        words = " ".join(ENGLISH[(digit - 1) % 10] for digit in higher)
        mots = " ".join(FRENCH[digit] for digit in higher)
        rows.append([*(f"strings.zip!{row[name]}" for name in ("question", "answer")), words, mots, row["split"]])
    source.write_csv(folder / "strings.csv", ["question", "answer", "words", "mots", "split"], rows)
    print(f"written to {folder}")


if __name__ == "__main__":
    main()
