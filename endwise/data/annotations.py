"""Annotations of boxes in the two formats that tools write: COCO's one JSON file, Pascal VOC's XML file a picture.

Both become tables with the columns file, width, height and boxes, a list of {label, xmin, ymin, xmax, ymax}; VOC's also
split, where ImageSets/Main says it; COCO's also instances, a list of {label, mask}, where outlines are there. Pictures without a box have an empty list. Coordinates stay as they are written: COCO's
begin at 0, VOC's were meant to begin at 1 with the last pixel inside, which most tools do not keep to; half a pixel is
less than annotators agree by. Not here: whether a box makes sense (endwise/modalities/boxes), opening files (files.py).
"""

import os
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from endwise.data.columns import Column, ListColumn
from endwise.data.files import Place
from endwise.data.split import side_of
from endwise.errors import DataError, refusal, require

COCO_KEYS = frozenset({"images", "annotations", "categories"})
CORNERS = ("xmin", "ymin", "xmax", "ymax")
MAX_XML_BYTES = 16 << 20
NAMED = 3
LOOKED = 8  # pictures of COCO's that a folder has to hold to be theirs

Columns = dict[str, Column]


def is_coco(found: Any) -> bool:
    """Whether a JSON value is COCO's: three lists of objects."""
    return isinstance(found, Mapping) and found.keys() >= COCO_KEYS and all(
        isinstance(found[key], list) and all(isinstance(item, Mapping) for item in found[key]) for key in COCO_KEYS
    )  # fmt: skip


def coco_columns(found: Mapping[str, Any], shown: str) -> tuple[Columns, list[str], list[str]]:
    """(columns, names of the rows, notes) of COCO's JSON. Regions of crowds are left out and counted."""
    labels = {
        _key(item, "id", f"{shown}, categories"): str(_key(item, "name", f"{shown}, categories"))
        for item in found["categories"]
    }
    boxes: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    ids = {_key(item, "id", f"{shown}, images"): [item.get("height"), item.get("width")] for item in found["images"]}
    things: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    crowds = 0
    for number, item in enumerate(found["annotations"]):
        where = f"{shown}, annotations[{number}]"
        image, category, box = (_key(item, name, where) for name in ("image_id", "category_id", "bbox"))
        require(
            image in ids,
            field=f"{where}.image_id",
            got=image,
            allowed="the id of one of its images",
            fix="mend it or remove the annotation",
            error=DataError,
        )
        require(
            category in labels,
            field=f"{where}.category_id",
            got=category,
            allowed="the id of one of its categories",
            fix="mend it or remove the annotation",
            error=DataError,
        )
        require(isinstance(box, list) and len(box) == 4 and all(isinstance(value, int | float) for value in box),
                field=f"{where}.bbox", got=box, allowed="[x, y, width, height]", fix="mend it or remove the annotation", error=DataError)  # fmt: skip
        if item.get("iscrowd"):
            crowds += 1
            continue
        x, y, width, height = box
        corners = dict(zip(CORNERS, (x, y, x + width, y + height), strict=True))
        boxes[image].append({"label": labels[category], **corners})
        things[image].append({"label": labels[category], "mask": _outline(item.get("segmentation"), ids[image])})
    files = [str(_key(item, "file_name", f"{shown}, images")) for item in found["images"]]
    columns: Columns = {
        "file": ListColumn(files),
        "width": ListColumn([item.get("width") for item in found["images"]]),
        "height": ListColumn([item.get("height") for item in found["images"]]),
        "boxes": ListColumn([boxes[item["id"]] for item in found["images"]]),
    }
    if any(item["mask"] is not None for items in things.values() for item in items):
        columns["instances"] = ListColumn([things[item["id"]] for item in found["images"]])
    notes = [f"{shown}: {crowds} annotations are regions of crowds and were left out"] if crowds else []
    return columns, files, notes


def with_folder(
    columns: Columns, files: Sequence[str], root: Path, shown: str, notes: list[str]
) -> tuple[Columns, list[str]]:
    """(columns, notes) with the folder near COCO's JSON in which its pictures lie; as they are where there is none. root:
    the folder of the JSON. What lies beside that folder is looked at where it is COCO's `annotations`: pictures of other data may
    have the same names."""
    here = root.resolve()
    near = [*_folders(here, ""), *_folders(here / "images", "images/")]
    beside = [*_folders(here.parent, "../"), *_folders(here.parent / "images", "../images/")]
    beside = beside if here.name.lower().startswith("annotation") else []
    found: list[str] = []
    for places in (near, beside):
        found = found or [place for place in places if all((root / place / file).is_file() for file in files[:LOOKED])]
    if not found:
        return columns, notes
    if len(found) > 1:
        raise refusal(field=shown, got=files[0], allowed=f"one folder with its pictures; they are in {', '.join(found[:NAMED])}",
                      fix="write the folder into each file_name, or move the others away", error=DataError)  # fmt: skip
    told = f"{shown}: its pictures lie in {found[0]}"
    return {**columns, "file": ListColumn([f"{found[0]}/{file}" for file in files])}, [*notes, told]


def _folders(where: Path, prefix: str) -> list[str]:
    if not where.is_dir() or not os.access(where, os.R_OK | os.X_OK):
        return []
    return sorted(f"{prefix}{child.name}" for child in where.iterdir() if child.is_dir())


def _outline(given: Any, size: Sequence[Any]) -> Mapping[str, Any] | None:
    """A segmentation as a cell of `type: instances` has it; polygons do not say how large their picture is."""
    if not given:
        return None
    return given if isinstance(given, Mapping) else {"size": list(size), "polygons": given}


def _key(item: Mapping[str, Any], name: str, where: str) -> Any:
    require(
        name in item,
        field=where,
        got=dict(item),
        allowed=f"an object with {name!r}",
        fix="write it as COCO's format has it",
        error=DataError,
    )
    return item[name]


def voc_files(files: Iterable[str], place: Place) -> list[str]:
    """The XML files among these, if they are Pascal VOC's; none otherwise."""
    found = [name for name in files if name.lower().endswith(".xml")]
    return found if found and _root(place, found[0]).tag == "annotation" else []


def voc_columns(
    place: Place, annotations: Sequence[str], files: Sequence[str], shown: str, prefix: str
) -> tuple[Columns, list[str]]:
    """(columns, notes) of Pascal VOC's XML files. A picture is found by its name in the XML, or else by that of the XML,
    which is counted. prefix: what stands before a path in a cell."""
    named: dict[str, list[str]] = defaultdict(list)
    stems: dict[str, list[str]] = defaultdict(list)
    for name in files:
        if not name.lower().endswith((".xml", ".txt")):
            named[posixpath.basename(name)].append(name)
            stems[_stem(name)].append(name)
    rows: dict[str, list[Any]] = {"file": [], "width": [], "height": [], "boxes": []}
    by_stem = []
    for name in annotations:
        root = _root(place, name)
        told = posixpath.basename((root.findtext("filename") or "").replace("\\", "/"))
        places = named.get(told, [])
        if not places and stems.get(_stem(name)):
            places = stems[_stem(name)]
            by_stem.append(name)
        if len(places) > 1:
            raise refusal(field=f"{shown}/{name}", got=told, allowed=f"one picture of that name; there are {', '.join(places[:NAMED])}",
                          fix="rename them, or give each folder as a table of its own", error=DataError)  # fmt: skip
        rows["file"].append(prefix + (places[0] if places else told or f"{_stem(name)}.jpg"))
        for side in ("width", "height"):
            rows[side].append(_number(root.findtext(f"size/{side}")))
        rows["boxes"].append([_object(item, f"{shown}/{name}") for item in root.findall("object")])
    columns: Columns = {name: ListColumn(cells) for name, cells in rows.items()}
    sides = _sides(place, files, annotations, shown)
    if sides is not None:
        columns["split"] = ListColumn(sides)
    notes = [f"{shown}: {len(by_stem)} pictures are not called as their annotations say, and were found by the name of the XML file "
             f"({', '.join(by_stem[:NAMED])})"] if by_stem else []  # fmt: skip
    return columns, notes


def _object(item: ElementTree.Element, where: str) -> dict[str, Any]:
    box, label = item.find("bndbox"), item.findtext("name")
    corners = {name: None if box is None else _number(box.findtext(name)) for name in CORNERS}
    if label is None or None in corners.values():
        raise refusal(field=where, got=ElementTree.tostring(item, encoding="unicode")[:80],
                      allowed=f"objects with a name and a bndbox of {', '.join(CORNERS)}", fix="mend the object, or remove it", error=DataError)  # fmt: skip
    return {"label": label.strip(), **corners}


def _number(text: str | None) -> float | None:
    try:
        found = float(text or "")
    except ValueError:
        return None
    return int(found) if found.is_integer() else found


def _sides(place: Place, files: Sequence[str], annotations: Sequence[str], shown: str) -> list[str] | None:
    """The split of each picture by the lists in ImageSets/Main; None where there are none, or not of all."""
    lists = {side: name for name in files
             if re.search(r"ImageSets/Main/[^/]+\.txt$", name) and (side := side_of(_stem(name)))}  # fmt: skip
    if "train" not in lists or len(lists) < 2:
        return None
    sides: dict[str, str] = {}
    for side, name in lists.items():
        for line in _bytes(place, name).decode("utf-8", "replace").splitlines():
            if line.strip():
                sides[line.split()[0]] = side
    lacking = [name for name in annotations if _stem(name) not in sides]
    if lacking:
        raise refusal(field=f"{shown}/{lacking[0]}", got=_stem(lacking[0]), allowed=f"a picture that is in one of {', '.join(lists.values())}",
                      fix=f"add it and {len(lacking) - 1} others to a list, or remove the lists", error=DataError)  # fmt: skip
    return [sides[_stem(name)] for name in annotations]


def _root(place: Place, name: str) -> ElementTree.Element:
    data = _bytes(place, name)
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise DataError(f"{name}: an XML file with declarations of its own is not read. Fix: remove them.")
    try:
        return ElementTree.fromstring(data)
    except ElementTree.ParseError as wrong:
        raise DataError(f"{name}: not valid XML ({wrong}). Fix: mend the file, or remove it.") from None


def _bytes(place: Place, name: str) -> bytes:
    with place.open(name) as file:
        data = file.read(MAX_XML_BYTES + 1)
    require(
        len(data) <= MAX_XML_BYTES,
        field=name,
        got=f"more than {MAX_XML_BYTES} bytes",
        allowed="an annotation",
        fix="is this one?",
        error=DataError,
    )
    return data


def _stem(name: str) -> str:
    return posixpath.splitext(posixpath.basename(name))[0]


__all__ = ["coco_columns", "is_coco", "voc_columns", "voc_files", "with_folder"]
