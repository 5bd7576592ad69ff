"""Run: the folder of one training, and the only code that knows what is where in it.

    recipe.yaml  plan.json  data.json  check.json  metrics.json  details.json  from_run.json  log.jsonl  report.html
    baselines.json  (what the baselines reached: beside.py)
    files.sha256  environment.json  (what it was made of: lineage.py)
    model/       the artefact            checkpoints/  what a resume needs

JSON files appear complete or not at all; the log is only ever appended to, one flushed line an event, and a line that
a kill has torn is skipped and said. Not here: what the files mean (train, evaluate, report).
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from endwise.errors import DataError, ModelError, RecipeError, SetupError, nearest, refusal
from endwise.files import parse_json, plain, read_json, write_json, write_text
from endwise.lineage import ENVIRONMENT, MANIFEST, RECIPE
from endwise.modalities.base import Modality
from endwise.recipe import Recipe, parse

if TYPE_CHECKING:
    from endwise.model import Model

RUNS = "runs"  # where runs are made unless --out says otherwise
PLACES = re.compile(r"data\.(path|train|val|test|tables\..+)$|from_run\.run$")  # fields that say where something lies
LOG, LOCK, DESCRIPTION = "log.jsonl", ".lock", "model.json"
BEFORE_TRAINING = frozenset(
    {RECIPE, LOG, LOCK, "data.json", "check.json", "from_run.json", MANIFEST, ENVIRONMENT}
)  # a folder with these alone holds no work


@dataclass(frozen=True)
class Identity:
    """A model as a decision log names it: by the hash of its `model.json`, which has those of all else."""

    sha256: str
    name: str
    place: Path
    recipe: dict[str, Any]
    info: dict[str, Any]


class Run:
    """One run folder. `Run.open` for one that is there, `Run.create` for a new or resumed one."""

    def __init__(self, path: Path, *, modalities: Sequence[type[Modality]] = ()) -> None:
        self.path, self.modalities = path, tuple(modalities)
        self._log: IO[bytes] | None = None

    @classmethod
    def open(cls, path: "str | Path | Run", *, modalities: Sequence[type[Modality]] = ()) -> "Run":
        """A run by its folder, by its `model/` folder, by a file in it; a model folder that was copied out of its run
        is a run with a model and nothing else. Anything else is refused with the nearest run there is."""
        if isinstance(path, Run):
            return path
        place = Path(path)
        folder = place.parent if place.is_file() and place.name in (RECIPE, LOG, "report.html", DESCRIPTION) else place
        for found in (folder, folder.parent):
            if (found / RECIPE).is_file() and (found == folder or folder.name == "model"):
                return cls(found, modalities=modalities)
        if (folder / DESCRIPTION).is_file():
            return cls(folder, modalities=modalities)
        raise _no_run(place)

    @classmethod
    def create(cls, recipe: Recipe, *, out: str | Path | None = None, resume: bool = False) -> Self:
        """The folder for a training of `recipe`, with its `recipe.yaml` written (data paths made absolute).

        out: default `runs/<recipe name>`. A folder that holds work is refused unless `resume`, which refuses a recipe
        that is not the one in the folder and names the field; where its data lies may differ (a clone was moved), for whether
        it is the same data is `same_data`'s to say. One without work in it yet is simply used.
        """
        path = Path(out) if out is not None else default_path(recipe)
        run = cls(path, modalities=_outside(recipe))
        written = _settled(recipe, path)
        if path.exists() and not path.is_dir():
            raise refusal(field="out", got=str(path), allowed="a folder", fix="choose another --out")
        there = {item.name for item in path.iterdir()} if path.is_dir() else set()
        if there and RECIPE not in there and not there <= BEFORE_TRAINING:
            raise refusal(
                field="out", got=str(path), allowed="a new or empty folder, or a run", fix="choose another --out"
            )
        worked = not there <= BEFORE_TRAINING
        if worked and not resume:
            raise refusal(
                field="out",
                got=str(path),
                allowed="a folder without a run in it",
                fix="--resume goes on with it; another --out (or out=) starts a new one",
            )
        if worked:
            _same_recipe(run.recipe.to_dict(), written)
            return run
        path.mkdir(parents=True, exist_ok=True)
        write_text(path / RECIPE, _yaml(written))
        if resume:
            run.log({"event": "note", "message": "there was nothing to resume: started from the beginning"})
        return run

    # ---- places -----------------------------------------------------------------------------------------------

    @property
    def model_folder(self) -> Path:
        """The artefact: all that prediction needs."""
        return (
            self.path
            if (self.path / DESCRIPTION).is_file() and not (self.path / RECIPE).is_file()
            else self.path / "model"
        )

    @property
    def checkpoints(self) -> Path:
        """What a resume needs."""
        return self.path / "checkpoints"

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.path / "report.html"

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    # ---- what is in it ----------------------------------------------------------------------------------------

    @property
    def recipe(self) -> Recipe:
        """The recipe of this run, data paths as absolute as they were written."""
        from endwise.artefact import known_types

        if (self.path / RECIPE).is_file():
            values = parse((self.path / RECIPE).read_text(encoding="utf-8"), where=str(self.path / RECIPE))
        else:
            try:
                values = read_json(self.model_folder / DESCRIPTION)["recipe"]
            except (OSError, ValueError, KeyError, TypeError) as wrong:
                raise ModelError(
                    f"{self.model_folder}: {DESCRIPTION} holds no recipe: {wrong}. Fix: copy the folder again."
                ) from None
        return Recipe(**known_types(values, self.modalities))

    def model(self, *, device: str = "cpu", recipe: Recipe | None = None) -> "Model":
        """The trained model, with `model.run` set. recipe: the one it was trained by, where that is at hand: classes from
        outside and functions in the place of stages are in no file."""
        from endwise.model import Model

        inside = sorted(place.parent.parent for place in self.path.glob(f"*/model/{DESCRIPTION}"))
        if inside and not (self.model_folder / DESCRIPTION).is_file():
            listed = ", ".join(map(str, inside[:6])) + (" …" if len(inside) > 6 else "")
            raise ModelError(f"{self.path} holds several runs and is none. Fix: name one of them: {listed}.")
        stages = {} if recipe is None else recipe.stages
        model = Model.load(
            self.model_folder, modalities=self.modalities if recipe is None else _outside(recipe), device=device,
            functions={name: stage.by for name, stage in stages.items() if stage.by is not None},
        )  # fmt: skip
        model.run = self
        return model

    def identity(self) -> "Identity":
        """What a decision log keeps of the model in here."""
        try:
            data = (self.model_folder / DESCRIPTION).read_bytes()
            found = parse_json(data)
            recipe, info = dict(found["recipe"]), dict(found["info"])
        except (OSError, ValueError, KeyError, TypeError) as wrong:
            raise ModelError(f"{self.path} has no model that can be read: {wrong}. Fix: finish the run.") from None
        name = recipe.get("name") or self.name
        return Identity(hashlib.sha256(data).hexdigest(), str(name), self.path.resolve(), recipe, info)

    def info(self) -> dict[str, Any]:
        """The facts saved with the model (goal, versions, fingerprint ...), without loading its weights."""
        try:
            found = read_json(self.model_folder / DESCRIPTION)["info"]
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return dict(found) if isinstance(found, dict) else {}

    def has(self, name: str) -> bool:
        """Is there such a file?"""
        return (self.path / name).is_file()

    def read(self, name: str) -> Any:
        """A JSON file of the run; ModelError when it is not there or damaged."""
        try:
            return read_json(self.path / name)
        except FileNotFoundError:
            raise ModelError(f"{self.path} has no {name} (yet). Fix: finish the run with --resume.") from None
        except (OSError, ValueError) as wrong:
            raise ModelError(
                f"{self.path / name}: {wrong}. Fix: restore the file, or train again into another --out."
            ) from None

    def write(self, name: str, values: Any) -> None:
        """Replace a JSON file of the run in one step; NaN is written as null."""
        write_json(self.path / name, plain(values))

    def same_data(self, fingerprint: str) -> None:
        """DataError where what is in the run was made of other rows, other contents or other splits: other rows have
        another network, another order, and perhaps a test row that was learnt from."""
        if self.has("data.json") and self.read("data.json")["fingerprint"] != fingerprint:
            raise DataError(
                f"{self.path}: the rows, their contents or their splits are not those this run was begun with, and a resumed "
                "run keeps its data. Fix: restore the data, or start a new run with another --out."
            )

    def data_lies(self, recipe: Recipe) -> list[str]:
        """Keep where the data lies now, which `same_data` has found to be the run's own: the lines that say what was
        elsewhere when the run was begun."""
        there = parse((self.path / RECIPE).read_text(encoding="utf-8"), where=str(self.path / RECIPE))
        now = _settled(recipe, self.path)
        found = [item for item in _differences(there, now, "") if _only_lies_elsewhere(*item)]
        if found:
            places: dict[str, Any] = {section: now[section] for section in ("data", "from_run") if section in now}
            write_text(self.path / RECIPE, _yaml({**there, **places}))
        return [f"{field} is {new} now; it was {old} when this run was begun" for field, old, new in found]

    # ---- the log ----------------------------------------------------------------------------------------------

    def log(self, event: Mapping[str, Any]) -> None:
        """Append one event to log.jsonl, flushed: after a kill all but the line being written is there."""
        line = json.dumps(plain(event), ensure_ascii=False, allow_nan=False).encode() + b"\n"
        if self._log is None:
            self._log = _append_to(self.path / LOG)
        self._log.write(line)
        self._log.flush()

    def events(self) -> list[dict[str, Any]]:
        """The history: every event in order. Steps that a killed process had done after its last checkpoint were done
        again by the resumed one, and appear once; a torn line appears as a note that says so."""
        found: list[dict[str, Any]] = []
        if not self.has(LOG):
            return found
        for number, line in enumerate((self.path / LOG).read_bytes().splitlines(), 1):
            try:
                event = parse_json(line)
            except ValueError:
                event = None
            if not isinstance(event, dict):
                event = {
                    "event": "note",
                    "message": f"{LOG} line {number} is torn (a kill while it was written) and was left out",
                }
            if event.get("event") == "resumed":
                again = event.get("step", 0)
                found = [
                    item for item in found if item.get("event") not in ("step", "eval") or item.get("step", 0) <= again
                ]
            found.append(event)
        return found

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one training; SetupError while another process has it. The lock dies with its holder."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / LOCK).open("a+b") as file:
            if not _lock(file):
                file.seek(0)
                holder = file.read(32).decode(errors="replace").strip() or "another process"
                raise SetupError(
                    f"{self.path} is busy: process {holder} is training in it. Fix: wait for it, or choose another --out."
                )
            file.truncate(0)
            file.write(str(os.getpid()).encode())
            file.flush()
            try:
                yield
            finally:
                file.truncate(0)
                self.close()

    def close(self) -> None:
        """Close the log; the next event opens it again."""
        if self._log is not None:
            self._log.close()
            self._log = None

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # an interpreter that shuts down has nothing left to close with
            self.close()

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"


def default_path(recipe: Recipe) -> Path:
    """`runs/<recipe name>`, the name made fit for a folder."""
    return Path(RUNS) / (re.sub(r"[^\w.-]+", "-", recipe.name or "").strip(".-") or "run")


def run_names(folder: str | Path = RUNS) -> list[str]:
    """The runs in a folder, newest first."""
    place = Path(folder)
    found = [item for item in place.iterdir() if (item / RECIPE).is_file()] if place.is_dir() else []
    return [item.name for item in sorted(found, key=lambda item: item.stat().st_mtime, reverse=True)]


def _no_run(place: Path) -> ModelError:
    beside = {str(folder / name): name for folder in (place.parent, Path(RUNS)) for name in run_names(folder)}
    meant = nearest(place.name, beside.values())
    if meant:
        fix = f"did you mean {next(path for path, name in beside.items() if name == meant)!r}?"
    elif beside:
        fix = f"there are: {', '.join(list(beside)[:8])}"
    else:
        fix = "'endwise train' makes one"
    what = f"no run is in {str(place)!r}" if place.exists() else f"there is no {str(place)!r}"
    return ModelError(
        f"{what}: expected a folder with {RECIPE}, or its model/ folder. Fix: {fix}{'' if fix.endswith('?') else '.'}"
    )


def _settled(recipe: Recipe, path: Path) -> dict[str, Any]:
    """The recipe as this run keeps it: named, and with data paths that mean the same from every folder."""
    values = recipe.to_dict()
    out = {"version": values.pop("version"), "name": values.pop("name", None) or path.resolve().name, **values}
    out["data"] = {name: _settled_source(name, item) for name, item in values["data"].items()}
    if "from_run" in out:
        out["from_run"] = {**out["from_run"], "run": _absolute(out["from_run"]["run"])}
    return out


def _settled_source(name: str, item: Any) -> Any:
    if name == "tables":
        return {table: _absolute(source) for table, source in item.items()}
    return _absolute(item) if name in ("path", "train", "val", "test") else item


def _absolute(source: Any) -> Any:
    if not _is_place(source) or "://" in source:
        return source
    return os.path.abspath(source)  # noqa: PTH100 (resolve() would follow links, which may move)


def _is_place(source: Any) -> bool:
    """A file, a folder or an address, and not values in memory."""
    return isinstance(source, str) and not source.startswith("memory:")


def _yaml(values: Mapping[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)


def _same_recipe(there: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    for field, old, new in differing({**there, "name": None}, {**given, "name": None}):
        raise RecipeError(
            f"{field} = {new!r} is not allowed: this run was begun with {old!r}, and a resumed run keeps its recipe. "
            "Fix: give the old value, or start a new run with another --out."
        )


def differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(field, before, now) of all that two recipes' values say differently, but for where the data lies, or the run that
    they begin with: whether that is the same is known when it was read."""
    return (item for item in _differences(old, new, "") if not _only_lies_elsewhere(*item))


def _only_lies_elsewhere(field: str, old: Any, new: Any) -> bool:
    return bool(PLACES.match(field)) and _is_place(old) and _is_place(new)


def _differences(old: Any, new: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, Mapping) or isinstance(new, Mapping):
        old, new = (item if isinstance(item, Mapping) else {} for item in (old, new))
        for name in [*old, *(name for name in new if name not in old)]:
            yield from _differences(old.get(name), new.get(name), f"{where}.{name}" if where else str(name))
    elif old != new:
        yield where, old, new


def _outside(recipe: Recipe) -> tuple[type[Modality], ...]:
    """Classes that the type names in recipe.yaml alone would not find."""
    from endwise.modalities import TABLE

    return tuple({type(item) for item in [*recipe.inputs.values(), *recipe.outputs.values()] if item.type not in TABLE})


def _append_to(path: Path) -> IO[bytes]:
    """Open for appending; a line that a kill has torn is ended first, so that it spoils no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+b")
    if file.tell() > 0:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")
    return file


def _lock(file: IO[bytes]) -> bool:
    """An advisory lock that the system releases when the process ends, however it ends."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


__all__ = ["RUNS", "Run", "default_path", "differing", "run_names"]
