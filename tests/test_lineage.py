"""From an id back to every file that was learnt from: what a run was made of is written down, and what is other than it was is
found."""

import base64
import hashlib
import io
import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.testing
from PIL import Image as Pillow

import endwise as ew
from endwise import lineage
from endwise.cli import app
from endwise.data.manifest import Manifest, manifest
from endwise.errors import ModelError
from endwise.lineage import differences, read_manifest, write_manifest
from endwise.recording import Recording
from endwise.rows import value_hash


def png(seed: int) -> bytes:
    out = io.BytesIO()
    Pillow.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)).save(out, "png")
    return out.getvalue()


def pictures(folder: Path, count: int = 24) -> Path:
    """A table, the pictures it names, and a file that nobody names."""
    (folder / "pictures").mkdir(parents=True)
    lines = ["photo,age,label,split"]
    for number in range(count):
        (folder / "pictures" / f"{number}.png").write_bytes(png(number))
        split = "test" if number % 4 == 3 else "train"
        lines.append(f"pictures/{number}.png,{number},{'old' if number % 2 else 'new'},{split}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    (folder / "pictures" / "unused.png").write_bytes(png(1000))
    return folder / "table.csv"


def recipe_of(data: Any, **more: Any) -> ew.Recipe:
    declared: dict[str, Any] = {
        "inputs": {"photo": ew.Image(), "age": ew.Number()}, "outputs": {"label": ew.Category()},
        "train": {"steps": 2, "size": "tiny"},
    }  # fmt: skip
    return ew.Recipe(**{**declared, "data": data, **more})


def made_of(recipe: ew.Recipe) -> Manifest:
    return manifest(recipe, ew.prepare(recipe))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with data, and a run of it in `run`."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENDWISE_CACHE", str(folder / "store"))
        ew.fit(recipe_of(str(pictures(folder)), name="faces"), out=folder / "run")
        yield folder


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    """The same, to be spoilt: data files stay where the manifest says unless a test replaces them."""
    shutil.copytree(trained / "run", tmp_path / "run")
    return tmp_path / "run"


# ---- which files -------------------------------------------------------------------------------------------------------


def test_the_table_and_every_file_it_names_are_in_the_manifest_and_no_other(tmp_path: Path) -> None:
    table = pictures(tmp_path)
    found = made_of(recipe_of(str(table)))
    expected = {table, *(tmp_path / "pictures" / f"{number}.png" for number in range(24))}
    assert {Path(name) for name, _ in found.files} == expected
    for name, value in found.files:
        assert hashlib.sha256(Path(name).read_bytes()).hexdigest() == value
    assert found.bytes == sum(path.stat().st_size for path in expected)
    assert not found.in_memory


def test_a_column_of_few_files_is_not_taken_for_one_without(tmp_path: Path) -> None:
    np.save(tmp_path / "late.npy", np.arange(6.0))
    lines = ["wave,rare,age,label"]
    for number in range(50):
        written = json.dumps([float(number + step) for step in range(6)])
        wave, rare = ("late.npy" if number == 41 else f'"{written}"'), ("late.npy" if number == 17 else "")
        lines.append(f"{wave},{rare},{number},{'ab'[number % 2]}")
    (tmp_path / "late.csv").write_text("\n".join(lines) + "\n")
    for field in ("wave", "rare"):
        recipe = recipe_of(str(tmp_path / "late.csv"), inputs={field: ew.Series(optional=True), "age": ew.Number()})
        assert {Path(name).name for name, _ in made_of(recipe).files} == {"late.csv", "late.npy"}, field


def test_a_text_that_happens_to_name_a_file_opens_none(tmp_path: Path) -> None:
    (tmp_path / "notes.csv").write_text("text,label\n" + "".join(f"note {row},{'ab'[row % 2]}\n" for row in range(30)))
    (tmp_path / "note 3").write_text("another thing")
    recipe = recipe_of(str(tmp_path / "notes.csv"), inputs={"text": ew.Text()})
    assert {Path(name).name for name, _ in made_of(recipe).files} == {"notes.csv"}


def test_the_steps_of_windows_are_not_looked_up_as_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "load.csv").write_text("hour,load\n" + "".join(f"{hour},{hour % 24}.5\n" for hour in range(200)))
    recipe = ew.Recipe(
        data={"path": str(tmp_path / "load.csv"), "windows": {"time": "hour", "past": 24, "future": 6}},
        inputs={"past": ew.Series(columns=["load"])}, outputs={"next": ew.Series(columns=["load"])},
    )  # fmt: skip
    dataset, asked, stat = ew.prepare(recipe), list[Any](), os.stat

    def counted(path: Any, *args: Any, **more: Any) -> os.stat_result:
        asked.append(path)
        return stat(path, *args, **more)

    monkeypatch.setattr(os, "stat", counted)
    assert {Path(name).name for name, _ in manifest(recipe, dataset).files} == {"load.csv"}
    assert len(asked) < 20  # there are 171 windows of 30 steps


def test_an_archive_counts_as_its_file(tmp_path: Path) -> None:
    pictures(tmp_path / "raw")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for file in sorted((tmp_path / "raw" / "pictures").iterdir()):
            archive.write(file, f"pictures/{file.name}")
    shutil.copy(tmp_path / "raw" / "table.csv", tmp_path / "photos.csv")
    names = {Path(name).name for name, _ in made_of(recipe_of(str(tmp_path / "photos.csv"))).files}
    assert names == {"photos.csv", "photos.zip"}


def test_class_folders_are_their_files(tmp_path: Path) -> None:
    for number in range(12):
        place = tmp_path / "notes" / ("good" if number % 2 else "bad")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.txt").write_text(f"note {number}")
    (tmp_path / "notes" / "README.md").write_text("no row")
    recipe = recipe_of(str(tmp_path / "notes"), inputs={"text": ew.Text()})
    found = {Path(name).name for name, _ in made_of(recipe).files}
    assert found == {f"{number}.txt" for number in range(12)}


def test_values_in_memory_have_no_file_and_that_is_said() -> None:
    rows = [{"age": number, "label": "ab"[number % 2]} for number in range(20)]
    found = made_of(recipe_of(rows, inputs={"age": ew.Number()}))
    assert found.files == ()
    assert found.in_memory


def test_a_file_is_hashed_again_when_it_changes_and_only_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pictures(tmp_path)
    recipe = recipe_of(str(table))
    dataset = ew.prepare(recipe)
    before = dict(manifest(recipe, dataset).files)
    read: list[str] = []
    monkeypatch.setattr("endwise.data.manifest.sha256_of", lambda path: read.append(path) or lineage.sha256_of(path))
    assert dict(manifest(recipe, dataset).files) == before
    assert read == []
    spoilt = tmp_path / "pictures" / "3.png"
    state = spoilt.stat()
    spoilt.write_bytes(png(3)[:-1] + b"x")
    os.utime(spoilt, ns=(state.st_atime_ns, state.st_mtime_ns))  # the size and the time of change are what they were
    assert dict(manifest(recipe, dataset).files)[str(spoilt)] != before[str(spoilt)]
    assert read == [str(spoilt)]


# ---- what a run keeps --------------------------------------------------------------------------------------------------


def test_every_run_has_its_lineage_without_being_asked(trained: Path) -> None:
    run = ew.Run.open(trained / "run")
    kept = run.info()[lineage.ENTRY]
    for name in (lineage.RECIPE, lineage.MANIFEST, lineage.ENVIRONMENT):
        assert hashlib.sha256((run.path / name).read_bytes()).hexdigest() == kept[name]
    told = run.read(lineage.ENVIRONMENT)
    assert told["packages"]["numpy"] == np.__version__
    assert told["code"]["source_sha256"] == kept["code"]["source_sha256"]
    assert told["machine"]["cores"]
    assert run.read("data.json")["files"]["count"] == 25
    assert len(read_manifest(run.path / lineage.MANIFEST)) == 25


def test_a_run_that_goes_on_keeps_what_it_began_with(tmp_path: Path) -> None:
    first, _ = lineage.write_down(tmp_path, [], "none")
    began = (tmp_path / lineage.ENVIRONMENT).read_bytes()
    again, notes = lineage.write_down(tmp_path, [], "none", begun=True)
    assert (tmp_path / lineage.ENVIRONMENT).read_bytes() == began
    assert notes == []
    assert again[lineage.ENVIRONMENT] == first[lineage.ENVIRONMENT]
    other = json.loads(began)
    other["packages"]["numpy"] = "0.1"
    (tmp_path / lineage.ENVIRONMENT).write_text(json.dumps(other))
    third, notes = lineage.write_down(tmp_path, [], "none", begun=True)
    assert notes == [f"the run goes on with other packages: numpy 0.1 -> {np.__version__}"]
    kept = json.loads((tmp_path / lineage.RESUMED).read_text())["resumed"]
    assert [item["other"] for item in kept] == [[], [f"packages: numpy 0.1 -> {np.__version__}"]]
    assert third[lineage.RESUMED] == hashlib.sha256((tmp_path / lineage.RESUMED).read_bytes()).hexdigest()
    anew, _ = lineage.write_down(tmp_path, [], "none")  # no step was made yet: this is the beginning
    assert lineage.RESUMED not in anew
    assert not (tmp_path / lineage.RESUMED).exists()


def test_the_manifest_is_what_sha256sum_checks(trained: Path) -> None:
    if shutil.which("sha256sum") is None:
        pytest.skip("sha256sum is not installed on this machine")
    command = ["sha256sum", "--check", "--strict", "--quiet", str(trained / "run" / lineage.MANIFEST)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_manifest_survives_odd_names_and_refuses_odd_lines(tmp_path: Path) -> None:
    files = [
        ("/a/plain.png", "0" * 64),
        ("/a/two  blanks", "1" * 64),
        ("/a/new\nline\\n", "2" * 64),
        ("/a/ü", "3" * 64),
    ]
    write_manifest(tmp_path / "m", files)
    assert sorted(read_manifest(tmp_path / "m")) == sorted(files)
    (tmp_path / "m").write_text("nothing of the kind\n")
    with pytest.raises(ModelError, match="line 1 is no line of a manifest"):
        read_manifest(tmp_path / "m")


def test_other_packages_are_named() -> None:
    before = {
        "python": "3.11",
        "packages": {"torch": "2.1", "numpy": "2.0"},
        "code": {"version": "1", "source_sha256": "a" * 64},
    }
    now = {"python": "3.11", "packages": {"torch": "2.2", "numpy": "2.0", "new": "1"}, "code": before["code"]}
    assert differences(before, before) == []
    assert differences(before, now) == ["packages: new none -> 1, torch 2.1 -> 2.2"]


# ---- the way back ------------------------------------------------------------------------------------------------------


def logged(run: Path, place: Path) -> tuple[str, Path]:
    """The id of an answer of a run, and the log it stands in."""
    model = ew.Run.open(run).model()
    with ew.Decisions.open(place, create=True) as log:
        answers = model.predict_iter([{"photo": png(5), "age": 3}], hashed=True)
        ((id, _),) = log.followed(ew.Run.open(run).identity(), answers)
    assert id is not None
    return id, place


def states(id: str, place: Path, **more: Any) -> dict[str, str]:
    with ew.Decisions.open(place) as log:
        return {link.name: link.state for link in log.show(id, **more).links}


def test_an_untouched_chain_holds_from_the_id_to_the_files(copied: Path, tmp_path: Path) -> None:
    id, place = logged(copied, tmp_path / "log.db")
    found = states(id, place)
    assert list(found) == ["log", "model", "weights", "recipe", "environment", "manifest", "data", "code"]
    assert set(found.values()) == {"same"}
    assert states(id, place, contents=False)["data"] == "unknown"
    with ew.Decisions.open(place) as log:
        shown = log.show(id)
        assert shown.ok
        assert shown.decision["inputs"]["photo"] == hashlib.sha256(png(5)).hexdigest()
        assert shown.data is not None
        assert shown.data["rows"]["test"] == 6


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


SPOILT = [
    ("model", "changed", lambda run: append(run / "model" / "model.json")),
    ("model", "gone", lambda run: (run / "model" / "model.json").unlink()),
    ("weights", "changed", lambda run: append(run / "model" / "weights.safetensors")),
    ("recipe", "changed", lambda run: append(run / "recipe.yaml")),
    ("environment", "changed", lambda run: append(run / "environment.json")),
    ("environment", "gone", lambda run: (run / "environment.json").unlink()),
    ("manifest", "changed", lambda run: append(run / "files.sha256")),
]


@pytest.mark.parametrize(("name", "state", "spoil"), SPOILT, ids=[f"{name} {state}" for name, state, _ in SPOILT])
def test_every_link_that_changed_is_named(copied: Path, tmp_path: Path, name: str, state: str, spoil: Any) -> None:
    id, place = logged(copied, tmp_path / "log.db")
    spoil(copied)
    assert states(id, place)[name] == state
    done = typer.testing.CliRunner().invoke(app, ["audit", "show", str(place), id])
    assert done.exit_code == 3
    assert ("CHANGED" if state == "changed" else "GONE") in done.output


def test_a_data_file_that_changed_is_named(tmp_path: Path) -> None:
    table = pictures(tmp_path / "data")
    ew.fit(recipe_of(str(table)), out=tmp_path / "run")
    id, place = logged(tmp_path / "run", tmp_path / "log.db")
    (tmp_path / "data" / "pictures" / "7.png").write_bytes(png(77))
    (tmp_path / "data" / "pictures" / "8.png").unlink()
    with ew.Decisions.open(place) as log:
        (data,) = [link for link in log.show(id).links if link.name == "data"]
    assert data.state == "changed"
    assert "of 25 files 1 changed" in data.detail
    assert "7.png" in data.detail
    assert "8.png" in data.detail


def test_a_bundle_leads_back_to_the_run_it_lies_in_or_to_the_one_given(copied: Path, tmp_path: Path) -> None:
    from endwise.export import export_run

    bundle = copied / "export"
    export_run(copied, out=bundle)
    description = json.loads((bundle / "bundle.json").read_bytes())
    from endwise.run import Identity

    sha256 = hashlib.sha256((bundle / "bundle.json").read_bytes()).hexdigest()
    places = [bundle, tmp_path / "elsewhere"]
    shutil.copytree(bundle, places[1])
    for number, place in enumerate(places):
        known = Identity(sha256, "faces", place, {"inputs": {}, "outputs": {}}, description["info"])
        from endwise.decisions import Decision

        with ew.Decisions.open(tmp_path / f"{number}.db", create=True) as log:
            log.record(known, [Decision(id="a", inputs={}, outputs={})])
    assert set(states("a", tmp_path / "0.db").values()) == {"same"}
    alone = states("a", tmp_path / "1.db")
    assert alone["weights"] == "same"
    assert alone["recipe"] == alone["data"] == "unknown"
    assert set(states("a", tmp_path / "1.db", run=copied).values()) == {"same"}


# ---- predictions that are written down -----------------------------------------------------------------------------------


def test_predict_writes_down_what_it_says_and_each_answer_has_its_id(trained: Path, tmp_path: Path) -> None:
    run, log = str(trained / "run"), str(tmp_path / "log.db")
    invoke = typer.testing.CliRunner().invoke
    (tmp_path / "rows.csv").write_text(
        f"photo,age\n{trained}/pictures/1.png,5\nnone.png,6\n{trained}/pictures/2.png,7\n"
    )
    done = invoke(app, ["predict", run, str(tmp_path / "rows.csv"), "--log", log, "--json"])
    assert done.exit_code == 3  # of the row that cannot be read
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [list(line) for line in found] == [["id", "row", "outputs"], ["error"], ["id", "row", "outputs"]]
    with ew.Decisions.open(log) as opened:
        verified = opened.verify()
        assert verified.ok
        assert verified.count == 3  # the model and two answers
        shown = opened.show(found[0]["id"])
    assert shown.ok
    assert shown.decision["outputs"] == found[0]["outputs"]
    picture = (trained / "pictures" / "1.png").read_bytes()
    assert shown.decision["inputs"]["photo"] == hashlib.sha256(picture).hexdigest()
    one = ["--input", f"photo={trained}/pictures/1.png", "--input", "age=5"]
    said = invoke(app, ["predict", run, *one, "--log", log]).stdout
    with ew.Decisions.open(log) as opened:
        again = opened.show(said.split()[0])
    assert again.decision["inputs"] == shown.decision["inputs"]
    refused = invoke(app, ["predict", run, str(tmp_path / "rows.csv"), "--stream", "--log", log])
    assert refused.exception is not None
    assert "--stream = '--log' is not allowed" in str(refused.exception)


def test_the_same_content_has_the_same_hash_however_it_is_given() -> None:
    data = png(1)
    expected = hashlib.sha256(data).hexdigest()
    uri = "data:image/png;base64," + base64.b64encode(data).decode()
    for given in (data, bytearray(data), memoryview(data), {"bytes": data, "path": "1.png"}, uri):
        assert value_hash(given) == expected
    sound = Recording(np.zeros(8, np.float32), 8_000)
    assert value_hash(sound) == value_hash(sound.wav())
    opened = [Pillow.open(io.BytesIO(data)) for _ in range(2)]
    pixels = np.asarray(opened[0])
    assert value_hash(opened[0]) == value_hash(opened[1]) == value_hash(pixels) == value_hash(pixels.tolist())
    assert value_hash(opened[0]) != value_hash(Pillow.open(io.BytesIO(png(2))))
    numbers = [[1.0, float("inf")], [1.0, float("-inf")], [1.0, float("nan")], [1.0, 2.0]]
    assert len({value_hash(item) for item in numbers}) == 4
    assert value_hash([1.0, None]) == value_hash(np.array([1.0, np.nan])), "a gap, as JSON writes it"
    assert value_hash("data:nothing;base64,%%") == value_hash("data:nothing;base64,%%")


def test_a_server_and_predict_write_the_same_of_the_same_file(trained: Path, tmp_path: Path) -> None:
    httpx = pytest.importorskip("httpx")
    picture = (trained / "pictures" / "1.png").read_bytes()
    with ew.serving(trained / "run", port=0, log=str(tmp_path / "log.db")) as server:
        parts = {"photo": ("1.png", picture, "image/png"), "age": (None, "5")}
        served = httpx.post(f"{server.url}/predict", files=parts).json()["id"]
    model = ew.Run.open(trained / "run").model()
    row = {"photo": str(trained / "pictures" / "1.png"), "age": "5"}
    with ew.Decisions.open(tmp_path / "log.db") as log:
        ((id, _),) = log.followed(ew.Run.open(trained / "run").identity(), [model.predict(row, hashed=True)])
        assert id is not None
        assert log.verify().count == 3  # one line about the model, which is the same one
        both = [log.show(name).decision for name in (served, id)]
    assert both[0]["inputs"] == both[1]["inputs"]
    assert both[0]["outputs"] == both[1]["outputs"]
