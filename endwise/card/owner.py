"""What no run can know, and who has to say it: the questions, and the answers of an `owner.yaml`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from endwise.errors import RecipeError, refusal, unknown_name

FILE = "owner.yaml"  # in the run's folder, unless another is named


@dataclass(frozen=True)
class Question:
    """title: the heading; asks: what is to be said there."""

    title: str
    asks: str


# in the order of the technical file
QUESTIONS: Mapping[str, Question] = {
    "provider": Question("Provider", "who places the system on the market or puts it into service"),
    "contact": Question("Contact", "whom to ask, and where to report what goes wrong"),
    "intended_purpose": Question("Intended purpose", "what it is for, for whom, and where"),
    "out_of_scope": Question("Uses that are not meant", "what it must not be used for"),
    "license": Question("Licence of the model", "an identifier such as apache-2.0, or a name"),
    "interaction": Question("What it interacts with", "other hardware, software and AI systems"),
    "hardware": Question("Hardware it is meant to run on", "devices, and what they must have"),
    "user_interface": Question("Interface of those who use it", "what they see and can do"),
    "instructions": Question("Instructions for use", "for those who deploy it"),
    "design_rationale": Question("Why it was designed so", "key choices, assumptions, and trade-offs"),
    "affected_persons": Question("Persons and groups concerned", "on whom it is meant to be used, and whom it touches"),
    "data_license": Question("Licence of the data", "under which terms the rows may be used"),
    "data_provenance": Question("Where the data comes from", "how, when and by whom it was collected and selected"),
    "labelling": Question("How it was labelled", "by whom, by which instructions, how it was checked"),
    "human_oversight": Question("Human oversight", "who watches it, who can stop it, and how"),
    "predetermined_changes": Question("Changes planned from the start", "what will change without a new assessment"),
    "signed_by": Question("Test reports signed by", "the persons responsible, with the date"),
    "cybersecurity": Question("Security", "measures against attacks and misuse"),
    "risks": Question("Foreseeable harm", "risks to health, safety and fundamental rights, and unintended outcomes"),
    "metric_choice": Question("Why these metrics", "why they suit the purpose, and which error costs what"),
    "risk_management": Question("Risk management", "how risks are found, weighed and treated"),
    "changes": Question("Changes over its life", "versions so far, and what changed in each"),
    "standards": Question("Standards", "harmonised standards and others that were applied"),
    "conformity": Question("Declaration of conformity", "where its copy is"),
    "monitoring": Question("Monitoring after release", "how its performance is watched, and the plan for that"),
}


def read_owner(path: Path) -> dict[str, str]:
    """The answers in a YAML file: one text for each question that is answered. RecipeError for anything else."""
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as wrong:
        raise RecipeError(f"{path} cannot be read: {wrong.strerror}. Fix: give the owner's answers as YAML.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as wrong:
        raise RecipeError(f"{path} is no YAML: {str(wrong).splitlines()[0]}. Fix: write name: text.") from None
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise refusal(field=path.name, got=found, allowed="a mapping of questions to answers", fix="write name: text")
    return {_known(path, str(name)): _text(path, str(name), value) for name, value in found.items()}


def _known(path: Path, name: str) -> str:
    if name not in QUESTIONS:
        raise unknown_name(field=path.name, got=name, names=QUESTIONS)
    return name


def _text(path: Path, name: str, value: Any) -> str:
    lines = value if isinstance(value, list) else [value]
    if not lines or not all(isinstance(item, str) and item.strip() for item in lines):
        raise refusal(field=f"{path.name}: {name}", got=value, allowed="a text, or a list of texts",
                      fix="quote it, or leave it out until it is known")  # fmt: skip
    return "\n\n".join(item.strip() for item in lines)


__all__ = ["FILE", "QUESTIONS", "Question", "read_owner"]
