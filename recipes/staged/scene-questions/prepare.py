"""easy-VQA (Zhou 2019; MIT) with what is to be seen in each picture: its shape and colour, from the answers about it.

Three questions a picture, drawn at random, so that many pictures are seen in a short training.
"""

import random
import shutil
from collections import defaultdict

from recipes import source

SHAPES = {"circle", "rectangle", "triangle"}
EACH = 3


def main() -> None:
    folder = source.target("staged/scene-questions")
    local = source.required("easy_vqa", "github.com/vzhou842/easy-VQA")
    chance = random.Random(0)
    for split in ("train", "test"):
        images = folder / f"{split}_images.zip"
        shutil.copyfile(local / images.name, images)
        asked = defaultdict(list)
        for row in source.read_csv(local / f"{split}.csv"):
            asked[row["image"]].append((row["question"], row["answer"]))
        rows = []
        for image, pairs in asked.items():
            told = {answer for _, answer in pairs} - {"yes", "no"}
            shape, colour = next(iter(told & SHAPES), ""), next(iter(told - SHAPES), "")
            for question, answer in chance.sample(pairs, min(EACH, len(pairs))):
                rows.append([f"{images.name}!{image}", question, shape, colour, answer])
        source.write_csv(folder / f"{split}.csv", ["image", "question", "shape", "colour", "answer"], rows)
    print(f"written to {folder}")


if __name__ == "__main__":
    main()
