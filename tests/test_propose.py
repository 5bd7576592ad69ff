"""A first recipe for what people have: the right columns, the right kinds, the reasons beside them."""

import datetime as dt
import io
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile
import yaml
from PIL import Image

from endwise.data.check import check
from endwise.errors import DataError
from endwise.propose import propose
from endwise.recipe import Recipe

RANDOM = random.Random(7)
WORDS = [
    "the",
    "a",
    "card",
    "my",
    "payment",
    "late",
    "why",
    "is",
    "not",
    "still",
    "new",
    "order",
    "where",
    "arrive",
    "refund",
    "wrong",
    "please",
    "help",
    "money",
    "bank",
]


def picture(value: int = 0) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), value % 255, np.uint8)).save(file, "PNG")
    return file.getvalue()


def recording(rate: int = 8_000) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(80, np.float32), rate, format="WAV")
    return file.getvalue()


def sentence(row: int, least: int = 5) -> str:
    return " ".join(RANDOM.choices(WORDS, k=least + row % 9)) + f" {row}"


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    lines = [
        ",".join(rows[0]),
        *(",".join(f'"{cell}"' if "," in str(cell) else str(cell) for cell in row.values()) for row in rows),
    ]
    return put(path, "\n".join(lines) + "\n")


# ---- sample sets, small and as they come -----------------------------------------------------------------------------


def photo_folders(at: Path) -> Path:
    for row in range(12):
        put(at / ("cat" if row % 2 else "dog") / f"{row}.png", picture(row))
    return at


def sound_folders_with_splits(at: Path) -> Path:
    for row in range(12):
        put(at / ("train" if row < 8 else "test") / ("up" if row % 2 else "down") / f"{row}.wav", recording(16_000))
    return at


def review_folders(at: Path) -> Path:
    for row in range(12):
        put(at / ("pos" if row % 2 else "neg") / f"{row}.txt", sentence(row))
    return at


def spoken_digits(at: Path) -> Path:
    digits = ["zero", "one", "two"]
    rows = [
        {"audio": f"{row % 3}_{row}.wav", "split": "test" if row % 10 == 0 else "train", "digit": row % 3, "text": digits[row % 3],
         "speaker": ["george", "lucas", "nicolas", "theo"][row % 4], "sample_rate": 8000, "seconds": round(0.3 + row % 7 / 10, 2)}
        for row in range(60)
    ]  # fmt: skip
    csv(at / "manifest.csv", rows)
    with zipfile.ZipFile(at / "recordings.zip", "w") as archive:
        for row in rows:
            archive.writestr(row["audio"], recording())
    return at


def intents(at: Path) -> Path:
    for name, count in (("train", 90), ("test", 30)):
        csv(at / f"{name}.csv", [{"text": sentence(row), "category": f"intent_{row % 9}"} for row in range(count)])
    return at


def houses(at: Path) -> Path:
    rows = [
        {"Id": row + 1, "area_m2": 40 + RANDOM.random() * 100, "rooms": 1 + row % 6, "city": ["Ulm", "Bonn", "Kiel"][row % 3],
         "garden": ["yes", "no"][row % 2], "built": f"{1950 + row % 70}-05-01", "price": 100_000 + row * 917.5}
        for row in range(80)
    ]  # fmt: skip
    return csv(at / "houses.csv", rows)


def passengers(at: Path) -> Path:
    rows = [
        {"PassengerId": row + 1, "Survived": int(row % 5 > 2), "Pclass": 1 + row % 3, "Sex": ["male", "female"][row % 2],
         "Age": "" if row % 9 == 0 else 20 + row % 50, "Fare": round(7.25 + row * 1.1, 2)}
        for row in range(100)
    ]  # fmt: skip
    return csv(at / "titanic.csv", rows)


def picture_bytes(at: Path) -> Path:
    at.mkdir(exist_ok=True)
    for side, count in (("train", 40), ("test", 20)):
        made = pyarrow.table(
            {"path": [f"{side}/{row}.png" for row in range(count)], "image": [picture(row) for row in range(count)],
             "label": [["ship", "frog", "truck"][row % 3] for row in range(count)]}
        )  # fmt: skip
        pyarrow.parquet.write_table(made, at / f"{side}.parquet")
    return at


def driving(at: Path) -> Path:
    rows = [
        {"image": f"frame_{row}.png", "steering": round(RANDOM.uniform(-1, 1), 3), "throttle": round(RANDOM.random(), 2),
         "speed": round(20 + RANDOM.random(), 3)}
        for row in range(40)
    ]  # fmt: skip
    for row in rows:
        put(at / "frames" / row["image"], picture(3))
        row["image"] = f"frames/{row['image']}"
    csv(at / "log.csv", rows)
    return at


def questions_about_pictures(at: Path) -> Path:
    rows = [
        {
            "image": f"{row % 10}.png",
            "question": f"is there a {WORDS[row % 7]} in it?",
            "answer": ["yes", "no", "red"][row % 3],
        }
        for row in range(60)
    ]
    for row in range(10):
        put(at / f"{row}.png", picture(row))
    csv(at / "vqa.csv", rows)
    return at


def patients(at: Path) -> Path:
    rows = [
        {"patient_id": f"P{row % 15:03d}", "age": 30 + row % 15, "weight": 60 + row % 31, "bmi": 20 + row % 11 / 3, "smoker": ["true", "false"][row % 2],
         "diagnosis": ["ill", "well", "unclear"][row * 5 % 3]}
        for row in range(90)
    ]  # fmt: skip
    return csv(at / "patients.csv", rows)


def sales(at: Path) -> Path:
    start = dt.date(2023, 1, 1)
    rows = [
        {"date": start + dt.timedelta(days=row), "shop": f"shop {row % 4}", "sample_weight": 1 + row % 2, "temperature": round(RANDOM.uniform(-5, 30), 1),
         "sold": round(RANDOM.uniform(10, 90), 2)}
        for row in range(120)
    ]  # fmt: skip
    return csv(at / "sales.csv", rows)


def tagged_articles(at: Path) -> Path:
    topics = ["sport", "politics", "science", "music"]
    lines = [
        f'{{"title": "{sentence(row)}", "body": "{sentence(row, 20)}", "tags": ["{topics[row % 4]}", "{topics[row % 3]}"]}}'
        for row in range(40)
    ]
    return put(at / "articles.jsonl", "\n".join(lines))


def defective_tiles(at: Path) -> Path:
    return outlined_tiles(at, "defect", ("no", "yes"))


def outlined_tiles(at: Path, name: str = "label", said: tuple[str, str] = ("good", "worn")) -> Path:
    rows = [{"photo": f"{row}.png", "mask": f"masks/{row}.png", name: said[row % 2]} for row in range(12)]
    for row in range(12):
        put(at / f"{row}.png", picture(row))
        put(at / "masks" / f"{row}.png", picture())
    return csv(at / "tiles.csv", rows)


def noisy_pictures(at: Path) -> Path:
    for row in range(12):
        put(at / f"{row}.png", picture(row))
        put(at / "noisy" / f"{row}.png", picture(row + 1))
    return csv(at / "noisy.csv", [{"clean": f"{row}.png", "noisy": f"noisy/{row}.png"} for row in range(12)])


def organs(at: Path) -> Path:
    for row in range(12):
        put(at / "images" / f"{row}.nii.gz", b"")
        put(at / "labels" / f"{row}.nii.gz", b"")
    rows = [{"image": f"images/{row}.nii.gz", "label": f"labels/{row}.nii.gz"} for row in range(12)]
    return csv(at / "organs.csv", rows)


def signals(at: Path) -> Path:
    at.mkdir(parents=True)
    beats = [[[0.5 * step for step in range(20 + row % 3)]] * 2 for row in range(30)]
    table = pyarrow.table({"series": beats, "label": [*"abc" * 10]})
    pyarrow.parquet.write_table(table, at / "beats.parquet")
    return at / "beats.parquet"


SETS: list[tuple[Callable[[Path], Path], dict[str, str], dict[str, str], dict[str, str]]] = [
    (photo_folders, {"image": "image"}, {"label": "category"}, {}),
    (sound_folders_with_splits, {"audio": "audio"}, {"label": "category"}, {}),
    (review_folders, {"text": "text"}, {"label": "category"}, {}),
    (spoken_digits, {"audio": "audio"}, {"text": "text"}, {}),
    (intents, {"text": "text"}, {"category": "category"}, {}),
    (houses, {"area_m2": "number", "rooms": "number", "city": "category", "garden": "boolean", "built": "date"}, {"price": "number"}, {}),
    (passengers, {"Pclass": "number", "Sex": "category", "Age": "number", "Fare": "number"}, {"Survived": "boolean"}, {}),
    (picture_bytes, {"image": "image"}, {"label": "category"}, {}),
    (driving, {"image": "image", "speed": "number"}, {"steering": "number", "throttle": "number"}, {}),
    (questions_about_pictures, {"image": "image", "question": "text"}, {"answer": "category"}, {}),
    (patients, {"age": "number", "weight": "number", "bmi": "number", "smoker": "boolean"}, {"diagnosis": "category"}, {"group": "patient_id"}),
    (sales, {"shop": "category", "temperature": "number"}, {"sold": "number"}, {"time": "date", "weight": "sample_weight"}),
    (outlined_tiles, {"photo": "image"}, {"mask": "mask", "label": "category"}, {}),
    (defective_tiles, {"photo": "image"}, {"mask": "mask", "defect": "boolean"}, {}),
    (noisy_pictures, {"noisy": "image"}, {"clean": "image"}, {}),
    (organs, {"image": "volume"}, {"label": "volume_mask"}, {}),
    (signals, {"series": "series"}, {"label": "category"}, {}),
    (tagged_articles, {"title": "text", "body": "text"}, {"tags": "tags"}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("make", "inputs", "outputs", "data"), SETS, ids=[item[0].__name__ for item in SETS])
def test_the_proposal_is_what_a_person_would_write(
    tmp_path: Path, make: Callable[[Path], Path], inputs: dict[str, str], outputs: dict[str, str], data: dict[str, str]
) -> None:
    found = propose(make(tmp_path / "set"))
    assert {name: item.type for name, item in found.recipe.inputs.items()} == inputs
    assert {name: item.type for name, item in found.recipe.outputs.items()} == outputs
    written = found.recipe.to_dict()["data"]
    assert {name: cell for name, cell in written.items() if name not in ("path", "train", "val", "test")} == data


@pytest.mark.parametrize("make", [item[0] for item in SETS], ids=[item[0].__name__ for item in SETS])
def test_the_yaml_is_the_recipe_with_a_reason_beside_every_field(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    found = propose(make(tmp_path / "set"))
    text = found.yaml()
    assert Recipe(**yaml.safe_load(text)) == found.recipe
    for name in [*found.recipe.inputs, *found.recipe.outputs]:
        line = next(line for line in text.splitlines() if line.strip().startswith(f"{name}:"))
        assert "  # " in line
        assert any(f".{name}: " in reason for reason in found.reasons)


# ---- single rules ----------------------------------------------------------------------------------------------------


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    found = propose(spoken_digits(tmp_path / "digits"))
    told = "\n".join(found.reasons)
    assert "left out: digit (it is 'text' in other words" in told
    assert "left out: sample_rate (it has one and the same value" in told
    assert "left out: seconds (it describes the file" in told
    assert "left out: speaker" in told
    assert any("'speaker'" in question for question in found.questions)
    assert found.recipe.inputs["audio"].to_dict() == {"type": "audio", "rate_hz": 8000}
    assert "left out: PassengerId (it names the row" in "\n".join(propose(passengers(tmp_path)).reasons)


def test_paths_are_written_relative_to_where_the_recipe_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    houses(tmp_path / "data")
    (tmp_path / "recipes").mkdir()
    monkeypatch.chdir(tmp_path)
    found = propose("data/houses.csv")
    assert yaml.safe_load(found.yaml())["data"]["path"] == "data/houses.csv"
    (tmp_path / "recipes/houses.yaml").write_text(found.yaml("recipes"))
    assert Path(Recipe.load("recipes/houses.yaml").data.path).is_file()


def test_a_proposal_is_called_as_its_data_and_says_nothing_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    houses(tmp_path / "data")
    found = propose(tmp_path / "data" / "houses.csv")
    assert found.recipe.name == "houses"  # so its run is runs/houses, whatever the recipe's file and folder are called
    assert set(yaml.safe_load(found.yaml())) == {"version", "name", "data", "inputs", "outputs"}
    assert propose(intents(tmp_path / "messages") / "train.csv").recipe.name == "messages"
    monkeypatch.chdir(tmp_path / "data")
    assert propose(".").recipe.name == "data"
    assert propose({"x": [0.5, 1.5, 2.5], "label": ["a", "b", "a"]}).recipe.name is None


def test_class_numbers_are_classes_and_quantities_are_not() -> None:
    def output(**columns: Any) -> str:
        return next(iter(propose(columns).recipe.outputs.values())).type

    x = [RANDOM.random() for _ in range(200)]
    assert output(x=x, label=[row % 2 for row in range(200)]) == "category"
    assert output(x=x, label=[row % 7 for row in range(200)]) == "category"
    assert output(x=x, target=[row * 3 for row in range(200)]) == "number"
    assert output(x=x, y=[row / 7 for row in range(200)]) == "number"
    assert output(x=x, is_fraud=[row % 2 == 0 for row in range(200)]) == "boolean"


def test_words_among_numbers_are_asked_about() -> None:
    found = propose({"age": ["31", "NA", *map(str, range(20, 60))], "y": [row / 3 for row in range(42)]})
    assert found.recipe.inputs["age"].type == "number"
    assert any("'age' holds 'NA'" in question for question in found.questions)


def test_a_few_typing_mistakes_do_not_make_a_category() -> None:
    rows = range(100)
    found = propose(
        {
            "message": [f"the {RANDOM.choice(WORDS)} is {RANDOM.choice(WORDS)} number {row}" for row in rows],
            "amount": ["12,50", "abc", *(f"{RANDOM.uniform(1, 99):.2f}" for _ in rows[2:])],
            "day": ["14.04.2024", *(f"2024-05-{row % 28 + 1:02d}" for row in rows[1:])],
            "german": ["2024-04-14", *(f"{row % 28 + 1:02d}.05.2024" for row in rows[1:])],
            "floor": ["roof", "roof", *(str(row % 5) for row in rows[2:])],
            "kind": [RANDOM.choice("abc") for _ in rows],
        }
    )
    kinds = {name: field.type for name, field in found.recipe.inputs.items()}
    assert (kinds["amount"], kinds["day"], kinds["german"]) == ("number", "date", "date")
    assert kinds["floor"] == "category"  # few different values: 'roof' is one of them
    assert any("'amount' holds '12,50', 'abc' where other rows have numbers" in each for each in found.questions)
    assert any("'day' holds '14.04.2024' where other rows have dates" in each for each in found.questions)
    assert any("what is '2024-04-14'?" in each for each in found.questions)


def test_many_words_among_numbers_are_no_typing_mistakes() -> None:
    cells = [f"A {row}" if row % 8 == 0 else str(row * 37) for row in range(200)]
    found = propose({"ticket": cells * 2, "kind": ["a", "b"] * 200})
    assert found.recipe.inputs["ticket"].type != "number"


def test_a_split_column_of_another_name_and_one_that_is_none() -> None:
    x = [RANDOM.random() for _ in range(30)]
    found = propose({"x": x, "subset": ["train"] * 20 + ["dev"] * 5 + ["test"] * 5, "y": x})
    assert found.recipe.data.split == "subset"
    odd = propose({"x": x, "split": ["prompt"] * 10 + ["train"] * 20, "y": x})
    assert any("only train, val and test are understood" in question for question in odd.questions)


def test_an_unclear_output_is_asked_about_and_still_proposed() -> None:
    found = propose({"a": [RANDOM.random() for _ in range(30)], "b": [RANDOM.random() for _ in range(30)]})
    assert list(found.recipe.outputs) == ["b"]
    assert any("is 'b' what is to be predicted?" in question for question in found.questions)


def test_names_that_are_no_field_names_keep_their_column() -> None:
    found = propose({"Größe (cm)": [1.5, 2.5, 3.5], "2nd": [1.0, 2.5, 9.0], "label": [*"aba"]})
    assert {item.column for item in found.recipe.inputs.values()} == {"Größe (cm)", "2nd"}


def test_files_that_are_not_there_are_asked_about(tmp_path: Path) -> None:
    rows = [{"photo": f"gone/{row}.jpg", "age": row % 7, "label": "ab"[row % 2]} for row in range(30)]
    found = propose(csv(tmp_path / "a.csv", rows))
    assert found.recipe.inputs["photo"].type == "image"
    assert any("gone/0.jpg" in question for question in found.questions)


def test_steps_in_time_may_be_a_forecast() -> None:
    """One row an hour: each row for itself is what is proposed, and what it takes to foresee the next ones is said."""
    start = dt.datetime(2024, 1, 1)
    rows = {"date": [str(start + dt.timedelta(hours=row)) for row in range(200)], "load": [row % 24 + 0.5 for row in range(200)],
            "heat": [row % 7 + 0.25 for row in range(200)]}  # fmt: skip
    asked = "\n".join(propose(rows).questions)
    assert "windows: {time: date, step: 1h, past: 96, future: 24}" in asked
    assert "type: series" in asked
    random.Random(0).shuffle(rows["date"])
    assert "windows" not in "\n".join(propose(rows).questions)


def test_a_test_file_beside_is_mentioned(tmp_path: Path) -> None:
    found = propose(intents(tmp_path) / "train.csv")
    assert any("test.csv lies beside train.csv" in question for question in found.questions)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ({"id": list(range(1, 30))}, "a column that can be an answer"),
        ({"odd": [[["a"], ["b"]]] * 30, "label": [*"abc" * 10]}, "left out: odd .*no modality reads"),
    ],
)
def test_nothing_to_predict_is_refused(source: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        propose(source)


def test_a_folder_of_unclear_tables_is_refused(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        put(tmp_path / name, "x\n1\n")
    with pytest.raises(DataError, match=r"endwise init .*a.csv"):
        propose(tmp_path)


# ---- what a table of transactions may be meant for instead ---------------------------------------------------------------


def purchases() -> list[dict[str, Any]]:
    return [
        {"customer": f"C{who}", "article": f"coat-{(who + day) % 9}", "day": day}
        for who in range(40)
        for day in range(4)
    ]


def payments(**more: Any) -> list[dict[str, Any]]:
    """The columns of the usual fraud sets: a label, and a `target` that is none."""
    return [
        {"time": when, "source": f"S{RANDOM.randrange(25)}", "target": f"T{RANDOM.randrange(8)}",
         "amount": round(RANDOM.uniform(1, 100), 2), "kind": RANDOM.choice(["chip", "web"]),
         "fraud": RANDOM.choice(["yes", "no"]), **more} for when in range(200)
    ]  # fmt: skip


def commented(text: str, folder: Path) -> Recipe:
    """The recipe that stands in comments at the end, as a user would take it."""
    last = text[text.index("in the place of all above:\n") :].partition("\n")[2]
    assert all(line.startswith("#") for line in last.splitlines())
    (folder / "other.yaml").write_text(
        "".join(f"{line.removeprefix('#').removeprefix(' ')}\n" for line in last.splitlines())
    )
    return Recipe.load(folder / "other.yaml")


def test_purchases_in_order_may_be_histories(tmp_path: Path) -> None:
    found = propose(csv(tmp_path / "sales.csv", purchases()))
    asked = [question for question in found.questions if "to be foreseen" in question]
    assert len(asked) == 1
    assert "'article'" in asked[0]
    assert "'customer'" in asked[0]
    recipe = commented(found.yaml(tmp_path), tmp_path)
    assert recipe.data.gather.model_dump(exclude_unset=True) == {
        "by": "customer",
        "order": "day",
        "earlier": {"history": "article"},
    }
    report = check(recipe)
    assert report.exit_code == 0, str(report)
    assert not [item for item in report.findings if item.level != "note"], str(report)


def test_payments_may_be_edges_for_later_ones(tmp_path: Path) -> None:
    found = propose(csv(tmp_path / "payments.csv", payments()))
    assert list(found.recipe.outputs) == ["fraud"]  # a target beside a source is no label
    assert sum("what 'source' and 'target' of a row did before it" in question for question in found.questions) == 1
    recipe = commented(found.yaml(tmp_path), tmp_path)
    assert [item.recipe.outputs for item in found.instead] == [recipe.outputs]
    around = recipe.inputs["around"]
    assert (around.at, around.ends, around.time) == (("source", "target"), ("source", "target"), "time")
    assert (around.numbers, around.classes) == (("amount",), ("kind",))
    assert set(recipe.inputs) == {"around", "amount", "kind"}
    report = check(recipe)
    assert report.exit_code == 0, str(report)
    assert not [item for item in report.findings if item.level != "note"], str(report)


def test_what_is_offered_keeps_an_official_split_and_dates_and_free_names(tmp_path: Path) -> None:
    start = dt.datetime(2024, 1, 1)
    rows = [
        {"user_id": row["customer"], "Product/ID": row["article"], "history": 1.5, "timestamp": str(start + dt.timedelta(hours=7 * at)),
         "usage": ["train", "train", "val", "test"][row["day"]], "rating": at % 5} for at, row in enumerate(purchases())
    ]  # fmt: skip
    found = propose(csv(tmp_path / "ratings.csv", rows))
    recipe = commented(found.yaml(tmp_path), tmp_path)
    assert recipe.data.split == "usage"
    assert list(recipe.inputs) == ["history_2"]
    assert recipe.outputs["next"].column == "Product/ID"
    assert check(recipe).exit_code == 0


@pytest.mark.parametrize(
    "rows",
    [
        [
            {key: cell for key, cell in row.items() if key != "time"} for row in payments()
        ],  # nothing says what came before
        [{**row, "time": "" if at == 7 else at} for at, row in enumerate(payments())],
        [{**row, "source": RANDOM.choice(["de", "en"]), "target": RANDOM.choice(["fr", "it"])} for row in payments()],
        [{**row, "source": sentence(at), "target": sentence(at)} for at, row in enumerate(payments())],
        [{**row, "source": f"S{at}", "target": f"T{at}"} for at, row in enumerate(payments())],  # nobody is there twice
        [{**row, "source": row["amount"], "target": row["amount"] // 3 + 0.5} for row in payments()],
    ],
    ids=["no time", "a time is missing", "languages", "texts", "once each", "measurements"],
)
def test_nothing_is_offered_where_rows_join_nobody(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    found = propose(csv(tmp_path / "rows.csv", rows))
    assert not found.instead
    assert "in the place of all above" not in found.yaml(tmp_path)


def test_a_target_of_two_classes_stays_the_answer(tmp_path: Path) -> None:
    rows = [
        {**row, "source": RANDOM.choice(["web", "app"]), "target": RANDOM.choice(["yes", "no"])} for row in payments()
    ]
    assert list(propose(csv(tmp_path / "rows.csv", rows)).recipe.outputs) == ["target"]
