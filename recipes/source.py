"""Where the recipes' data comes from: the folder named by ENDWISE_DATA, or its public source.

Used by each recipe's prepare.py, run from the repository's root: `python -m recipes.cifar10.prepare`.
"""

import csv
import io
import json
import os
import urllib.request
import zipfile
from collections.abc import Iterable, Mapping, Sequence
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
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def required(name: str, made_from: str) -> Path:
    """The data set's folder under ENDWISE_DATA; where there is no ready download, says what the folder is made from."""
    found = local(name)
    if found is None:
        raise SystemExit(f"set ENDWISE_DATA to a folder with {name}/ (made from {made_from})")
    return found


def write_csv(file: Path, names: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A UTF-8 table with a header."""
    with file.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out, lineterminator="\n").writerows([names, *rows])


def read_csv(file: Path) -> list[dict[str, str]]:
    """The rows of a UTF-8 table."""
    with file.open(newline="", encoding="utf-8") as given:
        return list(csv.DictReader(given))


def write_jsonl(file: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """One JSON object a line: for values with line ends."""
    with file.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
