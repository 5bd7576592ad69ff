"""The two documents: a model card as the Hugging Face Hub reads it, and a technical file in the order of Annex IV of the EU's AI
Act. Both are the same entries and the same answers of the owner under different headings."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml

import endwise
from endwise.card.facts import Entry, Facts
from endwise.card.markdown import md, paragraphs
from endwise.card.owner import QUESTIONS

NOTICE = (
    "This file is no legal advice, and it claims no conformity with any law or standard. What stands under a run's facts was "
    "written by a program from the run's own files; what the owner says is the owner's."
)
TASKS: Mapping[tuple[frozenset[str], str], str] = {  # inputs' kinds, output's kind: the Hub's word, where there is one
    (frozenset({"image"}), "category"): "image-classification",
    (frozenset({"image"}), "boxes"): "object-detection",
    (frozenset({"image"}), "mask"): "image-segmentation",
    (frozenset({"image"}), "instances"): "image-segmentation",
    (frozenset({"image"}), "embedding"): "image-feature-extraction",
    (frozenset({"image"}), "text"): "image-to-text",
    (frozenset({"audio"}), "text"): "automatic-speech-recognition",
    (frozenset({"audio"}), "category"): "audio-classification",
    (frozenset({"audio"}), "audio"): "audio-to-audio",
    (frozenset({"text"}), "category"): "text-classification",
    (frozenset({"text"}), "audio"): "text-to-speech",
    (frozenset({"text"}), "image"): "text-to-image",
    (frozenset({"text"}), "embedding"): "feature-extraction",
    (frozenset({"image", "text"}), "category"): "visual-question-answering",
    (frozenset({"image", "text"}), "text"): "image-text-to-text",
    (frozenset({"video"}), "category"): "video-classification",
    (frozenset({"series"}), "series"): "time-series-forecasting",
    (frozenset({"graph"}), "category"): "graph-ml",
}
COLUMNS = frozenset({"number", "category", "boolean", "date", "tags"})  # inputs that make a table
# the Hub's identifiers that are in common use; any other is "other" with its name beside it
# fmt: off
LICENSES = frozenset({
    "other", "apache-2.0", "mit", "openrail", "bigscience-openrail-m", "creativeml-openrail-m", "afl-3.0",
    "artistic-2.0", "bsl-1.0", "bsd", "bsd-2-clause", "bsd-3-clause", "cc", "cc0-1.0", "cc-by-2.0",
    "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0",
    "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-3.0",
    "cc-by-nc-sa-4.0", "epl-2.0", "eupl-1.1", "eupl-1.2", "agpl-3.0", "gpl", "gpl-2.0", "gpl-3.0", "lgpl",
    "lgpl-2.1", "lgpl-3.0", "isc", "mpl-2.0", "ms-pl", "odbl", "pddl", "unlicense", "wtfpl", "zlib", "unknown",
})
# fmt: on
Part = tuple[str, Sequence[str]]  # a heading, and the keys of entries and questions below it

CARD: Sequence[Part] = (
    ("Model", ("task", "inputs", "outputs", "version", "forms", "provider", "contact", "license")),
    ("Uses", ("intended_purpose", "out_of_scope", "affected_persons")),
    ("Data", ("rows", "files", "cleaning", "data_license", "data_provenance", "labelling")),
    ("Training", ("origin", "architecture", "training", "cost", "events")),
    ("Evaluation", ("testing", "results", "folds", "slices", "ablation", "certainty")),
    ("Limitations", ("failures", "shortcuts", "risks")),
    ("Understanding an answer", ("oversight", "human_oversight")),
    ("Making it again", ("machine", "software", "code", "reproduce")),
)
TECHNICAL: Sequence[Part] = (
    ("1. General description", (
        "provider", "contact", "intended_purpose", "out_of_scope", "version", "task", "interaction", "software", "forms", "license",
        "hardware", "user_interface", "instructions",
    )),
    ("2(a) Methods and steps of development", ("origin", "training", "events", "code")),
    ("2(b) Design specifications", ("design_rationale", "affected_persons", "inputs", "outputs")),
    ("2(c) Architecture and computational resources", ("architecture", "machine", "cost")),
    ("2(d) Data", ("rows", "files", "data_license", "data_provenance", "labelling", "cleaning")),
    ("2(e) Human oversight", ("human_oversight", "oversight")),
    ("2(f) Changes determined beforehand", ("predetermined_changes",)),
    ("2(g) Validation and testing", ("testing", "results", "folds", "signed_by")),
    ("2(h) Security", ("cybersecurity",)),
    ("3. Monitoring, functioning and control: capabilities and limits", (
        "slices", "ablation", "certainty", "failures", "shortcuts", "risks",
    )),
    ("4. Appropriateness of the metrics", ("metric_choice",)),
    ("5. Risk management", ("risk_management",)),
    ("6. Changes over the lifecycle", ("changes", "reproduce")),
    ("7. Standards", ("standards",)),
    ("8. EU declaration of conformity", ("conformity",)),
    ("9. Evaluation after release", ("monitoring",)),
)  # fmt: skip


def card(facts: Facts, known: Mapping[str, Entry], owner: Mapping[str, str]) -> str:
    """The model card: YAML that the Hub reads, then Markdown."""
    head = yaml.safe_dump(metadata(facts, owner), sort_keys=False, allow_unicode=True)
    return f"---\n{head}---\n\n# {md(facts.name)}\n\n" + _body(CARD, facts, known, owner)


def technical(facts: Facts, known: Mapping[str, Entry], owner: Mapping[str, str]) -> str:
    """The technical file, its headings those of Annex IV of Regulation (EU) 2024/1689."""
    return f"# Technical file: {md(facts.name)}\n\n" + _body(TECHNICAL, facts, known, owner)


def _body(parts: Iterable[Part], facts: Facts, known: Mapping[str, Entry], owner: Mapping[str, str]) -> str:
    opening = f"Written by endwise {md(endwise.__version__)} from the run {md(facts.run.name)}. {NOTICE}"
    blocks = [opening]
    for heading, keys in parts:
        found = [block for key in keys if (block := "\n".join(_block(key, known, owner)).rstrip())]
        blocks += [f"## {heading}", *found]
    return "\n\n".join(blocks) + "\n"


def _block(key: str, known: Mapping[str, Entry], owner: Mapping[str, str]) -> Iterator[str]:
    """An entry or an owner's answer under its heading, or who has to supply it."""
    if key in QUESTIONS:
        question = QUESTIONS[key]
        yield from (f"### {question.title}", "")
        if key in owner:
            yield "\n\n".join(paragraphs(owner[key]))
        else:
            yield f"*The owner must supply* `{key}`: {question.asks}."
    elif key in known:
        entry = known[key]
        yield from (f"### {entry.title}", "")
        yield from entry.lines or ("*Not in this run.*",)


# ---- the metadata ------------------------------------------------------------------------------------------------------


def metadata(facts: Facts, owner: Mapping[str, str]) -> dict[str, Any]:
    """The fields of the Hub's model cards that the run and the owner can fill, every number as it is in the run."""
    kinds = [*facts.recipe.inputs.values(), *facts.recipe.outputs.values()]
    out: dict[str, Any] = {"library_name": "endwise"}
    goal = (facts.info.get("goal") or {}).get("output") or next(iter(facts.recipe.outputs))
    if task_of(facts, goal) is not None:
        out["pipeline_tag"] = task_of(facts, goal)
    out |= _license(owner)
    out["tags"] = list(dict.fromkeys(["end-to-end", *(item.type for item in kinds)]))
    sources = [getattr(facts.recipe.data, name) for name in ("path", "train", "val", "test")]
    hub = [
        item.removeprefix("hf://").partition(":")[0]
        for item in sources
        if isinstance(item, str) and item.startswith("hf://")
    ]
    if hub:
        out["datasets"] = hub
    if facts.outputs:
        out["metrics"] = list(dict.fromkeys(metric for values in facts.outputs.values() for metric in values))
    results = [
        found for output, values in facts.outputs.items() if (found := _result(facts, output, values))["metrics"]
    ]
    if results:
        out["model-index"] = [{"name": facts.name, "results": results}]
    return out


def task_of(facts: Facts, output: str) -> str | None:
    """The Hub's word for what one output does, or None where it has none that fits."""
    inputs = frozenset(item.type for item in facts.recipe.inputs.values())
    kind = facts.recipe.outputs[output].type
    if inputs <= COLUMNS and kind in ("category", "boolean"):
        return "tabular-classification"
    if inputs <= COLUMNS and kind == "number":
        return "tabular-regression"
    return TASKS.get((inputs, kind))


def _result(facts: Facts, output: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """One output's entry of the model index. The interval and n stand where the Hub keeps a metric's arguments."""
    sources = list(dict.fromkeys(facts.sources().values()))
    return {
        "task": {"type": task_of(facts, output) or "other", "name": output},
        "dataset": {
            "type": f"fingerprint:{str(facts.data.get('fingerprint', 'unknown'))[:16]}", "name": ", ".join(sources),
            "split": facts.metrics.get("split", "test"),
        },
        "metrics": [
            {"type": metric, "name": f"{metric} of {output}", "value": own["value"],
             "args": {"n": own["n"], "low_95": own["low"], "high_95": own["high"]}}
            for metric, own in values.items() if own["value"] is not None
        ],
    }  # fmt: skip


def _license(owner: Mapping[str, str]) -> dict[str, str]:
    said = owner.get("license")
    if said is None:
        return {}
    if said.lower() in LICENSES:
        return {"license": said.lower()}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", said.lower()).strip("-.")[:60] or "other"}


__all__ = ["NOTICE", "card", "metadata", "task_of", "technical"]
