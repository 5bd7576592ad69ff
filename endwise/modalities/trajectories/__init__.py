"""Trajectories: where the agents of a scene (people, cars, balls) are, step by step, as an input, and as an output how they go on.

Here: how raw values are read, what is learnt about the training rows, how several futures are written and scored. Not here: the
windows of a long table with a row for each agent and moment (data/moments.py), the network (network.py), the answer as a value
(endwise/paths.py), metrics (metrics/paths.py).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from endwise.errors import BadValue, DataError, refusal, require, unknown_name
from endwise.modalities.base import (
    OUTPUT_ROLE,
    READ_AGAIN,
    Answer,
    Contract,
    Fetch,
    Modality,
    Role,
    counted,
    input_field,
    output_field,
)
from endwise.paths import Paths

if TYPE_CHECKING:
    from endwise.metrics import Metric
    from endwise.nn.interface import Encoder, Head
    from endwise.nn.size import Size

FARTHEST_M = 1e5  # from the origin: 32 bits hold centimetres up to there
SHORTEST_STEP_M = 1e-3
CONSTANT, STANDING = "constant velocity", "standing still"


@dataclass(frozen=True, kw_only=True)
class TrajectoriesContract(Contract):
    """What the training rows are like. steps: of every row; of inputs the most that one has. step_m: how far an agent usually
    comes in a step. ahead: of an output, whose rows are whole futures."""

    steps: int
    fewest: int
    most: int
    step_m: float
    ahead: bool


@dataclass(frozen=True, kw_only=True)
class Trajectories(Modality):
    """The paths of the agents of a scene in metres, at fixed steps: a list of agents, each a list of [x, y], null where it was
    not seen ([[[0, 0], [0.5, 0.1]], [null, [3, 4]]]), {name: path}, or an array [agent, step, 2].

    Any number of agents; all of a row have the same number of steps, missing ones among them. Of a long table with a row for
    each agent and moment (`scene, frame, agent, x, y`) the input names the columns and `data.windows` the steps. As an output it
    goes on with the agents of an input in their order: one path for each, and several `futures` with their chances.
    """

    type: ClassVar[str] = "trajectories"
    length_unit: ClassVar[str] = "agents"
    hand_offs: ClassVar[frozenset[str]] = READ_AGAIN
    error_is_share: ClassVar[bool] = False
    contract_class = TrajectoriesContract
    axes: ClassVar[int] = 1
    read_fields: ClassVar[tuple[str, ...]] = ()

    agent: str | None = input_field(None, "in windows of a long table: the column that tells whose position a row is")
    columns: tuple[str, ...] = input_field(("x", "y"), "in windows of a long table: the two columns of the position")
    on: str | None = output_field(None, "the input whose agents go on; null: the only one of this type")
    futures: int = output_field(
        6, "how many ways on there are for each agent; the first is `path`, the nearest on average"
    )
    learn: Literal["winner", "mixture"] = output_field(
        "winner",
        "winner: of the futures the nearest learns, and the chances which it is (multiple choice; Guzman-Rivera et al. 2012); "
        "mixture: all together are a density, and each learns as much as it explains",
    )
    whole: bool = output_field(
        False, "in windows: ask only for agents that are there at every step, past and future (the usual protocol)"
    )
    miss_m: float = output_field(2.0, "a future that ends farther off has missed, in metres")
    collision_m: float = output_field(0.2, "two agents that are nearer than this have collided, in metres")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, ok, allowed, fix in (
            ("columns", len(set(self.columns)) == 2, "two different columns", "write columns: [x, y]"),
            ("futures", 1 <= self.futures <= 100, "1 to 100", "6 and 20 are usual"),
            ("miss_m", self.miss_m > 0, "metres above 0", "2 is usual"),
            ("collision_m", self.collision_m > 0, "metres above 0", "0.2 is usual for people"),
        ):
            require(ok, field=f"Trajectories.{name}", got=getattr(self, name), allowed=allowed, fix=fix)

    def beside(self, inputs: Mapping[str, Modality], outputs: Mapping[str, Modality]) -> Self:
        """An output with `on` written out, and the columns of that input."""
        if not any(item is self for item in outputs.values()):
            return self
        suited = {name: item for name, item in inputs.items() if isinstance(item, Trajectories)}
        require(
            bool(suited),
            field="outputs: type trajectories", got=f"inputs {', '.join(inputs)}",
            allowed="an input of type: trajectories, whose agents go on", fix="declare where they have been as {type: trajectories}",
        )  # fmt: skip
        if self.on is not None and self.on not in suited:
            raise unknown_name(field="Trajectories.on", got=self.on, names=suited)
        require(
            self.on is not None or len(suited) == 1,
            field="Trajectories.on", got=None, allowed=f"one of {', '.join(suited)}", fix=f"write on: {next(iter(suited))}",
        )  # fmt: skip
        return replace(self, on=self.on or next(iter(suited)))

    # ---- both roles ------------------------------------------------------------------------------------------------

    def read(self, raw: Any, fetch: Fetch) -> np.ndarray:
        """float32 [agent, step, 2]; NaN where an agent was not seen."""
        points = _points(raw)
        if points.ndim != 3 or points.shape[2] != 2 or not points.size:
            raise BadValue(f"expected agents x steps x 2 positions, got an array of shape {list(points.shape)}")
        half = np.isnan(points).any(-1) & ~np.isnan(points).all(-1)
        far = np.abs(points) > FARTHEST_M  # also what is infinite
        for odd, why in ((half, "has one coordinate of two"), (far.any(-1), "is too far from the origin to be metres")):
            if odd.any():
                agent, step = np.argwhere(odd)[0].tolist()
                raise BadValue(f"step {step + 1} of agent {agent + 1} {why}: {points[agent, step].tolist()}")
        if np.isnan(points).all():
            raise BadValue("nobody was seen at any step")
        return points.astype(np.float32)

    def fit(self, values: Iterable[np.ndarray], *, missing: int, role: Role) -> TrajectoriesContract:
        """One pass. Rows of an output have as many steps."""
        lengths, agents, squares, moves = set[int](), set[int](), 0.0, 0
        count = 0
        for value in values:
            count += 1
            agents.add(len(value))
            lengths.add(value.shape[1])
            apart = np.square(np.diff(value.astype(np.float64), axis=1)).sum(-1)
            there = ~np.isnan(apart)
            squares, moves = squares + float(apart[there].sum()), moves + int(there.sum())
        if not count:
            raise refusal(
                field="trajectories", got=f"{missing} rows without a value", allowed="at least one training row with an agent",
                fix="look at the column's name, or remove the field", error=DataError,
            )  # fmt: skip
        if role == OUTPUT_ROLE and len(lengths) > 1:
            raise BadValue(
                f"rows of {min(lengths)} to {max(lengths)} steps: a future always has as many; write null where nobody knows"
            )
        usual = float(np.sqrt(squares / moves)) if moves else 1.0
        return TrajectoriesContract(
            count=count, missing=missing, steps=max(lengths), fewest=min(agents), most=max(agents),
            step_m=max(usual, SHORTEST_STEP_M), ahead=role == OUTPUT_ROLE,
        )  # fmt: skip

    def transform(self, value: np.ndarray, contract: TrajectoriesContract) -> np.ndarray:
        """float32 [agent, contract.steps, 2]: of an input the last steps, with nobody seen before the first."""
        lacking = contract.steps - value.shape[1]
        if contract.ahead:
            if lacking:
                raise BadValue(f"{value.shape[1]} steps instead of the {contract.steps} of training")
            return value
        value = value[:, max(0, -lacking) :]
        never = np.isnan(value).all((1, 2))
        if never.any():
            raise BadValue(f"agent {int(never.argmax()) + 1} was not seen at any of the last {contract.steps} steps")
        return np.pad(value, ((0, 0), (max(0, lacking), 0), (0, 0)), constant_values=np.nan)

    def blank(self, contract: TrajectoriesContract) -> np.ndarray:
        """One agent that stands at the origin."""
        return np.zeros((1, contract.steps, 2), np.float32)

    def length(self, shape: tuple[int, ...]) -> int:
        """Agents."""
        return shape[0]

    def example(self, contract: TrajectoriesContract) -> Any:
        """One agent that goes straight on."""
        return [[[round(step * contract.step_m, 3), 0.0] for step in range(contract.steps)]]

    def summary(self, contract: TrajectoriesContract) -> str:
        """'1 to 57 agents, 8 steps, 0.51 m a step'."""
        agents = f"{contract.fewest} to {contract.most}" if contract.fewest < contract.most else f"{contract.most}"
        plural = "" if contract.most == 1 else "s"
        return f"{agents} agent{plural}, {contract.steps} steps, {contract.step_m:.3g} m a step"

    def preview(self, value: np.ndarray, contract: TrajectoriesContract) -> dict[str, str]:
        """How many there are, and where the first is."""
        first = "; ".join("?" if np.isnan(point).any() else f"{point[0]:.2f} {point[1]:.2f}" for point in value[0])
        return {"kind": "text", "data": f"{len(value)} agents, {value.shape[1]} steps; the first: {first}"}

    def onto(self, places: np.ndarray, whole: np.ndarray, contract: TrajectoriesContract) -> np.ndarray:
        """Agents and steps: nothing for steps before those that are read."""
        full: np.ndarray = np.zeros(whole.shape[:2])
        count = min(full.shape[1], places.shape[1])
        full[:, full.shape[1] - count :] = places[:, places.shape[1] - count :]
        return full

    def named(self, whole: np.ndarray, contract: TrajectoriesContract) -> Sequence[str]:
        """'step 3 of agent 0'."""
        return [f"step {step} of agent {agent}" for agent, step in np.ndindex(*whole.shape[:2])]

    def about(
        self, which: Any, decoded: Mapping[str, np.ndarray], contract: TrajectoriesContract
    ) -> tuple[str, tuple[int, ...]]:
        """How far one agent gets, by its number from 0; else the first."""
        place = counted(which, int(decoded["size"]), "agent")
        return f"how far agent {place} gets", (place,)

    def misfit(self, shape: tuple[int, ...], under: tuple[int, ...]) -> str | None:
        """A future for each agent."""
        return None if shape[0] == under[0] else f"{shape[0]} paths for the {under[0]} agents of {self.on}"

    # ---- outputs ---------------------------------------------------------------------------------------------------

    @property
    def num_terms(self) -> int:
        """path, futures, and of a winner chances."""
        return 3 if self.learn == "winner" else 2

    def truth(self, value: np.ndarray, contract: TrajectoriesContract) -> Paths:
        """The paths."""
        return Paths(np.array(value, np.float32))

    def write(self, decoded: Mapping[str, np.ndarray], contract: TrajectoriesContract) -> Answer:
        """A path for each agent, all its futures and their chances."""
        count = int(decoded["size"])
        futures = np.asarray(decoded["paths"], np.float32)[:count]
        chances = np.clip(np.asarray(decoded["chances"], np.float32)[:count], 0, 1)
        return Answer(Paths(futures[:, 0], futures, chances), confidence=float(chances.max(1).mean()), unit="m")

    def metrics(self, contract: TrajectoriesContract) -> Sequence["Metric"]:
        """ade, fde, min_ade, min_fde, miss_rate, collision_rate."""
        from endwise import metrics

        return [
            metrics.ade(), metrics.fde(), metrics.min_ade(), metrics.min_fde(), metrics.miss_rate(self.miss_m),
            metrics.collision_rate(self.collision_m),
        ]  # fmt: skip

    def risk(self, contract: TrajectoriesContract) -> "Metric":
        """The mean distance from where agents went, in metres."""
        from endwise import metrics

        return metrics.ade()

    def classical(self, contract: TrajectoriesContract) -> Any:
        """None: without an input of agents nobody can be followed."""
        return None

    def classical_of_inputs(self, contracts: Mapping[str, Any], contract: TrajectoriesContract) -> Any | None:
        """Ridge regression of each agent's future on its own past, both as it sees them."""
        from endwise.modalities.trajectories.classical import AgentRidge

        name = self._source(contracts)
        return None if name is None else AgentRidge(name, past=contracts[name].steps, future=contract.steps)

    def trivial(self, truths: Sequence[Any], contract: TrajectoriesContract) -> Answer:
        """Everybody at the mean of all places, at each step."""
        known = np.concatenate([truth.points for truth in truths]).astype(np.float64)
        there = ~np.isnan(known)
        mean = np.where(there, known, 0).sum(0) / np.maximum(there.sum(0), 1)
        return Answer(Paths(np.tile(mean.astype(np.float32), (contract.most, 1, 1))), unit="m")

    def from_classical(self, predicted: Any, contract: TrajectoriesContract) -> Answer:
        """Points [agent, step, 2]."""
        return Answer(Paths(np.asarray(predicted, np.float32)), unit="m")

    def untaught(
        self, given: Mapping[str, np.ndarray], contracts: Mapping[str, Any], contract: TrajectoriesContract
    ) -> Mapping[str, Answer]:
        """Everybody goes on as in the last step, or stands still."""
        name = self._source(contracts)
        if name is None or name not in given:
            return {}
        from endwise.modalities.trajectories.classical import extrapolated

        ways = {CONSTANT: 1.0, STANDING: 0.0}
        return {
            way: Answer(Paths(extrapolated(given[name], contract.steps, factor)), unit="m")
            for way, factor in ways.items()
        }

    def _source(self, contracts: Mapping[str, Any]) -> str | None:
        """The input whose agents go on; None where it is not known."""
        names = [name for name, own in contracts.items() if isinstance(own, TrajectoriesContract)]
        if self.on is not None:
            return self.on if self.on in names else None
        return names[0] if len(names) == 1 else None

    # ---- network side ----------------------------------------------------------------------------------------------

    def encoder(self, contract: TrajectoriesContract, size: "Size") -> "Encoder":
        """A token for each agent, in its own frame, that has looked at the others."""
        from endwise.modalities.trajectories.network import AgentEncoder

        return AgentEncoder(contract, size)

    def head(self, contract: TrajectoriesContract, size: "Size") -> "Head":
        """Futures that begin as turns and speeds beside a constant velocity."""
        from endwise.modalities.trajectories.network import FuturesHead

        if self.on is None:
            raise refusal(
                field="Trajectories.on", got=None, allowed="a trajectories input", fix="name it, or use it in a recipe"
            )
        return FuturesHead(contract, size, on=self.on, futures=self.futures, learn=self.learn)


# ---- reading ---------------------------------------------------------------------------------------------------------


def _points(raw: Any) -> np.ndarray:
    """Whatever a cell of the table holds, as float64 [agent, step, 2]."""
    if isinstance(raw, Paths):
        return np.asarray(raw.points, np.float64)
    if isinstance(raw, np.ndarray) and raw.dtype.kind in "fiu":
        return raw.astype(np.float64)
    if isinstance(raw, str):
        try:
            raw = json.loads(raw)
        except (ValueError, RecursionError):
            raise BadValue(f"{raw[:60]!r} is no list of paths: write it as JSON, [[[x, y], ...], ...]") from None
    if isinstance(raw, Mapping):
        raw = list(raw.values())
    if not isinstance(raw, list | tuple | np.ndarray) or not len(raw):
        raise BadValue(f"expected a list of agents, each a list of [x, y], got {type(raw).__name__}")
    paths = [_path(item, number) for number, item in enumerate(raw, 1)]
    lengths = {len(path) for path in paths}
    if len(lengths) > 1:
        raise BadValue(
            f"paths of {min(lengths)} and {max(lengths)} steps in one row: write null where an agent was not seen"
        )
    return np.stack(paths)


def _path(raw: Any, number: int) -> np.ndarray:
    """[step, 2] of one agent."""
    if isinstance(raw, Mapping):
        raw = raw.get("path")
    if not isinstance(raw, list | tuple | np.ndarray):
        raise BadValue(f"agent {number} is no list of positions: {raw!r:.40}")
    try:
        points = [(np.nan, np.nan) if point is None else tuple(np.asarray(point, np.float64)) for point in raw]
        return np.array(points, np.float64).reshape(len(points), 2)
    except (ValueError, TypeError):
        raise BadValue(f"agent {number} has a position that is no [x, y]") from None


__all__ = ["Trajectories", "TrajectoriesContract"]
