"""Where the recipes' data comes from: the folder named by ENDWISE_DATA, or its public source.

Used by each recipe's prepare.py, run from the repository's root: `python -m recipes.cifar10.prepare`.
"""

import io
import os
import urllib.request
import zipfile
from pathlib import Path

TIMEOUT_S = 60


def local(name: str) -> Path | None:
    """The data set's folder under ENDWISE_DATA, or None."""
    root = os.environ.get("ENDWISE_DATA")
    folder = Path(root) / name if root else None
    return folder if folder is not None and folder.is_dir() else None


def download(url: str) -> bytes:
    """The bytes at a public address; says what is being fetched."""
    print(f"fetching {url}")
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
        data: bytes = answer.read()
    return data


def github(repository: str, commit: str) -> zipfile.ZipFile:
    """A public repository at one commit, as a zip in memory (its members start with `name-commit/`)."""
    return zipfile.ZipFile(io.BytesIO(download(f"https://github.com/{repository}/archive/{commit}.zip")))


def target(recipe: str) -> Path:
    """The recipe's data folder (never committed)."""
    folder = Path(__file__).parent / recipe / "data"
    folder.mkdir(exist_ok=True)
    return folder
