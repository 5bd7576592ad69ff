"""Errors: one function makes them, one tree holds them.

    EndwiseError                    exit code
    ├── RecipeError                 2   the declaration: a field, a value, a combination
    ├── DataError                   3   the table, a file, a row, a split
    │   └── BadValue                    one raw value that cannot be read; the caller adds file and row
    ├── SetupError                  4   this machine: a missing package, a full disk, a busy folder
    ├── ModelError                  5   a run or model folder that is missing, damaged or of another kind
    ├── TrainingError               6   training could not go on: diverged, out of memory
    └── ExportError                 7   the exported graph does not give the same answers

Every message names the field, the value, what is allowed, and the fix. Exit code 1 is a bug of ours, 130 is
Ctrl-C, 143 is SIGTERM. This file imports nothing of ours and nothing heavy: everything else imports it.
"""

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType

MAX_VALUE_CHARS = 120  # a wrong value is quoted, but a whole file pasted by mistake is not


class EndwiseError(Exception):
    """Something the user can mend. `str(error)` is the whole message: at most six lines, no traceback needed."""

    exit_code = 1


class RecipeError(EndwiseError):
    """The declaration is wrong."""

    exit_code = 2


class DataError(EndwiseError):
    """The table, a file, a row or a split is wrong."""

    exit_code = 3


class BadValue(DataError):
    """One raw value cannot be read. Raised by `Modality.read` with the bare reason; the caller adds file and row."""


class SetupError(EndwiseError):
    """This machine lacks something: a package, space, permission."""

    exit_code = 4


class ModelError(EndwiseError):
    """A run or a model folder is missing, damaged, or not what was asked for."""

    exit_code = 5


class TrainingError(EndwiseError):
    """Training could not go on."""

    exit_code = 6


class ExportError(EndwiseError):
    """The exported graph does not give the answers of the model."""

    exit_code = 7


def refusal(
    *, field: str, got: object, allowed: str, fix: str, error: type[EndwiseError] = RecipeError
) -> EndwiseError:
    """The one sentence of every refusal: `raise refusal(field=..., got=..., allowed=..., fix=...)`."""
    quoted = repr(got)
    if len(quoted) > MAX_VALUE_CHARS:
        quoted = quoted[: MAX_VALUE_CHARS - 1] + "…"
    fix = fix.rstrip(".")
    return error(f"{field} = {quoted} is not allowed: expected {allowed}. Fix: {fix}{'' if fix.endswith('?') else '.'}")


def require(
    ok: bool, *, field: str, got: object, allowed: str, fix: str, error: type[EndwiseError] = RecipeError
) -> None:
    """Refuse unless `ok`."""
    if not ok:
        raise refusal(field=field, got=got, allowed=allowed, fix=fix, error=error)


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The valid name that `name` was probably meant to be, or None."""
    found = difflib.get_close_matches(str(name), list(names), n=1, cutoff=0.65)
    return found[0] if found else None


def unknown_name(
    *, field: str, got: str, names: Iterable[str], error: type[EndwiseError] = RecipeError
) -> EndwiseError:
    """A name that is not in a closed list, with the nearest valid one."""
    known = sorted(names)
    if not known:
        return refusal(field=field, got=got, allowed="nothing: there is none to name", fix="remove it", error=error)
    meant = nearest(got, known)
    listed = ", ".join(known[:20]) + (" …" if len(known) > 20 else "")
    fix = f"did you mean {meant!r}?" if meant else "take one of these"
    return refusal(field=field, got=got, allowed=f"one of {listed}", fix=fix, error=error)


def need(module: str, *, extra: str, what: str) -> ModuleType:
    """Import an optional package where it is used, or say what to install. `what` is the thing that needs it."""
    try:
        return importlib.import_module(module)
    except ImportError as missing:
        raise SetupError(f"{what} needs {module!r}: pip install 'endwise[{extra}]' ({missing}).") from missing
