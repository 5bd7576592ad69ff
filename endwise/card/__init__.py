"""Card: what a model is, in two files that are written from its run: a model card and a technical file.

    found = card("runs/digits")
    print(found)                     # which entries the run filled, and what the owner must supply

Everything in them stands in the run's folder or in the owner's `owner.yaml`; nothing is invented, and what is missing is named.
Here: writing them and saying how full they are. Not here: what a run says (facts.py), what only the owner knows (owner.py), the
documents (pages.py), text that stays text (markdown.py).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from endwise.card import pages
from endwise.card.facts import EXTRAS, Entry, Facts, entries
from endwise.card.owner import FILE, QUESTIONS, read_owner
from endwise.errors import refusal
from endwise.files import write_text
from endwise.run import Run

CARD, TECHNICAL = "card.md", "technical-file.md"


@dataclass(frozen=True)
class Card:
    """Two files, and how full they are. facts: entries that the run fills; lacking: those it does not hold; answered, owner: what
    the owner said, and must still say."""

    card: Path
    technical: Path
    facts: tuple[str, ...]
    lacking: tuple[str, ...]
    answered: tuple[str, ...]
    owner: tuple[str, ...]

    @property
    def share(self) -> float:
        """Of the entries that a run can fill, those that this one does."""
        return len(self.facts) / (len(self.facts) + len(self.lacking))

    def to_dict(self) -> dict[str, Any]:
        return {
            "card": str(self.card), "technical_file": str(self.technical), "share": self.share, "filled": list(self.facts),
            "lacking": list(self.lacking), "owner_answered": list(self.answered), "owner_must_supply": list(self.owner),
        }  # fmt: skip

    def __str__(self) -> str:
        total = len(self.facts) + len(self.lacking)
        lines = [f"card            {self.card}", f"technical file  {self.technical}"]
        lines += [f"from facts      {len(self.facts)} of {total} entries ({self.share:.0%})"]
        lines += [f"not in the run  {', '.join(self.lacking)}"] if self.lacking else []
        lines += [f"from the owner  {len(self.answered)} of {len(QUESTIONS)} answers"]
        if self.owner:
            lines += [f"the owner must supply, in {FILE}:"]
            lines += [f"  {key:<22}{QUESTIONS[key].asks}" for key in self.owner]
        return "\n".join([*lines, "no legal advice, and no claim of conformity with any law"])


def card(run: "str | Path | Run", *, out: str | Path | None = None, owner: str | Path | None = None) -> Card:
    """Write `card.md` and `technical-file.md` of a run into `out` (default: the run's folder). owner: a YAML file with the owner's
    answers; default: the run's `owner.yaml`, where there is one. ModelError where nothing is trained, RecipeError for an
    unknown question."""
    opened = Run.open(run)
    facts = Facts(opened)
    place = opened.path / FILE if owner is None else Path(owner)
    said = read_owner(place) if owner is not None or place.is_file() else {}
    folder = opened.path if out is None else Path(out)
    if folder.exists() and not folder.is_dir():
        raise refusal(field="--out", got=str(folder), allowed="a folder", fix="choose another --out")
    known = entries(facts)
    shown = {**known, **_extras(facts)}
    write_text(folder / CARD, pages.card(facts, shown, said))
    write_text(folder / TECHNICAL, pages.technical(facts, shown, said))
    return Card(
        folder / CARD, folder / TECHNICAL,
        facts=tuple(key for key, entry in known.items() if entry.lines),
        lacking=tuple(key for key, entry in known.items() if not entry.lines),
        answered=tuple(key for key in QUESTIONS if key in said),
        owner=tuple(key for key in QUESTIONS if key not in said),
    )  # fmt: skip


def _extras(facts: Facts) -> dict[str, Entry]:
    found = {key: Entry(key, title, tuple(make(facts))) for key, (title, make) in EXTRAS.items()}
    return {key: entry for key, entry in found.items() if entry.lines}


__all__ = ["Card", "card"]
