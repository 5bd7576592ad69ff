"""The suite over the whole package, and the page that it writes: docs/capabilities.md."""

import argparse
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from endwise.testing.case import Case
from endwise.testing.cases import cases
from endwise.testing.checks import CAPABILITIES, CHECKS, checks_of
from endwise.testing.exports import EXPORT_GROUPS, check_export_group

INTRO = """# What works

<!-- written by `python -m endwise.testing --capabilities`: do not edit; a test fails when this page is stale -->

Every ✓ stands for executed tests that passed: the contract suite in `endwise/testing`, which runs on your own modality as
well (`check_modality`). A cell without a passing test is empty: an input gives no answers, and what is heard as a whole does not
stream, and what is learnt by hiding parts has no answer to explain. `exports` is tested once for each row here, and for every pair of an input and an output in the long run (`make test-slow`).

"""


def run_case(case: Case, *, known: Mapping[tuple[str, str], bool] | None = None) -> dict[str, bool]:
    """{capability: kept} of one case, the export apart. known: results a test run already has, by (label, check)."""
    found: dict[str, bool] = {}
    for check in checks_of(case, slow=False):
        key = (case.label, check.name)
        kept = known[key] if known and key in known else _passes(check)
        found[check.capability] = found.get(check.capability, True) and kept
    return found


def run_exports(found: Sequence[Case]) -> dict[str, bool]:
    """{label: exported} for every modality and head, each exported once."""
    by_label = {case.label: case for case in found}
    kept: dict[str, bool] = {}
    for inputs, outputs in EXPORT_GROUPS:
        group = [by_label[label] for label in inputs], [by_label[label] for label in outputs]
        passed = _passes(lambda group=group: check_export_group(*group))  # type: ignore[misc]
        kept |= dict.fromkeys((*inputs, *outputs), passed)
    return kept


def capabilities_page(results: Mapping[str, Mapping[str, bool]]) -> str:
    """The page, from {label: {capability: kept}}."""
    lines = ["| modality | " + " | ".join(CAPABILITIES) + " |", "|---" * (len(CAPABILITIES) + 1) + "|"]
    for label, kept in results.items():
        cells = ["✓" if kept.get(capability) else "" for capability in CAPABILITIES]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    meaning = [*_silent(), "", "## What a column promises", ""]
    for capability in CAPABILITIES:
        names = [check.name.replace("_", " ") for check in CHECKS if check.capability == capability]
        meaning.append(f"- **{capability}**: {'; '.join(names)}")
    return INTRO + "\n".join([*lines, *meaning]) + "\n"


def _silent() -> list[str]:
    """Which outputs cannot abstain, and why: a line for each reason."""
    found = [case for case in cases() if not case.is_input and not case.declaration.can_abstain]
    reasons = dict.fromkeys(f"- {case.label}: {case.declaration.unsure}" for case in found)
    return ["", "## What cannot abstain, and why", "", *reasons]


def _passes(action: Callable[[], None]) -> bool:
    try:
        action()
    except Exception as wrong:  # whatever a modality raises, the cell stays empty, and the reason is said
        print(f"{action}: {type(wrong).__name__}: {wrong}", file=sys.stderr)  # noqa: T201
        return False
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m endwise.testing [--capabilities [PAGE]]`: run the suite over the package; 1 if a promise is broken."""
    parser = argparse.ArgumentParser(prog="python -m endwise.testing", description=inspect.getdoc(main))
    parser.add_argument("--capabilities", nargs="?", const="docs/capabilities.md", metavar="PAGE",
                        help="write the page (default docs/capabilities.md)")  # fmt: skip
    given = parser.parse_args(arguments)
    found = cases()
    results = {case.label: run_case(case) for case in found}
    for label, kept in run_exports(found).items():
        results[label]["exports"] = kept
    if given.capabilities:
        Path(given.capabilities).write_text(capabilities_page(results), encoding="utf-8")
    broken = [f"{label}: {capability}" for label, kept in results.items() for capability, ok in kept.items() if not ok]
    print("\n".join(broken) or f"{len(results)} modalities and heads keep every promise")  # noqa: T201
    return 1 if broken else 0
