"""easy-VQA: drawn shapes and questions about them (Zhou 2019; MIT): 38,575 training and 9,673 test questions."""

import csv
import shutil

from recipes import source


def main() -> None:
    folder, local = source.target("visual-questions"), source.local("easy_vqa")
    if local is None:
        raise SystemExit("set ENDWISE_DATA to a folder with easy_vqa/ (made from github.com/vzhou842/easy-VQA)")
    for split in ("train", "test"):
        images = folder / f"{split}_images.zip"
        shutil.copyfile(local / images.name, images)
        with (local / f"{split}.csv").open(newline="") as file, (folder / f"{split}.csv").open("w", newline="") as out:
            table = csv.writer(out)
            table.writerow(["image", "question", "answer"])
            table.writerows(
                [f"{images.name}!{row['image']}", row["question"], row["answer"]] for row in csv.DictReader(file)
            )
    print(f"written to {folder}")


if __name__ == "__main__":
    main()
