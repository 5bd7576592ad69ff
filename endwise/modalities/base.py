"""What every modality promises. A modality is its own declaration: one frozen class says what it is, how a raw value
is read, what is learnt about it, how it is encoded, predicted, scored and written back.

Two sides, kept apart so that declaring, checking and the exported runner load no torch:
- numpy and the standard library here and in each modality's main file: `read`, `fit`, `transform`, `write`, `metrics`;
- torch only inside `encoder()` and `head()`, which import the modality's network file when a network is asked for.
No pydantic here either: an exported bundle carries these files and must run on numpy alone.
"""

import builtins
import dataclasses
import json
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self

import numpy as np

from endwise.certainty import Abstain
from endwise.errors import BadValue, ModelError, RecipeError, refusal, require, unknown_name

if TYPE_CHECKING:
    from endwise.metrics import Metric
    from endwise.nn.interface import Encoder, Head
    from endwise.nn.size import Size

Role = Literal["input", "output"]
Fetch = Callable[[str], bytes]  # a path as written in the table -> the bytes of the file
INPUT_ROLE: Role = "input"
OUTPUT_ROLE: Role = "output"
COUNTED = frozenset({str, int, bool})  # types of raw cells of which a column has the same one often
HAND_OFFS = frozenset({"hard", "soft", "straight_through", "gumbel", "latent"})  # of an answer to a next stage
READ_AGAIN = frozenset({"hard", "latent"})  # of an answer that goes on as it is written, or as the tokens behind it


def input_field(default: Any, help: str = "") -> Any:
    """A field that only makes sense on an input."""
    return field(default=default, metadata={"role": INPUT_ROLE, "help": help})


def output_field(default: Any, help: str = "", *, hashed: bool = True) -> Any:
    """A field that only makes sense on an output. hashed: whether its value has a hash; a mapping has none."""
    return field(default=default, hash=None if hashed else False, metadata={"role": OUTPUT_ROLE, "help": help})


def shared_field(default: Any, help: str = "") -> Any:
    """A field of both roles."""
    return field(default=default, metadata={"role": None, "help": help})


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What was learnt from the training rows about one field. Frozen, plain JSON, saved in the model."""

    count: int  # rows that had a value
    missing: int  # rows that had none

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; refuses unknown and missing names."""
        names = {item.name for item in dataclasses.fields(cls)}
        if set(values) != names:
            odd = ", ".join(sorted(set(values) ^ names))
            raise ModelError(f"the contract of a {cls.__name__} does not have the fields it should: {odd}.")
        return cls(**{name: frozen(value) for name, value in values.items()})


@dataclass(frozen=True, slots=True)
class Answer:
    """One final answer: the value in the user's kind of value, its confidence in [0, 1] where the head has one, its
    unit, and whatever else the head has to say (probabilities by class, an interval ...). abstained: it was not sure enough
    to be given; its value is None."""

    value: Any
    confidence: float | None = None
    unit: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    abstained: bool = False

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the value always (sound as a data URI), the rest where there is any."""
        value = self.value.to_json() if hasattr(self.value, "to_json") else self.value
        out: dict[str, Any] = {"value": value, "confidence": self.confidence}
        if self.unit is not None:
            out["unit"] = self.unit
        if self.abstained:
            out["abstained"] = True
        if self.detail:
            out["detail"] = dict(self.detail)
        return out


class Reader(Protocol):
    """One raw value that comes in pieces. Not for several threads."""

    def take(self, raw: Any) -> np.ndarray:
        """One more piece: the transformed values that are certain now and were not before. Raises BadValue."""
        ...

    def rest(self) -> np.ndarray:
        """The transformed values that waited for the end. Raises BadValue where the whole is no legal value."""
        ...

    @property
    def length(self) -> float:
        """How much has come in, in `Modality.streams_in`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Modality:
    """A kind of raw value, as an input, an output, or both.

    Subclass it as a frozen keyword-only dataclass, set `type`, `contract_class`, `axes` and `roles`, and write the
    methods of the roles it has. Pass the class itself wherever a type name is taken; nothing has to be registered.
    """

    type: ClassVar[str]
    roles: ClassVar[frozenset[Role]] = frozenset({INPUT_ROLE, OUTPUT_ROLE})
    contract_class: ClassVar[builtins.type[Contract]] = Contract
    axes: ClassVar[int] = 0  # leading axes of a transformed value that differ from row to row
    read_fields: ClassVar[tuple[str, ...] | None] = None  # fields that change what `read` gives; None: all may
    # how an answer can go on to a next stage. All but latent need `Head.handed`; hard does without, where an input may be what
    # an answer is: it is then written and read again, outside of the graph
    hand_offs: ClassVar[frozenset[str]] = frozenset({"latent"})
    can_be_told: ClassVar[bool] = False  # whether a function can answer in the place of a head: it has `certain`
    can_be_said: ClassVar[bool] = False  # whether a function can be given it as another stage's answer: it has `said`
    canvas_axes: ClassVar[int] = 0  # of an input: axes of the canvas that outputs can lie on (a picture has two)
    lies_on_axes: ClassVar[frozenset[int]] = frozenset()  # of an output: axes of the canvases that it can lie on
    samples: ClassVar[bool] = False  # whether training sees a part of a value, drawn anew in each step: it has `sample`
    classical_of_places: ClassVar[bool] = False  # `classical` takes the decoded values of the input that it lies on
    drawn_as: ClassVar[Literal["cells", "picture", "sound", "text"]] = "cells"  # what attributions are laid over
    unexplained: ClassVar[str] = ""  # of an output: why its answers have no explanation
    unsure: ClassVar[str] = "its answers do not say how sure they are"  # of an output: why it cannot abstain
    sure_by: ClassVar[str] = "remove abstain"  # and what to do about it
    error_is_share: ClassVar[bool] = True  # whether `risk` of a row lies in [0, 1], so that a confidence can mean it
    # of an output whose `risk` is no share: whether answers say in `detail["expected_error"]` how far off they are likely to be, a
    # number or a list, so that `sureness` is the `risk` to be expected by that, times -1: it has `missed`
    expects_error: ClassVar[bool] = False
    length_unit: ClassVar[str] = "elements"  # what `length` counts
    of_row: ClassVar[int] = 0  # an output without a column: it is there where at least so many inputs of its row are

    column: str | None = shared_field(None, "the column of the table; default: the field's own name")
    optional: bool = input_field(False, "the value may be missing at prediction even if it never was in training")
    handed: bool = input_field(
        False, "the answer of another stage: read as it is written there (fields of an output say how)"
    )
    loss_weight: float = output_field(1.0, "the fixed weight of this output's loss in the objective")
    abstain: Abstain | None = output_field(  # noqa: RUF009 - frozen
        None,
        "when nothing is answered: {coverage: 0.9} gives the surest nine of ten, {risk: 0.02} what keeps the mean error under it",
    )

    def __post_init__(self) -> None:
        if self.abstain is not None:
            object.__setattr__(self, "abstain", Abstain.of(self.abstain, f"{type(self).__name__}.abstain"))
        check_types(self)
        require(
            self.abstain is None or self.can_abstain,
            field=f"{type(self).__name__}.abstain",
            got=self.abstain,
            allowed=f"an output that can abstain: {self.unsure}",
            fix=self.sure_by,
        )
        require(
            self.loss_weight > 0,
            field=f"{type(self).__name__}.loss_weight",
            got=self.loss_weight,
            allowed="a number above 0",
            fix="remove the output if its loss should not count",
        )

    # ---- numpy side: both roles -------------------------------------------------------------------------------

    def read(self, raw: Any, fetch: Fetch) -> np.ndarray:
        """Decode one raw value (a path, bytes, or an inline value; never None) to an array, with no learnt parameter.

        Raises BadValue with the reason when it cannot be read; never invents a value.
        """
        raise NotImplementedError

    def cell_of(self, row: Mapping[str, Any], name: str) -> Any:
        """The raw value of this field, called `name`, in a row of raw cells by column."""
        columns = self.reads_columns()
        if not columns or name in row:
            return row.get(self.column or name)
        cells = {column: row.get(column) for column in columns}
        return None if all(cell is None for cell in cells.values()) else cells

    def read_column(self, raws: Sequence[Any], contract: Any, fetch: Fetch) -> np.ndarray | None:
        """What `transform` makes of what `read` gives for many raw values, none of them missing, one after the other in an
        array: for tables with more rows than anybody wants to look at one by one. None: these have to be read one by one,
        which also finds the one that cannot be (BadValue says the same). Default: text, whole numbers and true/false of
        kinds without ragged axes, each different one read once."""
        if self.axes:
            return None
        cells = raws.tolist() if isinstance(raws, np.ndarray) else raws
        kinds = set(map(type, cells))
        if (
            len(kinds) != 1 or not kinds <= COUNTED
        ):  # of several types some are equal and mean something else: 1 and True
            return None
        place = {cell: number for number, cell in enumerate(dict.fromkeys(cells))}
        values = np.stack([self.transform(self.read(cell, fetch), contract) for cell in place])
        return values[np.fromiter(map(place.__getitem__, cells), np.int64, len(cells))]

    def fit(self, values: Iterable[np.ndarray], *, missing: int, role: Role) -> Contract:
        """What there is to know about the training rows, in one streaming pass over what `read` gave."""
        raise NotImplementedError

    def transform(self, value: np.ndarray, contract: Any) -> np.ndarray:
        """The array the network takes: vocabulary look-up, nothing learnt by gradient. Default: the decoded value."""
        return value

    def stored_as_taken(self, shape: tuple[int, ...], dtype: np.dtype[Any], contract: Any) -> bool:
        """Whether `transform` gives every decoded value of this shape and dtype back as it is: the loader then copies
        rows straight from the store. Default: where `transform` is the default one."""
        return type(self).transform is Modality.transform

    def blank(self, contract: Any) -> np.ndarray:
        """A transformed value of the smallest legal size that stands in for a missing one (masked, never learnt from)."""
        raise NotImplementedError

    def length(self, shape: tuple[int, ...]) -> int:
        """How long a decoded value of this shape is, for bucketing; 0 when all are alike."""
        return 0

    def summary(self, contract: Any) -> str:
        """One line about the contract for people: '10 classes', 'mean 3.2 kg', '8000 Hz, 0.2 to 2.3 s'."""
        return f"{contract.count} values"

    @property
    def file_kinds(self) -> tuple[str, ...]:
        """Media types of the files that a raw value may be, in bytes: ("image/*",). Default: none, since a value is a number
        or a text in itself."""
        return ()

    def example(self, contract: Any) -> Any:
        """A raw value of this input as JSON has it, for people and for a first try; None: none is short enough to show."""
        return None

    def reads_columns(self) -> tuple[str, ...]:
        """The columns that a raw value is put together from, where they are several: `read` then gets {column: cell}.
        Default: none, since a value is the cell of one."""
        return ()

    # ---- numpy side: a row and other tables ------------------------------------------------------------------------

    def looks_up(self, tables: Mapping[str, Any]) -> Callable[[Any], Sequence[Any]] | None:
        """Of a field that looks things up in `data.tables`: from a table of rows to the raw value of each row, None where it is
        missing. Such a value also reads as one that needs no table (a mapping), for whoever writes it down. Raises
        RecipeError or DataError. Default: a field is read from its column."""
        return None

    def doubts(
        self, tables: Mapping[str, Any], rows: Sequence[Any], answers: Collection[str]
    ) -> Sequence[tuple[str, str]]:
        """What is unclear about `data.tables` where a field looks things up there, as (message, fix): `check` warns of it, and
        training says it. rows: the tables of the recipe's own rows; answers: the columns of its outputs. Raises RecipeError
        where the tables tell the answers. Default: nothing."""
        return ()

    def sample(self, value: np.ndarray, key: Sequence[int]) -> np.ndarray:
        """A part of a transformed value: a function of the value and the key (seed, step, row), drawn by numpy's raw Philox words.
        Only of modalities that `samples`."""
        raise NotImplementedError

    # ---- numpy side: values larger than what is looked at at once ----------------------------------------------------

    def patch(self, contract: Any) -> tuple[int, ...] | None:
        """Of an input: how much of a transformed value the network looks at at once, along each axis. Training draws patches
        of larger values and of what lies on them, and answers are put together from windows: all outputs then lie on it
        and have `part` and `merged`. None: values are seen whole."""
        return None

    def extent(self, value: np.ndarray) -> tuple[int, ...]:
        """Of a decoded value: places along each axis."""
        raise NotImplementedError

    def part(self, value: np.ndarray, start: Sequence[int], sides: Sequence[int]) -> np.ndarray:
        """A part of a decoded value, as a decoded value."""
        raise NotImplementedError

    def sought(self, value: np.ndarray, contract: Any, words: np.ndarray) -> tuple[int, ...] | None:
        """Of an output: a place of a decoded value that patches should show more often than chance would, by random words.
        Default: none."""
        return None

    def merged(
        self, parts: Iterable[tuple[tuple[int, ...], Mapping[str, np.ndarray]]], shape: tuple[int, ...]
    ) -> dict[str, np.ndarray]:
        """What was decoded of windows of one row (where each begins, arrays without the batch axis), as of the whole."""
        raise NotImplementedError

    def concluded(
        self, parts: Iterable[tuple[tuple[int, ...], Mapping[str, np.ndarray]]], shape: tuple[int, ...]
    ) -> dict[str, np.ndarray]:
        """As `merged`, of windows in the order of `patches.covering`, with no more of the whole than `write` needs: `merged`
        may hold many times the memory of the value. Default: `merged`."""
        return self.merged(parts, shape)

    def stacked(self, rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """What `merged` gave for rows of different sizes as one batch."""
        raise NotImplementedError

    @property
    def hides_held_out(self) -> bool:
        """Whether training rows must not see what held-out rows are about: it has `asked_about` and `without`."""
        return False

    def asked_about(self, value: np.ndarray) -> Sequence[complex]:
        """What a row with this decoded value is about, as numbers."""
        raise NotImplementedError

    def without(self, value: np.ndarray, hidden: frozenset[complex]) -> np.ndarray:
        """A decoded value without what these numbers stand for."""
        raise NotImplementedError

    # ---- numpy side: inputs ------------------------------------------------------------------------------------

    def oddities(
        self, train: Iterable[np.ndarray], held: Iterable[np.ndarray], contract: Any
    ) -> Sequence[tuple[str, str, Sequence[int]]]:
        """What `check` warns of, as (message, fix, rows) with rows counted through `train` and on through `held`: decoded
        values that can be read and mean nothing, or that training cannot prepare for. Default: nothing."""
        return ()

    def hand_features(self) -> Any | None:
        """An unfitted scikit-learn transformer from a list of decoded values to a matrix: the classical baseline's
        view of this input. None: this input takes no part in the classical baseline, and the report says so."""
        return None

    def preview(self, value: np.ndarray, contract: Any) -> dict[str, str]:
        """How the report shows a decoded value: {'kind': 'text'|'image'|'audio', 'data': text or data URI}."""
        return {"kind": "text", "data": str(value.tolist())}

    @property
    def can_be_shown(self) -> bool:
        """Whether a function can be given an input as it was read: the network takes just that, or `said` tells it."""
        return self.can_be_said or type(self).transform is Modality.transform

    @property
    def streams_in(self) -> str:
        """Where an input is heard piece by piece: the unit that its length is counted in ('s', 'units'). Default: ''."""
        return ""

    def reader(self, contract: Any) -> "Reader":
        """What makes transformed values of raw pieces; of an input that streams."""
        raise NotImplementedError

    def pieces(self, raw: Any, fetch: Fetch) -> Iterable[Any]:
        """A whole raw value cut into the pieces that it might have come in. Raises BadValue."""
        raise NotImplementedError

    # ---- numpy side: what an answer leans on ---------------------------------------------------------------------

    def in_full(self, raw: Any, fetch: Fetch) -> np.ndarray:
        """A raw value of an input in its own coordinates, where `read` gives others (every pixel, the file's own samples).
        Default: `read`."""
        return self.read(raw, fetch)

    def onto(self, places: np.ndarray, whole: np.ndarray, contract: Any) -> np.ndarray:
        """Attributions at the places of the transformed value, brought to those of `whole`. Default: as they are."""
        return places

    def named(self, whole: np.ndarray, contract: Any) -> Sequence[str]:
        """A name for each place of the raw value, in their order; none where places have no names (pixels, samples).
        Default: the value itself, of one place."""
        return [self.preview(whole, contract)["data"]]

    def about(self, which: Any, decoded: Mapping[str, np.ndarray], contract: Any) -> tuple[str, tuple[int, ...]]:
        """Which part of an answer is explained: its name for people, and the numbers that `Head.aim` knows it by. decoded:
        as in `write`. which: as the user says it; None: the answer itself, or its first part. Raises ModelError. Default:
        an answer has no parts."""
        require(
            which is None, field="of", got=which, allowed=f"the whole answer: a {self.type} has no parts to ask for",
            fix="name the output alone", error=ModelError,
        )  # fmt: skip
        return "the answer", ()

    # ---- numpy side: outputs -----------------------------------------------------------------------------------

    @property
    def lies(self) -> bool:
        """Whether this output, as it is declared, lies on an input. Default: where `lies_on_axes` says on which it can."""
        return bool(self.lies_on_axes)

    @property
    def num_terms(self) -> int:
        """How many named terms the loss of an output's head has."""
        return 1

    def truth(self, value: np.ndarray, contract: Any) -> Any:
        """A decoded target as the user's kind of value, comparable with `Answer.value`."""
        raise NotImplementedError

    def write(self, decoded: Mapping[str, np.ndarray], contract: Any) -> Answer:
        """One row of what `Head.decode` gave (arrays without the batch axis) as a final answer."""
        raise NotImplementedError

    def write_column(self, decoded: Mapping[str, np.ndarray], contract: Any) -> dict[str, Any]:
        """What `write` says of many rows, part by part in the place of row by row: {'value', 'confidence', 'detail'}, each an
        array or a list with an entry a row, or None where there is nothing to say. Default: what `write` says."""
        count = len(next(iter(decoded.values())))
        answers = [self.write({key: value[row] for key, value in decoded.items()}, contract) for row in range(count)]
        said: dict[str, Any] = {"value": [answer.value for answer in answers]}
        said["confidence"] = [answer.confidence for answer in answers]
        return {**said, "detail": [dict(answer.detail) for answer in answers]}

    def write_so_far(self, decoded: Mapping[str, np.ndarray], contract: Any, *, last: bool) -> Answer:
        """What `Head.feed` gave so far, as an Answer. Its value may grow and never changes: what could still become
        something else is held back until `last`. Default: `write`, which suits values without a length."""
        return self.write(decoded, contract)

    def remarks(self, truths: Sequence[Any], answers: Sequence[Answer], contract: Any) -> Sequence[str]:
        """Counted lines beside the metrics: answers that were cut, truths that no answer can reach. Default: none."""
        return ()

    def metrics(self, contract: Any) -> Sequence["Metric"]:
        """The usual metrics of this output, the most important first (it is the default goal)."""
        raise NotImplementedError

    @property
    def can_abstain(self) -> bool:
        """Whether an answer says how sure it is, and a row alone how wrong it was: it has `risk`. `unsure` says why not."""
        return type(self).risk is not Modality.risk

    def risk(self, contract: Any) -> "Metric":
        """What says how wrong the answer to one row is: a metric that means something for a row alone. Its error is the metric
        where that is to be small, and 1 - the metric where it is to be large."""
        raise NotImplementedError

    @property
    def sureness_is_confidence(self) -> bool:
        """Whether `sureness` is the confidence that `write` gave."""
        return type(self).sureness is Modality.sureness

    def sureness(self, answer: Answer, contract: Any) -> float:
        """How sure an answer says it is, the more the surer; in [0, 1] where `error_is_share`. What orders the answers of an
        output that abstains. Default: the confidence that `write` gave."""
        return 0.0 if answer.confidence is None else answer.confidence

    def missed(self, truth: Any, answer: Answer) -> Any:
        """How far off an answer is, as `detail["expected_error"]` has it. Only of outputs that expect an error."""
        raise NotImplementedError

    def doubted_where(self, prediction: Mapping[str, np.ndarray], answer: Answer) -> np.ndarray:
        """Where the error that an answer expects lies: [channel, *grid] on the places of its value, of any size, from what the
        head says of the row before it is decoded. Only of outputs that expect an error."""
        raise NotImplementedError

    def missed_where(self, truth: Any, answer: Answer) -> np.ndarray:
        """How far off an answer is at every place, as `doubted_where` has them; `missed` is their mean, or much like it."""
        raise NotImplementedError

    def strangeness(self, truth: Any, answer: Answer, contract: Any) -> float | None:
        """How far a truth lies from what an answer holds for possible: split conformal prediction (Vovk et al. 2005) is made of
        it. None: no set of values stands beside an answer."""
        return None

    def among(self, answer: Answer, limit: float, contract: Any) -> Any:
        """Every value that is no stranger to an answer than this, as JSON has it: `detail["set"]`."""
        raise NotImplementedError

    def classical(self, contract: Any) -> Any:
        """An unfitted scikit-learn estimator that predicts what `truth` gives, from rows of features; with
        `classical_of_places` from the decoded values of the input beneath, which `fit` and `predict` get as a sequence.
        None: there is none."""
        raise NotImplementedError

    def trivial(self, truths: Sequence[Any], contract: Any) -> Answer:
        """The best constant answer, given the training truths (majority class, mean ...)."""
        raise NotImplementedError

    def from_classical(self, predicted: Any, contract: Any) -> Answer:
        """What the classical estimator said about one row, as an Answer. `predicted` is a row of predict_proba where
        the estimator has it (columns in the order of `estimator.classes_`, passed as a dict class -> probability),
        else of predict. Targets given to the estimator are `truth` values."""
        return Answer(predicted)

    def beside(self, inputs: Mapping[str, "Modality"], outputs: Mapping[str, "Modality"]) -> Self:
        """This field as it stands among the others: where a default depends on them (mirroring a picture is harmless
        for a class and wrong for a steering angle; a text is spelt along a recording but not along a picture). What
        `fit`, `encoder` and `head` are called on. An output without a column has it from the recipe on, with the
        inputs that it is made of written out. Default: itself."""
        return self

    def said(self, target: np.ndarray, contract: Any) -> Any:
        """The user's kind of value of what `transform` gave for a target, or a head hands on; of a class or a symbol that
        training never saw None or a mark. Only of modalities that `can_be_said`."""
        raise NotImplementedError

    def misfit(self, shape: tuple[int, ...], under: tuple[int, ...]) -> str | None:
        """Why a decoded target of this shape cannot lie on a decoded input of the shape `under`; its row is put aside.
        Default: it can. Only asked of outputs that lie on an input."""
        return None

    def apart(self, value: np.ndarray, under: np.ndarray) -> str | None:
        """As `misfit`, in its place, where shapes do not tell: a decoded target and the decoded value of its input."""
        return None

    def beneath(self, outputs: "Iterable[Modality]") -> Self:
        """This input where these outputs lie on it (see modalities/spatial.py): read so that its sizes are those that their
        places are counted in. Default: itself."""
        return self

    def world(self, value: np.ndarray) -> np.ndarray | None:
        """Of an input: where a decoded value lies in a world beyond it (millimetres in a patient), for outputs that are said
        there; None where no output is. It goes along with a row from when it is read until its answers are written. Default: None."""
        return None

    @property
    def world_of(self) -> str | None:
        """Of an output: the input in whose world its raw values and final answers are said. Targets are brought to that
        input's places when data is prepared, and all that is learnt and scored is in these. Default: None, none."""
        return None

    def from_world(self, value: np.ndarray, world: np.ndarray) -> np.ndarray:
        """What `read` gave, in the places of the input that lies so; of outputs with `world_of`."""
        raise NotImplementedError

    @property
    def placed_by(self) -> str | None:
        """Of an output: the input whose place in its world final answers are told, by `to_world`. Default: `world_of`."""
        return self.world_of

    def to_world(self, answer: Answer, world: np.ndarray | None) -> Answer:
        """What `write` gave, as it is said there; world: None where the row has no such input, or it does not know. Of outputs with
        `placed_by`."""
        raise NotImplementedError

    def agreed(self, name: str, contracts: Mapping[str, Any]) -> dict[str, Contract]:
        """The contracts that change where an output `name` has to number things as another field does, given those that each
        field was fitted with alone. Called on what `beside` gave. Default: none does."""
        return {}

    def furnished(
        self, name: str, contracts: Mapping[str, Any], tables: Callable[[], Mapping[str, Any]]
    ) -> dict[str, Contract]:
        """The contracts that change by what `data.tables` say, of an output `name`; called after `agreed`. tables: opens them.
        RecipeError, DataError. Default: none does."""
        return {}

    def in_bundle(self, contract: Any) -> "tuple[Modality, Contract]":
        """This field and its contract as an exported bundle needs them, which reads and writes and has no network. Default:
        as they are."""
        return self, contract

    def untaught(
        self, given: Mapping[str, np.ndarray], contracts: Mapping[str, Any], contract: Any
    ) -> Mapping[str, Answer]:
        """Answers that need no learning and look at the row's own inputs (decoded values of those it has, and their
        contracts), by what they do: {'the last value again': ...}. The trivial baseline is the best of these and the best
        constant, on training rows. Default: none."""
        return {}

    def classical_of_inputs(self, contracts: Mapping[str, Any], contract: Any) -> Any | None:
        """An unfitted classical estimator that looks at a row's own inputs in the place of hand features: `fit(rows, truths)`
        and `predict(rows)`, a row being {input: decoded value} of what it has. contracts: of the inputs. Default: None, and
        `classical` gets hand features."""
        return None

    def made_of(self) -> tuple[str, ...]:
        """The inputs that an output without a column is made of. The raw value that `read` gets is then a mapping of
        those of them that the row has to the hash of their decoded values: enough to know equal rows by."""
        raise NotImplementedError

    def continued(self, old: Any, new: Any, role: Role) -> Contract | None:
        """The contract of a field whose weights were learnt with `old`, by the rows that `new` was fitted on. Default: of
        an input `old` with the counts of `new`; of an output `new` where it says the same, else None: what was learnt
        there would answer something else here."""
        aged: Contract = dataclasses.replace(old, count=new.count, missing=new.missing)
        if role == INPUT_ROLE:
            return aged
        return aged if aged == new else None

    # ---- torch side --------------------------------------------------------------------------------------------

    def encoder(self, contract: Any, size: "Size") -> "Encoder":
        """Transformed values -> Tokens of width `size.width`. Normalising, resizing and augmentation are inside."""
        raise NotImplementedError

    def carrier(self, contract: Any, size: "Size") -> "Encoder":
        """The encoder of a `handed` input, by the contract of the output that it is: takes what `transform` gives for a
        target, and where `hand_offs` holds soft, floating chances of every symbol in the place of one. Default: the
        encoder of an input, which takes both roles' values where `fit` does not ask for the role."""
        return self.encoder(contract, size)

    def head(self, contract: Any, size: "Size") -> "Head":
        """Tokens -> prediction, with its own loss and decoding."""
        raise NotImplementedError

    # ---- what every declaration can do ---------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """The declaration as plain JSON values: the type and every field that is not at its default."""
        out: dict[str, Any] = {"type": self.type}
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if value != item.default:
                out[item.name] = list(value) if isinstance(value, tuple) else value
        if self.abstain is not None:
            out["abstain"] = self.abstain.to_dict()
        return out

    def check_role(self, role: Role, name: str) -> None:
        """Refuse this declaration in a role it does not have, and fields of the other role."""
        require(
            role in self.roles or (self.handed and role == INPUT_ROLE),
            field=f"{role}s.{name}.type",
            got=self.type,
            allowed=f"a modality that can be an {role}",
            fix=f"{self.type!r} can only be an {', '.join(sorted(self.roles))}",
        )
        for item in dataclasses.fields(self):
            other = None if self.handed else item.metadata.get("role")
            if other not in (None, role) and getattr(self, item.name) != item.default:
                raise refusal(
                    field=f"{role}s.{name}.{item.name}",
                    got=getattr(self, item.name),
                    allowed=f"only fields of an {role}",
                    fix=f"{item.name!r} belongs to an {other}: remove it here",
                )


def build(cls: type[Modality], values: Mapping[str, Any], where: str, role: Role | None = None) -> Modality:
    """A declaration from plain values, with every refusal naming `where` it stands (`inputs.photo`). role: what it is
    there, where that is known: only its fields are then offered in the place of an unknown one."""
    fields = {item.name: item.metadata.get("role") for item in dataclasses.fields(cls)}
    offered = [name for name, own in fields.items() if role is None or own in (None, role)]
    for name in values:
        if name not in fields:
            raise unknown_name(field=f"{where}: field of type {cls.type!r}", got=name, names=[*offered, "type"])
    try:
        return cls(**{name: frozen(value) for name, value in values.items()})
    except RecipeError as wrong:
        raise RecipeError(f"{where}: {wrong}") from None


def percent(share: float) -> str:
    """A share for a summary, to two digits: '32 %', '0.41 %', '99.5 %', '100 %'."""
    return f"{100 * share:.{2 if share < 0.995 else 3}g} %"


def laid_over(values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """An array laid over a grid of another resolution, along as many of its first axes as `shape` has; its sum stays."""
    for axis, count in enumerate(shape):
        old = values.shape[axis]
        if old == count:
            continue
        sums = np.insert(np.cumsum(np.moveaxis(values, axis, -1), axis=-1), 0, 0.0, axis=-1)
        edges = np.linspace(0.0, old, count + 1)
        low = np.minimum(edges.astype(np.int64), old - 1)
        at = sums[..., low] + (edges - low) * (sums[..., low + 1] - sums[..., low])
        values = np.moveaxis(np.diff(at, axis=-1), -1, axis)
    return values


def one_of(which: Any, names: Sequence[str], what: str) -> int:
    """The place of what a user asked for among some names: by its name, or counted from 0. Raises ModelError."""
    text = str(which)
    if text in names:
        return list(names).index(text)
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    raise unknown_name(field=f"of: {what}", got=text, names=list(names), error=ModelError)


def counted(which: Any, count: int, what: str) -> int:
    """The same of things that are only counted, from 0; None is the first. Raises ModelError."""
    text = "0" if which is None else str(which)
    require(
        text.isdecimal() and int(text) < count, field=f"of: {what}", got=which,
        allowed=f"a number from 0 to {count - 1}" if count else f"nothing: the answer has no {what}",
        fix="count from 0" if count else "ask about another output or another row", error=ModelError,
    )  # fmt: skip
    return int(text)


def places_of(which: Any, shape: Sequence[int], what: str) -> tuple[int, ...]:
    """A place on a grid, as a tuple of numbers from 0 or as text between commas. what: how the axes are called. Raises
    ModelError."""
    parts = which.split(",") if isinstance(which, str) else which if isinstance(which, tuple | list) else [which]
    texts = [str(part).strip() for part in parts]
    require(
        len(texts) == len(shape) and all(one.isdecimal() and int(one) < side for one, side in zip(texts, shape, strict=True)),
        field="of", got=which, allowed=f"{what}, each from 0 and below {', '.join(map(str, shape))}",
        fix=f"write {','.join('0' for _ in shape)}", error=ModelError,
    )  # fmt: skip
    return tuple(map(int, texts))


def file_bytes(raw: Any, fetch: Fetch, kind: str) -> bytes:
    """The bytes of a value given as a path, as bytes, or as a {'bytes':, 'path':} cell of a Hugging Face table."""
    if isinstance(raw, bytes) and raw:  # the usual case, for thousands of rows a second
        return raw
    if isinstance(raw, Mapping) and ("bytes" in raw or "path" in raw):
        raw = raw.get("bytes") or raw.get("path")
    if isinstance(raw, bytes | bytearray | memoryview):
        data = bytes(raw)
    elif isinstance(raw, str) or hasattr(raw, "__fspath__"):
        data = fetch(str(raw))
    else:
        raise BadValue(f"expected the path or the bytes of {kind}, got {type(raw).__name__}")
    if not data:
        raise BadValue("the file is empty (0 bytes)")
    return data


def frozen(value: Any) -> Any:
    """JSON has lists where frozen dataclasses have tuples."""
    return tuple(frozen(item) for item in value) if isinstance(value, list | tuple) else value


def check_types(declaration: Any) -> None:
    """Refuse a declaration (a frozen dataclass instance) with a field that is not of its type. A list is as good as the tuple
    that it becomes."""
    hints = typing.get_type_hints(type(declaration))
    for item in dataclasses.fields(declaration):
        value, hint = getattr(declaration, item.name), hints[item.name]
        if isinstance(value, list):
            value = frozen(value)
            object.__setattr__(declaration, item.name, value)
        if not _fits(value, hint):
            choices = _choices(hint)
            name = f"{type(declaration).__name__}.{item.name}"
            if choices and isinstance(value, str):
                raise unknown_name(field=name, got=value, names=choices)
            raise refusal(
                field=name,
                got=value,
                allowed=_spelled(hint),
                fix=item.metadata.get("help") or "give a value of that type",
            )


def _fits(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in typing.get_args(hint))
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in typing.get_args(hint))
    if origin is tuple:
        part = typing.get_args(hint)[0]
        return isinstance(value, tuple) and all(_fits(item, part) for item in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is None or hint is type(None):
        return value is None
    return isinstance(value, origin or hint)


def _choices(hint: Any) -> list[str]:
    if typing.get_origin(hint) is Literal:
        return [choice for choice in typing.get_args(hint) if isinstance(choice, str)]
    return [choice for part in typing.get_args(hint) for choice in _choices(part)]


def _spelled(hint: Any) -> str:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_spelled(part) for part in typing.get_args(hint))
    if origin is Literal:
        return " or ".join(repr(choice) for choice in typing.get_args(hint))
    if origin is tuple:
        return f"a list of {_spelled(typing.get_args(hint)[0])}"
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    return words.get(hint, getattr(hint, "__name__", str(hint)))
