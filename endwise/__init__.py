"""endwise: raw data in, final answers out — one network, one objective, one loop.

The public names, in reading order. Importing the package loads none of them: each is fetched when first used, so
that `import endwise` costs nothing and a broken extra breaks only what needs it.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from endwise.advise import advise
    from endwise.card import card
    from endwise.certainty import Abstain
    from endwise.chain import Chain
    from endwise.compare import compare
    from endwise.data.check import check
    from endwise.data.dataset import prepare
    from endwise.data.table import open_table
    from endwise.decisions import Decisions
    from endwise.errors import EndwiseError
    from endwise.evaluate import evaluate
    from endwise.explain import explain
    from endwise.export import export
    from endwise.lattice import Lattice
    from endwise.modalities.anomaly import Anomaly
    from endwise.modalities.audio import Audio
    from endwise.modalities.base import Answer, Contract, Modality
    from endwise.modalities.board import Board
    from endwise.modalities.boolean import Boolean
    from endwise.modalities.boxes import Boxes
    from endwise.modalities.category import Category
    from endwise.modalities.date import Date
    from endwise.modalities.embedding import Embedding
    from endwise.modalities.field import Field
    from endwise.modalities.graph import Graph
    from endwise.modalities.image import Image
    from endwise.modalities.instances import Instances
    from endwise.modalities.items import Items
    from endwise.modalities.mask import Mask
    from endwise.modalities.masked import Masked
    from endwise.modalities.number import Number
    from endwise.modalities.residues import Residues
    from endwise.modalities.series import Series
    from endwise.modalities.structure import Structure
    from endwise.modalities.tags import Tags
    from endwise.modalities.text import Text
    from endwise.modalities.trajectories import Trajectories
    from endwise.modalities.video import Video
    from endwise.modalities.volume import Volume
    from endwise.modalities.volume.boxes import VolumeBoxes
    from endwise.modalities.volume.instances import VolumeInstances
    from endwise.modalities.volume.mask import VolumeMask
    from endwise.model import Model, Prediction
    from endwise.paths import Paths
    from endwise.priors import Prior
    from endwise.propose import propose
    from endwise.recipe import Data, Goal, Objective, Recipe, Train, Trunk
    from endwise.regimes import fit
    from endwise.reproduce import reproduce
    from endwise.run import Run
    from endwise.runner import Bundle
    from endwise.search import search
    from endwise.serve import serve, serving

# name -> module: declare, read, train, use, extend
_HOMES = {
    "Recipe": "endwise.recipe",
    "Data": "endwise.recipe",
    "Goal": "endwise.recipe",
    "Objective": "endwise.recipe",
    "Trunk": "endwise.recipe",
    "Train": "endwise.recipe",
    "Image": "endwise.modalities.image",
    "Audio": "endwise.modalities.audio",
    "Text": "endwise.modalities.text",
    "Number": "endwise.modalities.number",
    "Category": "endwise.modalities.category",
    "Boolean": "endwise.modalities.boolean",
    "Date": "endwise.modalities.date",
    "Tags": "endwise.modalities.tags",
    "Series": "endwise.modalities.series",
    "Boxes": "endwise.modalities.boxes",
    "Embedding": "endwise.modalities.embedding",
    "Graph": "endwise.modalities.graph",
    "Items": "endwise.modalities.items",
    "Masked": "endwise.modalities.masked",
    "Mask": "endwise.modalities.mask",
    "Instances": "endwise.modalities.instances",
    "Anomaly": "endwise.modalities.anomaly",
    "Field": "endwise.modalities.field",
    "Board": "endwise.modalities.board",
    "Residues": "endwise.modalities.residues",
    "Structure": "endwise.modalities.structure",
    "Trajectories": "endwise.modalities.trajectories",
    "Video": "endwise.modalities.video",
    "Volume": "endwise.modalities.volume",
    "VolumeBoxes": "endwise.modalities.volume.boxes",
    "VolumeInstances": "endwise.modalities.volume.instances",
    "VolumeMask": "endwise.modalities.volume.mask",
    "propose": "endwise.propose",
    "open_table": "endwise.data.table",
    "prepare": "endwise.data.dataset",
    "check": "endwise.data.check",
    "advise": "endwise.advise",
    "compare": "endwise.compare",
    "reproduce": "endwise.reproduce",
    "fit": "endwise.regimes",
    "evaluate": "endwise.evaluate",
    "explain": "endwise.explain",
    "export": "endwise.export",
    "search": "endwise.search",
    "serve": "endwise.serve",
    "serving": "endwise.serve",
    "Decisions": "endwise.decisions",
    "card": "endwise.card",
    "Run": "endwise.run",
    "Model": "endwise.model",
    "Prediction": "endwise.model",
    "Bundle": "endwise.runner",
    "Modality": "endwise.modalities.base",
    "Contract": "endwise.modalities.base",
    "Answer": "endwise.modalities.base",
    "Abstain": "endwise.certainty",
    "Lattice": "endwise.lattice",
    "Chain": "endwise.chain",
    "Paths": "endwise.paths",
    "Prior": "endwise.priors",
    "EndwiseError": "endwise.errors",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'endwise' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


class _Package(ModuleType):
    """`endwise.export` is the function, also once the file of that name has been imported: Python would then put the
    module in its place."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __dir__() -> list[str]:
    return sorted(__all__)
