"""BCCD: 364 pictures of blood smears with a box around every cell; its own lists say which are train, val and test."""

import shutil
import zipfile
from xml.etree import ElementTree

from recipes import source

NAMES = ["image", "split", "width", "height", "label", "xmin", "ymin", "xmax", "ymax"]
CORNERS = NAMES[5:]


def main() -> None:
    folder, local = source.target("blood-cells"), source.local("bccd")
    if local is not None:
        for name in ("annotations.csv", "images.zip"):
            shutil.copyfile(local / name, folder / name)
    else:
        archive = source.github("Shenggan/BCCD_Dataset", "d272fb1")
        write(archive, archive.namelist()[0] + "BCCD/")
    print(f"written to {folder}")


def write(archive: zipfile.ZipFile, root: str) -> None:
    """One table and one zip, as the Pascal VOC folders have them."""
    rows: list[list[object]] = []
    with zipfile.ZipFile(source.target("blood-cells") / "images.zip", "w") as pictures:
        for split in ("train", "val", "test"):
            for stem in archive.read(f"{root}ImageSets/Main/{split}.txt").decode().split():
                pictures.writestr(f"{stem}.jpg", archive.read(f"{root}JPEGImages/{stem}.jpg"))
                found = ElementTree.fromstring(archive.read(f"{root}Annotations/{stem}.xml"))
                size = [found.findtext("size/width"), found.findtext("size/height")]
                for item in found.findall("object"):
                    corners = [item.findtext(f"bndbox/{name}") for name in CORNERS]
                    rows.append([f"{stem}.jpg", split, *size, item.findtext("name"), *corners])
    source.write_csv(source.target("blood-cells") / "annotations.csv", NAMES, rows)


if __name__ == "__main__":
    main()
