"""The table of modalities. Adding one is one new file and one line here; from outside the package, pass the class.

Each entry is `type name: (module, class name)`, imported when asked for, so one broken extra never breaks the rest.
"""

import importlib

from endwise.errors import unknown_name
from endwise.modalities.base import Answer, Contract, Modality

TABLE: dict[str, tuple[str, str]] = {
    "image": ("endwise.modalities.image", "Image"),
    "audio": ("endwise.modalities.audio", "Audio"),
    "text": ("endwise.modalities.text", "Text"),
    "number": ("endwise.modalities.number", "Number"),
    "category": ("endwise.modalities.category", "Category"),
    "boolean": ("endwise.modalities.boolean", "Boolean"),
    "date": ("endwise.modalities.date", "Date"),
    "tags": ("endwise.modalities.tags", "Tags"),
    "boxes": ("endwise.modalities.boxes", "Boxes"),
    "embedding": ("endwise.modalities.embedding", "Embedding"),
    "graph": ("endwise.modalities.graph", "Graph"),
    "items": ("endwise.modalities.items", "Items"),
    "anomaly": ("endwise.modalities.anomaly", "Anomaly"),
    "mask": ("endwise.modalities.mask", "Mask"),
    "instances": ("endwise.modalities.instances", "Instances"),
    "field": ("endwise.modalities.field", "Field"),
    "residues": ("endwise.modalities.residues", "Residues"),
    "structure": ("endwise.modalities.structure", "Structure"),
    "board": ("endwise.modalities.board", "Board"),
    "masked": ("endwise.modalities.masked", "Masked"),
    "volume": ("endwise.modalities.volume", "Volume"),
    "volume_boxes": ("endwise.modalities.volume.boxes", "VolumeBoxes"),
    "volume_instances": ("endwise.modalities.volume.instances", "VolumeInstances"),
    "volume_mask": ("endwise.modalities.volume.mask", "VolumeMask"),
    "series": ("endwise.modalities.series", "Series"),
    "video": ("endwise.modalities.video", "Video"),
    "trajectories": ("endwise.modalities.trajectories", "Trajectories"),
}


def modality_class(name: str, *, where: str = "type") -> type[Modality]:
    """The class of a type name; an unknown one is refused with the nearest valid name."""
    if name not in TABLE:
        raise unknown_name(field=where, got=name, names=TABLE)
    module, attribute = TABLE[name]
    found: type[Modality] = getattr(importlib.import_module(module), attribute)
    return found


__all__ = ["TABLE", "Answer", "Contract", "Modality", "modality_class"]
