"""Tux Paint stamps: 785 pictures with captions in seven languages (GPL-2, parts public domain or CC), a row a caption.

Which pictures are test is decided by crc32(id) % 8 == 0, so that all captions of one picture are on one side.
"""

import shutil

from recipes import source

LANGUAGES = {
    "en": "English",
    "de": "German",
    "fr": "French",
    "es": "Spanish",
    "it": "Italian",
    "nl": "Dutch",
    "ru": "Russian",
}


def main() -> None:
    folder = source.target("captioning")
    local = source.required(
        "tuxpaint_stamps", "the Debian package tuxpaint-stamps-default, pictures on white and at most 160 pixels"
    )
    shutil.copyfile(local / "images.zip", folder / "images.zip")
    rows = [
        [row["id"], f"images.zip!{row['image']}", name, row[code], row["split"]]
        for row in source.read_csv(local / "captions.csv")
        for code, name in LANGUAGES.items()
        if row[code]
    ]
    source.write_csv(folder / "captions.csv", ["id", "image", "language", "caption", "split"], rows)
    print(f"written to {folder}: {len(rows)} captions")


if __name__ == "__main__":
    main()
