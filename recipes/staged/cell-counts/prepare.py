"""The pictures of blood-cells with their boxes and with how many cells of each kind a picture has, counted from them."""

from collections import defaultdict

from recipes import source

KINDS = {"RBC": "red", "WBC": "white", "Platelets": "platelets"}
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def main() -> None:
    folder, cells = source.target("staged/cell-counts"), source.target("blood-cells")
    if not (cells / "annotations.csv").exists():
        raise SystemExit("run first: python -m recipes.blood-cells.prepare")
    pictures = defaultdict(list)
    for row in source.read_csv(cells / "annotations.csv"):
        pictures[row["image"], row["split"]].append(row)
    source.write_jsonl(folder / "pictures.jsonl", (sample(*key, rows) for key, rows in pictures.items()))
    print(f"written to {folder}")


def sample(image: str, split: str, rows: list[dict[str, str]]) -> dict[str, object]:
    counts = {name: sum(row["label"] == kind for row in rows) for kind, name in KINDS.items()}
    boxes = [{"label": row["label"], "box": [float(row[name]) for name in CORNERS]} for row in rows]
    return {"image": f"../../../blood-cells/data/images.zip!{image}", "split": split, "cells": boxes, **counts}


if __name__ == "__main__":
    main()
