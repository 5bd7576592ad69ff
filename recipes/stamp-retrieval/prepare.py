"""Tux Paint stamps: pictures, English captions and the captions spoken in French (GPL-2, parts public domain or CC).

Test is crc32(id) % 8 == 0. Two stamps may have one caption; a training row whose caption a test row has is left out.
"""

import shutil

from recipes import source


def main() -> None:
    folder = source.target("stamp-retrieval")
    local = source.required(
        "tuxpaint_stamps", "the Debian package tuxpaint-stamps-default, pictures on white and at most 160 pixels"
    )
    for name in ("images.zip", "speech_fr.zip"):
        shutil.copyfile(local / name, folder / name)
    stamps = list(source.read_csv(local / "captions.csv"))
    held_out = {row["en"] for row in stamps if row["split"] == "test"}
    rows = [
        [
            f"images.zip!{row['image']}",
            row["en"],
            f"speech_fr.zip!{row['speech_fr']}" if row["speech_fr"] else "",
            row["split"],
        ]
        for row in stamps
        if row["split"] == "test" or row["en"] not in held_out
    ]
    source.write_csv(folder / "stamps.csv", ["picture", "caption", "speech", "split"], rows)
    print(f"written to {folder}: {len(rows)} stamps")


if __name__ == "__main__":
    main()
