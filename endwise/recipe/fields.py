"""The sections `inputs` and `outputs`: names with what kind of value each is."""

from collections.abc import Mapping
from typing import Any

from endwise.errors import refusal, require
from endwise.modalities import TABLE, modality_class
from endwise.modalities.base import INPUT_ROLE, OUTPUT_ROLE, Modality, Role, build


def declarations(value: Any, section: str) -> dict[str, Modality]:
    """A whole section, inputs or outputs; RecipeError where it names nothing."""
    if not isinstance(value, Mapping) or not value:
        raise refusal(
            field=section,
            got=value,
            allowed="at least one name with its type",
            fix=f"write {section}: {{{'photo: image' if section == 'inputs' else 'label: category'}}}",
        )
    role = INPUT_ROLE if section == "inputs" else OUTPUT_ROLE
    return {name: declare(item, where=f"{section}.{name}", role=role, name=name) for name, item in value.items()}


def declare(value: Any, *, where: str, role: Role, name: str) -> Modality:
    """A modality from its short form ('audio'), its mapping ({type: audio, rate_hz: 8000}), its class or itself."""
    if isinstance(value, type) and issubclass(value, Modality):
        value = value()
    if isinstance(value, str):
        value = {"type": value}
    if not isinstance(value, Modality):
        require(
            isinstance(value, Mapping),
            field=where,
            got=value,
            allowed="a type name or a mapping with 'type'",
            fix=f"write {name}: {{type: {next(iter(TABLE))}}}",
        )
        fields = dict(value)
        kind = fields.pop("type", None)
        require(
            kind is not None,
            field=f"{where}.type",
            got=None,
            allowed=f"one of {', '.join(TABLE)}",
            fix="say what kind of value this is",
        )
        if isinstance(kind, type) and issubclass(kind, Modality):
            found: type[Modality] = kind
        else:
            found = modality_class(str(kind), where=f"{where}.type")
        value = build(found, fields, where, role)
    declared: Modality = value
    declared.check_role(role, name)
    return declared
