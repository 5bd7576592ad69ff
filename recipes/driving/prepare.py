"""A simulated drive: front-camera frames in time order with steering, throttle, brake and speed.

The source states no licence: the frames are read from your own copy and never redistributed. `previous_*` columns
are the row before, for the repeat-last comparison in benchmarks; they are no inputs of the recipe.
"""

import csv
import shutil

from recipes import source

ANSWERS = ("steering", "throttle", "brake")


def main() -> None:
    folder, local = source.target("driving"), source.local("driving_sim")
    if local is None:
        raise SystemExit(
            "set ENDWISE_DATA to a folder with driving_sim/ (frames.zip, driving_log.csv of the Udacity simulator track)"
        )
    shutil.copyfile(local / "frames.zip", folder / "frames.zip")
    with (local / "driving_log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    train = [row for row in rows if row["split"] == "train"]
    # the last tenth of the training drive, in time order, is validation: neighbours in time are near copies
    held_out = {row["image"] for row in train[-len(train) // 10 :]}
    with (folder / "drive.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "speed", *ANSWERS, *(f"previous_{name}" for name in ANSWERS), "split"])
        for before, row in zip([rows[0], *rows], rows, strict=False):
            split = "val" if row["image"] in held_out else row["split"]
            table.writerow(
                [
                    row["image"],
                    row["speed"],
                    *(row[name] for name in ANSWERS),
                    *(before[name] for name in ANSWERS),
                    split,
                ]
            )
    print(f"written to {folder}")


if __name__ == "__main__":
    main()
