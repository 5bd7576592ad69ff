"""A model is raw values in, answers out, and a folder that is loaded with suspicion."""

import dataclasses
import hashlib
import json
import math
import os
import pickle
import resource
import struct
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from toys import TOYS, Amount, AmountContract, Kind, KindContract, Letters

from endwise.batch import Batch
from endwise.data.dataset import fit_contracts, prepare
from endwise.errors import DataError, ModelError
from endwise.modalities.base import Contract
from endwise.model import Model, Prediction
from endwise.recipe import Recipe
from endwise.rows import collate

MAX_GROWTH_KB = 200_000  # of the resident memory, over the whole hostile corpus


def recipe(**changes: Any) -> Recipe:
    made = Recipe(
        name="toy",
        data="rows.csv",
        inputs={"size": Amount(), "words": Letters(optional=True)},
        outputs={"kind": Kind(), "cost": Amount()},
        train={"size": "tiny"},
    )
    return made.replace(**changes) if changes else made


CONTRACTS: dict[str, Contract] = {
    "size": AmountContract(count=5, missing=0, mean=1.0, scale=2.0),
    "words": Contract(count=5, missing=0),
    "kind": KindContract(count=5, missing=0, names=("left", "right")),
    "cost": AmountContract(count=5, missing=0, mean=10.0, scale=3.0),
}
ROWS = [{"size": index, "words": "word " * (1 + index % 7)} for index in range(150)]


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.build(recipe(), CONTRACTS, seed=1)


@pytest.fixture
def folder(model: Model, tmp_path: Path) -> Path:
    model.save(tmp_path / "model")
    return tmp_path / "model"


def near(first: Prediction, second: Prediction) -> bool:
    return first["kind"] == second["kind"] and math.isclose(first["cost"], second["cost"], rel_tol=1e-4, abs_tol=1e-4)


# ---- raw values to answers --------------------------------------------------------------------------------------------


def test_one_mapping_gives_one_prediction_with_every_output(model: Model) -> None:
    found = model.predict({"size": "2.5", "words": "hello"})
    assert isinstance(found, Prediction)
    assert found["kind"] in ("left", "right")
    assert 0 <= (found.answers["kind"].confidence or 0) <= 1
    assert set(json.loads(json.dumps(found.to_dict()))) == {"kind", "cost"}
    assert "kind=" in repr(found)
    with pytest.raises(ModelError, match="did you mean 'kind'"):
        found["kin"]


def test_a_list_gives_a_list_in_its_order_whatever_the_lengths(model: Model) -> None:
    together = model.predict(ROWS, batch_size=8)
    assert len(together) == len(ROWS)
    assert all(near(found, model.predict(row)) for found, row in zip(together[::10], ROWS[::10], strict=True))
    assert model.predict([]) == []


def test_frames_tables_and_lists_are_the_same_rows(model: Model, tmp_path: Path) -> None:
    import pandas as pd
    import polars as pl

    wanted = model.predict(ROWS[:9])
    columns = {"size": [row["size"] for row in ROWS[:9]], "words": [row["words"] for row in ROWS[:9]], "cost": [0] * 9}
    pd.DataFrame(columns).to_csv(tmp_path / "new.csv", index=False)
    for given_rows in (pd.DataFrame(columns), pl.DataFrame(columns), tmp_path / "new.csv", str(tmp_path / "new.csv")):
        found = model.predict(given_rows)
        assert all(near(first, second) for first, second in zip(found, wanted, strict=True))


def test_a_single_input_needs_no_name(tmp_path: Path) -> None:
    one = Model.build(
        Recipe(data="x.csv", inputs={"words": Letters()}, outputs={"kind": Kind()}, train={"size": "tiny"}),
        CONTRACTS,
        seed=1,
    )
    (tmp_path / "letter.txt").write_text("hello")
    wanted = one.predict({"words": "hello"}).to_dict()
    assert [item.to_dict() for item in one.predict("hello")] == [wanted]
    assert [item.to_dict() for item in one.predict(str(tmp_path / "letter.txt"))] == [wanted]
    assert [item.to_dict() for item in one.predict(["letter.txt"], base=tmp_path)] == [wanted]
    named = list(one.predict_files([str(tmp_path / "letter.txt"), str(tmp_path / "gone.txt")]))
    assert isinstance(named[0], Prediction)
    assert named[0].to_dict() == wanted
    assert isinstance(named[1], DataError)
    assert "gone.txt" in str(named[1])


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"siz": 1, "words": "x"}, "did you mean 'size'"),
        ({"size": 1, "words": "x", "kind": "left"}, "leave it out"),
        ({"words": "x"}, "field 'size': the value is missing"),
        ({"size": None, "words": "x"}, "optional: true"),
        ({"size": float("nan"), "words": "x"}, "the value is missing"),
        ({"size": "many", "words": "x"}, "field 'size': 'many' is no number"),
        ({"size": 1, "words": "gone.txt"}, "gone.txt.* cannot be read"),
        ({"size": 1, "words": "https://example.org/a.txt"}, "is an address"),
        ({"size": 1, "words": "\0.txt"}, "field 'words'"),
    ],
)
def test_a_row_that_cannot_be_read_names_the_field_and_the_reason(model: Model, row: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        model.predict(row)


def test_a_missing_value_is_answered_where_training_or_the_recipe_knows_it(model: Model) -> None:
    without = model.predict({"size": 1})
    assert near(without, model.predict([{"size": 1, "words": None}, {"size": 2, "words": "something long"}])[0])
    assert not near(without, model.predict({"size": 1, "words": "something long"}))


def test_bad_rows_are_named_and_the_others_go_on(model: Model) -> None:
    rows = [*ROWS[:3], {"size": "many", "words": "x"}, *ROWS[3:6]]
    with pytest.raises(DataError, match="row 4: field 'size'"):
        model.predict(rows)
    found = list(model.predict_iter(rows, on_bad="keep", batch_size=2))
    assert [isinstance(item, DataError) for item in found] == [False] * 3 + [True] + [False] * 3
    assert "row 4: field 'size': 'many' is no number" in str(found[3])


def test_a_table_without_an_input_is_refused_before_any_row(model: Model) -> None:
    import pandas as pd

    with pytest.raises(DataError, match=r"inputs\.size\.column"):
        model.predict(pd.DataFrame({"sizes": [1.0], "words": ["x"]}))
    assert len(model.predict(pd.DataFrame({"size": [1.0]}))) == 1  # words is optional


def test_a_loader_batch_gives_the_answers_of_predict(model: Model) -> None:
    inputs, present = collate(
        model.recipe.inputs,
        CONTRACTS,
        [
            {
                "size": np.array(float(row["size"])),
                "words": np.frombuffer(row["words"].encode(), np.uint8).astype(np.int64),
            }
            for row in ROWS[:5]
        ],
    )
    batch = Batch(inputs, {}, present, np.ones(5, np.float32), np.arange(5))
    answers = model.answers(batch)
    for index, row in enumerate(ROWS[:5]):
        assert math.isclose(answers["cost"][index].value, model.predict(row)["cost"], rel_tol=1e-4, abs_tol=1e-4)


def test_predicting_in_the_middle_of_training_leaves_the_network_in_training() -> None:
    made = Model.build(recipe(), CONTRACTS, seed=1)
    made.network.train()
    first, second = (made.predict({"size": 1, "words": "dropout would differ"}) for _ in range(2))
    assert first.to_dict() == second.to_dict()
    assert made.network.training


def test_threads_get_the_answers_of_one_thread(model: Model) -> None:
    wanted = [item.to_dict() for item in model.predict(ROWS[:20])]
    found: dict[int, list[Any]] = {}

    def work(number: int) -> None:
        found[number] = [item.to_dict() for item in model.predict(ROWS[:20])]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[number] == wanted for number in range(4))


def test_the_same_seed_gives_the_same_weights_and_leaves_the_random_state_alone() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    first, second, other = (Model.build(recipe(), CONTRACTS, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.rand(3), wanted)
    state = first.network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in second.network.state_dict().items())
    assert any(not torch.equal(value, state[name]) for name, value in other.network.state_dict().items())


def test_people_see_what_goes_in_and_what_comes_out() -> None:
    made = Model.build(recipe(name="<script>"), CONTRACTS, seed=1)
    assert "words: letters" in repr(made)
    assert f"{made.parameters:,} parameters" in repr(made)
    assert "<script>" not in made._repr_html_()


def test_a_contract_that_json_cannot_hold_is_refused_before_training() -> None:
    with pytest.raises(ModelError, match="'size' holds NaN"):
        Model.build(
            recipe(), {**CONTRACTS, "size": AmountContract(count=1, missing=0, mean=math.nan, scale=1.0)}, seed=1
        )


# ---- the folder -------------------------------------------------------------------------------------------------------


def test_reloaded_equals_saved_on_raw_values(model: Model, folder: Path) -> None:
    model.info["goal"] = {"output": "kind"}
    model.save(folder)
    again = Model.load(folder, modalities=TOYS)
    assert [item.to_dict() for item in again.predict(ROWS)] == [item.to_dict() for item in model.predict(ROWS)]
    assert again.recipe.to_dict() == model.recipe.to_dict()
    assert again.info["goal"] == {"output": "kind"}
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "weights.safetensors"]


def test_a_model_is_found_in_its_run(folder: Path) -> None:
    assert Model.load(folder.parent, modalities=TOYS).parameters > 0


def test_a_class_from_outside_must_be_passed(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"modalities=\[...\]"):
        Model.load(folder)
    with pytest.raises(ModelError, match="letters"):
        Model.load(folder, modalities=[Amount, Kind])


def test_a_kill_between_the_two_renames_leaves_a_model(model: Model, folder: Path) -> None:
    """`model.json` is new, the weights of its checksum still stand beside the old ones."""
    other = Model.build(recipe(), CONTRACTS, seed=9)
    old = (folder / "weights.safetensors").read_bytes()
    other.save(folder)
    (folder / "weights.safetensors").rename(folder / "weights.safetensors.new")
    (folder / "weights.safetensors").write_bytes(old)
    found = Model.load(folder, modalities=TOYS)
    assert found.predict(ROWS[3]).to_dict() == other.predict(ROWS[3]).to_dict()
    other.save(folder)
    assert not (folder / "weights.safetensors.new").exists()


def test_a_kill_before_the_description_leaves_the_old_model(model: Model, folder: Path) -> None:
    (folder / "weights.safetensors.new").write_bytes(b"half of")
    (folder / ".model.json.123-4.partial").write_bytes(b'{"format"')
    assert Model.load(folder, modalities=TOYS).predict(ROWS[3]).to_dict() == model.predict(ROWS[3]).to_dict()


def test_tied_weights_are_stored_once(tmp_path: Path) -> None:
    tied = Model.build(recipe(), CONTRACTS, seed=1)
    blocks: Any = tied.network.inputs["field_words"].encoder.blocks.blocks
    blocks[1].feed_forward.inward.weight = blocks[0].feed_forward.inward.weight
    tied.save(tmp_path / "model")
    description = json.loads((tmp_path / "model/model.json").read_text())
    assert len(description["aliases"]) == 1
    again = Model.load(tmp_path / "model", modalities=TOYS)
    assert again.predict(ROWS[5]).to_dict() == tied.predict(ROWS[5]).to_dict()


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    broken = Model.build(recipe(), CONTRACTS, seed=1)
    next(iter(broken.network.parameters())).data.fill_(math.nan)
    with pytest.raises(ModelError, match="NaN or infinity"):
        broken.save(tmp_path / "model")
    assert not (tmp_path / "model" / "model.json").exists()


def test_where_there_is_no_model_the_nearest_one_is_named(folder: Path) -> None:
    with pytest.raises(ModelError, match="did you mean"):
        Model.load(folder.with_name("modle"))
    (folder.parent / "empty").mkdir()
    with pytest.raises(ModelError, match="holds no model"):
        Model.load(folder.parent / "empty")


# ---- the hostile corpus -----------------------------------------------------------------------------------------------


class Marker:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


def _resealed(folder: Path, data: bytes) -> None:
    """New weights with the checksum an attacker would write."""
    (folder / "weights.safetensors").write_bytes(data)
    values = json.loads((folder / "model.json").read_text())
    values["weights"]["sha256"] = hashlib.sha256(data).hexdigest()
    (folder / "model.json").write_text(json.dumps(values))


def _header(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Rewrite the header of the weights; the tensors stay."""

    def tamper(folder: Path) -> None:
        data = (folder / "weights.safetensors").read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        text = change(header)
        raw = (text if isinstance(text, str) else json.dumps(header)).encode()
        _resealed(folder, struct.pack("<Q", len(raw)) + raw + data[8 + length :])

    return tamper


def _first(header: dict[str, Any]) -> dict[str, Any]:
    return next(value for name, value in header.items() if name != "__metadata__")


def _tensors(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def tamper(folder: Path) -> None:
        from safetensors.torch import save

        tensors = load_file(folder / "weights.safetensors")
        change(tensors)
        _resealed(folder, save(tensors))

    return tamper


def _described(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def tamper(folder: Path) -> None:
        values = json.loads((folder / "model.json").read_text())
        change(values)
        (folder / "model.json").write_text(json.dumps(values))

    return tamper


def _raw(make: Callable[[Path, bytes], bytes]) -> Callable[[Path], None]:
    return lambda folder: _resealed(folder, make(folder, (folder / "weights.safetensors").read_bytes()))


def _pickled(folder: Path, _: bytes) -> bytes:
    return pickle.dumps(Marker(folder.parent / "marker"))


def _zipped(folder: Path, _: bytes) -> bytes:
    with zipfile.ZipFile(folder.parent / "x.zip", "w") as archive:
        archive.writestr("archive/data.pkl", _pickled(folder, b""))
    return (folder.parent / "x.zip").read_bytes()


def _numpy(folder: Path, _: bytes) -> bytes:
    array = np.array([Marker(folder.parent / "marker")], dtype=object)
    with (folder.parent / "x.npy").open("wb") as file:
        np.save(file, array, allow_pickle=True)
    return (folder.parent / "x.npy").read_bytes()


def _linked(name: str) -> Callable[[Path], None]:
    def tamper(folder: Path) -> None:
        (folder / name).rename(folder.parent / "elsewhere")
        (folder / name).symlink_to(folder.parent / "elsewhere")

    return tamper


def _pipe(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()
    os.mkfifo(folder / "weights.safetensors")


def _set(header: dict[str, Any], **values: Any) -> None:
    _first(header).update(values)


def _overlapping(header: dict[str, Any]) -> None:
    entry = max(
        (value for name, value in header.items() if name != "__metadata__"), key=lambda value: value["data_offsets"]
    )
    begin, end = entry["data_offsets"]
    entry["data_offsets"] = [begin - 4, end - 4]


def _nan(tensors: dict[str, torch.Tensor]) -> None:
    next(value for value in tensors.values() if value.is_floating_point()).view(-1)[0] = math.nan


def _double(tensors: dict[str, torch.Tensor]) -> None:
    name = next(iter(tensors))
    tensors[name] = tensors[name].double()


def _reshaped(tensors: dict[str, torch.Tensor]) -> None:
    name = next(name for name, value in tensors.items() if value.ndim == 2)
    tensors[name] = tensors[name].T.contiguous().reshape(-1)


def _twice(header: dict[str, Any]) -> str:
    name = next(name for name in header if name != "__metadata__")
    return json.dumps(header)[:-1] + f", {json.dumps(name)}: {json.dumps(header[name])}}}"


CORPUS: dict[str, tuple[Callable[[Path], None], str]] = {
    "pickle": (_raw(_pickled), "Python pickle"),
    "zip with a pickle": (_raw(_zipped), "zip archive"),
    "7z": (_raw(lambda *_: b"7z\xbc\xaf\x27\x1c" + b"\0" * 64), "7z archive"),
    "numpy objects": (_raw(_numpy), "numpy array"),
    "empty": (_raw(lambda *_: b""), "no safetensors"),
    "noise": (_raw(lambda *_: b"\xff" * 4096), "no safetensors"),
    "header of 200 MB": (_raw(lambda _, data: struct.pack("<Q", 200_000_000) + data[8:]), "no safetensors"),
    "header without end": (_raw(lambda _, data: struct.pack("<Q", len(data)) + data[8:]), "no safetensors"),
    "header no JSON": (_raw(lambda _, data: data[:8] + b"(" * 100 + data[108:]), "not JSON"),
    "truncated": (_raw(lambda _, data: data[:-100]), "header says"),
    "polyglot tail": (_raw(lambda _, data: data + b"PK\x03\x04" * 30), "header says"),
    "overlap": (_header(_overlapping), "overlap"),
    "hole": (_header(lambda header: header.pop(next(name for name in header if name != "__metadata__"))), "holes|says"),
    "twice": (_header(_twice), "given twice"),
    "wrong length for the dtype": (_header(lambda header: _set(header, dtype="F64")), "header entry"),
    "unknown dtype": (_header(lambda header: _set(header, dtype="OBJ")), "header entry"),
    "shape overflow": (_header(lambda header: _set(header, shape=[2**62, 2**62, 4])), "header entry"),
    "negative shape": (_header(lambda header: _set(header, shape=[-1, -64])), "header entry"),
    "offsets no numbers": (_header(lambda header: _set(header, data_offsets=["0", None])), "header entry"),
    "deep header": (_header(lambda header: "[" * 10_000 + "]" * 10_000), "nested"),
    "path as a name": (_tensors(lambda tensors: tensors.update({"../../etc/passwd": torch.zeros(1)})), "tensors"),
    "missing tensor": (_tensors(lambda tensors: tensors.pop(next(iter(tensors))) and None), "tensors"),
    "NaN": (_tensors(_nan), "NaN or infinity"),
    "wrong dtype": (_tensors(_double), "float64"),
    "wrong shape": (_tensors(_reshaped), "another recipe"),
    "weights are a link": (_linked("weights.safetensors"), "symbolic link"),
    "description is a link": (_linked("model.json"), "symbolic link"),
    "a pipe": (_pipe, "not a plain file"),
    "no weights": (lambda folder: (folder / "weights.safetensors").unlink(), "missing"),
    "one byte": (lambda folder: _flip(folder / "weights.safetensors", 5000), "checksum"),
    "deep JSON": (lambda folder: _write(folder / "model.json", '{"a":' * 10_000 + "1" + "}" * 10_000), "nested"),
    "JSON with NaN": (_described(lambda values: values["size"].update(dropout=math.nan)), "NaN"),
    "JSON twice": (lambda folder: _write(folder / "model.json", '{"format": 1, "format": 2}'), "given twice"),
    "description a pickle": (lambda folder: _bytes(folder / "model.json", _pickled(folder, b"")), "Python pickle"),
    "another format": (_described(lambda values: values.update(format="other")), "another program"),
    "newer version": (_described(lambda values: values.update(version=99)), "upgrade"),
    "unknown entry": (_described(lambda values: values.update(code="import os")), "entries"),
    "code as a type": (_described(lambda values: values["recipe"]["inputs"]["size"].update(type="os:system")), "os:system"),
    "type no text": (_described(lambda values: values["recipe"]["inputs"]["size"].update(type=["os"])), "type"),
    "recipe no mapping": (_described(lambda values: values["recipe"].update(inputs=7)), "inputs"),
    "contract of another": (_described(lambda values: values["contracts"]["size"].update(extra=1)), "contract"),
    "contract wrong inside": (_described(lambda values: values["contracts"]["kind"].update(names=3)), "network|TypeError"),
    "contract gone": (_described(lambda values: values["contracts"].pop("size")), "contracts"),
    "terabytes": (_described(lambda values: values["size"].update(width=60_000, heads=10)), "far larger"),
    "endless depth": (_described(lambda values: values["size"].update(depth=10**9)), "size"),
    "alias to nowhere": (_described(lambda values: values["aliases"].update(a="b")), "aliases"),
}  # fmt: skip


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def _bytes(path: Path, data: bytes) -> None:
    path.write_bytes(data)


@pytest.mark.parametrize("name", CORPUS)
def test_a_hostile_model_is_refused_and_nothing_in_it_runs(name: str, folder: Path) -> None:
    tamper, said = CORPUS[name]
    tamper(folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelError, match=said) as refused:
        Model.load(folder, modalities=TOYS)
    assert len(str(refused.value).splitlines()) <= 6
    assert len(str(refused.value)) < 1200
    assert not (folder.parent / "marker").exists()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MAX_GROWTH_KB


@pytest.mark.parametrize("name", ["model.pt", "model.pkl", "model.safetensors"])
def test_a_file_is_no_model(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(Marker(tmp_path / "marker")))
    with pytest.raises(ModelError, match=r"never loaded"):
        Model.load(tmp_path / name)
    assert not (tmp_path / "marker").exists()


@pytest.fixture(scope="module")
def sealed(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sealed") / "model"
    model.save(folder)
    return folder


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_flipped_byte_of_the_weights_gets_in(sealed: Path, data: st.DataObject) -> None:
    weights = (sealed / "weights.safetensors").read_bytes()
    at = data.draw(st.integers(0, len(weights) - 1))
    changed = bytearray(weights)
    changed[at] ^= data.draw(st.integers(1, 255))
    (sealed / "weights.safetensors").write_bytes(changed)
    try:
        with pytest.raises(ModelError):
            Model.load(sealed, modalities=TOYS)
    finally:
        (sealed / "weights.safetensors").write_bytes(weights)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_damaged_description_is_a_crash(sealed: Path, data: st.DataObject) -> None:
    """Any part of model.json replaced by anything is refused or harmless, never another error."""
    text = (sealed / "model.json").read_text()
    values = json.loads(text)
    place: Any = values
    key = data.draw(st.sampled_from(sorted(place)))
    while isinstance(place[key], dict) and place[key] and data.draw(st.booleans()):
        place = place[key]
        key = data.draw(st.sampled_from(sorted(place)))
    place[key] = data.draw(
        st.none()
        | st.booleans()
        | st.integers()
        | st.text(max_size=5)
        | st.lists(st.integers(), max_size=2)
        | st.just({})
    )
    (sealed / "model.json").write_text(json.dumps(values))
    try:
        Model.load(sealed, modalities=TOYS)
    except ModelError:
        pass
    finally:
        (sealed / "model.json").write_text(text)


def test_predictions_are_frozen(model: Model) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.predict({"size": 1}).answers = {}  # type: ignore[misc]


def test_a_file_on_the_command_line_is_read_by_a_model_of_texts_and_a_misspelt_one_is_no_text(tmp_path: Path) -> None:
    rows = [{"letter": f"{word} day {number}", "kind": word} for number in range(9) for word in ("good", "bad")]
    declared = Recipe(data=rows, inputs={"letter": "text"}, outputs={"kind": "category"}, train={"size": "tiny"})
    one = Model.build(declared, fit_contracts(declared, prepare(declared)), seed=1)
    (tmp_path / "letter.txt").write_text("a good good day")
    (tmp_path / "latin.txt").write_bytes("sch\xf6n".encode("latin-1"))
    paths = [str(tmp_path / name) for name in ("letter.txt", "lettre.txt", "latin.txt")]
    read, gone, latin, value = one.predict_files([*paths, "a good good day"])
    wanted = one.predict({"letter": "a good good day"})
    for answer in (read, value):  # of a batch of two, and alone
        assert isinstance(answer, Prediction)
        assert answer.answers["kind"].confidence == pytest.approx(wanted.answers["kind"].confidence, abs=1e-6)
    assert isinstance(gone, DataError)
    assert "there is no file" in str(gone)
    assert "--input letter=" in str(gone)
    assert isinstance(latin, DataError)
    assert "byte 3 of the file is no UTF-8" in str(latin)
