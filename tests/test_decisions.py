"""The decision log: nothing in it can be edited, removed or moved unseen, wherever it is kept."""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer.testing

from endwise.cli import app
from endwise.decisions import Decision, Decisions
from endwise.errors import DataError, SetupError


@dataclass
class Facts:
    sha256: str
    name: str
    place: Path
    recipe: dict[str, Any]
    info: dict[str, Any]


MODEL = Facts(
    "a" * 64, "small", Path("nowhere"), {"inputs": {"x": {"type": "number"}}, "outputs": {"y": {"type": "category"}}},
    {"versions": {"torch": "2.13"}, "data_fingerprint": "f" * 64},
)  # fmt: skip


def decision(number: int) -> Decision:
    return Decision(
        id=f"d-{number}",
        inputs={"x": f"{number:064x}"},
        outputs={"y": {"value": f"class {number}", "confidence": 0.75}},
    )


def filled(log: Decisions, count: int = 10) -> None:
    for number in range(count):
        log.record(MODEL, [decision(number)])


@pytest.fixture
def place(tmp_path: Path) -> Path:
    with Decisions.open(tmp_path / "log.db", create=True) as log:
        filled(log)
    return tmp_path / "log.db"


def change(place: Path, *texts: str) -> None:
    with contextlib.closing(sqlite3.connect(place)) as opened:
        for text in texts:
            opened.execute(text)
        opened.commit()


def problems(place: Path, expect: str | None = None) -> tuple[str, ...]:
    with Decisions.open(place) as log:
        return log.verify(expect).problems


def test_an_untouched_log_is_whole(place: Path) -> None:
    with Decisions.open(place) as log:
        found = log.verify()
        assert found.ok
        assert found.count == 11  # ten, and one about the model
        filled(log, 1)
        assert log.verify(found.head).ok  # it goes on from there
        assert log.verify().count == 12  # the model is known already


CHANGES: list[tuple[str, tuple[str, ...], str]] = [
    ("an edited answer", ("UPDATE endwise_decisions SET line = replace(line, 'class 3', 'class 4')",), "line 5: it was edited"),
    ("an edited time", ("UPDATE endwise_decisions SET line = replace(line, '\"time\": \"2', '\"time\": \"1') WHERE number = 7",), "line 7: it was edited"),
    ("an edited hash", ("UPDATE endwise_decisions SET hash = replace(hash, substr(hash, 1, 4), '0000') WHERE number = 6",), "line 6"),
    ("an edited id", ("UPDATE endwise_decisions SET id = 'other' WHERE number = 6",), "line 6: its number or its id"),
    ("a removed line", ("DELETE FROM endwise_decisions WHERE number = 4",), "line 4 is missing"),
    ("removed lines", ("DELETE FROM endwise_decisions WHERE number IN (4, 5)",), "lines 4 to 5 are missing"),
    ("a removed first line", ("DELETE FROM endwise_decisions WHERE number = 1",), "line 1 is missing"),
    ("a removed last line", ("DELETE FROM endwise_decisions WHERE number = 11",), "line 11 is missing"),
    ("a removed line, the others moved up", ("DELETE FROM endwise_decisions WHERE number = 4", "UPDATE endwise_decisions SET number = number - 1 WHERE number > 4"), "line 4: it was edited"),
    ("lines in another order", ("UPDATE endwise_decisions SET number = 100 WHERE number = 4", "UPDATE endwise_decisions SET number = 4 WHERE number = 5", "UPDATE endwise_decisions SET number = 5 WHERE number = 100"), "line 4"),
    ("a line put in", ("INSERT INTO endwise_decisions VALUES (12, 'd-99', '{}', 'x')",), "line 12"),
    ("a text that is none", ("UPDATE endwise_decisions SET line = 'nothing' WHERE number = 3",), "no line of this log"),
    ("no last number", ("DELETE FROM endwise_head",), "number and hash of the last line are missing"),
]  # fmt: skip


@pytest.mark.parametrize(("texts", "says"), [case[1:] for case in CHANGES], ids=[case[0] for case in CHANGES])
def test_every_change_is_found(place: Path, texts: tuple[str, ...], says: str) -> None:
    change(place, *texts)
    found = problems(place)
    assert found
    assert any(says in problem for problem in found), found


def test_a_log_written_anew_is_found_by_what_was_written_down(place: Path, tmp_path: Path) -> None:
    with Decisions.open(place) as log:
        head = log.verify().head
    with Decisions.open(tmp_path / "forged.db", create=True) as forged:
        filled(forged, 9)
        assert forged.verify().ok
        assert forged.verify(head).problems == ("there is no line 11, which was written down",)
        forged.record(MODEL, [decision(77)])
        assert forged.verify(head).problems == ("line 11: its hash is not the one that was written down",)
        with pytest.raises(DataError, match="NUMBER:HASH"):
            forged.verify("eleven")


def test_an_id_leads_back_to_what_made_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    (run / "model" / "model.json").write_text("{}")
    (run / "recipe.yaml").write_text("")
    (run / "data.json").write_text(
        json.dumps({"fingerprint": "f" * 64, "rows": {"train": 8, "test": 2}, "split": "by hash"})
    )
    import hashlib

    model = Facts(hashlib.sha256(b"{}").hexdigest(), "small", run, MODEL.recipe, MODEL.info)
    with Decisions.open(tmp_path / "log.db", create=True) as log:
        log.record(model, [decision(1)])
        shown = log.show("d-1")
        assert shown.there
        assert shown.decision["inputs"] == {"x": f"{1:064x}"}
        assert shown.decision["outputs"]["y"] == {"value": "class 1", "confidence": 0.75}
        assert shown.decision["data"] == "f" * 64
        assert shown.model["recipe"] == MODEL.recipe
        assert shown.model["environment"]["packages"]["numpy"]
        assert shown.data is not None
        assert shown.data["rows"] == {"train": 8, "test": 2}
        assert "8 train, 2 test" in str(shown)
        (run / "model" / "model.json").write_text("{ }")
        assert not log.show("d-1").there
        with pytest.raises(DataError, match="no decision 'd-2'"):
            log.show("d-2")
        with pytest.raises(DataError, match="no decision"):
            log.show(model.sha256)  # a line, and no decision


def test_a_long_answer_is_kept_by_its_hash(tmp_path: Path) -> None:
    with Decisions.open(tmp_path / "log.db", create=True) as log:
        log.record(
            MODEL, [Decision(id="p", inputs={}, outputs={"y": {"value": "data:" + "x" * 100_000, "confidence": 0.5}})]
        )
        kept = log.show("p").decision["outputs"]["y"]
    assert kept["value"].keys() == {"sha256", "characters"}
    assert kept["confidence"] == 0.5


def test_several_write_at_once(tmp_path: Path) -> None:
    logs = [Decisions.open(tmp_path / "log.db", create=True) for _ in range(3)]
    threads = [threading.Thread(target=filled, args=(log, 20)) for log in logs for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = logs[0].verify()
    assert found.ok, found.problems
    assert found.count == 121
    for log in logs:
        log.close()


def test_what_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    with Decisions.open(tmp_path / "log.db", create=True) as log:
        with pytest.raises(ValueError):
            log.record(MODEL, [decision(1), Decision(id="d-2", inputs={}, outputs={"y": {"value": float("nan")}})])
        assert log.verify().count == 0
        log.record(MODEL, [decision(3)])
        assert log.verify().ok
        assert log.show("d-3").model["name"] == "small"


def test_a_killed_writer_leaves_a_whole_log(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from test_decisions import MODEL, decision\n"
        "from endwise.decisions import Decisions\n"
        "log = Decisions.open(sys.argv[1], create=True)\n"
        "for number in range(100_000):\n"
        "    log.record(MODEL, [decision(number)])\n"
        "    print(number, flush=True)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "log.db"), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(20):
            said = int(process.stdout.readline())
        process.kill()
    with Decisions.open(tmp_path / "log.db") as log:
        assert log.verify().ok
        assert log.show(f"d-{said}").decision["id"] == f"d-{said}"


def test_the_commands_say_it(place: Path) -> None:
    run = typer.testing.CliRunner().invoke
    assert "11 lines, each as it was written" in run(app, ["audit", "verify", str(place)]).output
    found = json.loads(run(app, ["audit", "verify", str(place), "--json"]).output)
    assert found["ok"]
    assert run(app, ["audit", "verify", str(place), "--expect", found["head"]]).exit_code == 0
    shown = json.loads(run(app, ["audit", "show", str(place), "d-3", "--json"]).output)
    assert shown["decision"]["outputs"]["y"]["value"] == "class 3"
    assert "class 3" in run(app, ["audit", "show", str(place), "d-3"]).output
    change(place, "DELETE FROM endwise_decisions WHERE number = 4")
    after = run(app, ["audit", "verify", str(place)])
    assert after.exit_code == 3
    assert "line 4 is missing" in after.output


def test_a_place_without_a_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="there is no decision log"):
        Decisions.open(tmp_path / "none.db")
    with pytest.raises(SetupError, match="postgresql"):
        Decisions.open("mysql://somebody:secret@somewhere/x")
    (tmp_path / "text.db").write_text("this is no database, and long enough to be seen to be none" * 20)
    with pytest.raises(SetupError, match="no decision log that can be written"):
        Decisions.open(tmp_path / "text.db", create=True)


# ---- PostgreSQL --------------------------------------------------------------------------------------------------------


def _programs() -> Path | None:
    """The folder of PostgreSQL's server programs, if this machine has them."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "initdb").exists() and (place / "postgres").exists()), None)


@pytest.fixture(scope="module")
def postgres() -> Iterator[tuple[str, Callable[[str], None]]]:
    """The address of a real server that listens in a folder of its own, and what stops and starts it."""
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL's server is not installed on this machine")
    pytest.importorskip("psycopg")
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # a short name: it holds a socket
    who: dict[str, Any] = {}
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # it refuses to run as root
        import pwd

        try:
            owner = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        who = {"user": owner.pw_uid, "group": owner.pw_gid}

    def call(*words: str) -> None:
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, **who)
        assert done.returncode == 0, done.stderr + done.stdout

    call(
        str(programs / "initdb"), "-D", str(folder / "data"), "-A", "trust", "-U", "endwise", "--no-sync", "-E", "UTF8"
    )
    options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"

    def control(what: str) -> None:
        more = ["-o", options] if what == "start" else ["-m", "fast"]
        call(str(programs / "pg_ctl"), what, "-D", str(folder / "data"), "-w", "-l", str(folder / "log"), *more)

    control("start")
    try:
        yield f"postgresql://endwise@/postgres?host={folder}", control
    finally:
        control("stop")
        shutil.rmtree(folder)


def test_a_log_in_postgresql_is_the_same(postgres: tuple[str, Callable[[str], None]]) -> None:
    import psycopg

    address, control = postgres
    with Decisions.open(address) as log, Decisions.open(address) as other:
        filled(log, 5)
        other.record(MODEL, [decision(5)])
        threads = [threading.Thread(target=filled, args=(one, 10)) for one in (log, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = log.verify()
        assert found.ok, found.problems
        assert found.count == 27
        assert log.show("d-5").model["name"] == "small"
        control("stop")
        with pytest.raises(SetupError, match="cannot be reached"):
            log.record(MODEL, [decision(6)])
        control("start")
        log.record(MODEL, [decision(7)])  # the lost connection is made again
        assert log.verify().count == 28
        with psycopg.connect(address) as tampering:
            tampering.execute(
                "UPDATE endwise_decisions SET line = replace(line, 'class 3', 'class 4') WHERE number = 5"
            )
        assert log.verify().problems == ("line 5: it was edited, moved or put in, or the line before it was",)
        with psycopg.connect(address) as tampering:
            tampering.execute("DELETE FROM endwise_decisions WHERE number = 28")
        assert "line 28 is missing" in log.verify().problems


def test_a_server_that_is_not_there_is_said(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(SetupError, match="cannot be reached") as refused:
        Decisions.open(f"postgresql://somebody:secret@/x?host={tmp_path}")
    assert "secret" not in str(refused.value)
