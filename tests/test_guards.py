"""Guards of the house: what may be imported, by whom, and what may not stand in any file."""

import ast
import importlib
import importlib.util
import os
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

import endwise
from endwise.modalities import TABLE

REPOSITORY = Path(__file__).parent.parent
PACKAGE = REPOSITORY / "endwise"
FILES = sorted(PACKAGE.rglob("*.py"))
HEAVY = {
    "torch",
    "pydantic",
    "pandas",
    "polars",
    "pyarrow",
    "scipy",
    "sklearn",
    "PIL",
    "soundfile",
    "tokenizers",
    "yaml",
    "rich",
    "typer",
}

# ---- what importing loads ------------------------------------------------------------------------------------------------


def loaded_by(code: str) -> set[str]:
    """The top-level packages that a fresh interpreter has after running `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"],
        capture_output=True, text=True, check=True, cwd=REPOSITORY,
    )  # fmt: skip
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_by("import endwise") & (HEAVY | {"numpy"}) == set()


def test_the_guard_can_fail() -> None:
    assert "numpy" in loaded_by("import endwise\nimport numpy") & (HEAVY | {"numpy"})


@pytest.mark.parametrize(
    "module", [module for module, _ in TABLE.values()] + ["endwise.runner", "endwise.rows", "endwise.errors"]
)
def test_the_numpy_side_loads_numpy_alone(module: str) -> None:
    assert loaded_by(f"import {module}") & HEAVY == set()


def test_torchvision_is_not_there() -> None:
    """A broken torchvision breaks whoever probes for it, and nothing of ours may come to need it."""
    assert importlib.util.find_spec("torchvision") is None


# ---- the public list -----------------------------------------------------------------------------------------------------


def test_the_public_list_is_what_can_be_imported() -> None:
    for name in endwise.__all__:
        assert getattr(endwise, name) is not None
    assert set(endwise.__all__) <= set(dir(endwise))


def test_a_public_function_stays_a_function_after_its_module_is_loaded() -> None:
    """`import endwise.export` sets an attribute of that name on the package."""
    code = (
        "import endwise, types, importlib\n"
        "homes = dict(endwise._HOMES)\n"
        "[importlib.import_module(home) for home in homes.values()]\n"
        "wrong = [name for name in homes if isinstance(getattr(endwise, name), types.ModuleType)]\n"
        "assert not wrong, wrong\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_of_ours"):
        _ = endwise.nothing_of_ours


def test_what_the_type_checker_sees_is_the_public_list() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {
        alias.asname or alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert seen == set(endwise.__all__) - {"__version__"}


# ---- imports point one way -----------------------------------------------------------------------------------------------

# Every room by its floor: a room imports from its own floor only where that is said below, and from floors under it.
FLOORS: dict[str, int] = {
    "errors": 0, "files": 0, "sandbox": 0, "recording": 0, "drawing": 0, "shades": 1, "scan": 1, "dicom": 1, "heap": 1, "patches": 1, "lattice": 1, "trace": 1, "chain": 1, "paths": 1,
    "certainty": 1, "when": 1,
    "batch": 1, "curves": 1, "delimited": 1, "metrics": 1, "scores": 1, "losses": 1, "nn": 1,
    "modalities": 2, "execute": 2,
    "rows": 3, "shelf": 3, "calibration": 3, "priors": 3, "watch": 3, "network": 3, "recipe": 3, "stages": 3,
    "objective": 4, "weighting": 4, "data": 4, "optimise": 4, "plan": 4, "checkpoint": 4, "runner": 4, "stream": 4,
    "silhouettes": 0,
    "artefact": 5, "model": 5, "run": 5, "transfer": 5, "baselines": 5, "beside": 5, "details": 5, "diagnosis": 5,
    "lineage": 1, "decisions": 1,
    "highlights": 1, "rollout": 4, "attribution": 4, "explanation": 5, "shortcuts": 5,
}  # fmt: skip
VERBS = {
    "advise",
    "regimes",
    "train",
    "evaluate",
    "export",
    "report",
    "doctor",
    "search",
    "card",
    "propose",
    "compare",
    "reproduce",
    "explain",
    "serve",
    "monitor",
    "improve",
}
TOP = {"cli", "testing", "__init__", "__main__"}
TOGETHER = {1, 2, 3, 4, 5}  # floors whose rooms may import one another (no circle: see below)
# A verb that ends in another's work says so here, with the reason.
ALLOWED_VERBS = {
    ("train", "evaluate"): "validation during training is evaluation",
    ("regimes", "train"): "a regime is several trainings",
    ("train", "report"): "a run ends with its report",
    ("serve", "explain"): "a server says why it answered so",
    ("advise", "regimes"): "recipes with stages are trained by their regimes",
    ("advise", "train"): "an advice is bought with small trainings",
    ("advise", "evaluate"): "its rivals are scored as validation scores",
    ("advise", "report"): "an advice ends with its report",
    ("reproduce", "regimes"): "a run is reproduced by training it again",
    ("compare", "regimes"): "a comparison is several regimes",
    ("compare", "train"): "what a training may be asked to do and how it stops",
    ("compare", "evaluate"): "its regimes are scored as validation scores",
    ("compare", "report"): "a comparison ends with its report",
    ("compare", "propose"): "the type of a column that no recipe declares is proposed",
}


def room(file: Path) -> str:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imports(file: Path) -> Iterator[tuple[str, bool]]:
    """(room imported from, at the top of the file?), imports for type checkers left out."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "endwise":
            parts = node.module.split(".")[1:]
            for name in [parts[0]] if parts else [alias.name for alias in node.names]:
                if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file():
                    yield name, id(node) in top
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("endwise."):
                    yield alias.name.split(".")[1], id(node) in top


def test_every_room_has_its_floor() -> None:
    rooms = {room(file) for file in FILES}
    assert rooms <= set(FLOORS) | VERBS | TOP, "say here on which floor a new room stands"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_down(file: Path) -> None:
    here = room(file)
    if here in TOP:
        return
    for other, _ in imports(file):
        if other == here:
            continue
        assert other not in TOP, f"{here} imports {other}"
        if here in VERBS:
            assert other not in VERBS or (here, other) in ALLOWED_VERBS, (
                f"a verb does not import another verb: {here} -> {other}"
            )
            continue
        assert other not in VERBS, f"{here} imports the verb {other}"
        level = FLOORS[here]
        assert FLOORS[other] < level or (FLOORS[other] == level and level in TOGETHER), (
            f"{here} imports {other} above it"
        )


def test_no_circle_of_imports() -> None:
    """At the top of files; imports inside functions may close one only where a room is asked for late on purpose."""
    edges = {}
    for file in FILES:
        found = {other for other, top in imports(file) if top and other != room(file)}
        edges.setdefault(room(file), set()).update(found)
    done: set[str] = set()
    while left := set(edges) - done:
        free = {name for name in left if edges[name] <= done | (edges[name] - set(edges))}
        assert free, f"these rooms import one another in a circle: {sorted(left)}"
        done |= free


# ---- what stands in no file ----------------------------------------------------------------------------------------------

FORBIDDEN = {
    "a pickle": r"^\s*(import|from) (pickle|cPickle|dill|joblib|shelve|marshal)\b|\bpickle\.|\ballow_pickle\s*=\s*True",
    "torch.load or torch.save": r"\btorch\.(load|save)\(",
    "an unsafe YAML loader": r"\byaml\.(load|unsafe_load|full_load)(_all)?\(",
    "eval or exec": r"(?<![\w.])(eval|exec)\(",
    "a shell": r"\bshell\s*=\s*True|\bos\.(system|popen)\(",
    "an archive unpacked as it says": r"\.extractall\(|\bshutil\.unpack_archive\(",
}


def code_of(file: Path) -> str:
    """The source without comments and text."""
    tree = ast.parse(file.read_text(encoding="utf-8"))

    class Blank(ast.NodeTransformer):
        def visit_Constant(self, node: ast.Constant) -> ast.Constant:
            return ast.Constant("") if isinstance(node.value, str) else node

    return ast.unparse(ast.fix_missing_locations(Blank().visit(tree)))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_file_executes_what_it_reads(file: Path) -> None:
    code = code_of(file)
    for what, pattern in FORBIDDEN.items():
        found = re.search(pattern, code, re.MULTILINE)
        assert not found, f"{what}: {found[0] if found else ''}"


@pytest.mark.parametrize(
    "line",
    ["import pickle", "torch.load(p)", "yaml.load(x)", "eval(x)", "exec(x)", "run(x, shell=True)", "a.extractall(p)"],
)
def test_the_gate_can_close(line: str, tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text(f'"""torch.load( in a text is only talk."""\n{line}\nmodel.eval()\n')
    code = code_of(file)
    assert sum(bool(re.search(pattern, code, re.MULTILINE)) for pattern in FORBIDDEN.values()) == 1


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, cwd=REPOSITORY)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return [REPOSITORY / name for name in done.stdout.split("\0") if name and (REPOSITORY / name).is_file()]


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    place = re.compile(rb"(?<![\w./])/(home|Users|root|work|mnt|private)/[A-Za-z0-9_.-]+")
    here = os.fsencode(REPOSITORY)
    for file in tracked():
        data = file.read_bytes()
        if b"\0" in data[:4096] or file == Path(__file__):
            continue
        found = place.search(data)
        assert not found, f"{file.relative_to(REPOSITORY)}: {found[0].decode() if found else ''}"
        assert here not in data, file


def test_no_artefact_is_tracked() -> None:
    wrong = [
        file.name
        for file in tracked()
        if file.suffix in {".pt", ".pth", ".pkl", ".pickle", ".onnx", ".safetensors", ".npy"}
    ]
    assert not wrong
    assert not [file for file in tracked() if file.stat().st_size > 9_000_000]


def test_every_module_says_what_it_is_for() -> None:
    for file in FILES:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        empty = not tree.body
        assert empty or ast.get_docstring(tree), f"{file.relative_to(REPOSITORY)} has no docstring"


def test_modules_of_the_public_list_exist() -> None:
    for module in set(endwise._HOMES.values()):
        assert isinstance(importlib.import_module(module), types.ModuleType)
