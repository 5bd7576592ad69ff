"""Checks of stages across the recipe: every output answered by one, every input read by one, no circle, and hand-offs
that can carry what they are to."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from endwise.errors import require, unknown_name
from endwise.recipe.part import NAME
from endwise.recipe.stages import PARTED, in_order, owner

if TYPE_CHECKING:
    from endwise.recipe.declaration import Recipe


def check_stages(recipe: "Recipe") -> None:
    """RecipeError where the stages are no pipeline between the inputs and the outputs."""
    if not recipe.stages:
        require(
            "regime" not in recipe.model_fields_set or recipe.regime == "direct",
            field="regime", got=recipe.regime, allowed="a recipe with stages", fix="remove regime, or declare stages",
        )  # fmt: skip
        return
    require(
        recipe.from_run is None, field="from_run", got=getattr(recipe.from_run, "run", None),
        allowed="a recipe without stages", fix="write run: at the stage that is to begin with it",
    )  # fmt: skip
    maker = _makers(recipe)
    for stage in recipe.stages:
        _check_given(recipe, stage, maker)
    order = in_order(recipe.stages)
    for stage in order:
        _check_shares(recipe, stage, order)
        _check_function(recipe, stage, maker)
    _check_used(recipe, maker)


def check_hand_offs(recipe: "Recipe") -> None:
    """Once the outputs know each other: answers that a stage reads lie in the places of their input, and tokens have none."""
    for stage, part in recipe.stages.items():
        for name in part.given:
            require(
                name not in recipe.outputs or recipe.outputs[name].world_of is None, field=f"stages.{stage}.from", got=name,
                allowed=f"answers in the places of their input: {name} is said in its world", fix=f"write {name} in its voxels (unit: px)",
            )  # fmt: skip
        for name in part.to if part.hand_off == "latent" else ():
            on = str(getattr(recipe.outputs[name], "on", None))
            require(
                on not in recipe.outputs, field=f"stages.{stage}.hand_off", got="latent",
                allowed=f"a hand-off of the answer itself: {name} lies on {on}, and tokens have no places",
                fix="write hand_off: soft",
            )  # fmt: skip


def _makers(recipe: "Recipe") -> dict[str, str]:
    """Which stage answers each output: one, and only what is declared."""
    maker: dict[str, str] = {}
    for stage, item in recipe.stages.items():
        require(bool(NAME.match(stage)), field="stages", got=stage, allowed="a name of letters, digits, ' ', '_' and '-'",
                fix="rename the stage")  # fmt: skip
        for name in item.to:
            if name not in recipe.outputs:
                raise unknown_name(field=f"stages.{stage}.to", got=name, names=recipe.outputs)
            require(
                name not in maker, field=f"stages.{stage}.to", got=name,
                allowed=f"an output that no other stage answers ({maker.get(name)} does)", fix="rename one of the two",
            )  # fmt: skip
            maker[name] = stage
    return maker


def _check_given(recipe: "Recipe", stage: str, maker: Mapping[str, str]) -> None:
    """What a stage reads is there, and goes on in a way that its type and the regime allow."""
    item = recipe.stages[stage]
    for name in item.given:
        if name not in recipe.inputs and name not in maker:
            raise unknown_name(field=f"stages.{stage}.from", got=name, names=[*recipe.inputs, *maker])
        kind = recipe.outputs[name].type if name in maker else ""
        carried = recipe.outputs[name].hand_offs if name in maker else {item.hand_off}
        require(
            item.hand_off in carried, field=f"stages.{stage}.hand_off", got=item.hand_off,
            allowed=f"{', '.join(sorted(carried))}: what an answer of type {kind} can go on by",
            fix="write hand_off: latent, through which a gradient goes" + (", or hard" if "hard" in carried else ""),
        )  # fmt: skip
        require(
            recipe.regime not in PARTED or name not in maker or item.by is not None or "hard" in carried,
            field="regime", got=recipe.regime,
            allowed=f"joint, warm_joint or direct: {name}, of type {kind}, goes on as tokens alone, and parts know of each other's answers alone",
            fix=f"write regime: warm_joint, or let stage {stage} read an answer of another type",
        )  # fmt: skip


def _check_used(recipe: "Recipe", maker: Mapping[str, str]) -> None:
    """No output that no stage answers, no input that none reads."""
    read = {name for item in recipe.stages.values() for name in item.given}
    for section, names, used, what, where in (
        ("outputs", recipe.outputs, set(maker), "answers", "to"),
        ("inputs", recipe.inputs, read, "reads", "from"),
    ):
        for name in names:
            require(
                name in used, field=f"{section}.{name}", got=name, allowed=f"one that a stage {what}",
                fix=f"name it under {where} of a stage, or remove it",
            )  # fmt: skip


def _check_shares(recipe: "Recipe", stage: str, order: list[str]) -> None:
    """What a stage shares is an input that it reads and that an earlier stage has an encoder of."""
    item = recipe.stages[stage]
    for name in item.shares:
        field = f"stages.{stage}.shares"
        if name not in recipe.inputs or name not in item.given:
            raise unknown_name(field=field, got=name, names=[given for given in item.given if given in recipe.inputs])
        require(
            owner(recipe.stages, name) in order[: order.index(stage)], field=field, got=name,
            allowed="an input that an earlier stage reads with an encoder of its own", fix="remove it here, or write it at the later stage",
        )  # fmt: skip
    require(
        not item.shares or item.run is None, field=f"stages.{stage}.run", got=item.run,
        allowed="a stage with encoders of its own", fix="remove shares, or write run: at the stage whose encoder it is",
    )  # fmt: skip


def _check_function(recipe: "Recipe", stage: str, maker: Mapping[str, str]) -> None:
    """A function takes answers and gives one, without a gradient."""
    item, field = recipe.stages[stage], f"stages.{stage}.by"
    if item.by is None:
        for name in item.given:
            made = recipe.stages[maker[name]].by if name in maker else None
            require(made is None or item.hand_off != "latent", field=f"stages.{stage}.hand_off", got="latent",
                    allowed=f"a hand-off of the answer: stage {maker.get(name)} is a function and has no tokens",
                    fix="write hand_off: hard")  # fmt: skip
        return
    require(recipe.regime in ("modular", "direct"), field="regime", got=recipe.regime,
            allowed=f"modular, or direct without stages: stage {stage} is a function, which lets no gradient through",
            fix="write regime: modular, or let a network learn the stage")  # fmt: skip
    require(len(item.to) == 1 and recipe.outputs[item.to[0]].can_be_told, field=field, got=list(item.to),
            allowed="one answer of type number, category or boolean", fix="split the stage, or declare such an answer")  # fmt: skip
    for name in item.given:
        require(name in maker or recipe.inputs[name].can_be_shown, field=f"stages.{stage}.from", got=name,
                allowed="inputs that a function can be given as they were read: not tags, and of text those in bytes",
                fix=f"declare another input on the same column for it, such as {name}_raw: {{type: text, units: bytes, column: {name}}}")  # fmt: skip
        require(name not in maker or recipe.outputs[name].can_be_said, field=f"stages.{stage}.from", got=name,
                allowed="inputs, and answers of other stages of type number, category, boolean or text, where a function reads them",
                fix="let a stage that learns read it")  # fmt: skip
    require(item.run is None and not item.shares, field=field, got=item.run or list(item.shares), allowed="a function alone",
            fix="remove run and shares")  # fmt: skip
