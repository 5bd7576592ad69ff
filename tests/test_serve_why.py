"""Beside its answer a server says what it leans on, and which training rows are like it; the page shows both by real clicks."""

import asyncio
import base64
import contextlib
import csv
import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import endwise as ew
from endwise.drawing import png
from endwise.explain import like
from endwise.serve import Serving, serving
from endwise.serve.describe import openapi
from endwise.serve.left_out import aimed, left_out, parts_of
from endwise.serve.problems import Problem
from endwise.serve.version import Version
from endwise.serve.why import Why


def photo(red: bool, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(60, 120, (16, 16, 3)).astype(np.uint8)
    if red:
        pixels[4:10, 4:10] = (250, 20, 20)
    return png(pixels)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> ew.Model:
    """Three kinds of inputs, each of which says the same."""
    folder = tmp_path_factory.mktemp("why")
    with (folder / "rows.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["photo", "note", "weight", "mood"])
        table.writeheader()
        for row in range(40):
            (folder / f"{row}.png").write_bytes(photo(row % 2 == 0, row))
            note = "it burns & smokes" if row % 2 == 0 else "all is <b>fine</b>"
            mood = "bad" if row % 2 == 0 else "good"
            table.writerow({"photo": f"{row}.png", "note": note, "weight": 9 if row % 2 == 0 else 1, "mood": mood})
    recipe = ew.Recipe(
        name="moods", data=str(folder / "rows.csv"),
        inputs={"photo": ew.Image(), "note": ew.Text(), "weight": ew.Number(optional=True)},
        outputs={"mood": ew.Category()}, trunk={"width": 16, "depth": 1},
        train={"steps": 15, "size": "tiny", "batch_size": 16, "learning_rate": 3e-3},
    )  # fmt: skip
    return ew.fit(recipe, out=folder / "run")


@pytest.fixture(scope="module")
def server(run: ew.Model) -> Iterator[Serving]:
    assert run.run is not None
    with serving(run.run.path, port=0, timeout_s=120) as found:
        yield found


@pytest.fixture
def client(server: Serving) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=120) as found:
        yield found


ROW: dict[str, Any] = {"photo": photo(True, 99), "note": "it burns & smokes", "weight": 9}
SENT = {**ROW, "photo": base64.b64encode(ROW["photo"]).decode()}


def test_it_says_what_an_answer_leans_on(client: httpx.Client, run: ew.Model) -> None:
    reply = client.post("/explain", json={"inputs": SENT}, headers={"x-request-id": "why-1"})
    assert reply.status_code == 200, reply.text
    told, expected = reply.json(), ew.explain(run, ROW).to_dict()
    assert told.pop("id") == "why-1"
    assert told.pop("model") == reply.headers["x-model-version"]
    assert {**told, "seconds": 0} == {**expected, "seconds": 0}
    form = {
        "photo": ("p.png", ROW["photo"]),
        "note": (None, ROW["note"].encode()),
        "weight": (None, b"9"),
    }
    other = client.post("/explain?of=mood%3Dgood&method=occlusion&grade=no&drawn=yes", files=form).json()
    assert (other["about"], other["method"], other["grades"]) == ("good", "occlusion", [])
    assert "data:image/png" in other["inputs"]["photo"]["html"]
    assert "burns</span> <span" in other["inputs"]["note"]["html"]


def test_an_answer_with_its_reasons_is_written_down_like_any_other(run: ew.Model, tmp_path: Path) -> None:
    assert run.run is not None
    with (
        serving(run.run.path, port=0, timeout_s=120, log=str(tmp_path / "log.db")) as found,
        httpx.Client(base_url=found.url, timeout=120) as client,
    ):
        given = client.post("/predict", json={"inputs": SENT}, headers={"x-request-id": "plain-1"}).json()
        ask = "/explain?method=occlusion&grade=no"
        told = client.post(ask, json={"inputs": SENT}, headers={"x-request-id": "why-1"}).json()
        client.post("/explain?of=mod", json={"inputs": SENT}, headers={"x-request-id": "refused-1"})
        client.post("/like", json={"inputs": SENT}, headers={"x-request-id": "like-1"})
        with ew.Decisions.open(tmp_path / "log.db") as log:
            assert log.verify().ok
            assert log.verify().count == 3  # of the model, and of two answers
            shown, plain = log.show("why-1"), log.show("plain-1")
        assert shown.decision["kind"] == "explanation"
        assert shown.decision["outputs"] == {"mood": told["answer"]}
        assert told["answer"]["value"] == given["outputs"]["mood"]["value"]
        assert shown.decision["inputs"] == plain.decision["inputs"]
        assert shown.decision["explained"]["method"] == "occlusion"
        assert "smokes" not in str(shown.decision)  # the values themselves are nobody's business
        assert f"explained    {told['about']}, by occlusion" in str(shown)
        assert found.service.log is not None
        found.service.log.close()
        assert client.post(ask, json={"inputs": SENT}).json()["error"]["type"] == "failed"


def test_it_shows_the_training_rows_that_are_alike(client: httpx.Client, run: ew.Model) -> None:
    told = client.post("/like?count=3&drawn=yes", json={"inputs": SENT}).json()["like"]
    assert [item["row"] for item in told] == [item.row for item in like(run, ROW, count=3)]
    assert all(item["shown"]["photo"]["data"].startswith("data:image/") for item in told)
    assert "shown" not in client.post("/like", json={"inputs": SENT}).json()["like"][0]


@pytest.mark.parametrize(
    ("path", "body", "status", "field", "words"),
    [
        ("/explain?of=mod", {"inputs": SENT}, 422, "of", "mood"),
        ("/explain?of=mood%3Dgod", {"inputs": SENT}, 422, "of", "good"),
        ("/explain?method=magic", {"inputs": SENT}, 422, "method", "occlusion"),
        ("/explain?of=mood&method=magic", {"inputs": SENT}, 422, "method", "occlusion"),
        ("/explain?metod=occlusion", {"inputs": SENT}, 422, "metod", "of, method, grade, drawn"),
        ("/explain?count=5", {"inputs": SENT}, 422, "count", "of, method, grade, drawn"),
        ("/like?grade=no", {"inputs": SENT}, 422, "grade", "count, drawn"),
        ("/explain?grade=no&grade=yes", {"inputs": SENT}, 422, "grade", "more than once"),
        ("/explain?grade=perhaps", {"inputs": SENT}, 422, "grade", "yes nor no"),
        ("/explain?of=" + "x" * 300, {"inputs": SENT}, 422, "of", "200"),
        ("/explain", {"inputs": {**SENT, "weight": "heavy"}}, 422, "weight", "heavy"),
        ("/explain", {"inputs": {"note": "x"}}, 422, "photo", "photo"),
        ("/explain", {"of": "mood"}, 400, "inputs", "inputs"),
        ("/like?count=0", {"inputs": SENT}, 422, "count", "1 to"),
    ],
)
def test_what_cannot_be_told_is_refused_by_name(
    client: httpx.Client, path: str, body: Any, status: int, field: str | None, words: str
) -> None:
    reply = client.post(path, json=body)
    assert reply.status_code == status, reply.text
    assert reply.json()["error"]["field"] == field
    assert words in reply.json()["error"]["message"]


def test_a_model_whose_rows_are_gone_has_no_examples(run: ew.Model, tmp_path: Path) -> None:
    run.save(tmp_path / "alone")
    description = tmp_path / "alone" / "model.json"
    description.write_text(description.read_text().replace("rows.csv", "gone.csv"))
    with serving(tmp_path / "alone", port=0) as found, httpx.Client(base_url=found.url, timeout=120) as client:
        assert client.post("/explain?grade=no", json={"inputs": SENT}).status_code == 200
        gone = client.post("/like", json={"inputs": SENT})
        assert (gone.status_code, gone.json()["error"]["type"]) == (404, "not_found")


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])  # with a token a proxy may stand before it
def test_another_machine_is_shown_no_training_rows(run: ew.Model, host: str) -> None:
    assert run.run is not None
    assert {"/explain", "/like"} <= openapi(Version.load(run.run.path), here=True)["paths"].keys()
    assert "/like" not in openapi(Version.load(run.run.path), here=False)["paths"]
    settings = {"host": host, "token": "correct horse battery staple"}
    with serving(run.run.path, port=0, **settings) as found:
        place = found.url.replace("0.0.0.0", "127.0.0.1")
        with httpx.Client(base_url=place, headers={"authorization": f"Bearer {settings['token']}"}) as client:
            assert client.post("/like", json={"inputs": SENT}).status_code == 403
        assert httpx.post(f"{place}/explain", json={"inputs": SENT}).status_code == 401


def test_who_asks_for_many_reasons_waits_for_himself_and_who_leaves_gives_up_his_place(asked_again: Version) -> None:
    begun, free, order = threading.Event(), threading.Event(), list[str]()

    def ask(why: Why, name: str) -> "asyncio.Future[dict[str, Any]]":
        def read() -> dict[str, Any]:
            order.append(name)
            begun.set()
            free.wait(60)
            return ROW

        return why.ask("explain", asked_again, read, {"grade": "no"}, name.split()[0])

    async def all_of_it() -> list[Any]:
        why = Why(here=True)
        asked = [ask(why, f"flood {number}") for number in range(8)]
        await asyncio.to_thread(begun.wait, 60)
        with pytest.raises(Problem, match="8 explanations are waiting"):
            ask(why, "flood 8")
        asked += [ask(why, f"other {number}") for number in range(4)]
        with pytest.raises(Problem, match="12 explanations are waiting"):
            ask(why, "other 4")  # has its half
        for future in asked[2:]:
            future.cancel()
        asked.append(ask(why, "other 5"))
        free.set()
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert why._turns.held == {}
        await asyncio.to_thread(why.close)
        return found

    found = asyncio.run(all_of_it())
    assert order == ["flood 0", "other 5", "flood 1"]
    assert [isinstance(item, dict) for item in found] == [True, True, *[False] * 10, True]


def test_who_leaves_before_the_reasons_are_found_is_not_waited_for(server: Serving) -> None:
    """The first question keeps the thread; of those behind it nobody is left."""
    port = int(server.url.rpartition(":")[2])
    body = json.dumps({"inputs": SENT}).encode()
    head = f"POST /explain HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with contextlib.ExitStack() as lines:
        for _ in range(8):
            line = lines.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            line.sendall(head.encode() + body)
    for _ in range(20):
        reply = httpx.post(f"{server.url}/explain?grade=no", json={"inputs": SENT}, timeout=120)
        if reply.status_code == 200:
            break
        time.sleep(0.05)  # it takes a moment to hear of those who left
    assert reply.status_code == 200, reply.text


# ---- what has no network to look into --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def asked_again(run: ew.Model) -> Version:
    """The run as a bundle is seen: answers and nothing behind them."""
    assert run.run is not None
    whole = Version.load(run.run.path)
    return Version(
        place=whole.place, name=whole.name, sha256=whole.sha256, inputs=whole.inputs, outputs=whole.outputs,
        contracts=whole.contracts, info=whole.info, recipe=whole.recipe, answers=whole.answers,
    )  # fmt: skip


def test_a_bundle_is_asked_again_without_each_part(asked_again: Version, run: ew.Model) -> None:
    found = left_out(asked_again, ROW, "mood=bad")
    told = found.to_dict(drawn=True)
    assert (found.about, told["method"], told["reliable"], told["grades"]) == ("bad", "occlusion", None, [])
    assert told["verdict"].startswith("not graded")
    assert told["inputs"]["photo"]["shape"] == [16, 16]
    assert told["inputs"]["note"]["shape"] == [len(ROW["note"])]
    assert "data:image/png" in told["inputs"]["photo"]["html"]
    odds = []
    for note in (ROW["note"], "it  & smokes"):  # what is told is what the answers say
        chance = run.predict({**ROW, "note": note}).answers["mood"].detail["probabilities"]["bad"]
        odds.append(np.log(chance / (1 - chance)))
    burns = next(item for item in found.highlights if item.name == "note").shares[3:8].sum()
    total = sum(np.abs(item.shares).sum() for item in found.highlights)
    assert total == pytest.approx(1.0)
    assert np.sign(burns) == np.sign(odds[0] - odds[1])
    assert found.unable == ()
    with pytest.raises(Problem, match="gud"):
        left_out(asked_again, ROW, "mood=gud")
    with pytest.raises(Problem, match="mood"):
        left_out(asked_again, ROW, "mod")


def test_a_loud_stretch_of_a_sound_is_brought_down_to_its_quiet() -> None:
    random = np.random.default_rng(0)
    wave = random.normal(0, 100, 8_000)
    wave[2_000:2_500] *= 50
    item = ew.Audio(rate_hz=8_000)
    parts = list(parts_of(item, None, wave.astype(np.int16), wave.astype(np.int16)))  # type: ignore[arg-type]
    assert sum(where for where, _ in parts).tolist() == [1] * 8_000
    loud = [float(np.abs(changed[2_000:2_500]).max()) for _, changed in parts if changed is not None]
    assert min(loud) < max(loud)
    assert all(changed is not None and changed.any() for _, changed in parts)


def test_what_a_bundle_cannot_tell_is_said() -> None:
    for value in ("a sentence", [1.0, 2.0], {"boxes": []}):
        with pytest.raises(Problem, match="serve the run"):
            aimed("words", {"value": value, "confidence": 0.5}, "")
    ill = {"value": True, "confidence": 0.9, "detail": {"probabilities": {"false": 0.1, "true": 0.9}}}
    well = {"value": False, "confidence": 0.9, "detail": {"probabilities": {"false": 0.9, "true": 0.1}}}
    about, aim = aimed("ill", ill, "")
    assert about == "true"
    assert aim(well) == pytest.approx(-aim(ill))


def test_an_answer_that_is_withheld_is_explained_by_what_it_would_have_been() -> None:
    """A number with an interval of its own may be sure, and not so without a part."""
    sure = {"value": 7.5, "confidence": None, "detail": {"low": 7.0, "high": 8.0}}
    withheld = {
        "value": None,
        "confidence": None,
        "abstained": True,
        "detail": {"best_guess": 3.0, "low": 0.0, "high": 9.0},
    }
    about, aim = aimed("price", sure, "")
    assert (about, aim(sure), aim(withheld)) == ("7.5", 7.5, 3.0)
    about, aim = aimed("price", withheld, "")
    assert (about, aim(sure)) == ("3", 7.5)


# ---- the page ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's chromium")
@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (390, "dark")])
def test_a_browser_shows_why_and_what_is_like_it(
    server: Serving, run: ew.Model, width: int, scheme: Any, tmp_path: Path
) -> None:
    from playwright.sync_api import sync_playwright

    said: list[str] = []
    own = (f"{server.url}/", "data:", f"blob:{server.url}")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page.set_default_timeout(120_000)  # a crowded machine explains slowly
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith(own) else said.append(request.url))
        page.goto(f"{server.url}/")
        assert page.locator("#why").is_hidden()
        page.get_by_label("note", exact=True).fill("it burns & smokes <i>now</i>")
        page.get_by_label("weight", exact=True).fill("9")
        page.get_by_label("photo", exact=True).set_input_files(
            {"name": "p.png", "mimeType": "image/png", "buffer": photo(True, 99)}
        )
        page.locator(".value").wait_for()
        page.get_by_role("button", name="Explain").click()
        page.locator(".verdict").wait_for()
        assert page.locator("#reasons img").count() == 1
        assert page.locator("#reasons i").count() == 0  # a value is text and never the page's own
        assert "burns" in (page.locator("#reasons").text_content() or "")
        page.get_by_role("button", name="Like these").click()
        page.locator(".like li").first.wait_for()
        assert page.locator(".like li").count() == 5
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.screenshot(path=tmp_path / f"why-{width}-{scheme}.png", full_page=True)
        page.get_by_label("weight, slider").fill("1")
        page.locator(".was").wait_for()  # what if: the answer beside that to the row as it was
        assert page.locator(".verdict").count() == 0  # that was about another row
        page.get_by_label("part", exact=True).fill("gud")
        page.keyboard.press("Enter")
        page.get_by_role("alert").wait_for()
        assert "good" in (page.get_by_role("alert").text_content() or "")
        browser.close()
    assert [line for line in said if "422" not in line] == []  # the browser notes the status, too
