"""What a run folder says of itself, entry by entry, as Markdown lines; an entry without a line is one that the run does not
hold. Nothing here is computed anew and nothing is guessed. Not here: what only the owner knows (owner.py), the pages (pages.py).
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from endwise import lineage
from endwise.card.markdown import bullets, md, table
from endwise.errors import ModelError
from endwise.modalities.base import Modality
from endwise.run import Run
from endwise.scores import KINDS, against_baseline, spelled

SHORTCUTS = "shortcuts.json"  # what `explain --audit` found
NAMED_FILES, NAMED_ROWS = 10, 5
LOGGED = ("resumed", "replan", "rollback", "oom", "interrupted", "note")  # events that changed a training's course


@dataclass(frozen=True)
class Entry:
    """One thing that a run may say. lines: Markdown; none where it does not."""

    key: str
    title: str
    lines: tuple[str, ...]


class Facts:
    """A run folder, read once."""

    def __init__(self, run: Run) -> None:
        self.run, self.recipe, self.info = run, run.recipe, run.info()
        names = ("plan", "data", "metrics", "environment", "from_run", "folds", SHORTCUTS.removesuffix(".json"))
        self.plan, self.data, self.metrics, self.environment, self.from_run, self.folds, self.shortcuts = (
            run.read(f"{name}.json") if run.has(f"{name}.json") else {} for name in names
        )
        self.events = run.events()
        file = run.model_folder / "model.json"
        if not file.is_file():
            raise ModelError(f"{run.path} holds no trained model to describe. Fix: endwise train, or --resume.")
        self.sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        self.trained: dict[str, Any] = self.info.get("trained") or {}
        self.code: dict[str, Any] = (self.info.get(lineage.ENTRY) or {}).get("code") or {}

    @property
    def name(self) -> str:
        return self.recipe.name or self.run.name

    @property
    def outputs(self) -> Mapping[str, Any]:
        """{output: {metric: estimate}}"""
        return self.metrics.get("outputs") or {}

    def sources(self) -> dict[str, str]:
        """The data sources by their role, each by its last name: what lies above it is nobody's business."""
        data = self.recipe.data
        given = {name: getattr(data, name) for name in ("path", "train", "val", "test")}
        tables = {f"table {name}": item for name, item in data.tables.items()}
        return {
            ("data" if name == "path" else name): Path(item).name if isinstance(item, str) else "values in memory"
            for name, item in {**given, **tables}.items()
            if item is not None
        }


def entries(facts: Facts) -> dict[str, Entry]:
    """Every entry by its key, in the order of `ENTRIES`."""
    return {key: Entry(key, title, tuple(make(facts))) for key, (title, make) in ENTRIES.items()}


# ---- what it is ----------------------------------------------------------------------------------------------------------


def _version(facts: Facts) -> Iterator[str]:
    yield f"- name: {md(facts.name)}"
    yield f"- sha256 of `model.json`, which holds the hash of the weights: `{facts.sha256}`"
    if facts.environment.get("began"):
        yield f"- training began: {md(facts.environment['began'])}"


def _task(facts: Facts) -> Iterator[str]:
    inputs, outputs = facts.recipe.inputs, facts.recipe.outputs
    yield f"From {md(_spoken(inputs))} to {md(_spoken(outputs))}, with {md(_network(facts))}."
    goal = facts.info.get("goal")
    if goal:
        better = "smaller" if goal["direction"] == "min" else "larger"
        yield ""
        yield f"What it is chosen for: {md(goal['metric'])} of {md(goal['output'])}, {better} is better."


def _fields(facts: Facts, section: Mapping[str, Modality]) -> list[str]:
    known = facts.data.get("fields") or {}
    rows = [
        (name, item.type, known[name]["summary"], known[name]["missing"])
        for name, item in section.items()
        if name in known
    ]
    return table(["name", "kind", "in the training rows", "missing"], rows) if rows else []


def _inputs(facts: Facts) -> list[str]:
    return _fields(facts, facts.recipe.inputs)


def _outputs(facts: Facts) -> list[str]:
    return _fields(facts, facts.recipe.outputs)


def _forms(facts: Facts) -> Iterator[str]:
    folder = facts.run.model_folder
    for file in sorted(folder.iterdir()):
        if file.is_file() and not file.name.startswith("."):
            yield f"- model folder: `{file.name}`, {file.stat().st_size:,} bytes"
    if (facts.run.path / "export" / "bundle.json").is_file():
        yield "- exported bundle, which runs without torch: `export/`"


# ---- how it was made -----------------------------------------------------------------------------------------------------


def _network(facts: Facts) -> str:
    made = "one network" if not facts.recipe.stages else f"{len(facts.recipe.stages)} stages ({facts.recipe.regime})"
    return made + (f" of {facts.plan['parameters']:,} parameters" if facts.plan else "")


def _architecture(facts: Facts) -> Iterator[str]:
    yield f"- {md(_network(facts))}"
    yield f"- size: {md(facts.recipe.train.size)}"
    for name, stage in facts.recipe.stages.items():
        yield f"- stage {md(name)}: {md(', '.join(stage.given))} to {md(', '.join(stage.to))}"
    yield "- values go in raw; resizing, normalising and decoding are part of the network"


def _training(facts: Facts) -> Iterator[str]:
    plan, trained = facts.plan, facts.trained
    if not plan:
        return
    yield f"- {trained.get('steps', plan['steps'])} steps of {plan['batch_size']} rows; seed {plan['seed']}"
    if "best_step" in trained:
        yield f"- weights of step {trained['best_step']}, the best by the goal on validation rows"
    yield f"- precision {md(plan['precision'])}; weights averaged with decay {plan['ema_decay']:.4g}"
    yield f"- objective: {md(facts.recipe.objective.weighting)} weighting of the losses of {md(', '.join(facts.recipe.outputs))}"


def _origin(facts: Facts) -> Iterator[str]:
    began = facts.info.get("from_run") or facts.from_run
    declared = {name: item.to_dict() for name, item in {**facts.recipe.inputs, **facts.recipe.outputs}.items()}
    taken = {name: values["pretrained"] for name, values in declared.items() if values.get("pretrained")}
    if not began and not taken:
        yield "Trained from random weights: no pretrained part and no other run."
    for name, source in taken.items():
        yield f"- {md(name)} begins with pretrained weights: {md(Path(str(source)).name)}"
    if began:
        yield f"- begins with the weights of another run: {md(Path(str(began.get('run', ''))).name or 'named in model.json')}"


def _cost(facts: Facts) -> Iterator[str]:
    if "seconds" not in facts.trained:
        return
    yield f"- {facts.trained['seconds']:,} s of training steps"
    done = [event["time_s"] for event in facts.events if event.get("event") == "done" and "time_s" in event]
    if done:
        yield f"- {done[-1]:,.1f} s with reading and evaluation"
    yield "- energy was not measured"
    if facts.plan:
        yield f"- {facts.plan['threads']} threads, device {md(facts.plan['device'])}"


def _machine(facts: Facts) -> Iterator[str]:
    for name, value in (facts.environment.get("machine") or {}).items():
        yield f"- {md(name)}: {md(value)}"


def _software(facts: Facts) -> Iterator[str]:
    told = facts.environment
    if told:
        yield f"- Python {md(told['python'])} on {md(told['platform'])}"
        yield f"- {len(told['packages'])} packages, each with its version, in `environment.json`"
    used = {**facts.info.get("versions", {})}
    yield from (f"- {md(name)} {md(version)}" for name, version in used.items() if name != "python")


def _code(facts: Facts) -> Iterator[str]:
    if facts.code:
        yield f"- {md(lineage.told_code(facts.code))}"
    project = facts.environment.get("project")
    if project:
        changed = " with changes that are not in it" if project["changed"] else ""
        yield f"- started in a project at commit {md(project['commit'])}{changed}"


def _events(facts: Facts) -> Iterator[str]:
    found = [event for event in facts.events if event.get("event") in LOGGED]
    if facts.events and not found:
        yield "Nothing changed its course: no resumption, no rollback, no change of plan."
    yield from bullets(event.get("message") or f"{event['event']} at step {event.get('step', 0)}" for event in found)


# ---- data ----------------------------------------------------------------------------------------------------------------


def _rows(facts: Facts) -> list[str]:
    if not facts.data:
        return []
    counts = table(["side", "rows"], facts.data["rows"].items())
    return [*counts, "", f"How they were split: {md(facts.data['split'])}."]


def _files(facts: Facts) -> Iterator[str]:
    told = facts.data.get("files")
    if told is None:
        return
    yield from (f"- {md(role)}: {md(name)}" for role, name in facts.sources().items())
    count = "1 file" if told["count"] == 1 else f"{told['count']:,} files"
    yield f"- {count}, {told['bytes']:,} bytes, each with its sha256 in `{lineage.MANIFEST}`"
    kept = (facts.info.get(lineage.ENTRY) or {}).get(lineage.MANIFEST)
    if kept:
        yield f"- sha256 of that list: `{kept}`"
    yield f"- fingerprint of the decoded rows and their sides: `{facts.data['fingerprint']}`"
    if told["in_memory"]:
        yield "- some rows were values in memory: they have no file, and are known by the fingerprint"
    if told["elsewhere"]:
        yield f"- {told['elsewhere']:,} sources at addresses, which are named and not hashed"
    if told["count"] and facts.run.has(lineage.MANIFEST):
        files = lineage.read_manifest(facts.run.path / lineage.MANIFEST)
        yield ""
        yield from table(["file", "sha256"], [(Path(name).name, value) for name, value in files[:NAMED_FILES]])
        if len(files) > NAMED_FILES:
            yield ""
            yield f"… and {len(files) - NAMED_FILES:,} more."


def _cleaning(facts: Facts) -> Iterator[str]:
    if not facts.data:
        return
    yield f"{facts.data['bad_count']} values could not be read; their rows are in no side."
    bad = [f"{item['origin']}, {item['field']}: {item['reason']}" for item in facts.data["bad"][:NAMED_ROWS]]
    notes = facts.data.get("notes") or []
    if bad or notes:
        yield ""
        yield from bullets([*bad, *notes])


# ---- what it is worth ----------------------------------------------------------------------------------------------------


def _results(facts: Facts) -> Iterator[str]:
    if not facts.outputs:
        return
    yield f"On the {md(facts.metrics.get('split'))} rows, with 95 % intervals, beside the best constant answer (trivial) and a"
    yield "scikit-learn model on hand-made features (classical)."
    for output, values in facts.outputs.items():
        beside = facts.metrics.get("baselines", {}).get(output) or {}
        kinds = [kind for kind in KINDS if beside.get(kind)]
        rows = [
            [metric, *spelled(own), *(_beside(beside[kind].get(metric)) for kind in kinds)]
            for metric, own in values.items()
        ]
        yield ""
        yield from table([output, "value", "95 % interval", "n", *kinds], rows)
    goal = facts.info.get("goal")
    if goal:
        told = [line.strip() for line in against_baseline(facts.metrics, goal)]
        yield from ["", md(" ".join(told))] if told else []


def _beside(estimate: Mapping[str, Any] | None) -> str:
    return "-" if estimate is None else " ".join(spelled(estimate)[:2]).strip()


def _folds(facts: Facts) -> Iterator[str]:
    for output, values in (facts.folds.get("outputs") or {}).items():
        yield from table(
            [output, "value", "95 % interval", "n"], [[name, *spelled(own)] for name, own in values.items()]
        )
        yield ""


def _slices(facts: Facts) -> Iterator[str]:
    """The groups that are worse than the rest, worst first."""
    for output, found in (facts.metrics.get("slices") or {}).items():
        looked = f"{found['looked_at']} groups of {found['rows']} rows were looked at"
        if not found["found"]:
            yield f"{md(output)}: {looked}, and none is worse than the rest beyond what chance shows."
        else:
            rows = [
                [
                    item["column"],
                    item["group"],
                    f"{item['score']:.4g}",
                    f"{item['rest']:.4g}",
                    *spelled(item["worse_by"]),
                ]
                for item in found["found"]
            ]
            yield f"{md(output)}: {looked}; {md(found['measure'])} by group:"
            yield ""
            yield from table(["column", "group", "there", "elsewhere", "worse by", "95 % interval", "n"], rows)
        yield ""


def _certainty(facts: Facts) -> Iterator[str]:
    for output, found in (facts.metrics.get("certainty") or {}).items():
        rows = [[f"{found['risk']}, all answered", *spelled(found["error"])],
                ["area under the risk-coverage curve", *spelled(found["aurc"])]]  # fmt: skip
        for side, estimate in found.get("calibration_error", {}).items():
            rows.append([f"calibration error {side} calibration", *spelled(estimate)])
        if "set" in found:
            rows.append(
                [f"sets that hold the truth, {found['set']['nominal']:.0%} meant", *spelled(found["set"]["coverage"])]
            )
        if "abstains" in found:
            rows.append(["share answered", *spelled(found["abstains"]["answered"])])
            if found["abstains"]["error"] is not None:
                rows.append([f"{found['risk']} of what is answered", *spelled(found["abstains"]["error"])])
        yield from table([output, "value", "95 % interval", "n"], rows)
        yield ""


def _ablation(facts: Facts) -> list[str]:
    rows = [
        [row["output"], row["metric"], row["input"], *spelled(row["worth"])]
        for row in facts.metrics.get("ablation") or []
    ]
    return table(["output", "metric", "input", "worth", "95 % interval", "n"], rows) if rows else []


def _failures(facts: Facts) -> Iterator[str]:
    """What is known to be wrong with it: alarms, labels that look wrong, notes of the evaluation."""
    if not facts.metrics:
        return
    found = [f"{alarm['name'].replace('_', ' ')}: {alarm['message']}" for alarm in facts.metrics.get("alarms") or []]
    found += facts.metrics.get("notes") or []
    for output, item in (facts.folds.get("suspects") or facts.metrics.get("suspects") or {}).items():
        value, interval, count = spelled(item["suspected"])
        found.append(f"{output}: share of labels that look wrong {value} {interval} of {count} rows")
    yield from bullets(found) if found else ["The training raised no alarm, and the evaluation has nothing to remark."]


def _shortcuts(facts: Facts) -> Iterator[str]:
    """What `endwise explain --audit` found, where it was run."""
    found = facts.shortcuts
    if not found:
        return
    yield f"{found['rows']} answers of {md(found['output'])} were looked at (`endwise explain --audit`)."
    yield ""
    if not found["findings"]:
        yield "No single place, word or column decides alone."
    for item in found["findings"]:
        yield (
            f"- {item['leaning']:.0%} of {item['rows']} answers {md(item['answer'])} lean on {md(item['where'])} of "
            f"{md(item['input'])}; {item['alone']:.0%} stand with nothing else there"
        )


def _testing(facts: Facts) -> Iterator[str]:
    if not facts.metrics:
        return
    yield f"- scored on the {md(facts.metrics.get('split'))} rows, after training ended"
    yield "- validation rows chose the weights, the temperatures and the thresholds" + (
        ", and are scored for want of test rows: the results are too good"
        if facts.metrics.get("split") == "val"
        else "; test rows served none of it"
    )
    yield "- 95 % intervals: bootstrap over rows, or over groups where the recipe names them"
    yield "- logs: `log.jsonl` (every step), `metrics.json`, `report.html`"


def _oversight(facts: Facts) -> Iterator[str]:
    """What is there for those who have to understand an answer."""
    for name, item in facts.recipe.outputs.items():
        why = (
            f"not explained: {md(item.unexplained)}" if item.unexplained else "`endwise explain` shows what it leans on"
        )
        if item.abstain is not None:
            sure = f"abstains, {md(item.abstain.to_dict())}"
        else:
            sure = "can abstain, and does not" if item.can_abstain else f"cannot abstain: {md(item.unsure)}"
        yield f"- {md(name)}: {why}; {sure}"
    yield "- `endwise serve --log` and `endwise predict --log` write every answer into a log that cannot be edited unseen"


def _reproduce(facts: Facts) -> Iterator[str]:
    if not facts.environment:
        return
    yield f"1. Install Python {md(facts.environment['python'])} and the packages in `environment.json`."
    yield f"2. Check the data: `sha256sum --check {lineage.MANIFEST}`."
    yield "3. Train: `endwise train recipe.yaml --out again`."
    if facts.recipe.train.budget is not None:
        yield ""
        yield "The recipe has a time budget: how many steps fit depends on the machine, so other numbers will come out."


def _spoken(section: Mapping[str, Modality]) -> str:
    return ", ".join(f"{name} ({item.type})" for name, item in section.items())


ENTRIES: Mapping[str, tuple[str, Callable[[Facts], Any]]] = {
    "version": ("Version", _version),
    "task": ("What it does", _task),
    "inputs": ("Inputs", _inputs),
    "outputs": ("Outputs", _outputs),
    "forms": ("Forms it is in", _forms),
    "software": ("Software", _software),
    "machine": ("Machine it was trained on", _machine),
    "origin": ("What it began with", _origin),
    "architecture": ("Architecture", _architecture),
    "training": ("Training", _training),
    "cost": ("Time and energy", _cost),
    "rows": ("Rows", _rows),
    "files": ("Files, with their hashes", _files),
    "cleaning": ("Rows that were put aside", _cleaning),
    "oversight": ("Means to understand an answer", _oversight),
    "testing": ("How it was tested", _testing),
    "results": ("Results", _results),
    "slices": ("Groups that are worse than the rest", _slices),
    "certainty": ("What its confidence is worth", _certainty),
    "failures": ("Known failures", _failures),
    "shortcuts": ("Shortcuts", _shortcuts),
    "events": ("What happened in training", _events),
    "code": ("Code", _code),
    "reproduce": ("How to make it again", _reproduce),
}
# what only some runs can have: shown where it is there, and not counted as lacking where it is not
EXTRAS: Mapping[str, tuple[str, Callable[[Facts], Any]]] = {
    "ablation": ("What each input is worth", _ablation),
    "folds": ("Cross-validated", _folds),
}

__all__ = ["ENTRIES", "EXTRAS", "SHORTCUTS", "Entry", "Facts", "entries"]
