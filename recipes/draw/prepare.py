"""easy-VQA's drawn shapes (Zhou 2019; MIT) with a caption each, 'a teal triangle', made of the questions and answers.

Four of the 24 captions are kept out of the training rows of the network that draws, and not out of its judge's: what it has
seen the shape of, and the colour of, and never together.
"""

import re
import shutil
from collections import defaultdict

from recipes import source

SHAPES = ("circle", "rectangle", "triangle")
COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
KEPT_OUT = {("blue", "triangle"), ("red", "rectangle"), ("green", "circle"), ("yellow", "triangle")}


def facts(rows: list[dict[str, str]]) -> dict[str, dict[str, str]]:
    """{image: {'shape', 'colour'}} of all that is said to be there: in an answer, or in a question that is not denied."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for row in rows:
        denied = re.search(r"\b(no|not)\b", row["question"]) is not None
        said = [row["answer"]]
        if row["answer"] not in ("yes", "no") or (row["answer"] == "yes") != denied:
            said += row["question"].rstrip("?").split()
        for kind, names in (("shape", SHAPES), ("colour", COLOURS)):
            found[row["image"]].update((kind, word) for word in said if word in names)
    return found


def main() -> None:
    folder = source.target("draw")
    local = source.required("easy_vqa", "github.com/vzhou842/easy-VQA")
    counts = {}
    for split in ("train", "test"):
        shutil.copyfile(local / f"{split}_images.zip", folder / f"{split}_images.zip")
        known = facts(source.read_csv(local / f"{split}.csv"))
        rows = [
            [f"{split} {image}", f"{split}_images.zip!{image}", f"a {own['colour']} {own['shape']}", own["shape"], own["colour"],
             "never" if (own["colour"], own["shape"]) in KEPT_OUT else "seen"]
            for image, own in known.items()
            if len(own) == 2
        ]  # fmt: skip
        names = ["number", "picture", "caption", "shape", "colour", "together"]
        source.write_csv(folder / f"judge_{split}.csv", names, rows)
        drawn = [row for row in rows if split == "test" or row[-1] == "seen"]
        source.write_csv(folder / f"{split}.csv", names, drawn)
        counts[split] = f"{len(drawn)} of {len(known)} pictures"
    print(f"written to {folder}: {counts}")


if __name__ == "__main__":
    main()
