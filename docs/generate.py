"""Writes docs/recipe.md from the schema: `python docs/generate.py` (a test fails when the committed page is stale)."""

import dataclasses
from pathlib import Path

from endwise.modalities import TABLE, modality_class
from endwise.priors import BUILT_IN
from endwise.recipe import Recipe, json_schema

PAGE = Path(__file__).parent / "recipe.md"
INTRO = """# The recipe, field by field

<!-- written by docs/generate.py from the schema: change the docstrings and field descriptions in the code -->

A recipe says what goes in, what comes out, and how to train. YAML, JSON and Python are the same tree; `endwise schema`
prints its JSON Schema, so that an editor completes it. Unknown fields are refused with the nearest valid name.

```yaml
version: 1
data: {path: calls.csv, split: split, group: call_id, max_bad: 1%}   # short: data: calls.csv
inputs:  {recording: {type: audio, rate_hz: 8000}}                   # short: recording: audio
outputs: {words: {type: text, decoder: ctc}, mood: {type: category}}
goal: {output: words, metric: wer, direction: min}                   # default: the first output's usual metric
train: {size: small, budget: 5m, seed: 0}
```
"""

PRIORS = """### priors

```yaml
objective:
  priors:
    - {type: monotone, of: price, along: area}
    - {type: range, of: price, low: 0, weight: 0.5}
```
"""


STAGES = """## stages and regime

```yaml
stages:
  hear: {from: recording, to: {words: {type: text, decoder: ctc}}}   # an answer on the way, declared where it is made
  add:  {from: words, to: total}                                     # one that stands under outputs
regime: warm_joint
```
"""


def _within(fields: dict, name: str) -> str:
    """A field that may be a section of its own."""
    own = next(item for item in fields[name]["anyOf"] if item.get("type") == "object")
    return f"### data.{name}\n\n{' '.join(own['description'].split())}\n\n{_table(own['properties'])}"


def page() -> str:
    schema = json_schema()["properties"]
    parts = [INTRO]
    for section in ("data", "from_run", "goal", "objective", "trunk", "train"):
        found = schema[section]
        found = next((item for item in found.get("anyOf", []) if item.get("type") == "object"), found)
        parts.append(f"## {section}\n\n{found.get('description', '')}\n\n{_table(found['properties'])}")
        if section == "objective":
            parts.append(_priors())
        if section == "goal":
            parts.append(_stages(schema["stages"]))
        if section == "data":
            parts += [_within(found["properties"], name) for name in ("gather", "windows", "split")]
    parts.append("## inputs and outputs\n\nA name and a type. The column is the name unless `column` says otherwise.\n")
    for name in TABLE:
        cls = modality_class(name)
        roles = " or ".join(sorted(cls.roles))
        rows = {
            item.name: {"default": _default(item), "type": _written(item.type), "description": _help(item)}
            for item in dataclasses.fields(cls)  # not the class variables
        }
        doc = " ".join((cls.__doc__ or "").split())
        parts.append(f"### {name}\n\n{doc}\n\nAs an {roles}.\n\n{_table(rows)}")
    return "\n".join(parts)


def _stages(schema: dict) -> str:
    one = schema["additionalProperties"]
    fields = {
        name: {"default": [] if name not in one["required"] else "required", **spec}
        for name, spec in one["properties"].items()
    }
    regime = " ".join(str(Recipe.model_fields["regime"].description).split())
    rows = {"regime": {"default": Recipe.model_fields["regime"].default, "description": regime}}
    return f"{STAGES}\n{one['description']}\n\n{_table(fields)}\nBeside them:\n\n{_table(rows)}"


def _priors() -> str:
    parts = [PRIORS]
    for name, cls in BUILT_IN.items():
        rows = {
            item.name: {
                "default": "required" if item.default is dataclasses.MISSING else item.default or None,
                "description": item.metadata["help"],
            }
            for item in dataclasses.fields(cls)
        }
        own = {field: rows[field] for field in sorted(rows, key=lambda field: field in ("name", "weight"))}
        parts.append(f"#### {name}\n\n{' '.join((cls.__doc__ or '').split())}\n\n{_table(own)}")
    return "\n".join(parts)


def _table(fields: dict) -> str:
    lines = ["| field | default | what it means |", "|---|---|---|"]
    for name, spec in fields.items():
        default = spec.get("default", "required")
        text = "null" if default is None else str(default)
        lines.append(
            f"| `{name}` | {text} | {' '.join(str(spec.get('description', '')).split())} |".replace("||", "\\|\\|")
        )
    return "\n".join(lines) + "\n"


def _default(item: object) -> object:
    return item.default  # type: ignore[attr-defined]


def _written(hint: object) -> str:
    return hint if isinstance(hint, str) else getattr(hint, "__name__", str(hint))


def _help(item: object) -> str:
    metadata = item.metadata  # type: ignore[attr-defined]
    role = metadata.get("role")
    return metadata.get("help", "") + (f" ({role} only)" if role else "")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"written to {PAGE}")
