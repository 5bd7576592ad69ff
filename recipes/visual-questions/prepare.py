"""easy-VQA: drawn shapes and questions about them (Zhou 2019; MIT): 38,575 training and 9,673 test questions.

And, where they are at hand, Tux Paint's stamps (GPL-2, parts public domain or CC) with three prompts each.
"""

import shutil
from pathlib import Path

from recipes import source

PROMPTS = {"describe": "en", "in German": "de", "which category": "category"}


def main() -> None:
    folder = source.target("visual-questions")
    local = source.required("easy_vqa", "github.com/vzhou842/easy-VQA")
    for split in ("train", "test"):
        images = folder / f"{split}_images.zip"
        shutil.copyfile(local / images.name, images)
        rows = [
            [f"{images.name}!{row['image']}", row["question"], row["answer"]]
            for row in source.read_csv(local / f"{split}.csv")
        ]
        source.write_csv(folder / f"{split}.csv", ["image", "question", "answer"], rows)
    stamps = source.local("tuxpaint_stamps")
    if stamps is not None:
        _stamps(stamps, folder)
    print(f"written to {folder}" + ("" if stamps else "; stamps.yaml needs ENDWISE_DATA with tuxpaint_stamps/"))


def _stamps(stamps: Path, folder: Path) -> None:
    shutil.copyfile(stamps / "images.zip", folder / "stamps.zip")
    rows = [
        [row["id"], f"stamps.zip!{row['image']}", prompt, row[column], row["split"]]
        for row in source.read_csv(stamps / "captions.csv")
        for prompt, column in PROMPTS.items()
    ]
    source.write_csv(folder / "stamps.csv", ["id", "image", "prompt", "answer", "split"], rows)


if __name__ == "__main__":
    main()
