"""The folder of a bundle: it appears whole or not at all, with golden examples, and with the copied code that reads, runs
and writes without torch. Not here: the graph (graph.py), running a bundle (endwise/runner.py).
"""

import ast
import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from endwise import __version__
from endwise.dicom import is_dicom
from endwise.errors import BadValue, ExportError, require
from endwise.export.graph import picked_of, tensor_names
from endwise.files import plain, write_json, write_text
from endwise.modalities import TABLE
from endwise.modalities.base import Fetch, Modality
from endwise.rows import file_fetcher, is_missing
from endwise.runner import DESCRIPTION, FORMAT, GOLDEN, VERSION

if TYPE_CHECKING:
    from endwise.model import Model

GOLDEN_ROWS = 8
PACKAGE = Path(__file__).parent.parent
RUNNER = "runner"  # the name of the copied package inside a bundle
COPIED = re.compile(r"\bendwise(?=\.[a-z_])")
HEAVY = frozenset(
    {"torch", "pydantic", "pandas", "polars", "sklearn", "scipy", "pyarrow", "safetensors", "yaml", "typer"}
)
SCORING = frozenset(  # a bundle scores nothing
    {"endwise.metrics", "endwise.losses", "endwise.modalities.classical", "endwise.modalities.embedding.recall"}
)
DECODERS = {
    "PIL": "pillow",
    "av": "av",
    "soundfile": "soundfile",
    "soxr": "soxr",
    "tokenizers": "tokenizers",
    "nibabel": "nibabel",
    "pydicom": "pydicom",
}
RUN = '''"""Answers from raw values, without torch: python run.py INPUT... [--json] [--input name=value] [--verify]"""

import sys
from pathlib import Path

sys.dont_write_bytecode = True  # a bundle stays as it was checked
sys.path.insert(0, str(Path(__file__).resolve().parent))

from runner import main

if __name__ == "__main__":
    sys.exit(main())
'''
PACKAGE_INIT = '''"""Reads raw values, runs the graph, writes answers: copied from endwise, needs neither endwise nor torch."""

from runner.runner import Bundle, main

__all__ = ["Bundle", "main"]
'''


@dataclass(frozen=True, slots=True)
class Example:
    """One row of the proof: raw cells by input name, how their files are fetched, and its name for people."""

    cells: Mapping[str, Any]
    fetch: Fetch
    origin: str


def fields_of(model: "Model") -> dict[str, Modality]:
    """Inputs and outputs."""
    return {**model.recipe.inputs, **model.recipe.outputs}


def check_place(out: Path) -> None:
    """Refuse a place that holds anything but a bundle."""
    free = not out.exists() or (out.is_dir() and (not any(out.iterdir()) or (out / DESCRIPTION).is_file()))
    require(free, field="out", got=str(out), allowed="a new or empty folder, or a bundle to replace",
            fix="choose another place", error=ExportError)  # fmt: skip


@contextlib.contextmanager
def appearing(out: Path) -> Iterator[Path]:
    """A folder that appears at `out`, whole, by a rename when the block ends well, and is gone otherwise."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        if out.exists():
            old = out.with_name(f".{out.name}.{os.getpid()}.old")
            out.rename(old)
            partial.rename(out)
            shutil.rmtree(old)
        else:
            partial.rename(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def write_golden(
    model: "Model",
    folder: Path,
    examples: Sequence[Example],
    rows: Sequence[Mapping[str, np.ndarray | None]],
    answers: Sequence[Mapping[str, Any]],
) -> int:
    """Raw inputs as files or JSON with the model's answers: the shortest, the longest, the holes, and others."""
    golden = []
    for number, index in enumerate(picked_of(model, rows, GOLDEN_ROWS)):
        cells = {name: _portable(folder, f"golden/{number}-{_slug(name)}", item, examples[index], name, rows[index][name], model)
                 for name, item in model.recipe.inputs.items()}  # fmt: skip
        golden.append({"inputs": cells, "answers": answers[index]})
    write_json(folder / GOLDEN, golden)
    return len(golden)


def _portable(
    folder: Path, stem: str, item: Modality, example: Example, name: str, value: np.ndarray | None, model: "Model"
) -> Any:
    """A raw value as JSON can hold it: a file that `read` fetched is copied and named by its place in the bundle."""
    raw, files = example.cells.get(name), {}
    if value is None or is_missing(raw):
        return None

    def fetch(path: str) -> bytes:
        files[path] = example.fetch(path)
        return files[path]

    item.read(raw, fetch)
    if isinstance(raw, str) and len(files) > 1 and raw.lstrip().startswith("["):  # a list as a cell of a CSV holds it
        raw = json.loads(raw)
    if isinstance(raw, list | tuple) and any(isinstance(part, bytes) or _is_among(part, files) for part in raw):
        given: Any = [_held(folder, f"{stem}-{place}", part, files) for place, part in enumerate(raw)]
    elif files:
        path, data = next(iter(files.items()))
        given = _copied(folder, stem + PurePosixPath(path.replace("\\", "/")).suffix[:10].lower(), data)
    else:
        inline = raw.get("bytes") if isinstance(raw, Mapping) and isinstance(raw.get("bytes"), bytes) else raw
        given = (
            _copied(folder, stem, bytes(inline)) if isinstance(inline, bytes | bytearray | memoryview) else plain(raw)
        )
    try:
        again = item.transform(item.read(given, file_fetcher(folder)), model.contracts[name])
        same = again.dtype == value.dtype and np.array_equal(again, value, equal_nan=value.dtype.kind == "f")
    except (BadValue, TypeError):
        same = False
    require(same, field=f"examples: {example.origin}: {name}", got=raw, allowed="a raw value that a file or JSON can hold",
            fix="give the file's path, its bytes, text or a number", error=ExportError)  # fmt: skip
    return given


def _is_among(part: Any, files: Mapping[str, bytes]) -> bool:
    return isinstance(part, str) and part in files


def _held(folder: Path, name: str, part: Any, files: Mapping[str, bytes]) -> Any:
    """One of several files of a value, copied; what was not read is left as it is."""
    if isinstance(part, bytes):
        return _copied(folder, name, part)
    return _copied(folder, name, files[part]) if _is_among(part, files) else part


def _copied(folder: Path, name: str, data: bytes) -> str:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return name


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name)


def write_runner(model: "Model", folder: Path) -> None:
    """run.py, the copied package, what to install, and a page for people."""
    modules = [
        "endwise.runner",
        *sorted({type(item).__module__ for item in fields_of(model).values() if item.type in TABLE}),
    ]
    copied = _closure(modules)
    for name, source in copied.items():
        file = _module_file(name)
        write_text(folder / RUNNER / file.relative_to(PACKAGE), COPIED.sub(RUNNER, source))
    write_text(folder / RUNNER / "__init__.py", PACKAGE_INIT)
    write_text(folder / "run.py", RUN)
    used = {item.type for item in fields_of(model).values()}
    wanted = [
        package
        for module, package in DECODERS.items()
        if any(_mentions(copied[name], module) for name in copied if _serves(name, used))
    ]
    if any(
        is_dicom(file.read_bytes()[:132]) for file in folder.glob("golden/*")
    ):  # pictures need it where they are DICOM
        wanted = sorted({*wanted, DECODERS["pydicom"]})
    write_text(folder / "requirements.txt", "\n".join(["numpy", "onnxruntime", *sorted(wanted)]) + "\n")
    write_text(folder / "README.md", _page(model))


def _serves(module: str, types: set[str]) -> bool:
    return any(TABLE[name][0] == module or module.startswith(f"{TABLE[name][0]}.") for name in types if name in TABLE)


def _mentions(source: str, module: str) -> bool:
    return re.search(rf"^\s*(import|from) {module}\b|need\(\s*[\"']{module}\b", source, re.MULTILINE) is not None


def _closure(modules: Sequence[str]) -> dict[str, str]:
    """The sources of these modules of ours and of all they import, leaving out the torch side."""
    found: dict[str, str] = {}
    left = list(modules)
    while left:
        name = left.pop()
        if name in found:
            continue
        source = _module_file(name).read_text(encoding="utf-8")
        found[name] = source
        parents = [name.rsplit(".", depth)[0] for depth in range(1, name.count("."))]
        left += [*parents, *(item for item in _our_imports(source) if item not in SCORING and _is_light(item))]
    return found


def _module_file(name: str) -> Path:
    place = PACKAGE.joinpath(*name.split(".")[1:])
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def _our_imports(source: str) -> list[str]:
    """Modules of ours that a source names in an import, wherever in it, but for type checkers."""
    tree = ast.parse(source)
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.startswith("endwise.")]
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "endwise":
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [item for item in inner if _module_file(item).is_file()] or [node.module]
            if node.module != "endwise":
                found.append(node.module)
    return [name for name in found if name != "endwise"]


def _is_light(name: str, seen: frozenset[str] = frozenset()) -> bool:
    """Does importing this module of ours need nothing heavier than numpy?"""
    if name in seen:
        return True
    tree = ast.parse(_module_file(name).read_text(encoding="utf-8"))
    for node in tree.body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        for item in names:
            top = item.split(".")[0]
            if top in HEAVY or (top == "endwise" and item != "endwise" and not _is_light(item, seen | {name})):
                return False
    return True


def _page(model: "Model") -> str:
    takes = "\n".join(
        f"- `{name}`: {item.type} ({item.summary(model.contracts[name])})" for name, item in model.recipe.inputs.items()
    )
    gives = "\n".join(
        f"- `{name}`: {item.type} ({item.summary(model.contracts[name])})"
        for name, item in model.recipe.outputs.items()
    )
    return (
        f"# {model.recipe.name or 'model'}\n\nIn:\n\n{takes}\n\nOut:\n\n{gives}\n\n"
        "```bash\npip install -r requirements.txt\npython run.py INPUT... --json    # or --input name=value, or a table\n"
        "python run.py --verify           # the golden inputs again\n```\n"
        "```python\nfrom runner import Bundle         # with this folder on sys.path\n"
        "Bundle.load().predict({...})\n```\n"
    )


def write_description(model: "Model", folder: Path, opset: int | None) -> None:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    needed = {name: item.in_bundle(model.contracts[name]) for name, item in fields_of(model).items()}
    write_json(folder / DESCRIPTION, {
        "format": FORMAT,
        "version": VERSION,
        "name": model.recipe.name,
        "inputs": {name: needed[name][0].to_dict() for name in model.recipe.inputs},
        "outputs": {name: needed[name][0].to_dict() for name in model.recipe.outputs},
        "contracts": {name: contract.to_dict() for name, (_, contract) in needed.items()},
        "tensors": tensor_names(model),
        "files": {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files},
        "info": json.loads(json.dumps(plain({**model.info, "opset": opset, "versions": _versions()}))),
    })  # fmt: skip


def _versions() -> dict[str, str]:
    import onnxruntime

    return {
        "endwise": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "onnxruntime": onnxruntime.__version__,
    }
