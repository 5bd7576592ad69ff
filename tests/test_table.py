"""Opening tables: from anywhere, cells raw, every row with a place, every mistake with a name."""

import bz2
import datetime as dt
import gzip
import io
import json
import multiprocessing
import pickle
import zipfile
from pathlib import Path

import fsspec
import numpy as np
import pandas
import polars
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endwise.data import columns, files, table
from endwise.data.table import open_table
from endwise.errors import BadValue, DataError, SetupError


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


# ---- text tables -----------------------------------------------------------------------------------------------------


def test_csv_cells_stay_text_and_empty_ones_are_missing(tmp_path: Path) -> None:
    found = open_table(put(tmp_path / "a.csv", 'x,label\n1.50,"a, b"\n,""\n007, c\n'))
    assert found.columns == ("x", "label")
    assert found.column("x") == ["1.50", None, "007"]
    assert found.column("label") == ["a, b", None, " c"]
    assert (len(found), found.name, found.base) == (3, "a.csv", str(tmp_path))


def test_rows_of_a_csv_are_named_by_the_line_they_begin_on(tmp_path: Path) -> None:
    found = open_table(put(tmp_path / "a.csv", 'text,y\n"two\nlines",1\n\nnext,2\n'))
    assert found.column("text") == ["two\nlines", "next"]
    assert [found.origin(row) for row in range(2)] == ["a.csv line 2", "a.csv line 5"]


@pytest.mark.parametrize("start", [b"\xef\xbb\xbf", b""])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_byte_order_mark_and_line_ends_are_no_content(tmp_path: Path, start: bytes, end: str) -> None:
    found = open_table(put(tmp_path / "a.csv", start + f"x,y{end}1,é{end}".encode()))
    assert {name: found.column(name) for name in found.columns} == {"x": ["1"], "y": ["é"]}


@pytest.mark.parametrize(("name", "mark"), [("a.tsv", "\t"), ("a.tab", "\t"), ("a.csv", ";"), ("a.csv", "\t")])
def test_separators(tmp_path: Path, name: str, mark: str) -> None:
    found = open_table(put(tmp_path / name, f"x{mark}y\n1,5{mark}2\n"))
    assert (found.column("x"), found.column("y")) == (["1,5"], ["2"])


@pytest.mark.parametrize(("ending", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
def test_packed_tables(tmp_path: Path, ending: str, pack: object) -> None:
    put(tmp_path / f"a.csv{ending}", pack(b"x\n1\n"))  # type: ignore[operator]
    put(tmp_path / f"b.jsonl{ending}", pack(b'{"x": 1}\n'))  # type: ignore[operator]
    assert open_table(tmp_path / f"a.csv{ending}").column("x") == ["1"]
    assert open_table(tmp_path / f"b.jsonl{ending}").column("x") == [1]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"x,y\n1,2\n3\n", r"a.csv line 3: 1 cells where the header has 2"),
        (b"x,y\n1,2,3\n", r"a.csv line 2: 3 cells where the header has 2"),
        (b"x,y\na,b\nc,\xe9\n", r"a.csv line 3: not UTF-8 text \(byte 0xe9 at column 3\).*CSV UTF-8"),
        (b"\xff\xfex\0", r"line 1: this is UTF-16"),
        (b"x,y\na,\0\n", r"a.csv line 2: holds a zero byte"),
        (b'x,y\n1,"open\n2,3\n', r"a.csv line 2: .*close every quote"),
        (b'x,y\n1,"a" b\n', r"a.csv line 2: .*double those inside"),
        (b"x,x\n1,2\n", r"a.csv line 1: column = 'x' .*rename one"),
        (b"", r"first line with the names of the columns"),
        (b"x,y\n", r"at least one row"),
    ],
)
def test_broken_csv_is_refused_with_file_and_line(tmp_path: Path, content: bytes, told: str) -> None:
    with pytest.raises(DataError, match=told):
        open_table(put(tmp_path / "a.csv", content))


@pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.gz", "a.json.gz"])
def test_a_cut_off_gzip_is_refused(tmp_path: Path, name: str) -> None:
    content = b'x\n{"x": 1}\n' if "csv" in name else b'{"x": 1}\n'
    with pytest.raises(DataError, match=f"{name}: cannot be read to its end"):
        open_table(put(tmp_path / name, gzip.compress(content * 999)[:-12]))


def test_a_cell_may_be_a_whole_document(tmp_path: Path) -> None:
    long = "word " * 100_000
    assert open_table(put(tmp_path / "a.csv", f"x\n{long}\n")).column("x") == [long]


def test_an_index_column_without_a_name_gets_one(tmp_path: Path) -> None:
    assert open_table(put(tmp_path / "a.csv", ",x\n0,1\n")).columns == ("Unnamed: 0", "x")


def test_large_csv_is_kept_out_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "SPOOL_BYTES", 10)
    monkeypatch.setattr(table, "CSV_ROWS", 3)
    before = pyarrow.total_allocated_bytes()
    found = open_table(put(tmp_path / "a.csv", "x,y\n" + "".join(f"{row},{row % 3}\n" for row in range(100))))
    assert pyarrow.total_allocated_bytes() == before
    assert found.column("x") == [str(row) for row in range(100)]
    assert found.cell("y", 99) == "0"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=8)] * 2),
        min_size=1, max_size=6,
    )
)  # fmt: skip
def test_whatever_a_csv_writer_wrote_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    import csv

    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerows([("x", "y"), *rows])
    found = open_table(path)
    assert list(zip(found.column("x"), found.column("y"), strict=True)) == [(x or None, y or None) for x, y in rows]


# ---- JSON ------------------------------------------------------------------------------------------------------------


def test_json_lines_with_missing_keys(tmp_path: Path) -> None:
    found = open_table(put(tmp_path / "a.jsonl", '{"x": 1}\n\n{"y": [1, 2], "x": NaN}\n'))
    assert found.columns == ("x", "y")
    assert (found.column("x"), found.column("y")) == ([1, None], [None, [1, 2]])
    assert found.origin(1) == "a.jsonl line 3"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"x": 1}\n{"x": \n', "a.jsonl line 2, column 6: not valid JSON"),
        (b'{"x": 1}\n[1]\n', "a.jsonl line 2.*one object a line"),
        (b'{"x": 1}\n{"x": 1, "x": 2}\n', "a.jsonl line 2: the key 'x' is there twice"),
        (b'{"x": "\xff"}\n', "a.jsonl line 1: not UTF-8"),
    ],
)
def test_broken_json_lines_are_refused_with_file_and_line(tmp_path: Path, content: bytes, told: str) -> None:
    with pytest.raises(DataError, match=told):
        open_table(put(tmp_path / "a.jsonl", content))


def test_json_lists_and_columns(tmp_path: Path) -> None:
    assert open_table(put(tmp_path / "a.json", '[{"x": 1}, {"x": null}]')).column("x") == [1, None]
    assert open_table(put(tmp_path / "b.json", '{"x": [1, 2], "y": ["a", "b"]}')).column("y") == ["a", "b"]
    with pytest.raises(DataError, match="a list of objects"):
        open_table(put(tmp_path / "c.json", '{"x": 1}'))


# ---- Parquet ---------------------------------------------------------------------------------------------------------


def parquet(path: Path, rows: int = 50, group: int = 8) -> pyarrow.Table:
    made = pyarrow.table(
        {
            "blob": [bytes([row]) * 100 if row % 7 else None for row in range(rows)],
            "n": pyarrow.array([float(row) if row % 5 else float("nan") for row in range(rows)]),
            "list": [[row, row + 1] for row in range(rows)],
            "at": pyarrow.array([row * 10**9 + 1 for row in range(rows)], pyarrow.timestamp("ns")),
            "cell": [{"bytes": bytes([row]), "path": str(row)} for row in range(rows)],
        }
    )
    pyarrow.parquet.write_table(made, path, row_group_size=group)
    return made


@pytest.mark.parametrize("held", [columns.HELD_BYTES, 0])
def test_parquet_by_column_row_and_slice_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    monkeypatch.setattr(columns, "HELD_BYTES", held)
    monkeypatch.setattr(table, "HELD_BYTES", held)
    monkeypatch.setattr(columns, "BATCH_BYTES", 300)
    made = parquet(tmp_path / "a.parquet")
    found = open_table(tmp_path / "a.parquet")
    assert list(found.column("blob")) == made["blob"].to_pylist()
    assert found.column("blob")[5:20] == made["blob"].to_pylist()[5:20]
    assert [found.cell("blob", row) for row in (49, 3, 20, 21, 0)] == [
        made["blob"][row].as_py() for row in (49, 3, 20, 21, 0)
    ]
    assert found.column("n")[:6] == [None, 1.0, 2.0, 3.0, 4.0, None]
    assert found.cell("list", 9) == [9, 10]
    assert found.cell("at", 3) == dt.datetime(1970, 1, 1, 0, 0, 3)
    assert found.cell("cell", 4) == {"bytes": b"\4", "path": "4"}
    assert found.origin(5) == "a.parquet row 5"


def test_a_column_of_files_is_never_held_whole(tmp_path: Path) -> None:
    rows, size = 120, 1 << 20
    schema = pyarrow.schema([("blob", pyarrow.binary())])
    with pyarrow.parquet.ParquetWriter(tmp_path / "a.parquet", schema) as writer:
        for row in range(0, rows, 20):
            cells = [np.random.default_rng(index).bytes(size) for index in range(row, row + 20)]
            writer.write_table(pyarrow.table({"blob": cells}, schema=schema))
    found = open_table(tmp_path / "a.parquet")
    peak, total, before = 0, 0, pyarrow.total_allocated_bytes()
    for cell in found.column("blob"):
        total += len(cell)
        peak = max(peak, pyarrow.total_allocated_bytes() - before)
    assert total == rows * size
    assert peak < 0.7 * total


def test_a_broken_parquet_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a.parquet: not a readable Parquet file .*write the file again"):
        open_table(put(tmp_path / "a.parquet", b"PAR1 and no more"))


def first_cells(found: table.Table) -> list[object]:
    return [found.cell("blob", 1), found.fetch("x.wav"), found.cell("n", 2)]


def test_tables_go_to_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "HELD_BYTES", 0)
    parquet(tmp_path / "a.parquet")
    zipped(tmp_path / "sounds.zip", {"x.wav": b"sound"})
    found = open_table(tmp_path / "a.parquet")
    expected = first_cells(found)
    assert first_cells(pickle.loads(pickle.dumps(found))) == expected  # noqa: S301 (our own bytes)
    receive, send = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=lambda: send.send(first_cells(found)))
    child.start()
    assert receive.recv() == expected
    child.join()
    lines = open_table(put(tmp_path / "b.jsonl", '{"x": 1}\n'))
    assert pickle.loads(pickle.dumps(lines)).cell("x", 0) == 1  # noqa: S301


# ---- in memory -------------------------------------------------------------------------------------------------------


MADE = {"n": [1, 2, None], "s": ["a", None, "c"], "t": [dt.datetime(2024, 1, 1), None, dt.datetime(2024, 1, 3)]}


@pytest.mark.parametrize(
    "source",
    [
        MADE,
        [dict(zip(MADE, row, strict=True)) for row in zip(*MADE.values(), strict=True)],
        pandas.DataFrame(MADE),
        pandas.DataFrame(MADE).convert_dtypes(),
        polars.DataFrame(MADE),
        pyarrow.table(MADE),
    ],
    ids=["dict", "list", "pandas", "pandas nullable", "polars", "pyarrow"],
)
def test_values_in_memory_are_all_the_same_table(source: object) -> None:
    found = open_table(source)
    assert {name: found.column(name) for name in found.columns} == MADE
    assert type(found.cell("n", 0)) in (int, float)
    assert found.origin(2).endswith(" row 2")


def test_arrays_give_a_row_each() -> None:
    pictures = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    found = open_table(
        {"picture": pictures, "y": np.array([1.5, np.nan]), "day": np.array(["2024-01-01", "NaT"], "M8[ns]")}
    )
    np.testing.assert_array_equal(found.cell("picture", 1), pictures[1])
    assert found.column("y") == [1.5, None]
    assert found.column("day") == [dt.datetime(2024, 1, 1), None]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ({"x": [1, 2], "y": [1]}, r"column 'y' = '1 values' .* expected 2, as 'x' has"),
        ({"x": 1}, r"dict\['x'\] = 1 .*a list or an array"),
        ([{"x": 1}, 3], r"list row 1 = 3 .*a dict of column to value"),
        (np.zeros((2, 2)), r"Fix: name the columns"),
        (polars.DataFrame(MADE).lazy(), r"\.collect\(\)"),
        ([], r"at least one row"),
        (7, r"a path, a frame"),
        (pandas.DataFrame([[1, 2]], columns=["x", "x"]), r"names that differ"),
    ],
)
def test_values_that_are_no_table_are_refused_with_the_fix(source: object, told: str) -> None:
    with pytest.raises(DataError, match=told):
        open_table(source)


# ---- folders ---------------------------------------------------------------------------------------------------------


def test_class_folders(tmp_path: Path) -> None:
    for name in (
        "photos/cat/1.jpg",
        "photos/cat/old/2.JPG",
        "photos/dog/3.png",
        "photos/README.md",
        "photos/.hidden/4.jpg",
    ):
        put(tmp_path / name, name)
    found = open_table(tmp_path / "photos")
    assert found.columns == ("file", "label")
    assert found.column("file") == ["cat/1.jpg", "cat/old/2.JPG", "dog/3.png"]
    assert found.column("label") == ["cat", "cat", "dog"]
    assert found.origin(0) == "photos/cat/1.jpg"
    assert found.fetch("cat/1.jpg") == b"photos/cat/1.jpg"
    assert found.notes == ("photos: 1 files are no image files and were left out (README.md …)",)


def test_class_folders_under_splits_and_text_files_as_values(tmp_path: Path) -> None:
    for name in ("train/pos/1.txt", "train/neg/2.txt", "test/pos/3.txt", "validation/neg/4.txt"):
        put(tmp_path / name, f"text of {name}")
    found = open_table(tmp_path)
    rows = list(zip(*(found.column(name) for name in ("file", "label", "split")), strict=True))
    assert rows[0] == ("test/pos/3.txt", "pos", "test")
    assert {row[2] for row in rows} == {"train", "val", "test"}
    assert found.cell("text", 0) == "text of test/pos/3.txt"


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("train/1.jpg", "boat/2.jpg"):
        put(tmp_path / name, "x")
    assert open_table(tmp_path).column("label") == ["boat", "train"]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["cat/1.jpg", "2.jpg"], "every file inside the folder of its class"),
        (["a/1.jpg", "b/2.wav"], "files of one kind; this has 1"),
        (["train/a/1.jpg", "test/a/2.jpg", "extra/a/3.jpg"], "extra.*move or rename"),
        (["a/1.xyz"], "one table, or with class folders"),
        (["a.csv", "b.csv"], "a folder with one table; this has a.csv, b.csv"),
        (["train.csv", "test.csv"], r"data: \{train: .*train.csv, test: .*test.csv\}"),
    ],
)
def test_unclear_folders_are_refused_with_the_fix(tmp_path: Path, names: list[str], told: str) -> None:
    for name in names:
        put(tmp_path / name, "x")
    with pytest.raises(DataError, match=told):
        open_table(tmp_path)


def test_a_folder_with_one_table_beside_files(tmp_path: Path) -> None:
    put(tmp_path / "calls.csv", "file,y\nwavs/1.wav,2\n")
    put(tmp_path / "wavs/1.wav", "sound")
    found = open_table(str(tmp_path))
    assert (found.name, found.fetch(found.cell("file", 0))) == ("calls.csv", b"sound")


def test_a_link_that_points_upwards_ends(tmp_path: Path) -> None:
    put(tmp_path / "cat/1.jpg", "x")
    put(tmp_path / "dog/1.jpg", "x")
    (tmp_path / "dog/loop").symlink_to(tmp_path)
    assert open_table(tmp_path).column("file") == ["cat/1.jpg", "dog/1.jpg"]


def test_zip_of_class_folders_and_zip_with_a_table(tmp_path: Path) -> None:
    zipped(
        tmp_path / "photos.zip",
        {"photos/cat/1.jpg": b"c", "photos/dog/2.jpg": b"d", "__MACOSX/photos/cat/._1.jpg": b""},
    )
    found = open_table(tmp_path / "photos.zip")
    assert found.column("label") == ["cat", "dog"]
    assert found.fetch(found.cell("file", 1)) == b"d"
    zipped(tmp_path / "calls.zip", {"set/calls.csv": b"file\nwav/1.wav\n", "set/wav/1.wav": b"sound"})
    inside = open_table(tmp_path / "calls.zip")
    assert inside.fetch(inside.cell("file", 0)) == b"sound"
    assert open_table(f"{tmp_path}/calls.zip!set/calls.csv").column("file") == ["wav/1.wav"]


# ---- files named in cells ----------------------------------------------------------------------------------------------


def test_fetch_finds_files_in_a_zip_beside_the_table(tmp_path: Path) -> None:
    put(tmp_path / "calls.csv", "file\n0.wav\n")
    put(tmp_path / "1.wav", "loose")
    zipped(tmp_path / "recordings.zip", {"0.wav": b"zero", "1.wav": b"not this one", "deep/2.wav": b"two"})
    found = open_table(tmp_path / "calls.csv")
    assert found.fetch("0.wav") == b"zero"
    assert found.fetch("1.wav") == b"loose"  # a file beside the table comes first
    assert found.fetch("recordings/0.wav") == b"zero"
    assert found.fetch("deep\\2.wav") == b"two"
    assert found.fetch("recordings.zip!deep/2.wav") == b"two"
    assert found.fetch(f"{tmp_path}/recordings.zip!0.wav") == b"zero"
    assert found.fetch("../" + tmp_path.name + "/1.wav") == b"loose"
    assert found.fetch(str(tmp_path / "1.wav")) == b"loose"
    assert found.has_file("0.wav")
    assert not found.has_file("9.wav")


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("9.wav", r"there is no file '9.wav' \(looked in .* and inside a.zip, b.zip\)"),
        ("same/..", "there is no file"),
        ("0.wav", "is in a.zip and in b.zip with different content: write 'a.zip!0.wav'"),
        ("a.zip!9.wav", "a.zip has no '9.wav'"),
        ("c.zip!9.wav", "there is no archive 'c.zip'"),
        ("", "is not a path"),
        ("x\0y", "is not a path"),
        ("x" * 5000, "there is no file"),
        (".", "there is no file"),
        ("broken.zip!x", "not a readable zip archive"),
        ("memory://nowhere/x.wav", "there is no such file"),
        ("nonsense://x", "cannot be read"),
    ],
)
def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path, path: str, told: str) -> None:
    put(tmp_path / "calls.csv", "file\n0.wav\n")
    zipped(tmp_path / "a.zip", {"0.wav": b"a", "same": b"s"})
    zipped(tmp_path / "b.zip", {"0.wav": b"b", "same": b"s"})
    found = open_table(tmp_path / "calls.csv")
    assert found.fetch("same") == b"s"  # the same content twice is no question
    if path.startswith("broken"):
        put(tmp_path / "broken.zip", "no zip")
    with pytest.raises(BadValue, match=told) as caught:
        found.fetch(path)
    assert len(str(caught.value)) < 400


def test_of_two_archives_the_one_named_after_the_table_is_meant(tmp_path: Path) -> None:
    for side in ("train", "test"):
        put(tmp_path / f"{side}.csv", "image\n0.png\n")
        zipped(tmp_path / f"{side}_images.zip", {"0.png": side.encode()})
    assert open_table(tmp_path / "test.csv").fetch("0.png") == b"test"


def test_sizes_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "a.csv", "file\nx\n")
    put(tmp_path / "big.bin", bytes(2_000))
    zipped(tmp_path / "bomb.zip", {"zeros": bytes(10_000)})
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 1_000)
    monkeypatch.setattr(files, "MAX_MEMBER_BYTES", 1_000)
    found = open_table(tmp_path / "a.csv")
    for path in ("big.bin", "zeros"):
        with pytest.raises(BadValue, match="more than 1000"):
            found.fetch(path)


def test_damaged_members_are_named(tmp_path: Path) -> None:
    put(tmp_path / "a.csv", "file\nx\n")
    path = tmp_path / "z.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m", b"content that will change")
    path.write_bytes(path.read_bytes().replace(b"will change", b"has changed"))
    with pytest.raises(BadValue, match="cannot be unpacked"):
        open_table(tmp_path / "a.csv").fetch("m")


def test_many_archives_do_not_use_up_the_open_files(tmp_path: Path) -> None:
    put(tmp_path / "a.csv", "file\nx\n")
    for index in range(files.OPEN_ARCHIVES + 5):
        zipped(tmp_path / f"z/{index}.zip", {"m": str(index).encode()})
    found = open_table(tmp_path / "a.csv")
    for _ in range(2):
        for index in range(files.OPEN_ARCHIVES + 5):
            assert found.fetch(f"z/{index}.zip!m") == str(index).encode()
    assert len(found.finder._archives) == files.OPEN_ARCHIVES


# ---- addresses -------------------------------------------------------------------------------------------------------


def test_everything_works_at_an_address() -> None:
    memory = fsspec.filesystem("memory")
    blob = io.BytesIO()
    with zipfile.ZipFile(blob, "w") as archive:
        archive.writestr("0.wav", b"zero")
    made = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"x": [1, 2]}), made)
    contents = {
        "one/calls.csv": b"file,y\n0.wav,1\n1.wav,2\n", "one/1.wav": b"one", "one/rec.zip": blob.getvalue(),
        "two/a.parquet": made.getvalue(), "two/b.jsonl": b'{"x": 3}\n', "three/cat/1.jpg": b"c", "three/dog/2.jpg": b"d",
    }  # fmt: skip
    for name, content in contents.items():
        memory.pipe_file(f"/t/{name}", content)
    found = open_table("memory://t/one")
    assert [found.fetch(path) for path in found.column("file")] == [b"zero", b"one"]
    assert found.fetch("memory://t/two/b.jsonl") == b'{"x": 3}\n'
    assert found.fetch("memory://t/one/rec.zip!0.wav") == b"zero"
    assert open_table("memory://t/two/a.parquet").column("x") == [1, 2]
    assert open_table("memory://t/two/b.jsonl").column("x") == [3]
    folders = open_table("memory://t/three")
    assert (folders.column("label"), folders.fetch("cat/1.jpg"), folders.name) == (["cat", "dog"], b"c", "three")
    with pytest.raises(DataError, match="an existing file or folder"):
        open_table("memory://t/four.csv")


def test_a_missing_package_is_named_with_the_command() -> None:
    with pytest.raises(SetupError, match=r"reading s3://bucket/a.csv needs 's3fs': pip install s3fs"):
        open_table("s3://bucket/a.csv")
    with pytest.raises(SetupError, match=r"'datasets': pip install 'endwise\[hub\]'"):
        open_table("hf://owner/name:train")
    with pytest.raises(DataError, match="an address"):
        open_table("nonsense://x/a.csv")


# ---- names -----------------------------------------------------------------------------------------------------------


def test_misspelt_columns_and_paths_are_answered_with_the_nearest(tmp_path: Path) -> None:
    found = open_table(put(tmp_path / "calls.csv", "speaker,words\na,b\n"))
    with pytest.raises(DataError, match=r"calls.csv: column = 'speeker' .* did you mean 'speaker'\?"):
        found.column("speeker")
    with pytest.raises(DataError, match=r"did you mean '.*calls.csv'\?"):
        open_table(tmp_path / "cals.csv")
    with pytest.raises(DataError, match="CSV, Parquet or JSONL"):
        open_table(put(tmp_path / "a.xlsx", "x"))


def test_a_table_is_itself() -> None:
    found = open_table({"x": [1]})
    assert open_table(found) is found


def test_json_lines_are_parsed_once_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"x": row, "y": str(row)} for row in range(1000)]
    found = open_table(put(tmp_path / "a.jsonl", "\n".join(json.dumps(row) for row in rows)))
    assert [found.cell("x", row) for row in (999, 0, 500)] == [999, 0, 500]
    assert len(found.column("y")) == 1000
