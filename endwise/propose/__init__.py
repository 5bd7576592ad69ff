"""A first recipe for a folder or a table, with the reason for every line and what is left to ask.

It looks at names, kinds of values and how often they repeat, on a sample of rows; it learns nothing and changes
nothing. Guesses are written beside the field they decide, doubtful ones as questions. What a table of transactions may be meant
for instead is in instead.py. Not here: opening sources (`data/table.py`) and whether the rows are any good (`data/check.py`).
"""

import datetime as dt
import io
import itertools
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from endwise.data.files import locate
from endwise.data.gather import gathered
from endwise.data.join import joined
from endwise.data.split import SIDES, side_of
from endwise.data.table import Table, family, is_table, open_table
from endwise.dicom import is_dicom
from endwise.errors import DataError, refusal, require, unknown_name
from endwise.modalities.boxes import Boxes
from endwise.modalities.number import MISSING_WORDS
from endwise.propose.found import TIME_NAMES, Found
from endwise.propose.instead import Instead, ends, others
from endwise.recipe import NAME, Data, Recipe
from endwise.when import time_of

SAMPLE_ROWS = 2_000
WIDE_ROWS = 64  # of a column with files or lists in its cells
FILE_ROWS = 8  # paths whose file is looked for
MOST_CLASSES = 1_000
FEW_NUMBERS = 20  # different whole numbers that may still be class numbers
STEPS = 64  # rows whose times are looked at, one after the other
MOST_EVEN = 0.9  # of their steps that are alike
UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
ANSWERS = ("category", "number", "boolean", "tags", "text")  # what a column is taken for an answer of
MOST_ODD = 0.05  # of a column of numbers or dates that may be typing mistakes

LABEL_NAMES = ("label", "labels", "target", "targets", "class", "category", "categories", "y", "answer", "outcome", "output",
               "intent", "sentiment", "emotion", "diagnosis", "species", "tags", "reply", "response", "ground_truth")  # fmt: skip
OUTCOME_NAMES = ("survived", "churn", "churned", "exited", "fraud", "default", "defaulted", "result", "quality", "rating",
                 "stars", "score", "price", "income", "salary", "risk", "status", "sales", "defect", "defective", "anomaly", "anomalous", "faulty")  # fmt: skip
SPEECH_NAMES = ("text", "transcript", "transcription", "sentence", "words", "utterance", "normalized_text")
ACTION_NAMES = ("steering", "steering_angle", "throttle", "brake", "action", "actions")
TEXT_NAMES = ("text", "sentence", "review", "comment", "message", "question", "title", "description", "body", "content",
              "tweet", "document", "headline", "abstract", "summary", "caption", "history", "prompt", "query")  # fmt: skip
GROUP_NAMES = ("speaker", "patient", "user", "subject", "client", "customer", "participant", "person", "author", "session",
               "dialogue", "conversation", "animal", "household", "group", "site_visit", "track", "video")  # fmt: skip
GROUP_KINDS = ("category", "number", "identifier", "text")
WEIGHT_NAMES = ("sample_weight", "instance_weight", "row_weight", "weight", "weights")
BODY_NAMES = ("height", "length", "age", "size", "bmi", "width", "price")  # beside them, a weight is in kilograms
ID_NAMES = (
    "id",
    "idx",
    "index",
    "uuid",
    "guid",
    "key",
    "row",
    "rowid",
    "name",
    "filename",
    "file_name",
    "number",
    "no",
)
MEASURED_NAMES = ("width", "height", "seconds", "duration", "duration_s", "length", "sample_rate", "samplerate", "rate",
                  "rate_hz", "size", "bytes", "channels", "num_samples", "num_frames", "frames", "fps")  # fmt: skip
MASK_NAME = re.compile(r"(^|_)(mask|segmentation|seg|annotation)s?(_|$)")
# labels: as the Medical Segmentation Decathlon has it
VOLUME_MASK_NAME = re.compile(MASK_NAME.pattern + r"|(^|_)label(s|map)?(_|$)")
MADE_NAMES = ("clean", "target", "sharp", "restored", "after", "ground_truth", "gt", "output", "original", "colour",
              "color")  # fmt: skip
VOLUME_FILE = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
PICTURE_NAMES = ("image", "file", "filename", "imagename", "imagepath", "imagefile", "path", "photo", "picture", "img")
KIND_NAMES = ("label", "class", "classname", "category", "name", "kind")
CORNER_NAMES = (
    ("xmin", "ymin", "xmax", "ymax"),
    ("x1", "y1", "x2", "y2"),
    ("x0", "y0", "x1", "y1"),
)  # of annotation tables
DATE = re.compile(r"^\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?$")
ODD_DATES = {
    "%d.%m.%Y": re.compile(r"^\d{1,2}\.\d{1,2}\.\d{4}$"), "%Y/%m/%d": re.compile(r"^\d{4}/\d{1,2}/\d{1,2}$"),
    "%m/%d/%Y": re.compile(r"^\d{1,2}/\d{1,2}/\d{4}$"), "%Y%m%d": re.compile(r"^(19|20)\d{2}(0[1-9]|1[0-2])([0-2]\d|3[01])$"),
}  # fmt: skip
YES_NO = ({"true", "false"}, {"yes", "no"}, {"y", "n"}, {"t", "f"})
MAGIC = (
    (b"\xff\xd8\xff", "image"), (b"\x89PNG", "image"), (b"GIF8", "image"), (b"II*\0", "image"), (b"MM\0*", "image"),
    (b"BM", "image"), (b"fLaC", "audio"), (b"OggS", "audio"), (b"ID3", "audio"), (b"\xff\xfb", "audio"), (b"FORM", "audio"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Proposal:
    """A recipe, why it is as it is (one reason a field, and one for every column left out), what to ask, and other recipes that
    the same table may be meant for."""

    recipe: Recipe
    reasons: list[str]
    questions: list[str]
    beside: Mapping[str, str] = field(default_factory=dict)  # 'inputs.photo' -> the reason that stands beside it
    instead: Sequence[Instead] = ()

    def yaml(self, folder: str | Path | None = None) -> str:
        """The recipe as YAML with the reasons as comments. folder: where it will be written; data paths are then
        relative to it, else as they were given."""
        tree = _tree(self.recipe, folder)
        lines = [f"# Please check: {question}" for question in self.questions]
        for section, value in tree.items():
            lines.extend(_written(section, value, 0, section, self.beside))
        left = [reason for reason in self.reasons if reason not in self.beside.values()]
        lines.extend(["", *(f"# {reason}" for reason in left)] if left else [])
        for other in self.instead:
            lines.extend(["", f"# {other.question} Then write, in the place of all above:", "#"])
            for section, value in _tree(other.recipe, folder).items():
                lines.extend(f"# {line}" for line in _written(section, value, 0, section, {}))
        return "\n".join(lines) + "\n"


def propose(path: Any) -> Proposal:
    """Propose a recipe for a folder, a table file, an address or a frame. DataError when nothing can be predicted."""
    data, table, notes, questions = _source(path)
    boxes = _one_row_a_box(table)
    if boxes is None:
        found = [_look(table, name) for name in table.columns]
    else:
        data["gather"], columns = boxes
        table = joined(gathered(table, Data(path=table, gather=data["gather"])), {"boxes": Boxes(columns=columns)})
        found = [_look(table, name) for name in table.columns if name not in (*columns, "boxes")]
        found.append(_boxes(table, columns))
    plan = _Plan(data, found, table)
    plan.reasons.extend(notes)
    plan.questions.extend(questions)
    plan.decide()
    recipe = Recipe(version=1, name=_name(path), data=plan.data, inputs=plan.inputs, outputs=plan.outputs)
    instead = [] if boxes is not None else others(table, found, recipe)
    asked = [f"{other.question} Then take the recipe in comments at the end" for other in instead]
    return Proposal(recipe, plan.reasons, [*plan.questions, *asked], plan.beside, instead)


def proposed_answer(table: Table, column: str) -> dict[str, Any]:
    """How one more column of a table would be declared as an answer. DataError where it looks like none."""
    if column not in table.columns:
        raise unknown_name(field="column", got=column, names=table.columns, error=DataError)
    found = _Plan({}, [], table)._as_answer(_look(table, column))
    require(
        found.kind in ANSWERS, field=f"column {column!r}", got=found.kind, allowed="a column that looks like an answer",
        fix=f"{found.why}; name its type, as in {column}:category", error=DataError,
    )  # fmt: skip
    return {"type": found.kind, **found.settings}


# ---- the source ------------------------------------------------------------------------------------------------------


def _name(path: Any) -> str | None:
    """What the data is called, so that its run lies in runs/photos whatever the recipe's file is called; of train.csv
    the folder's name. None for a frame."""
    if not isinstance(path, str | os.PathLike):
        return None
    text = os.fspath(path)
    last = Path(text.partition("://")[2]) if "://" in text else Path(text).resolve()
    name = last.name if last.is_dir() else last.name.partition(".")[0]
    return (last.parent.name if side_of(name) else name) or None


def _source(path: Any) -> tuple[dict[str, Any], Table, list[str], list[str]]:
    """The recipe's data section, the table to look at (the training rows), what there is to say, and to ask."""
    if not isinstance(path, str | os.PathLike):
        table = open_table(path)
        return {"path": path}, table, list(table.notes), []
    text = os.fspath(path)
    if not text.startswith("hf://"):
        place, name = locate(text)
        tables = [item for item in place.top() if is_table(item)] if name is None else []
        if len(tables) > 1:
            return _side_files(tables, place.address, place.spelled)
        if name is not None and (sibling := _test_beside(place.top(), name)):
            table = open_table(path)
            ask = f"{sibling} lies beside {name}: write data: {{train: ..., test: ...}}, or propose for the folder, to use both"
            return {"path": text}, table, [], [ask]
    table = open_table(path)
    return {"path": text}, table, list(table.notes), []


def _side_files(
    tables: list[str], where: str, spelled: Callable[[str], str]
) -> tuple[dict[str, Any], Table, list[str], list[str]]:
    """train, val and test files of one folder; of several for one side, the first with a plain name."""
    sides: dict[str, str] = {}
    for name in sorted(tables, key=lambda name: (len(name), name)):
        side = side_of(re.split(r"[._\-]", name)[0])
        if side is not None:
            sides.setdefault(side, name)
    if "train" not in sides:
        raise refusal(
            field="init", got=where, allowed=f"a folder with one table, or with train and test; this has {', '.join(tables[:5])}",
            fix=f"name the table itself: endwise init {spelled(tables[0])}", error=DataError,
        )  # fmt: skip
    left = [name for name in tables if name not in sides.values()]
    notes = [f"{name} is left out: another file is that side, or it is none." for name in left]
    data = {side: spelled(sides[side]) for side in SIDES if side in sides}
    return data, open_table(data["train"]), notes, []


def _test_beside(tops: list[str], name: str) -> str | None:
    if side_of(re.split(r"[._\-]", name)[0]) != "train":
        return None
    return next((item for item in tops if is_table(item) and side_of(re.split(r"[._\-]", item)[0]) == "test"), None)


def _one_row_a_box(table: Table) -> tuple[str, tuple[str, ...]] | None:
    """(the column that names the picture, the columns of a box) of an annotation table."""
    names = {re.sub(r"[^a-z0-9]+", "", name.lower()): name for name in table.columns}
    picture, label = (
        next((names[item] for item in wanted if item in names), None) for wanted in (PICTURE_NAMES, KIND_NAMES)
    )
    corners = next(
        (tuple(names[item] for item in four) for four in CORNER_NAMES if all(item in names for item in four)), None
    )
    return None if picture is None or label is None or corners is None else (picture, (label, *corners))


def _boxes(table: Table, columns: tuple[str, ...]) -> Found:
    """All boxes of a picture, as one column."""
    return Found(
        "boxes", "boxes", f"{', '.join(columns)} are a class and two corners, one row a box", count=len(table),
        settings={"columns": list(columns)}, cells=[table.cell("boxes", row) for row in range(min(WIDE_ROWS, len(table)))],
        doubt=f"are {', '.join(columns[1:])} two corners in pixels? Else say format: and unit:",
    )  # fmt: skip


# ---- one column ------------------------------------------------------------------------------------------------------


def _look(table: Table, name: str) -> Found:
    cells, repeats = _sample(table, name)
    there = [cell for cell in cells if cell is not None]
    if any(
        isinstance(cell, str) for cell in there
    ):  # bytes among texts are files that are no UTF-8: `check` names them
        there = [cell for cell in there if not isinstance(cell, bytes)]
    if not there:
        return Found(name, "empty", "it has no value in the rows looked at")
    first = there[0]
    if isinstance(first, bytes | bytearray | memoryview) or (isinstance(first, Mapping) and "bytes" in first):
        found = _binary(name, there)
    elif isinstance(first, list | tuple) or hasattr(first, "ndim"):
        found = _listed(name, there)
    elif isinstance(first, bool):
        found = Found(name, "boolean", "its values are true and false")
    elif isinstance(first, dt.date):
        found = Found(name, "date", "its values are dates")
    elif isinstance(first, int | float):
        found = _numeric(name, there)
    elif isinstance(first, str):
        found = _textual(table, name, there)
    else:
        found = Found(name, "unknown", f"its values are of a kind no modality reads ({type(first).__name__})")
    found.count, found.cells, found.repeats = len(there), cells, repeats
    found.distinct = len({_key(cell) for cell in there})
    if found.distinct == 1 and len(there) > 1 and found.kind not in ("image", "audio", "series", "unknown"):
        found.kind, found.why = "constant", f"it has one and the same value ({_short(first)}) in every row looked at"
    elif found.kind in ("category", "number", "text", "boolean") and _is_identifier(found, there, len(cells)):
        found.kind, found.why = "identifier", "it names the row and says nothing about it"
    return found


def _sample(table: Table, name: str) -> tuple[list[Any], float]:
    """Rows spread over the table (of columns with files or lists in the cells, the first ones); rows a value."""
    first = next((cell for cell in table.stream(name) if cell is not None), None)
    if isinstance(first, bytes | list | Mapping) or hasattr(first, "ndim"):
        return [table.cell(name, row) for row in range(min(WIDE_ROWS, len(table)))], 1.0
    cells = table.column(name)
    if not isinstance(cells, list):
        return list(cells[: min(WIDE_ROWS, len(cells))]), 1.0
    step = max(1, len(cells) // SAMPLE_ROWS)
    return cells[::step][:SAMPLE_ROWS], len(cells) / max(1, len(set(map(_key, cells))))


def _binary(name: str, cells: list[Any]) -> Found:
    kinds = Counter(_magic(cell) for cell in cells)
    kind = kinds.most_common(1)[0][0]
    if kind is None:
        return Found(name, "unknown", "its bytes are no image and no recording that is known here")
    found = Found(name, kind, f"its cells hold the bytes of {'images' if kind == 'image' else 'recordings'}")
    if kind == "audio":
        found.settings = _rate([_bytes(cell) for cell in cells[:FILE_ROWS]])
    return found


def _bytes(cell: Any) -> bytes:
    value = cell.get("bytes") if isinstance(cell, Mapping) else cell
    return bytes(value or b"")


def _magic(cell: Any) -> str | None:
    head = _bytes(cell)[:132]
    if head[:4] == b"RIFF":
        return {b"WEBP": "image", b"WAVE": "audio"}.get(head[8:12])
    if not head and isinstance(cell, Mapping) and isinstance(cell.get("path"), str):
        return family(cell["path"])
    if is_dicom(head):
        return "image"
    return next((kind for start, kind in MAGIC if head.startswith(start)), None)


def _listed(name: str, cells: list[Any]) -> Found:
    lists = [cell.tolist() if hasattr(cell, "tolist") else list(cell) for cell in cells]
    items = [item for cell in lists for item in cell[:50]]
    if items and all(isinstance(item, Mapping) and "label" in item for item in items):
        if all("mask" in item for item in items):
            return Found(name, "instances", "its cells are lists of things with a label and a mask")
        return Found(name, "boxes", "its cells are lists of things with a label and a box")
    if items and all(isinstance(item, str) for item in items):
        return Found(name, "tags", "its cells are lists of words")
    lengths = {len(cell) for cell in lists}
    if items and all(isinstance(item, int | float) for item in items) and len(lengths) == 1:
        return Found(name, "number", f"its cells are lists of always {len(lists[0])} numbers")
    if _numbers_within(lists):
        return Found(name, "series", "its cells are nested lists, or lists of unequal length, of numbers")
    return Found(name, "unknown", "its cells are lists of what no modality reads")


def _numbers_within(lists: Sequence[Any]) -> bool:
    """Whether these are lists of numbers, or lists of channels that are."""
    flat = [item for cell in lists for item in cell]
    inner = [item for channel in flat if isinstance(channel, list | tuple) for item in channel]
    known = [item for item in inner or flat if item is not None]
    return bool(known) and all(isinstance(item, int | float) for item in known)


def _numeric(name: str, cells: list[Any]) -> Found:
    if set(cells) <= {0, 1} and len(set(cells)) == 2:
        return Found(name, "boolean", "its values are 0 and 1")
    return Found(name, "number", "its values are numbers")


def _textual(table: Table, name: str, cells: list[str]) -> Found:
    if media := _paths(table, name, cells):
        return media
    values = [text for cell in cells if (text := cell.strip())]
    lower = {text.lower() for text in values}
    if found := _written_number(name, values):
        return found
    if any(len(lower) == 2 and lower == pair for pair in YES_NO):
        return Found(name, "boolean", f"its values are {' and '.join(sorted(lower, reverse=True))}")
    odd = [text for text in values if not DATE.match(text)]
    if len(odd) <= MOST_ODD * len(values):
        return Found(name, "date", "its values are dates", doubt=_typed_wrong(name, odd, "dates") if odd else None)
    for spelling, pattern in ODD_DATES.items():
        odd = [text for text in values if not pattern.match(text)]
        if len(odd) <= MOST_ODD * len(values):
            doubt = f"are the dates of {name!r} written as {spelling}?"
            if odd:
                doubt = f"{doubt[:-1]}, and what is {odd[0]!r}?"
            return Found(
                name, "date", f"its values look like dates ({spelling})", settings={"format": spelling}, doubt=doubt
            )
    if found := _written_list(name, values):
        return found
    return _words(name, values)


def _written_number(name: str, values: list[str]) -> Found | None:
    numbers = [text for text in values if _is_number(text)]
    others = [text for text in values if not _is_number(text)]
    if not numbers or len(others) > 0.2 * len(values):
        return None
    odd_date = ODD_DATES["%Y%m%d"]
    if len(set(values)) > 1 and all(odd_date.match(text) for text in values):
        return None
    if others and not {text.lower() for text in others} <= MISSING_WORDS:
        measured = len(set(numbers)) > FEW_NUMBERS  # of few different ones, '1', '2', 'x', each may be a class
        if not measured or len(others) > MOST_ODD * len(values):
            return None
    found = _numeric(name, [float(text) for text in numbers])
    if others:
        found.doubt = _typed_wrong(name, others, "numbers")
    return found


def _typed_wrong(name: str, others: Sequence[str], kind: str) -> str:
    different = list(dict.fromkeys(others))
    told = ", ".join(map(repr, different[:3])) + (" ..." if len(different) > 3 else "")
    return (
        f"{name!r} holds {told} where other rows have {kind}: correct those cells, or leave them empty where the value "
        "is missing; else the rows count as broken"
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.lower().lstrip("+-") not in ("nan", "inf", "infinity") and "_" not in text


def _written_list(name: str, values: list[str]) -> Found | None:
    """'red;green': few different words that return in many combinations."""
    for mark in (";", "|", ","):
        if sum(mark in text for text in values) < 0.2 * len(values):
            continue
        sets = [[item.strip() for item in text.split(mark)] for text in values]
        items = {item for cell in sets for item in cell}
        short = all(item and len(item.split()) <= 3 for item in items)
        if short and len(items) <= max(3, 0.5 * len(values)) and len(items) < sum(map(len, sets)) / 2:
            settings = {} if mark == "," else {"separator": mark}
            return Found(name, "tags", f"its cells are words joined by {mark!r}", settings=settings)
    return None


def _words(name: str, values: list[str]) -> Found:
    """Text or category: by how long the values are and how often they return."""
    distinct = len(set(values))
    returning = distinct <= max(2, 0.5 * len(values)) and distinct <= MOST_CLASSES
    words = sum(len(text.split()) for text in values) / len(values)
    letters = sum(map(len, values)) / len(values)
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    if plain in TEXT_NAMES and (words >= 2 or not returning):
        return Found(name, "text", "its name and its values are those of text")
    if returning and (words < 6 or distinct <= 0.05 * len(values)):
        return Found(name, "category", f"its {distinct} different values return in {len(values)} rows")
    if words >= 2 or letters >= 30:
        return Found(name, "text", f"its values are text, {letters:.0f} characters on average")
    return Found(name, "category", f"its values are single words, {distinct} different ones in {len(values)} rows")


def _paths(table: Table, name: str, cells: list[str]) -> Found | None:
    """A column of paths to images or recordings."""
    if all(VOLUME_FILE.search(cell) for cell in cells[:200]) and all(map(table.has_file, cells[:FILE_ROWS])):
        return Found(name, "volume", "its cells are paths of volumes")
    kinds = Counter(family(cell) for cell in cells[:200] if len(cell) < 500 and "\n" not in cell)
    kind, count = kinds.most_common(1)[0] if kinds else (None, 0)
    ending = re.search(r"\.[A-Za-z]\w{1,4}(\.gz)?$", cells[0])
    if kind is None and ending and all(table.has_file(cell) for cell in cells[:FILE_ROWS]):
        return Found(name, "unknown", f"it names files of a kind no modality reads yet ({ending[0]})")
    if kind is None or count < 0.9 * min(200, len(cells)) or any(len(cell.split()) > 12 for cell in cells[:20]):
        return None
    there = [cell for cell in cells[:FILE_ROWS] if table.has_file(cell)]
    if not there:
        doubt = f"the files that {name!r} names ({cells[0]}) are not beside the data: where are they?"
        return Found(name, f"lost {kind}", f"it names {kind} files that are not there", doubt=doubt)
    nouns = {"image": "images", "audio": "recordings", "text": "text files"}
    found = Found(name, kind, f"its cells are paths of {nouns[kind]}")
    if kind == "audio":
        found.settings = _rate([table.fetch(cell) for cell in there])
    if kind == "text":
        found.settings = {"source": "file"}
    return found


def _rate(recordings: list[bytes]) -> dict[str, Any]:
    """The highest rate of some recordings, when it is one that speech and most sounds need no more than."""
    import soundfile

    rates = []
    for recording in recordings:
        try:
            rates.append(int(soundfile.info(io.BytesIO(recording)).samplerate))
        except (RuntimeError, OSError, ValueError):
            continue
    return {"rate_hz": max(rates)} if rates and 4_000 <= max(rates) < 16_000 else {}


def _is_identifier(found: Found, cells: list[Any], rows: int) -> bool:
    """Every row another value: a name that says so, a plain count, or codes without a blank."""
    if found.name.startswith("Unnamed: "):
        return True
    if found.called(TIME_NAMES) or found.called(LABEL_NAMES):
        return False
    if len(cells) < 3 or found.distinct < 0.98 * rows:
        return False
    named = (
        found.called(ID_NAMES)
        or found.plain.endswith(("_id", "_uuid", "_key"))
        or bool(re.search(r"[a-z]I[Dd]$", found.name))
    )
    if found.kind == "number":
        numbers = [float(cell) for cell in cells if _is_number(str(cell))]
        steps = {later - earlier for earlier, later in itertools.pairwise(numbers)}
        whole = all(number.is_integer() for number in numbers)
        counted = len(steps) == 1 and numbers[0] in (0.0, 1.0) and (steps == {1.0} or len(cells) >= SAMPLE_ROWS)
        return whole and (named or counted)
    texts = [str(cell) for cell in cells]
    codes = all(re.fullmatch(r"[\w\-.:/]{1,64}", text) for text in texts) and any(
        re.search(r"\d", text) for text in texts
    )
    return (named and found.kind != "boolean") or (found.kind == "category" and codes and len(cells) >= 10)


def _key(cell: Any) -> Any:
    return cell if isinstance(cell, str | int | float | bytes | dt.date) else repr(cell)[:2_000]


def _short(cell: Any) -> str:
    return repr(cell)[:40]


# ---- all columns together --------------------------------------------------------------------------------------------


class _Plan:
    """Gives every column a part, one question after another; `decide` is the order of the questions."""

    def __init__(self, data: dict[str, Any], found: list[Found], table: Table) -> None:
        self.data = data
        self.table = table
        self.found = found
        self.open = {item.name: item for item in found}
        self.inputs: dict[str, Any] = {}
        self.outputs: dict[str, Any] = {}
        self.reasons: list[str] = []
        self.questions: list[str] = []
        self.beside: dict[str, str] = {}
        self.media = [item for item in found if item.kind in ("image", "audio", "volume")]

    def decide(self) -> None:
        """Which column is what."""
        self._split()
        self._useless()
        self._files()
        outputs = self._choose_outputs()
        for item in outputs:
            self.open.pop(item.name)
        self._group()
        self._weight()
        self._time()
        self._same_as(outputs)
        self._measured()
        self._inputs()
        for item in outputs:
            self._output(item)
        if (
            "train" not in self.data
            and not {"split", "group", "time"} & set(self.data)
            and "split" not in self.table.columns
        ):
            self._beside("data", f"no official split: 80/10/10 of {len(self.table)} rows, by content")

    # -- parts that are neither input nor output

    def _split(self) -> None:
        for item in self.found:
            cells = [cell for cell in item.cells if cell is not None]
            named = item.called(("split", "subset", "set", "partition", "fold", "usage"))
            if not (named and cells and all(side_of(cell) for cell in cells)):
                continue
            self.open.pop(item.name)
            if "train" in self.data:
                self._out(item.name, "the files are the split")
            elif item.name == "split":
                self._beside("data", "the column 'split' is the official split and is found by itself")
            else:
                self.data["split"] = item.name
                self._beside(
                    "data.split", f"{item.name!r} holds {', '.join(sorted(set(map(str, cells))))}: the official split"
                )
            return
        if (odd := self.open.get("split")) is not None and "train" not in self.data:
            self.open.pop("split")
            told = ", ".join(sorted({str(cell) for cell in odd.cells})[:6])
            self.questions.append(
                f"the column 'split' holds {told}: only train, val and test are understood, so rename it or its values"
            )

    def _useless(self) -> None:
        for item in list(self.open.values()):
            if item.kind in ("empty", "identifier", "constant", "unknown"):
                if item.kind == "identifier" and self._is_group(item):
                    continue
                self.open.pop(item.name)
                self._out(item.name, item.why)

    def _files(self) -> None:
        """A column of names of files that are not there is a name, unless it is all there is."""
        if "text" in self.open and (file := self.open.get("file")) is not None and file.kind == "text":
            self.open.pop("file")
            self._out("file", "what is in the file is the column 'text'")
            self.open["text"].why = "class folders of text files: it is what is inside each file"
        lost = [item for item in self.open.values() if item.kind.startswith("lost ")]
        for item in lost:
            if self.media or len(self.open) < 3 or item.kind == "lost text":
                self.open.pop(item.name)
                self._out(item.name, item.why)
            else:
                item.kind = item.kind.removeprefix("lost ")
                self.media.append(item)

    def _group(self) -> None:
        for item in list(self.open.values()):
            if not self._is_group(item):
                continue
            self.open.pop(item.name)
            if "split" in self.data or "train" in self.data or "split" in self.table.columns:
                self._out(item.name, "it tells whose row it is, and the split is official")
                self.questions.append(
                    f"is each {item.name!r} on one side of the official split only? data: {{group: {item.name}}} checks it"
                )
            elif "group" in self.data:
                self._out(item.name, f"it tells whose row it is, and the split already goes by {self.data['group']!r}")
            else:
                self.data["group"] = item.name
                self._beside(
                    "data.group", f"{item.distinct} different values return: nobody is in training and test at once"
                )

    def _is_group(self, item: Found) -> bool:
        named = item.stem in GROUP_NAMES or item.plain in GROUP_NAMES
        return named and item.distinct >= 3 and item.repeats >= 1.25 and item.kind in GROUP_KINDS

    def _weight(self) -> None:
        body = any(item.called(BODY_NAMES) for item in self.found)
        for item in list(self.open.values()):
            if item.kind != "number" or not item.called(WEIGHT_NAMES) or (body and item.plain in ("weight", "weights")):
                continue
            if any(float(cell) < 0 for cell in item.cells if cell is not None and _is_number(str(cell))):
                continue
            self.open.pop(item.name)
            self.data["weight"] = item.name
            self._beside("data.weight", "its name is that of a weight of the row, and no value is below 0")
            if item.plain in ("weight", "weights"):
                self.questions.append(f"is {item.name!r} how much a row counts? If it was measured, make it an input")
            return

    def _time(self) -> None:
        for item in list(self.open.values()):
            moments = item.kind == "date" and "format" not in item.settings
            counted = (item.kind == "number" and item.plain in ("timestamp", "unix_time", "event_time")) or (
                item.kind == "number" and item.plain == "time" and _ascending(item.cells)
            )
            if not item.called((*TIME_NAMES, "unix_time")) or not (moments or counted):
                continue
            if {"split", "group"} & set(self.data) or "split" in self.table.columns or item.distinct < 3:
                continue
            self.open.pop(item.name)
            self.data["time"] = item.name
            reason = "rows have a time, so the newest are for testing: what comes is predicted from what was"
            self._beside("data.time", reason)
            self._out(item.name, "in test rows it lies beyond everything learnt from")
            if (step := _even_step(self.table, item)) and any(
                other.kind == "number" for other in self.found if other is not item
            ):
                self.questions.append(
                    f"rows follow each other every {step}: are the next ones to be foreseen? Then write data: "
                    f"{{windows: {{time: {item.name}, step: {step}, past: 96, future: 24}}}} in the place of time, and "
                    f"inputs and outputs of type: series with columns: [...]"
                )
            return

    def _same_as(self, outputs: list[Found]) -> None:
        """Columns that are an output in other words would give the answer away."""
        for item in list(self.open.values()):
            if item.kind not in ("category", "number", "boolean", "text", "tags"):
                continue
            for target in outputs:
                if _one_to_one(item, target):
                    self.open.pop(item.name)
                    self._out(item.name, f"it is {target.name!r} in other words and would give the answer away")
                    break

    def _measured(self) -> None:
        if not self.media:
            return
        for item in list(self.open.values()):
            if item.kind in ("number", "category") and item.called(MEASURED_NAMES):
                self.open.pop(item.name)
                self._out(item.name, "it describes the file, which is read itself")

    # -- the answers

    def _choose_outputs(self) -> list[Found]:
        things = [item for item in self.open.values() if item.kind in ("boxes", "instances")]
        if things and any(item.kind == "image" for item in self.media):
            outlined = [item for item in things if item.kind == "instances"]
            for item in [item for item in things if outlined and item.kind == "boxes"]:
                self.open.pop(item.name)
                self._out(item.name, f"{outlined[0].name} says the same and where each thing ends")
            return outlined or things
        legal = [item for item in self.open.values() if item.kind in ANSWERS]
        joined = [item.name for item in ends(self.found) or ()]  # 'target' beside 'source' is no label
        legal = [item for item in legal if item.name not in joined] or legal
        if lying := self._lying_on(legal):
            return lying
        if not legal:
            left = ", ".join(f"{item.name} ({item.kind.removeprefix('lost ')})" for item in self.found)
            raise refusal(
                field="init", got=self.table.name, allowed=f"a column that can be an answer; the columns are {left}",
                fix="add a column with the answers: a label, a number, words", error=DataError,
            )  # fmt: skip
        kinds = {item.kind for item in self.media}
        if "audio" in kinds and (spoken := self._first(legal, SPEECH_NAMES)):
            spoken.kind, spoken.settings = "text", {}
            spoken.why = "it is beside recordings and its name is that of what is said"
            self._others_possible(legal, spoken)
            return [spoken]
        if "image" in kinds and (
            actions := [item for item in legal if item.called(ACTION_NAMES) and item.kind in ("number", "boolean")]
        ):
            for item in actions:
                item.kind, item.why = "number", "its name is that of an action, beside pictures"
            return actions
        if named := self._first(legal, LABEL_NAMES):
            named.why = f"its name is that of an answer; {named.why}"
            if named.plain == "y" and self._first(legal, ("x",)):
                self.questions.append("is 'y' the answer, or a place beside 'x'?")
            return [self._as_answer(named)]
        ending = [item for item in legal if re.search(r"(^|_)(label|target|class|category|y)(_|$)|^is_", item.plain)]
        if len(ending) == 1:
            ending[0].why = f"its name is that of an answer; {ending[0].why}"
            return [self._as_answer(ending[0])]
        if (outcome := self._first(legal, OUTCOME_NAMES)) is not None:
            outcome.why = f"its name is often that of an answer; {outcome.why}"
            self.questions.append(f"is {outcome.name!r} what is to be predicted?")
            return [self._as_answer(outcome)]
        last = next(
            (item for item in reversed(legal) if not self._is_group(item) and not item.called(MEASURED_NAMES)),
            legal[-1],
        )
        if (
            not self.media
            and last.kind == "text"
            and (fewer := [item for item in legal if item.kind in ("category", "boolean")])
        ):
            last = fewer[-1]  # text beside classes is what they are told from
        last.why = f"no column is called label or target, so the last one that can be predicted; {last.why}"
        self.questions.append(f"is {last.name!r} what is to be predicted? No column's name says so")
        return [self._as_answer(last)]

    def _lying_on(self, legal: list[Found]) -> list[Found]:
        """Files that say what is right of each place of another file: masks; or a picture as it ought to be, if nothing
        else is an answer."""
        seen = [item for item in self.media if item.kind in ("image", "volume")]
        if len(seen) < 2:
            return []
        masks = [item for item in seen
                 if (MASK_NAME if item.kind == "image" else VOLUME_MASK_NAME).search(item.plain)]  # fmt: skip
        if masks and len(masks) < len(seen):
            for item in masks:
                item.why = f"its name is that of a mask; {item.why}"
                item.kind = "mask" if item.kind == "image" else "volume_mask"
                item.doubt = f"is every place of {item.name!r} the number of a class? Else correct its type"
            told = self._first(legal, (*LABEL_NAMES, *OUTCOME_NAMES))  # as an input it would give the mask away
            return masks if told is None else [*masks, self._as_answer(told)]
        if legal or {item.kind for item in seen} != {"image"}:
            return []
        made = self._first(seen, MADE_NAMES) or seen[-1]
        made.why = f"nothing else can be an answer, so it is the picture to be made; {made.why}"
        made.doubt = f"is {made.name!r} the picture that is to be made of the others?"
        return [made]

    def _first(self, items: list[Found], names: Sequence[str]) -> Found | None:
        return next((item for name in names for item in items if item.plain == name), None)

    def _others_possible(self, legal: list[Found], chosen: Found) -> None:
        others = [
            item.name for item in legal if item is not chosen and (item.called(LABEL_NAMES) or self._is_group(item))
        ]
        if others:
            self.questions.append(
                f"should {' or '.join(map(repr, others))} be predicted too? One more line under outputs does it"
            )

    def _as_answer(self, item: Found) -> Found:
        """Class numbers are classes: few different whole numbers under a name that says so."""
        if item.kind == "number" and not isinstance(item.cells[0], list):
            numbers = [float(cell) for cell in item.cells if cell is not None and _is_number(str(cell))]
            whole = all(number.is_integer() for number in numbers)
            says = bool(re.search(r"(^|_)(label|labels|class|category|species|intent)(_|$)", item.plain))
            most = FEW_NUMBERS if not says else MOST_CLASSES
            if whole and item.distinct <= min(most, 0.2 * item.count if item.count > 30 else 0.5 * item.count):
                item.kind = "category"
                item.why += f"; {item.distinct} different whole numbers are taken for classes"
                if not says:
                    self.questions.append(
                        f"are the numbers of {item.name!r} classes, or a quantity (then type: number)?"
                    )
        if item.kind == "boolean" and item.called(LABEL_NAMES):
            item.kind = "category"
        if item.kind == "date":
            self.questions.append(f"{item.name!r} is a date, which can only be an input")
        if item.kind == "text" and not self.media:
            self.questions.append(
                f"{item.name!r} is free text: the network learns to write it, which takes thousands of rows; "
                "is it the right output?"
            )
        return item

    # -- the fields

    def _inputs(self) -> None:
        for item in self.open.values():
            if (
                item.kind in ("category", "text")
                and self.media
                and item.distinct >= 0.98 * item.count
                and item.kind == "category"
            ):
                self._out(item.name, "every row has another value, which says nothing about new rows")
                continue
            self._declare("inputs", item)
        if not self.inputs:
            raise refusal(
                field="init", got=self.table.name, allowed=f"a table with something to predict from ({self._left()})",
                fix="add the column that the answers come from", error=DataError,
            )  # fmt: skip
        if self.media and len(self.inputs) > len(self.media):
            more = [name for name in self.inputs if name not in {_field_name(item.name) for item in self.media}]
            self.questions.append(
                f"will {', '.join(map(repr, more))} be known when the model is used? If not, remove it from inputs"
            )

    def _output(self, item: Found) -> None:
        self._declare("outputs", item)

    def _declare(self, section: str, item: Found) -> None:
        kind = item.kind
        media_file = item.name == "file" and kind in ("image", "audio")  # class folders: called what it is, not 'file'
        name = kind if media_file else _field_name(item.name)
        settings = {"type": kind, **({"column": item.name} if name != item.name else {}), **item.settings}
        (self.inputs if section == "inputs" else self.outputs)[name] = settings
        self._beside(f"{section}.{name}", item.why)
        if item.doubt:
            self.questions.append(item.doubt)

    def _beside(self, where: str, reason: str) -> None:
        self.beside[where] = f"{where}: {reason}"
        self.reasons.append(self.beside[where])

    def _left(self) -> str:
        return "; ".join(reason for reason in self.reasons if reason.startswith("left out")) or "this has one column"

    def _out(self, column: str, why: str) -> None:
        self.reasons.append(f"left out: {column} ({why})")


def _field_name(column: str) -> str:
    if NAME.match(column):
        return column
    name = re.sub(r"[^A-Za-z0-9_\- ]+", "_", column).strip("_ ") or "field"
    return name if NAME.match(name) else f"_{name}"


def _one_to_one(one: Found, other: Found) -> bool:
    """Whether each value of one always stands beside the same value of the other, both ways, in enough rows."""
    pairs = [
        (a, b)
        for a, b in zip(map(_key, one.cells), map(_key, other.cells), strict=False)
        if a is not None and b is not None
    ]
    left, right = {a for a, _ in pairs}, {b for _, b in pairs}
    return len(set(pairs)) == len(left) == len(right) >= 2 and len(pairs) >= 3 * len(left)


def _even_step(table: Table, item: Found) -> str | None:
    """The time from each row to the next, as a recipe says it, where nearly all are alike; None elsewhere."""
    if len(table) < STEPS:
        return None
    moments = [time_of(table.cell(item.name, row))[1] for row in range(STEPS)]
    gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
    usual, often = Counter(gaps).most_common(1)[0]
    if min(gaps) <= 0 or often < MOST_EVEN * len(gaps):
        return None
    if item.kind == "number":
        return f"{usual:g}"
    return next(f"{usual / seconds:g}{unit}" for unit, seconds in UNITS.items() if usual % seconds == 0 or seconds == 1)


def _ascending(cells: list[Any]) -> bool:
    numbers = [float(cell) for cell in cells if cell is not None and _is_number(str(cell))]
    return len(numbers) > 2 and all(later >= earlier for earlier, later in itertools.pairwise(numbers))


# ---- writing it down -------------------------------------------------------------------------------------------------


def _written(key: str, value: Any, depth: int, path: str, beside: Mapping[str, str]) -> Iterator[str]:
    """YAML lines, a field's settings on one line, with its reason as a comment."""
    reason = beside.get(path)
    comment = f"  # {reason.removeprefix(f'{path}: ')}" if reason else ""
    indent = "  " * depth
    if isinstance(value, Mapping) and depth == 0:
        yield f"{indent}{_scalar(key)}:{comment}"
        for name, item in value.items():
            yield from _written(name, item, depth + 1, f"{path}.{name}", beside)
    else:
        yield f"{indent}{_scalar(key)}: {_scalar(value)}{comment}"


def _scalar(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...").strip()


def _tree(recipe: Recipe, folder: str | Path | None) -> dict[str, Any]:
    """The recipe as plain values, its paths relative to the folder where one is given."""
    tree = recipe.to_dict()
    if folder is not None:
        data = {
            key: _relative(value, folder) if key in ("path", *SIDES) else value for key, value in tree["data"].items()
        }
        if "tables" in data:
            data["tables"] = {name: _relative(value, folder) for name, value in data["tables"].items()}
        tree["data"] = data
    return tree


def _relative(source: Any, folder: str | Path) -> Any:
    if not isinstance(source, str) or "://" in source or Path(source).is_absolute():
        return source
    return Path(os.path.relpath(source, folder)).as_posix()


__all__ = ["Proposal", "propose", "proposed_answer"]
