"""Search: rows are found by any of their inputs; the index is made once for weights and data."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import endwise as ew
from endwise.errors import DataError, ModelError
from endwise.search import search

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 200, 40),
    "blue": (40, 50, 220),
    "black": (10, 10, 10),
    "white": (245, 245, 245),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures of one colour and their captions, and a run that brought them together."""
    folder = tmp_path_factory.mktemp("search")
    random, lines = np.random.default_rng(0), ["picture,caption"]
    for index in range(60):
        name = list(COLOURS)[index % 5]
        shade = np.clip(np.array(COLOURS[name]) + random.integers(-20, 20, size=3), 0, 255).astype(np.uint8)
        Image.fromarray(np.tile(shade, (16, 16, 1))).save(folder / f"{index}.png")
        lines.append(f"{index}.png,number {index} is {name}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    ew.fit(
        ew.Recipe(
            data=str(folder / "table.csv"),
            inputs={"picture": ew.Image(), "caption": ew.Text()},
            outputs={"space": ew.Embedding(dimensions=16)},
            train=ew.Train(steps=5, size="tiny", batch_size=20, augment=False),
        ),
        out=folder / "run",
    )
    return folder


def test_a_text_finds_pictures_and_a_picture_texts(place: Path) -> None:
    by_text = search(place / "run", "number 7 is blue")
    assert by_text.query == ("caption",)
    assert {hit.input for hit in by_text.hits} == {"picture"}
    by_picture = search(place / "run", "3.png", base=place)
    assert by_picture.query == ("picture",)
    assert {hit.input for hit in by_picture.hits} == {"caption"}
    assert len(by_picture.hits) == 10
    assert by_picture.rows == 60
    assert by_picture.exact


def test_hits_are_sorted_and_say_where_the_row_is(place: Path) -> None:
    found = search(place / "run", {"caption": "number 1 is green"}, top=60)
    scores = [hit.score for hit in found.hits]
    assert scores == sorted(scores, reverse=True)
    assert sorted(hit.row for hit in found.hits) == list(range(60))
    first = found.hits[0]
    assert first.values["picture"] == f"{first.row}.png"
    assert first.origin == f"table.csv line {first.row + 2}"
    model = ew.Model.load(place / "run")
    query = model.predict({"caption": "number 1 is green"})["space"]
    there = model.predict({"picture": first.values["picture"]}, base=place)["space"]
    assert first.score == pytest.approx(float(np.dot(query, there)), abs=1e-5)


def test_the_index_is_made_once_for_weights_and_data(place: Path, tmp_path: Path) -> None:
    one = search(place / "run", "number 7 is blue")
    (file,) = (place / "run" / "search").iterdir()
    written = file.stat().st_mtime_ns
    assert search(place / "run", "number 7 is blue") == one
    assert file.stat().st_mtime_ns == written
    file.write_bytes(file.read_bytes()[:100])  # damaged: made again
    assert search(place / "run", "number 7 is blue") == one
    other = tmp_path / "other.csv"
    other.write_text(f"picture,caption\n{place}/2.png,number 2 is blue\n{place}/3.png,number 3 is black\n")
    two = search(place / "run", "number 7 is blue", data=str(other))
    assert two.rows == len(two.hits) == 2
    assert len(list((place / "run" / "search").iterdir())) == 2


def test_a_graph_of_neighbours_finds_what_comparing_all_finds(place: Path) -> None:
    exact = search(place / "run", "number 7 is blue", top=5)
    walked = search(place / "run", "number 7 is blue", top=5, exact_vectors=10)
    assert not walked.exact
    assert [hit.row for hit in walked.hits] == [hit.row for hit in exact.hits]
    kept = search(place / "run", "number 7 is blue", top=5, exact_vectors=10)
    assert kept == walked


@pytest.mark.parametrize(
    ("query", "settings", "words"),
    [
        ({"picture": "3.png", "caption": "number 3 is black"}, {}, ["at least one input left"]),
        ({"sound": "a.wav"}, {}, ["'sound'", "picture"]),
        ("number 7 is blue", {"by": "captoin"}, ["did you mean 'caption'"]),
        ("number 7 is blue", {"top": 0}, ["top = 0"]),
        ([1, 2], {}, ["the query = [1, 2]"]),
    ],
)
def test_what_cannot_be_asked_is_refused(place: Path, query: Any, settings: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(DataError) as refused:
        search(place / "run", query, base=place, **settings)
    assert all(word in str(refused.value) for word in words)


def test_two_texts_must_be_told_apart(tmp_path: Path) -> None:
    rows = [{"en": f"dog {index}", "de": f"Hund {index}"} for index in range(12)]
    declared = ew.Recipe(
        data=rows,
        inputs={"en": ew.Text(), "de": ew.Text()},
        outputs={"space": ew.Embedding(dimensions=8)},
        train=ew.Train(steps=1, size="tiny"),
    )
    ew.fit(declared, out=tmp_path / "run")
    with pytest.raises(DataError, match="--in en or --in de"):
        search(tmp_path / "run", "dog 3", data=rows)
    found = search(tmp_path / "run", "dog 3", by="en", data=rows, top=3)
    assert {hit.input for hit in found.hits} == {"de"}


def test_a_model_without_a_space_says_so(tmp_path: Path) -> None:
    rows = [{"weight": float(index), "heavy": index > 5} for index in range(12)]
    declared = ew.Recipe(
        data=rows, inputs={"weight": ew.Number()}, outputs={"heavy": ew.Boolean()}, train=ew.Train(steps=1, size="tiny")
    )
    ew.fit(declared, out=tmp_path / "run")
    with pytest.raises(ModelError, match="no embedding"):
        search(tmp_path / "run", 3.0)


def test_the_command_prints_one_object(place: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "endwise", "search", "run", "number 7 is blue", "--top", "3", "--json"],
        cwd=place, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert [set(hit) for hit in found["hits"]] == [{"score", "input", "row", "origin", "values"}] * 3
    assert found["query"] == ["caption"]
    assert (
        dataclasses.asdict(search(place / "run", "number 7 is blue", top=3))["hits"][0]["row"]
        == found["hits"][0]["row"]
    )
