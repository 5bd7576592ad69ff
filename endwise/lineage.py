"""Lineage: from a trained model back to what it was made of, and whether that is still what it was.

A run keeps `files.sha256`, every file its rows were read from (as `sha256sum --check` takes it), `environment.json`, the code,
the packages and the machine it began with, and `resumed.json` where it went on after a stop. The model holds the hashes of
these and of the recipe, the decision log the hash of the
model: so one line of the log names everything behind an answer. Not here: which files rows are read from
(data/manifest.py), the log itself (decisions.py). The standard library only.
"""

import contextlib
import datetime
import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import endwise
from endwise.errors import ModelError
from endwise.files import atomic, parse_json, write_json

ENTRY = "lineage"  # of a model's facts: {file of the run: its sha256}, and under "code" what trained it
RECIPE, MANIFEST, ENVIRONMENT = "recipe.yaml", "files.sha256", "environment.json"
WRITTEN = (RECIPE, MANIFEST, ENVIRONMENT)  # of every run
RESUMED = "resumed.json"  # of a run that was stopped: when it went on, and what was other than at the beginning
DESCRIPTIONS = ("bundle.json", "model.json", "model/model.json")  # whose hash is a model's name in a log
CHUNK = 1 << 20
GIT_S = 5.0  # a repository that takes longer to look at is not waited for
NAMED = 5  # files, in a line of text
State = Literal["same", "changed", "gone", "unknown"]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Link:
    """One step of the way back, and whether it is on disk as it was: same, changed, gone, or unknown (nothing was written
    down, or there is nothing to compare with)."""

    name: str
    state: State
    detail: str

    @property
    def holds(self) -> bool:
        """Nothing speaks against it."""
        return self.state in ("same", "unknown")

    def to_dict(self) -> dict[str, str]:
        return {"name": self.name, "state": self.state, "detail": self.detail}

    def __str__(self) -> str:
        said = {"same": "as it was", "changed": "CHANGED", "gone": "GONE", "unknown": "not known"}[self.state]
        return f"{self.name:<12} {said}: {self.detail}"


# ---- what is written down when a run begins ----------------------------------------------------------------------------


def write_down(
    run: Path, files: Iterable[tuple[str, str]], accelerator: str, *, begun: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """Write the manifest of (path, sha256) and the environment into a run that has its recipe. begun: the training has, so that
    what it began with stays as it was written and this going on is a line of `resumed.json`. Returns what the model keeps of
    them, and what is to be said: where a run goes on among other packages or code than it began with."""
    write_manifest(run / MANIFEST, files)
    now = surroundings(accelerator)
    before, notes = _read_mapping(run / ENVIRONMENT) if begun else {}, []
    if before:
        notes = [f"the run goes on with other {line}" for line in differences(before, now)]
        earlier = _read_mapping(run / RESUMED).get("resumed") or []
        going_on = {
            "at": now["began"],
            "other": differences(before, now),
            "machine": now["machine"],
            "code": now["code"],
        }
        write_json(run / RESUMED, {"resumed": [*earlier, going_on]})
    else:
        (run / RESUMED).unlink(missing_ok=True)
        write_json(run / ENVIRONMENT, now)
    hashes = {name: found for name in (*WRITTEN, RESUMED) if (found := _hash(run / name)) is not None}
    return {**hashes, "code": now["code"]}, notes


def write_manifest(path: Path, files: Iterable[tuple[str, str]]) -> None:
    """(path, sha256) line by line as sha256sum writes them, sorted by path."""
    with atomic(path) as out:
        for name, found in sorted(files):
            odd = "\\" in name or "\n" in name
            spelled = name.replace("\\", "\\\\").replace("\n", "\\n") if odd else name
            mark = "\\" if odd else ""
            out.write(f"{mark}{found}  {spelled}\n".encode(errors="surrogateescape"))


def read_manifest(path: Path) -> list[tuple[str, str]]:
    """What `write_manifest` wrote; ModelError for a file that is none."""
    found = []
    for number, raw in enumerate(path.read_bytes().decode(errors="surrogateescape").split("\n"), 1):
        if not raw:
            continue
        line = raw.removeprefix("\\")
        value, name = line[:64], line[66:]
        if line[64:66] != "  " or not name or not set(value) <= set("0123456789abcdef"):
            raise ModelError(f"{path} line {number} is no line of a manifest. Fix: restore the file.")
        if raw is not line:
            name = name.replace("\\\\", "\0").replace("\\n", "\n").replace("\0", "\\")
        found.append((name, value))
    return found


def sha256_of(path: str | Path) -> str:
    """Of a file's bytes, in bounded memory. OSError where it cannot be read."""
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (a tenth of the time of a small file)
        first = file.read(CHUNK)
        found = hashlib.sha256(first)
        while len(first) == CHUNK:
            first = file.read(CHUNK)
            found.update(first)
    return found.hexdigest()


# ---- where it was made -------------------------------------------------------------------------------------------------


@functools.cache
def environment() -> dict[str, Any]:
    """What is installed here: enough to build the same place again."""
    packages = {item.metadata["Name"]: item.version for item in importlib.metadata.distributions()}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": dict(sorted(packages.items(), key=lambda item: str(item[0]).lower())),
    }


def surroundings(accelerator: str) -> dict[str, Any]:
    """The environment, the code, the machine, and the commit of the project that this was started in."""
    machine = {"processor": _processor(), "cores": os.cpu_count(), "accelerator": accelerator}
    began = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"began": began, **environment(), "machine": machine, "code": code(), "project": commit(Path.cwd())}


@functools.cache
def code() -> dict[str, Any]:
    """What of ours is running: its version, a hash of its source, and its commit where it is a checkout."""
    package = Path(__file__).parent
    found = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        found.update(f"{file.relative_to(package).as_posix()} {sha256_of(file)}\n".encode())
    tracked = _git(package, "ls-files", "--error-unmatch", "__init__.py") is not None
    return {
        "version": endwise.__version__,
        "source_sha256": found.hexdigest(),
        **((commit(package) if tracked else None) or {}),
    }


def commit(folder: Path) -> dict[str, Any] | None:
    """{"commit": hash, "changed": whether tracked files below differ from it}; None where no repository says it."""
    head = _git(folder, "rev-parse", "HEAD")
    if head is None:
        return None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".")
    return {"commit": head.strip(), "changed": None if changed is None else bool(changed.strip())}


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=GIT_S, check=False
        )
    except (OSError, subprocess.SubprocessError):  # no git here, or too large a repository
        return None
    return done.stdout if done.returncode == 0 else None


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is other than it was, in words: the code, the interpreter, packages."""
    found = []
    old, new = (item.get("code") or {} for item in (before, now))
    if old.get("source_sha256") != new.get("source_sha256"):
        found.append(f"code: {told_code(old)}, now {told_code(new)}")
    if before.get("python") != now.get("python"):
        found.append(f"Python: {before.get('python')}, now {now.get('python')}")
    packages = [item.get("packages") or {} for item in (before, now)]
    names = sorted({*packages[0], *packages[1]}, key=str)
    odd = [name for name in names if packages[0].get(name) != packages[1].get(name)]
    if odd:
        named = ", ".join(
            f"{name} {packages[0].get(name, 'none')} -> {packages[1].get(name, 'none')}" for name in odd[:NAMED]
        )
        found.append(f"packages: {named}{f' and {len(odd) - NAMED} more' if len(odd) > NAMED else ''}")
    return found


def told_code(found: Mapping[str, Any]) -> str:
    """The code in a few words: version, commit, hash of its source."""
    if not found:
        return "unknown"
    at = f", commit {found['commit'][:12]}" if found.get("commit") else ""
    changed = " with changes" if found.get("changed") else ""
    return f"endwise {found.get('version')}{at}{changed}, source {str(found.get('source_sha256'))[:12]}"


# ---- the way back ------------------------------------------------------------------------------------------------------


def run_of(place: Path, info: Mapping[str, Any]) -> Path | None:
    """The run folder that a model came from: its own, or the one it lies in."""
    made = info.get(ENTRY) or {}
    for folder in (place, place.parent):
        if (folder / RECIPE).is_file() and (folder / "data.json").is_file():
            known = _data_of(folder).get("fingerprint") == info.get("data_fingerprint")
            if known or any(_hash(folder / name) == value for name, value in made.items() if name != "code"):
                return folder
    return None


def trace(
    model: Mapping[str, Any], run: Path | None, *, contents: bool = True, progress: Progress | None = None
) -> list[Link]:
    """The way back from the line that a log has of a model: the model, its recipe, environment, manifest, data and code.
    contents: hash every data file anew; else they need only be there. progress(files done, files in all)."""
    info = model.get("info") or {}
    made = info.get(ENTRY) or {}
    links = _of_model(model)
    for name, what in (
        (RECIPE, "recipe"),
        (ENVIRONMENT, "environment"),
        (RESUMED, "resumptions"),
        (MANIFEST, "manifest"),
    ):
        if name in WRITTEN or name in made:
            links.append(_of_file(what, name, made.get(name), run))
    links.append(of_data(run, made, contents, progress))
    links.append(_of_code(made.get("code")))
    return links


def _of_model(model: Mapping[str, Any]) -> list[Link]:
    place = Path(model.get("place", ""))
    files = [place / name for name in DESCRIPTIONS if (place / name).is_file()]
    file = next((item for item in files if _hash(item) == model.get("model")), None)
    if file is None:
        return [Link("model", "changed", f"{files[0]} is another one") if files
                else Link("model", "gone", f"no model is in {place}")]  # fmt: skip
    said = parse_json(file.read_bytes())
    weights = {"weights.safetensors": said["weights"]["sha256"]} if "weights" in said else said.get("files", {})
    odd = [name for name, value in weights.items() if _hash(file.parent / name) != value]
    beside = (
        Link("weights", "changed", f"{', '.join(odd[:NAMED])} in {file.parent}")
        if odd
        else Link("weights", "same", ", ".join(list(weights)[:NAMED]))
    )
    return [Link("model", "same", f"{file}, sha256 {model.get('model')}"), beside]


def _of_file(what: str, name: str, written: str | None, run: Path | None) -> Link:
    if written is None:
        return Link(what, "unknown", "the model does not say what it was")
    if run is None:
        return Link(what, "unknown", f"sha256 {written}; the run is not beside the model: give it with --run")
    found = _hash(run / name)
    if found is None:
        return Link(what, "gone", f"{run / name}, sha256 {written}")
    return Link(what, "same" if found == written else "changed", f"{run / name}, sha256 {written}")


def of_data(run: Path | None, made: Mapping[str, Any], contents: bool, progress: Progress | None) -> Link:
    """Whether the files that a run learnt from are as they were. made: what its model's facts have under `ENTRY`."""
    if run is None or _hash(run / MANIFEST) is None or _hash(run / MANIFEST) != made.get(MANIFEST):
        return Link("data", "unknown", "there is no manifest that can be relied on")
    files, told = read_manifest(run / MANIFEST), _data_of(run).get("files", {})
    more = f"; {told['elsewhere']} at addresses, which are named and not hashed" if told.get("elsewhere") else ""
    more += "; values in memory, known by their fingerprint alone" if told.get("in_memory") else ""
    if not files:
        return Link("data", "unknown", f"no files{more}")
    gone, odd = [], []
    for number, (name, value) in enumerate(files, 1):
        found = _hash(Path(name)) if contents else ("" if Path(name).is_file() else None)
        if found is None:
            gone.append(name)
        elif contents and found != value:
            odd.append(name)
        if progress is not None:
            progress(number, len(files))
    if odd or gone:
        told_odd = [f"{len(part)} {what}: {', '.join(part[:NAMED])}{' …' if len(part) > NAMED else ''}"
                    for part, what in ((odd, "changed"), (gone, "gone")) if part]  # fmt: skip
        return Link("data", "changed" if odd else "gone", f"of {len(files)} files {'; '.join(told_odd)}{more}")
    if not contents:
        return Link("data", "unknown", f"{len(files)} files are there; their contents were not looked at{more}")
    return Link("data", "same", f"{len(files)} files{more}")


def _of_code(made: Mapping[str, Any] | None) -> Link:
    if not made:
        return Link("code", "unknown", "the model does not say what trained it")
    here = code()
    if here["source_sha256"] == made.get("source_sha256"):
        return Link("code", "same", told_code(made))
    return Link("code", "unknown", f"{told_code(made)}; here is {told_code(here)}")


def _data_of(run: Path) -> dict[str, Any]:
    return _read_mapping(run / "data.json")


def _read_mapping(path: Path) -> dict[str, Any]:
    """What a JSON file holds; nothing where there is none, or another thing."""
    with contextlib.suppress(OSError, ValueError):
        found = parse_json(path.read_bytes())
        return found if isinstance(found, dict) else {}
    return {}


def _hash(path: Path) -> str | None:
    try:
        return sha256_of(path)
    except (OSError, ValueError):
        return None


__all__ = [
    "ENTRY",
    "ENVIRONMENT",
    "MANIFEST",
    "Link",
    "differences",
    "environment",
    "of_data",
    "read_manifest",
    "run_of",
    "trace",
    "write_down",
]
