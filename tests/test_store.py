"""The prepared store: decoded once, never half-read, shared, bounded, cleaned."""

import json
import multiprocessing
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from endwise.data import store as store_module
from endwise.data.key import field_key
from endwise.data.read import Cells, Packed, decode, read_column
from endwise.data.store import FieldStore, cache_root, clean, open_field, usage
from endwise.errors import BadValue, SetupError
from endwise.modalities.base import Fetch, Modality, input_field


@dataclass(frozen=True, kw_only=True)
class Array(Modality):
    """Arrays as they are; text names a file whose bytes are the value."""

    type: ClassVar[str] = "array"
    axes: ClassVar[int] = 1
    read_fields = ("times",)
    times: int = input_field(1, "")
    colour: str = input_field("red", "not looked at by read")

    def read(self, raw: Any, fetch: Fetch) -> np.ndarray:
        if isinstance(raw, str):
            return np.frombuffer(fetch(raw), np.uint8)
        if not isinstance(raw, np.ndarray):
            raise BadValue(f"{raw!r} is no array")
        return raw * self.times

    def length(self, shape: tuple[int, ...]) -> int:
        return shape[0] if shape else 0


def nothing(path: str) -> bytes:
    raise BadValue(f"there is no file {path}")


def opened(values: Sequence[Any], key: str = "k" * 8, workers: int = 1) -> FieldStore:
    def decoded() -> Iterator[Packed]:
        return read_column(Array(), [Cells(values, nothing)], workers=workers)

    return open_field(key, len(values), decoded, about="x of test")


def never() -> Iterator[Packed]:
    raise AssertionError("it was decoded again")


def joined(packs: list[Packed]) -> bytes:
    return b"".join(bytes(buffer) for pack in packs for buffer in pack.data)


def shards(store: FieldStore) -> list[Path]:
    return sorted(store.folder.glob("*.arrow"))


ARRAYS = st.one_of(
    st.none(),
    st.lists(st.integers(0, 255), max_size=7).map(lambda found: np.array(found, np.uint8)),
    st.lists(st.floats(-1, 1), max_size=5).map(lambda found: np.array(found, np.float64)),
    st.integers(-5, 5).map(lambda found: np.array(found, np.int16)),
    st.tuples(st.integers(0, 3), st.integers(1, 3)).map(lambda shape: np.full(shape, 7, np.uint16)),
    st.just("unreadable"),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(ARRAYS, max_size=12))
def test_what_was_decoded_is_what_is_read(values: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "BATCH_ROWS", 5)  # several batches and shards, however few the rows
    monkeypatch.setattr(store_module, "SHARD_BYTES", 1)
    store = opened(values, key=os.urandom(8).hex())
    assert len(store) == len(values)
    for row, value in enumerate(values):
        assert bool(store.present[row]) == isinstance(value, np.ndarray)
        if isinstance(value, np.ndarray):
            assert store[row].dtype == value.dtype
            assert store[row].shape == value.shape == store.shape(row)
            assert store[row].tolist() == value.tolist()
            assert not store[row].flags.writeable
        else:
            with pytest.raises(KeyError):
                store[row]
    assert [row for row, _ in store.bad] == [row for row, value in enumerate(values) if isinstance(value, str)]
    expected = [len(value) if isinstance(value, np.ndarray) and value.ndim else 0 for value in values]
    assert store.lengths(Array()).tolist() == expected


def test_equal_shapes_are_gathered_at_once() -> None:
    values = [np.full((2, 3), row, np.uint8) for row in range(10)]
    store = opened(values)
    assert store.common_shape == (2, 3)
    assert store.gather(np.array([7, 0, 7])).tolist() == [values[7].tolist(), values[0].tolist(), values[7].tolist()]
    assert opened([*values, np.zeros(1, np.uint8)], key="other").common_shape is None


def test_it_is_decoded_once() -> None:
    opened([np.arange(3)]).close()
    assert open_field("k" * 8, 1, never, about="x")[0].tolist() == [0, 1, 2]


def test_content_tells_equal_values_from_others() -> None:
    store = opened(
        [np.zeros(4, np.uint8), np.zeros(4, np.uint8), np.zeros(1, np.int32), np.zeros((2, 2), np.uint8), None]
    )
    content = [bytes(row) for row in store.content]
    assert content[0] == content[1]
    assert len(set(content)) == 4
    assert content[4] == bytes(16)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_do_not_depend_on_the_number_of_workers(workers: int) -> None:
    values: list[Any] = [np.full(row % 17, row, np.int32) if row % 13 else None for row in range(300)]
    values[50] = "unreadable"
    alone, shared = opened(values), opened(values, key="other", workers=workers)
    assert alone.fingerprint == shared.fingerprint
    assert alone.bad == shared.bad == ((50, "there is no file unreadable"),)


def test_processes_give_the_same_as_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("endwise.data.read.WORTH_PROCESSES_S", -1.0)

    def read(self: Array, raw: Any, fetch: Fetch) -> np.ndarray:
        if raw == b"bad":
            raise BadValue("bad bytes")
        return np.frombuffer(raw, np.uint8)

    monkeypatch.setattr(Array, "read", read)
    values: list[Any] = [bytes([row % 256]) * (row % 5) for row in range(2500)]
    values[1234], values[99] = b"bad", None
    packs = [list(read_column(Array(), [Cells(values, nothing)], workers=workers)) for workers in (1, 3)]
    for part in ("sizes", "shapes", "dtypes"):
        alone, shared = ([item for pack in run for item in getattr(pack, part)] for run in packs)
        assert alone == shared
    assert joined(packs[0]) == joined(packs[1])
    assert b"".join(pack.hashes for pack in packs[0]) == b"".join(pack.hashes for pack in packs[1])
    assert multiprocessing.active_children() == []


def test_values_larger_than_the_first_ones_stay_in_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("endwise.data.read.PACK_BYTES", 1000)
    values = [np.zeros(1, np.uint8)] * 40 + [np.full(600, row, np.uint8) for row in range(60)]
    packs = list(read_column(Array(), [Cells(values, nothing)], workers=3))
    assert sum(len(pack.sizes) for pack in packs) == 100
    assert max(sum(pack.sizes) for pack in packs) < 1700
    assert joined(packs) == b"".join(value.tobytes() for value in values)


def test_a_full_pack_is_one_buffer_that_need_not_be_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("endwise.data.read.PACK_BYTES", 10_000)
    values = [np.full((30, 20), row, np.uint8) for row in range(100)]
    packs = list(read_column(Array(), [Cells(values, nothing)], workers=1))
    assert [len(pack.data) for pack in packs] == [1] * len(packs)
    assert joined(packs) == b"".join(value.tobytes() for value in values)


def test_a_decoder_that_chokes_is_a_named_row_and_a_machine_that_lacks_something_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read(self: Array, raw: Any, fetch: Fetch) -> np.ndarray:
        if raw == 0:
            raise ZeroDivisionError("corrupt header")
        raise SetupError("reading it needs 'something'")

    monkeypatch.setattr(Array, "read", read)
    assert decode(Array(), [0], nothing).bad == [(0, "ZeroDivisionError: corrupt header")]
    with pytest.raises(SetupError, match="something"):
        decode(Array(), [1], nothing)


# ---- damage and interruption ---------------------------------------------------------------------------------------


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)


DAMAGES = {
    "a flipped byte": lambda store: _flip(shards(store)[0]),
    "a cut shard": lambda store: shards(store)[0].write_bytes(shards(store)[0].read_bytes()[:100]),
    "an empty shard": lambda store: shards(store)[0].write_bytes(b""),
    "a lost shard": lambda store: shards(store)[0].unlink(),
    "a lost description": lambda store: (store.folder / "field.json").unlink(),
    "a cut description": lambda store: (store.folder / "field.json").write_text('{"version": 1, "ro'),
    "another format": lambda store: (store.folder / "field.json").write_text('{"version": 99}'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_field_is_decoded_again(damage: str) -> None:
    values = [np.arange(500), np.arange(500) + 1]
    store = opened(values)
    DAMAGES[damage](store)
    assert opened(values)[1].tolist() == values[1].tolist()


def test_a_shard_that_was_copied_is_summed_and_kept() -> None:
    store = opened([np.arange(9)])
    os.utime(shards(store)[0])
    assert open_field("k" * 8, 1, never, about="x")[0].tolist() == list(range(9))


def test_an_interrupted_decoding_leaves_nothing_behind() -> None:
    def interrupted() -> Iterator[Packed]:
        yield decode(Array(), [np.arange(3)], nothing)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_field("k" * 8, 2, interrupted, about="x")
    assert list((cache_root() / "tmp").iterdir()) == []
    assert usage().entries == ()


def test_what_a_killed_process_left_is_removed() -> None:
    script = """
        import os, signal
        from endwise.data import store
        from endwise.data.read import Packed
        def decode():
            yield Packed([], [0], [[]], [""], bytes(16), [])
            os.kill(os.getpid(), signal.SIGKILL)
        store.open_field("k" * 8, 2, decode, about="x")
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert killed.returncode == -9
    assert len(list((cache_root() / "tmp").iterdir())) == 1
    assert len(opened([np.arange(3), None])) == 2
    assert list((cache_root() / "tmp").iterdir()) == []


def test_two_processes_share_one_decoding() -> None:
    script = """
        import sys, time, pathlib
        import numpy as np
        from endwise.data.read import Packed
        from endwise.data.store import open_field
        def decode():
            with pathlib.Path(sys.argv[1]).open("a") as log:
                log.write("decoded\\n")
            time.sleep(0.5)
            yield Packed([b"ab"], [2], [[2]], ["|u1"], bytes(16), [])
        print(open_field("shared", 1, decode, about="x")[0].tolist())
    """
    log = cache_root().parent / "log"
    command = [sys.executable, "-c", textwrap.dedent(script), str(log)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in both] == ["[97, 98]", "[97, 98]"]
    assert log.read_text() == "decoded\n"


def test_a_bad_row_that_is_readable_now_is_read_again() -> None:
    assert opened(["later"]).bad
    again = open_field(
        "k" * 8, 1, lambda: read_column(Array(), [Cells([np.arange(2)], nothing)], workers=1), about="x",
        still_good=lambda store: not store.bad,
    )  # fmt: skip
    assert again[0].tolist() == [0, 1]


def test_a_full_disk_is_an_error_in_the_users_words() -> None:
    script = """
        import resource, sys
        import numpy as np
        from endwise.data.read import Packed
        from endwise.data.store import open_field
        from endwise.errors import SetupError
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        def decode():
            yield Packed([bytes(100_000)], [100_000], [[100_000]], ["|u1"], bytes(16), [])
        try:
            open_field("large", 1, decode, about="x")
        except SetupError as wrong:
            print(wrong)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert "is full" in done.stdout
    assert "ENDWISE_CACHE" in done.stdout
    assert done.stderr == ""
    assert list((cache_root() / "tmp").iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("ENDWISE_CACHE", str(tmp_path / "file"))
    with pytest.raises(SetupError, match="ENDWISE_CACHE"):
        opened([np.arange(3)])


# ---- the cap and cleaning --------------------------------------------------------------------------------------------


def _dated(key: str, seconds: float) -> None:
    os.utime(cache_root() / "locks" / f"{key}.use", (seconds, seconds))


def test_the_least_recently_used_makes_room_but_never_one_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = opened([np.zeros(30_000)], key="in-use")
    for age, key in enumerate(["new", "old", "oldest"]):
        opened([np.zeros(30_000)], key=key).close()
        _dated(key, time.time() - 1000 * (age + 1))
    _dated("in-use", time.time() - 9999)
    monkeypatch.setenv("ENDWISE_CACHE_GB", "0.001")
    assert [entry.key for entry in usage().entries] == ["in-use", "oldest", "old", "new"]
    opened([np.zeros(30_000)], key="newest").close()
    assert [entry.key for entry in usage().entries] == ["in-use", "old", "new", "newest"]
    assert [entry.in_use for entry in usage().entries] == [True, False, False, False]
    assert kept[0].sum() == 0


def test_cleaning_removes_all_that_is_not_in_use() -> None:
    kept = opened([np.zeros(100)], key="kept")
    opened([np.zeros(100)], key="gone").close()
    found = clean()
    assert (found.removed, found.in_use) == (1, 1)
    assert found.freed_bytes > 800
    assert [entry.key for entry in usage().entries] == ["kept"]
    kept.close()
    assert clean().removed == 1
    assert usage().bytes == 0
    assert kept[0].sum() == 0  # values handed out stay valid
    assert sorted(cache_root().glob("locks/*")) == []


def test_cleaning_can_spare_what_was_used_lately() -> None:
    opened([np.zeros(100)], key="lately").close()
    opened([np.zeros(100)], key="long-ago").close()
    _dated("long-ago", time.time() - 10 * 86_400)
    assert clean(unused_days=5).removed == 1
    assert [entry.key for entry in usage().entries] == ["lately"]
    assert json.loads(json.dumps(usage().to_dict()))["entries"][0]["about"] == "x of test"


def test_a_field_larger_than_the_cap_is_refused_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENDWISE_CACHE_GB", "0.0001")
    with pytest.raises(SetupError, match="ENDWISE_CACHE_GB to a larger number"):
        opened([np.zeros(100_000)])
    monkeypatch.setenv("ENDWISE_CACHE_GB", "much")
    with pytest.raises(SetupError, match="number of gigabytes"):
        usage()


def test_memory_stays_bounded_while_more_is_written_and_read() -> None:
    script = """
        import numpy as np
        from endwise.data import store
        from endwise.data.read import Packed, decode
        from tests.test_store import Array, nothing
        import pyarrow.ipc
        def resident():
            return int(next(line for line in open("/proc/self/status") if "VmRSS" in line).split()[1]) / 1024
        def rows():
            for row in range(600):
                yield decode(Array(), [np.full(100_000, row % 256, np.uint8)], nothing)
        store.BATCH_BYTES = 1 << 20
        store.open_field("warm", 1, lambda: iter([decode(Array(), [np.zeros(9)], nothing)]), about="x")[0]
        before = resident()
        made = store.open_field("large", 600, rows, about="x")
        written = resident() - before
        made = store.FieldStore(made.folder, store._meta(made.folder, 600)[0], None, resident_bytes=4 << 20)
        most = 0.0
        for row in np.random.default_rng(0).permutation(600):
            assert int(made[row].max()) == row % 256
            most = max(most, resident() - before)
        print(round(written, 1), round(most, 1))
    """
    if not Path("/proc/self/status").exists():
        pytest.skip("counts resident pages as Linux does")
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    written, most = map(float, done.stdout.split())
    assert written < 20, done.stdout  # MiB, for 60 MB of values
    assert most < 20, done.stdout


# ---- keys ------------------------------------------------------------------------------------------------------------


def test_a_key_changes_with_cells_files_and_reading_fields_only(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"one")

    def key(modality: Modality = Array(), cells: Sequence[Any] = ("a.bin", None, 3)) -> str:
        return field_key(modality, [(cells, str(tmp_path))])

    first = key()
    assert key() == first
    assert key(Array(column="other", colour="blue", optional=True)) == first
    assert key(Array(times=2)) != first
    assert key(cells=("a.bin", None, 4)) != first
    assert key(cells=("a.bin", 3, None)) != first
    (tmp_path / "a.bin").write_bytes(b"three")
    assert key() != first


def test_a_key_sees_inside_archives_and_arrays(tmp_path: Path) -> None:
    def key(*cells: Any) -> str:
        return field_key(Array(), [(cells, str(tmp_path))])

    (tmp_path / "all.zip").write_bytes(b"one")
    named, beside = key("all.zip!x.wav"), key("x.wav")
    (tmp_path / "all.zip").write_bytes(b"two2")
    assert key("all.zip!x.wav") != named
    assert key("x.wav") != beside
    assert key(np.zeros(3)) == key(np.zeros(3))
    assert key(np.zeros(3)) != key(np.zeros(3, np.float32))
    assert key(b"abc") != key("abc")
    assert key({"bytes": b"abc"}) == key({"bytes": b"abc"})
    assert key((1, 2)) != key((1, 3))
    assert key(object()) != key(object())


def test_a_key_changes_when_the_code_that_reads_does(monkeypatch: pytest.MonkeyPatch) -> None:
    source = "class Typed(Array):\n    def read(self, raw, fetch):\n        return raw + {}\n"

    def typed(number: int) -> Modality:
        names: dict[str, Any] = {"Array": Array, "__name__": "typed_in"}
        exec(source.format(number), names)
        made: Modality = dataclass(frozen=True, kw_only=True)(names["Typed"])()
        return made

    one, same, other = (field_key(typed(number), [((1,), ".")]) for number in (1, 1, 2))
    assert one == same
    assert one != other
