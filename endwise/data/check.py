"""Reading everything once and saying what is there, what is broken, what leaks and what will not work.

`check` never changes anything and never stops at the first fault: every broken row is named. Whatever the training
would refuse is an 'error' here; what makes results doubtful is a 'warning'; the rest is a 'note'.

Not here: reading itself (`dataset.py`), what training costs (`plan.py`).
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from endwise.data.dataset import BadRow, Dataset, Progress, enough_bad, fit_contract, prepare
from endwise.data.lookup import doubts
from endwise.data.windows import WindowTable, uneven_steps
from endwise.errors import DataError
from endwise.modalities.base import INPUT_ROLE, OUTPUT_ROLE, Contract, Modality, Role
from endwise.modalities.series import Series
from endwise.modalities.spatial import Spatial
from endwise.recipe import in_order

if TYPE_CHECKING:
    from endwise.recipe import Recipe

Level = Literal["error", "warning", "note"]
SPLITS = ("train", "val", "test")
NAMED_REASONS = 3
NAMED = 5  # rows or classes named in a message; `rows` of the finding has up to MAX_ROWS
MAX_ROWS = 1000
FEW_ROWS = 5  # a class with fewer training rows is hardly learnt
IMBALANCE = 10.0  # times as many rows in the largest class as in the smallest
MOSTLY_MISSING = 0.5
OUTLIER = 5.0  # interquartile ranges beyond the quartiles, and
OUTLIER_RATIO = 4.0  # times the median
MANY_CLASSES = 1000  # with more different values a target is no class


MAX_BAD_SHOWN = 20  # broken rows listed for people


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know. rows: the ids of the rows it is about (the first 1000)."""

    level: Level
    kind: str  # 'broken', 'leak', 'group leak', 'duplicate', 'contradiction', 'empty', 'constant', 'missing' ...
    field: str
    message: str
    fix: str
    rows: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.level}: {self.field}: {self.message}. Fix: {self.fix}."


@dataclass(frozen=True, slots=True)
class FieldReport:
    """One declared field: how many rows have a value, and the modality's own line about it."""

    role: Role
    type: str
    column: str
    present: int
    missing: int
    broken: int
    summary: str


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What `check` found. `ok`: training will accept this data; `exit_code` is 0 then, otherwise DataError's."""

    ok: bool
    exit_code: int
    source: tuple[str, ...]
    rows: int
    splits: Mapping[str, int]
    split_how: str
    fields: Mapping[str, FieldReport]
    bad: tuple[BadRow, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    fingerprint: str
    seconds: float
    stages: tuple[str, ...] = ()  # where there are any: what each reads and answers, in their order
    opened: tuple[str, ...] = ()  # of the notes: what was put together, found elsewhere or left out on opening

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON:

        {"ok", "exit_code", "source": [..], "rows", "splits": {"train", "val", "test"}, "split_how",
         "fields": {name: {"role", "type", "column", "present", "missing", "broken", "summary"}},
         "bad": [{"row", "origin", "field", "reason"}],
         "findings": [{"level", "kind", "field", "message", "fix", "rows"}], "notes": [..], "fingerprint", "seconds",
         "stages": [..]}
        """
        return {
            "ok": self.ok,
            "exit_code": self.exit_code,
            "source": list(self.source),
            "rows": self.rows,
            "splits": dict(self.splits),
            "split_how": self.split_how,
            "fields": {name: asdict(item) for name, item in self.fields.items()},
            "bad": [asdict(item) for item in self.bad],
            "findings": [{**asdict(item), "rows": list(item.rows)} for item in self.findings],
            "notes": list(self.notes),
            "fingerprint": self.fingerprint,
            "seconds": self.seconds,
            "stages": list(self.stages),
        }

    def __str__(self) -> str:
        splits = ", ".join(f"{count:,} {name}" for name, count in self.splits.items())
        lines = [f"{self.rows:,} rows of {', '.join(self.source)}: {splits} ({self.split_how})"]
        lines += [f"  note    {told}" for told in self.opened]
        for name, item in self.fields.items():
            lacking = "".join(
                f", {count} {what}" for what, count in (("missing", item.missing), ("broken", item.broken)) if count
            )
            lines.append(f"  {item.role:<7} {name}: {item.type}, {item.summary}{lacking}")
        lines += [f"  stage   {told}" for told in self.stages]
        lines += [f"  {row.origin}, {row.field}: {row.reason}" for row in self.bad[:MAX_BAD_SHOWN]]
        if len(self.bad) > MAX_BAD_SHOWN:
            lines.append(f"  … and {len(self.bad) - MAX_BAD_SHOWN} more; `bad` and --json list them all")
        lines += [str(finding) for finding in self.findings]
        lines.append("ok: training will accept this data" if self.ok else "refused: training will not accept this data")
        return "\n".join(lines)

    def of(self, kind: str) -> tuple[Finding, ...]:
        """The findings of one kind."""
        return tuple(item for item in self.findings if item.kind == kind)


def check(
    recipe: "Recipe", *, source: Any = None, workers: int | None = None, progress: Progress | None = None
) -> CheckReport:
    """Read all rows of the recipe's data (or of `source`) and report. RecipeError and DataError only for what cannot
    be read at all: a table that does not open, a declared column that is not there."""
    began = time.perf_counter()
    lenient = recipe.model_copy(update={"data": recipe.data.model_copy(update={"max_bad": 1.0})})
    findings: list[Finding] = []
    try:
        dataset = prepare(lenient, source=source, workers=workers, progress=progress)
    except DataError:
        if source is not None:
            raise
        try:
            dataset = prepare(lenient, source=source, need_targets=False, workers=workers, progress=progress)
        except DataError:  # such as no row for one side, where none could be read: what is broken says more
            prepare(recipe, source=source, workers=workers, progress=progress)
            raise
        findings.append(
            Finding("error", "empty", "data", "no training row is left", "see the broken rows and missing labels")
        )
    unclear = [] if source is not None else doubts(dataset.tables, recipe)
    findings += [Finding("warning", "unclear", name, message, fix) for name, message, fix in unclear]
    looker = _Looker(recipe, dataset, findings)
    fields = looker.look()
    order = {"error": 0, "warning": 1, "note": 2}
    ranked = tuple(sorted(findings, key=lambda item: order[item.level]))
    ok = not any(item.level == "error" for item in ranked)
    return CheckReport(
        ok=ok,
        exit_code=0 if ok else DataError.exit_code,
        source=tuple(table.name for table in dataset.tables),
        rows=len(dataset),
        splits={name: len(getattr(dataset.splits, name)) for name in SPLITS},
        split_how=dataset.splits.how,
        fields=fields,
        bad=dataset.bad,
        findings=ranked,
        notes=dataset.notes,
        fingerprint=dataset.fingerprint,
        seconds=time.perf_counter() - began,
        stages=tuple(_ways(recipe)),
        opened=tuple(dict.fromkeys(note for table in dataset.tables for note in table.notes)),
    )


def _ways(recipe: "Recipe") -> Iterator[str]:
    """What each stage reads and answers, and whether the goal hangs on it: a misspelt name is seen here at the latest."""
    goal = recipe.goal.output if recipe.goal is not None else next(iter(recipe.outputs))
    wanted = {goal}
    for stage in reversed(in_order(recipe.stages)):
        if wanted & set(recipe.stages[stage].to):
            wanted |= set(recipe.stages[stage].given)
    for stage in in_order(recipe.stages):
        item = recipe.stages[stage]
        beside = "" if wanted & set(item.to) else f" (nothing of it reaches {goal}, the goal)"
        yield f"{stage}: {', '.join(item.given)} → {', '.join(item.to)}{beside}"


class _Looker:
    """Looks at a prepared data set from every side and writes down findings."""

    def __init__(self, recipe: "Recipe", dataset: Dataset, findings: list[Finding]):
        self.recipe, self.data, self.findings = recipe, dataset, findings
        self.rows = {name: np.asarray(getattr(dataset.splits, name), np.int64) for name in SPLITS}
        self.used = np.concatenate(list(self.rows.values()))
        # a table that is only scored has no training rows: it is looked at as if it were
        self.train = self.rows["train"] if len(self.rows["train"]) else self.used

    def look(self) -> dict[str, FieldReport]:
        self._broken()
        self._left_out()
        self._leaks()
        self._groups()
        self._steps()
        reports = {}
        sections: tuple[tuple[Role, Mapping[str, Modality]], ...] = (
            (INPUT_ROLE, self.recipe.inputs),
            (OUTPUT_ROLE, self.recipe.outputs),
        )
        for role, section in sections:
            for name, modality in section.items():
                if name in self.data.fields:
                    reports[name] = self._field(name, modality, role)
        return reports

    def _add(self, level: Level, kind: str, field: str, message: str, fix: str, rows: Any = ()) -> None:
        listed = tuple(int(row) for row in list(rows)[:MAX_ROWS])
        self.findings.append(Finding(level, kind, field, message, fix, listed))

    def _origins(self, rows: Any) -> str:
        named = [self.data.origin(int(row)) for row in list(rows)[:NAMED]]
        return ", ".join(named) + (" ..." if len(rows) > NAMED else "")

    # ---- whole rows ----------------------------------------------------------------------------------------------

    def _broken(self) -> None:
        for name in dict.fromkeys(item.field for item in self.data.bad):
            found = [item for item in self.data.bad if item.field == name]
            reasons = Counter(item.reason for item in found).most_common(NAMED_REASONS)
            named = "; ".join(f"{reason} ({count})" for reason, count in reasons)
            rest = len(found) - sum(count for _, count in reasons)
            more = f"; other reasons ({rest})" if rest else ""  # the rows themselves are in `bad`
            message = f"{len(found)} of {len(self.data)} values cannot be read: {named}{more}"
            self._add("warning", "broken", name, message, "mend or remove them", [item.row for item in found])
        rows, allowed = len({item.row for item in self.data.bad}), self.recipe.data.max_bad
        if rows > allowed * len(self.data):
            self._add(
                "error", "broken", "data.max_bad",
                f"{rows} of {len(self.data)} rows ({rows / len(self.data):.1%}) cannot be read, more than {allowed:.1%}",
                f"mend or remove them, or set data.max_bad to {enough_bad(rows, len(self.data))}", sorted({item.row for item in self.data.bad}),
            )  # fmt: skip

    def _left_out(self) -> None:
        """Rows that can be read and are in no split: they have no input, or nothing that is asked."""
        keep = np.ones(len(self.data), bool)
        keep[[item.row for item in self.data.bad]] = False
        for what, section in (("input", self.recipe.inputs), ("label", self.recipe.outputs)):
            there = [self.data.fields[name].present for name in section if name in self.data.fields]
            gone = np.flatnonzero(keep & ~np.logical_or.reduce([~keep, *there]))
            if len(gone) and there:
                has = "has no {} at all and is" if len(gone) == 1 else "have no {} at all and are"
                message = f"{len(gone)} of {len(self.data)} rows {has.format(what)} left out ({self._origins(gone)})"
                self._add("warning", "left out", "data", message, "nothing, if that is meant: they teach nothing", gone)
            keep[gone] = False

    def _leaks(self) -> None:
        """The same inputs on two sides, twice in training, or with different answers."""
        inputs = [name for name in self.recipe.inputs if name in self.data.fields]
        present = np.logical_or.reduce([self.data.fields[name].present for name in inputs])
        same = _same_content(self.data, inputs)
        # a few plain values are alike by chance; a whole picture, recording or sentence is not
        plain = all(self.recipe.inputs[name].axes == 0 for name in inputs)
        level: Level = "note" if plain else "warning"
        what = "the same input values" if plain else "exactly the same input"
        for left, right in (("train", "test"), ("train", "val"), ("val", "test")):
            one, two = (side[present[side]] for side in (self.rows[left], self.rows[right]))
            shared = two[np.isin(same[two], same[one])]
            if len(shared):
                first = one[same[one] == same[shared[0]]][:1]
                self._add(
                    level, "leak", " + ".join(inputs),
                    f"{len(shared)} of {len(two)} {right} rows have {what} as a {left} row "
                    f"({self.data.origin(int(shared[0]))} is {self.data.origin(int(first[0]))})",
                    f"remove them from {left}, or split by a group column (data.group)", shared,
                )  # fmt: skip
        self._duplicates(self.train[present[self.train]], same, level, " + ".join(inputs))

    def _duplicates(self, rows: np.ndarray, same: np.ndarray, level: Level, field: str) -> None:
        _, first, inverse, counts = np.unique(same[rows], return_index=True, return_inverse=True, return_counts=True)
        repeated = np.setdiff1d(np.arange(len(rows)), first)
        if not len(repeated):
            return
        twice = rows[repeated]
        self._add(
            "note", "duplicate", field,
            f"{len(twice)} of {len(rows)} training rows repeat the inputs of an earlier one ({self._origins(twice)})",
            "keep one of each unless the repetition is meant", twice,
        )  # fmt: skip
        outputs = [name for name in self.recipe.outputs if name in self.data.fields]
        if not outputs:
            return
        answers = _same_content(self.data, outputs)[rows]
        pairs = np.unique(np.stack([inverse.reshape(-1), answers]), axis=1)
        kinds = np.bincount(pairs[0], minlength=len(counts))
        disagreeing = rows[kinds[inverse.reshape(-1)] > 1]
        if len(disagreeing):
            self._add(
                level, "contradiction", " + ".join(outputs),
                f"{len(disagreeing)} training rows have the same inputs as another but different answers "
                f"({self._origins(disagreeing)})",
                "correct the labels; no network can learn both", disagreeing,
            )  # fmt: skip

    def _groups(self) -> None:
        group = self.data.group
        if group is None:
            return
        for left, right in (("train", "test"), ("train", "val"), ("val", "test")):
            one, two = group[self.rows[left]], group[self.rows[right]]
            both = np.intersect1d(one[one >= 0], two[two >= 0])
            if len(both):
                rows = self.rows[right][np.isin(two, both)]
                column = str(self.recipe.data.group)
                names = [str(cell) for cell in dict.fromkeys(self.data.cells(column, rows[:MAX_ROWS]))][:NAMED]
                self._add(
                    "warning", "group leak", "data.group",
                    f"{len(both)} values of {column!r} are in {left} and in {right} ({', '.join(names)})",
                    "put each on one side in the split column, or remove data.group", rows,
                )  # fmt: skip

    def _steps(self) -> None:
        """Steps of a windowed table that are not alike, where no input hears it."""
        table, windows = self.data.tables[0], self.recipe.data.windows
        series = {name: item for name, item in self.recipe.inputs.items() if isinstance(item, Series)}
        if not isinstance(table, WindowTable) or windows is None or windows.time is None or not series:
            return
        if any(item.times is not None for item in series.values()):
            return
        if (found := uneven_steps(table, windows.time)) is None:
            return
        odd, first = found
        fill = "put the missing rows in with empty cells"
        self._add(
            "warning", "uneven steps", "data.windows.time",
            f"{odd.count} of {odd.steps} steps of {windows.time!r} {odd.what} (the first ends at {first}), and no input hears of it",
            f"write times: {windows.time} in inputs.{next(iter(series))}, or {fill}{' and write step:' if odd.even else ''}",
        )  # fmt: skip

    # ---- one field -----------------------------------------------------------------------------------------------

    def _field(self, name: str, modality: Modality, role: Role) -> FieldReport:
        store = self.data.fields[name]
        contract = self._contract(name, modality, role)
        self._missing(name, modality, role)
        self._constant(name, role)
        self._lengths(name, modality)
        if contract is not None:
            self._odd(name, modality, contract)
        if isinstance(modality, Spatial) and role == OUTPUT_ROLE:
            self._strays(name, modality)
        if role == OUTPUT_ROLE and contract is not None and not modality.of_row:
            self._classes(name, modality, contract)
        return FieldReport(
            role=role,
            type=modality.type,
            column=self.data.columns.get(name, ""),
            present=int(store.present.sum()),
            missing=int(len(store) - store.present.sum() - len(store.bad)),
            broken=len(store.bad),
            summary=modality.summary(contract) if contract is not None else "nothing could be learnt",
        )

    def _contract(self, name: str, modality: Modality, role: Role) -> Contract | None:
        try:
            stands = modality.beside(self.recipe.inputs, self.recipe.outputs)
            return fit_contract(name, stands, role, self.data.fields[name], self.train)
        except DataError as wrong:
            empty = not self.data.fields[name].present[self.train].any()
            if empty:
                message, fix = "no training row has a value", "remove the field, or name another column"
            else:
                message, _, fix = str(wrong).rstrip(".").partition(". Fix: ")
            self._add("error", "empty" if empty else "unfit", name, message, fix or "mend the column")
            return None

    def _missing(self, name: str, modality: Modality, role: Role) -> None:
        present = self.data.fields[name].present
        gone = self.used[~present[self.used]]
        if not len(gone) or len(gone) == len(self.used):
            return
        share = len(gone) / len(self.used)
        fix = "nothing, if that is so: it becomes one learnt token" if role == INPUT_ROLE else "nothing: no loss there"
        self._add(
            "warning" if share > MOSTLY_MISSING else "note", "missing", name,
            f"missing in {len(gone)} of {len(self.used)} rows ({share:.1%}; {self._origins(gone)})", fix, gone,
        )  # fmt: skip
        if role == INPUT_ROLE and not modality.optional and present[self.train].all():
            self._add(
                "warning", "missing", name, "never missing in training, but missing in other rows: refused there",
                "fill those cells, or declare it optional: true", gone,
            )  # fmt: skip

    def _constant(self, name: str, role: Role) -> None:
        store = self.data.fields[name]
        rows = self.train[store.present[self.train]]
        if len(rows) < 2 or (_keys(store.content[rows])[1:] != _keys(store.content[rows])[0]).any():
            return
        if role == OUTPUT_ROLE:
            fix = "there is nothing to learn: remove the output, or give rows with other values"
            self._add("error", "constant", name, f"all {len(rows)} training rows have the same target", fix)
        else:
            fix = "remove the input: it says nothing"
            self._add("warning", "constant", name, f"all {len(rows)} training rows have the same value", fix)

    def _lengths(self, name: str, modality: Modality) -> None:
        store = self.data.fields[name]
        rows = self.used[store.present[self.used]]
        lengths = store.lengths(modality)[rows]
        if len(rows) < 8 or lengths.min() == lengths.max():
            return
        low, middle, high = np.quantile(lengths, [0.25, 0.5, 0.75])
        reach = OUTLIER * (high - low)
        long = (lengths > high + reach) & (lengths > OUTLIER_RATIO * middle)
        short = (lengths < low - reach) & (OUTLIER_RATIO * lengths < middle)
        for odd, word in ((long, "long"), (short, "short")):
            if odd.any():
                found = rows[odd][np.argsort(-np.abs(lengths[odd] - middle), kind="stable")]
                extreme = int(lengths[odd].max() if word == "long" else lengths[odd].min())
                self._add(
                    "warning", "length", name,
                    f"{len(found)} values are unusually {word} ({'up' if word == 'long' else 'down'} to {extreme} {modality.length_unit}, "
                    f"the median is {middle:g}: "
                    f"{self._origins(found)})",
                    "look at them: cut, mend or remove what is not meant", found,
                )  # fmt: skip

    def _odd(self, name: str, modality: Modality, contract: Contract) -> None:
        """What the modality itself finds strange: silence, letters that training never sees."""
        store, held = self.data.fields[name], np.setdiff1d(self.used, self.train)
        train, held = (rows[store.present[rows]] for rows in (self.train, held))
        rows = np.concatenate([train, held])
        seen, new = ((store[int(row)] for row in part) for part in (train, held))
        for message, fix, where in modality.oddities(seen, new, contract):
            found = rows[list(where)]
            self._add("warning", "odd", name, f"{message} ({self._origins(found)})", fix, found)

    def _strays(self, name: str, modality: Spatial) -> None:
        """Things that do not lie on their input: their numbers are probably of another grid than that which is read."""
        store, under = self.data.fields[name], self.data.fields.get(modality.under())
        if under is None:
            return
        both = self.used[store.present[self.used] & under.present[self.used]]
        counts = np.array([modality.strays(store[row], under[row]) for row in both.tolist()])
        if not counts.any():
            return
        found = both[counts > 0]
        self._add(
            "warning", "outside", name,
            f"{counts.sum()} boxes lie partly or wholly outside of {modality.under()} as it is read, in {len(found)} of {len(both)} "
            f"rows ({self._origins(found)})",
            modality.stray_fix, found,
        )  # fmt: skip

    def _classes(self, name: str, modality: Modality, contract: Contract) -> None:
        """Imbalance and unseen labels, for targets that are one of a few values (or several of them)."""
        store = self.data.fields[name]
        if modality.axes != 0 or store.dtype.kind not in "uib":
            return
        counted = {split: self._counts(name, modality, contract, rows) for split, rows in self.rows.items()}
        if any(counts is None for counts in counted.values()):
            return
        train = (counted["train"] if len(self.rows["train"]) else counted["test"]) or Counter()
        if len(train) < 2:
            return
        ranked = sorted(train.items(), key=lambda item: (-item[1], str(item[0])))
        (most, largest), (least, smallest) = ranked[0], ranked[-1]
        if largest >= IMBALANCE * smallest:
            self._add(
                "warning", "imbalance", name,
                f"{most!r} has {largest} training rows, {least!r} has {smallest}",
                "read macro_f1 and not accuracy alone; class weights are used where the output has them",
            )  # fmt: skip
        if rare := [label for label, count in ranked if count < FEW_ROWS]:
            named = ", ".join(map(repr, rare[:NAMED])) + (" ..." if len(rare) > NAMED else "")
            message = f"{len(rare)} classes have fewer than {FEW_ROWS} training rows: {named}"
            self._add("warning", "rare", name, message, "give more rows of them, or merge them")
        for split in ("val", "test") if len(self.rows["train"]) else ():
            unseen = {label: count for label, count in (counted[split] or {}).items() if label not in train}
            if unseen:
                named = ", ".join(map(repr, list(unseen)[:NAMED])) + (" ..." if len(unseen) > NAMED else "")
                self._add(
                    "warning", "unseen", name,
                    f"{sum(unseen.values())} {split} rows have a label that no training row has: {named}",
                    "give training rows of it, or mend its spelling",
                )  # fmt: skip

    def _counts(self, name: str, modality: Modality, contract: Contract, rows: np.ndarray) -> Counter[Any] | None:
        """How many rows have each label; None when the values are too many to be classes. Reads one row of each."""
        store = self.data.fields[name]
        there = rows[store.present[rows]]
        if not len(there):
            return Counter()
        _, first, counts = np.unique(_keys(store.content[there]), return_index=True, return_counts=True)
        if len(first) > MANY_CLASSES:
            return None
        found: Counter[Any] = Counter()
        for index, count in zip(first.tolist(), counts.tolist(), strict=True):
            truth = modality.truth(store[int(there[index])], contract)
            for label in truth if isinstance(truth, list | tuple | set | frozenset) else [truth]:
                found[label] += count
        return found


def _keys(content: np.ndarray) -> np.ndarray:
    """Rows of bytes [rows, n] as one comparable value each."""
    flat: np.ndarray = np.ascontiguousarray(content).view(np.dtype((np.void, content.shape[1]))).reshape(-1)
    return flat


def _same_content(dataset: Dataset, names: list[str]) -> np.ndarray:
    """int64 [rows]: the same number for rows whose values of all these fields are the same."""
    if not names:
        return np.zeros(len(dataset), np.int64)
    keys = _keys(np.concatenate([dataset.fields[name].content for name in names], axis=1))
    same: np.ndarray = np.unique(keys, return_inverse=True)[1].reshape(-1)
    return same
