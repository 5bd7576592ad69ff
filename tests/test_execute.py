"""Programs that nobody has read: what they may not do, how they are counted, and shell commands compared as texts."""

import itertools
import math
import os
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from endwise import execute, metrics
from endwise.errors import DataError
from endwise.execute import chance, command_match, pass_at_k, run_all, run_tests, spelt_alike, template, template_match
from endwise.modalities.base import Answer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs limits of a Unix kernel")
PLUS = "def plus(a, b):\n    return a + b"
TESTS = "assert plus(1, 2) == 3\nassert plus(-1, 1) == 0"


def test_a_program_passes_when_every_test_ran_and_none_failed() -> None:
    assert run_tests(PLUS, TESTS).passed
    assert run_tests("import math, re, collections", "assert math.pi > 3").passed
    wrong = run_tests(PLUS.replace("+", "-"), TESTS)
    assert (wrong.verdict, wrong.message) == ("failed", "AssertionError")
    assert "SyntaxError" in run_tests("def plus(a, b", TESTS).message
    assert run_tests(PLUS + "\nplus = None", TESTS).verdict == "failed"


@pytest.mark.parametrize("leaving", ["import sys; sys.exit(0)", "import os; os._exit(0)", "raise SystemExit"])
def test_leaving_before_the_tests_is_no_pass(leaving: str) -> None:
    found = run_tests(leaving, "assert False")
    assert (found.verdict, found.message) == ("failed", "ended before its tests did")


@pytest.mark.parametrize("endless", ["while True: pass", "while True: print('x' * 1000)", "10 ** 10 ** 9", "import time; time.sleep(1000)"])  # fmt: skip
def test_an_endless_program_is_stopped(endless: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "STARTING_S", 1.0)
    assert run_tests(endless, "", seconds=1).verdict == "time"


def test_memory_is_limited() -> None:
    assert run_tests("x = []\nwhile True: x.append(bytes(10 ** 7))", "", megabytes=128).verdict == "memory"


def test_what_it_says_without_end_fills_no_memory_of_ours() -> None:
    found = run_tests("import sys\nwhile True: sys.stderr.write('x' * 1000)", "")
    assert not found.passed
    assert len(found.message) <= 300


@pytest.mark.parametrize(
    "trick",
    [
        "import os\nwhile True: os.fork()",
        "import subprocess\nsubprocess.Popen(['sleep', '100'])",
        "import os\nos.system('sleep 100')",
        "import os\nos.execv('/bin/sh', ['sh'])",
        "import os\nos.posix_spawn('/bin/sh', ['sh'], {})",
        "import multiprocessing as m\nm.Process(target=print).start()",
        "import ctypes\nctypes.CDLL(None).fork()",
        "import _posixsubprocess",
        "import os\nos.kill(os.getppid(), 9)",
        "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (-1, -1))",
        "import socket\nsocket.socket()",
        "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:9')",
        "open('note', 'w')",
        "import os\nos.open('note', os.O_CREAT | os.O_RDWR)",
        "import pathlib\npathlib.Path('note').touch()",
        "import os\nos.mkdir('note')",
    ],
)
def test_processes_network_and_writing_are_refused(trick: str) -> None:
    found = run_tests(trick, "")
    assert found.verdict == "refused", found


def test_files_stay_as_they_are(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("kept")
    for how in (
        f"open({str(mine)!r}, 'a').write('!')",
        f"import os\nos.remove({str(mine)!r})",
        f"import os\nos.truncate({str(mine)!r}, 0)",
    ):
        assert run_tests(how, "").verdict == "refused"
    assert mine.read_text() == "kept"


def test_the_folder_is_empty_and_the_environment_is_not_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECRET", "word")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "math.py").write_text("raise ValueError")  # a module of this name must not be found here
    assert run_tests(
        "import os, math", "assert os.listdir('.') == []\nassert 'SECRET' not in os.environ\nassert math.e > 2"
    ).passed
    assert "ModuleNotFoundError" in run_tests("import numpy", "").message


@pytest.mark.skipif(not execute.walls(), reason="this machine allows no namespaces")
def test_the_kernel_itself_gives_no_network_inside_the_walls() -> None:
    """Without the hook: a plain Python in the same namespaces reaches no server of ours."""
    import subprocess

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"import socket; socket.create_connection(('127.0.0.1', {port}), timeout=5)"
        inside = subprocess.run(
            [*execute.walls(), sys.executable, "-I", "-S", "-c", code], capture_output=True, check=False
        )
        outside = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, check=False)
    assert inside.returncode != 0
    assert outside.returncode == 0


def test_pairs_keep_their_order_and_equal_ones_run_once() -> None:
    found = run_all([(PLUS, TESTS), ("", TESTS), (PLUS, TESTS)], workers=2)
    assert [item.passed for item in found] == [True, False, True]
    assert found[0] is found[2]


@given(st.integers(1, 12), st.data())
def test_pass_at_k_is_the_share_of_draws_that_hold_a_right_one(n: int, data: st.DataObject) -> None:
    right, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    assert chance(n, right, k) == pytest.approx(1 - math.comb(n - right, k) / math.comb(n, k))


def test_pass_at_k_of_rows() -> None:
    wrong = PLUS.replace("+", "*")
    answers = [Answer(PLUS, detail={"samples": [PLUS, wrong, wrong]}), Answer(wrong, detail={"samples": [wrong] * 3})]
    assert metrics.value(pass_at_k(1), [TESTS, TESTS], answers) == pytest.approx((1 / 3 + 0) / 2)
    made = metrics.estimate(pass_at_k(2), [TESTS, TESTS], answers)
    assert made.value == pytest.approx((2 / 3 + 0) / 2)
    assert metrics.value(pass_at_k(), [TESTS, TESTS], [Answer(PLUS), Answer("")]) == 0.5
    assert np.isfinite([made.low, made.high]).all()
    with pytest.raises(DataError, match="at least k = 2 programs"):
        metrics.value(pass_at_k(2), [TESTS], [Answer(PLUS)])
    with pytest.raises(DataError, match="at least 1"):
        pass_at_k(0)
    with pytest.raises(DataError, match="64 MB"):
        run_tests(PLUS, TESTS, megabytes=8)


def test_commands_are_compared_as_texts() -> None:
    assert spelt_alike("find  . -name '*.c'") == spelt_alike('find . -name "*.c"')
    assert spelt_alike("echo 'a  b'") != spelt_alike("echo 'a b'")
    assert spelt_alike("find a \\; b") != spelt_alike("find a; b")
    assert spelt_alike("echo 'open  quote") == "echo 'open quote"
    assert (
        template("find . -name '*.c' | xargs grep -n --colour=auto 'x y' > out")
        == "find _ -name _ | xargs grep -n --colour=_ _ > _"
    )
    assert template("sudo rm -rf /tmp/x && head -5 a") == template("sudo rm -rf y && head -20 b")
    assert template("find . -type f -exec chmod 644 {} \\;") == "find _ -type _ -exec chmod _ _ _"
    assert template("ls -l a") != template("ls -a a")


def test_command_metrics() -> None:
    truths = ["ls -l 'a b'", "rm x", "cat y | wc -l"]
    answers = [Answer('ls  -l "a b"'), Answer("rm z"), Answer("cat y | wc -c")]
    assert metrics.value(command_match(), truths, answers) == pytest.approx(1 / 3)
    assert metrics.value(template_match(), truths, answers) == pytest.approx(2 / 3)
    assert {metric.name for metric in (command_match(), template_match())} == {"command_match", "template_match"}


@given(st.text(max_size=30))
def test_any_text_can_be_compared_as_a_command(text: str) -> None:
    assert spelt_alike(text) == spelt_alike(text)
    assert template(text) == template(text)


def test_nothing_is_left_of_a_program_that_was_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "STARTING_S", 0.5)
    before = set(_children())
    run_tests("import time; time.sleep(1000)", "", seconds=0.5)
    assert set(_children()) <= before


def _children() -> list[str]:
    task = Path(f"/proc/{os.getpid()}/task")
    if not task.is_dir():
        pytest.skip("no /proc here")
    return list(itertools.chain.from_iterable((thread / "children").read_text().split() for thread in task.iterdir()))
