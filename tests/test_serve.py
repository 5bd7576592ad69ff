"""A server answers what `predict` answers, to whom it should, under load, while it is asked to stop, and whatever is sent."""

import asyncio
import base64
import contextlib
import gzip
import io
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import wave
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from endwise.cli import app as commands
from endwise.decisions import Decisions
from endwise.drawing import png, to_uri
from endwise.errors import ModelError, RecipeError, SetupError
from endwise.export import export
from endwise.modalities.base import Contract
from endwise.model import Model
from endwise.recipe import Recipe
from endwise.rows import Row
from endwise.runner import differences
from endwise.serve import Options, Serving, app, serving
from endwise.serve.batching import Batcher, Task
from endwise.serve.body import Limits
from endwise.serve.problems import Problem
from endwise.serve.turns import Pace
from endwise.serve.version import Version

TOKEN = "correct horse battery staple"
ROWS = [
    {"photo": np.full((12, 12, 3), 20 * row, np.uint8), "sound": (8_000, np.zeros(800 + row, np.int16)),
     "note": f"note {row}", "weight": 1.5 * row, "mood": "good" if row % 2 else "bad"}
    for row in range(8)
]  # fmt: skip


def built(
    inputs: Mapping[str, Any], outputs: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], seed: int = 0
) -> Model:
    recipe = Recipe(name="small", data="unused.csv", inputs=inputs, outputs=outputs, trunk={"width": 16, "depth": 1})
    contracts: dict[str, Contract] = {}
    for role, section in (("input", recipe.inputs), ("output", recipe.outputs)):
        for name, item in section.items():
            values = [item.read(row[name], lambda path: b"") for row in rows]
            contracts[name] = item.fit(values, missing=0, role=role)  # type: ignore[arg-type]
    return Model.build(recipe, contracts, seed=seed)


def number_model(seed: int) -> Model:
    rows = [{"weight": float(row), "price": 100.0 * row} for row in range(50)]
    return built({"weight": "number"}, {"price": {"type": "number", "unit": "EUR"}}, rows, seed)


@pytest.fixture(scope="module")
def several() -> Model:
    """Four kinds of inputs, each of which may be missing."""
    kinds = {"photo": {"type": "image"}, "sound": {"type": "audio", "rate_hz": 8_000}, "note": {"type": "text"},
             "weight": {"type": "number"}}  # fmt: skip
    return built({name: {**kind, "optional": True} for name, kind in kinds.items()}, {"mood": "category"}, ROWS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def server(several: Model, folder: Path) -> Iterator[Serving]:
    several.save(folder / "several")
    limits = Limits(body_bytes=4 << 20, unpacked_bytes=8 << 20)
    with serving(folder / "several", port=0, limits=limits, timeout_s=60, log=str(folder / "decisions.db")) as found:
        yield found


@pytest.fixture(scope="module")
def numbers(folder: Path) -> Iterator[Serving]:
    number_model(0).save(folder / "numbers")
    with serving(folder / "numbers", port=0, queue=4_000, timeout_s=120) as found:
        yield found


@pytest.fixture
def client(server: Serving) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=120) as found:
        yield found


def picture(shade: int = 100) -> bytes:
    return png(np.full((12, 12, 3), shade, np.uint8))


def sound(samples: int = 800) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8_000)
        out.writeframes(np.zeros(samples, "<i2").tobytes())
    return file.getvalue()


def same(one: Any, other: Any) -> bool:
    return differences([one], [other]) == []


# ---- what goes in and what comes out -----------------------------------------------------------------------------------


def test_json_is_answered_as_predict_answers(client: httpx.Client, several: Model) -> None:
    row = {"photo": picture(), "sound": sound(), "note": "calm", "weight": 2.5}
    expected = several.predict(row).to_dict()
    sent = {**row, "photo": base64.b64encode(picture()).decode(), "sound": base64.b64encode(sound()).decode()}
    answer = client.post("/predict", json={"inputs": sent})
    assert answer.status_code == 200
    assert answer.json().keys() == {"id", "model", "outputs"}
    assert same(expected, answer.json()["outputs"])
    assert same(
        expected, client.post("/predict", json={"inputs": {**sent, "photo": to_uri(picture())}}).json()["outputs"]
    )


def test_a_form_has_a_part_for_each_input(client: httpx.Client, several: Model) -> None:
    row = {"photo": picture(), "note": "calm, ÄÖ", "weight": "2.5"}
    parts = {"photo": ("new.png", picture(), "image/png"), "note": (None, "calm, ÄÖ"), "weight": (None, "2.5")}
    answer = client.post("/predict", files=parts)
    assert same(several.predict(row).to_dict(), answer.json()["outputs"])
    as_file = client.post("/predict", files={**parts, "note": ("note.txt", "calm, ÄÖ".encode(), "text/plain")})
    assert same(answer.json()["outputs"], as_file.json()["outputs"])


def test_a_model_with_one_input_takes_the_value_itself(numbers: Serving) -> None:
    answer = httpx.post(f"{numbers.url}/predict", content=b"7.25", headers={"content-type": "text/plain"})
    assert same(number_model(0).predict({"weight": 7.25}).to_dict(), answer.json()["outputs"])
    assert answer.json()["outputs"]["price"]["unit"] == "EUR"


def test_an_answer_has_an_id_and_its_model(client: httpx.Client, server: Serving) -> None:
    given = client.post("/predict", json={"inputs": {"note": "x"}}, headers={"x-request-id": "call-17"})
    assert given.json()["id"] == "call-17"
    assert given.json()["model"] == given.headers["x-model-version"] == server.service.version.id  # type: ignore[union-attr]
    ids = {client.post("/predict", json={"inputs": {"note": "x"}}).json()["id"] for _ in range(3)}
    assert len(ids) == 3
    assert client.post("/predict", json={"inputs": {}}, headers={"x-request-id": "a b\tc"}).status_code == 400


WRONG = [
    ({"inputs": {"note": 3.5}}, 422, "bad_value", "note"),
    ({"inputs": {"nte": "x"}}, 422, "bad_value", "nte"),
    ({"inputs": {"mood": "good"}}, 422, "bad_value", "mood"),
    ({"inputs": {"weight": "heavy"}}, 422, "bad_value", "weight"),
    ({"inputs": {"weight": [1, "x"]}}, 422, "bad_value", "weight"),
    ({"inputs": {"photo": "bm8gcGljdHVyZQ=="}}, 422, "bad_value", "photo"),
    ({"inputs": {"photo": "data:image/png;base64,%%%"}}, 422, "bad_value", "photo"),
    ({"inputs": {"photo": [[1, 2], [3]]}}, 422, "bad_value", "photo"),
    ({"inputs": {"photo": {"path": "/etc/hostname"}}}, 422, "bad_value", "photo"),
    ({"inputs": {"sound": base64.b64encode(b"RIFF").decode()}}, 422, "bad_value", "sound"),
    ({"inputs": {"note": "x"}, "more": 1}, 400, "bad_request", "inputs"),
    ({"inputs": [1]}, 400, "bad_request", "inputs"),
    ([], 400, "bad_request", "inputs"),
]


@pytest.mark.parametrize(("body", "status", "kind", "field"), WRONG)
def test_a_bad_value_is_refused_by_name(client: httpx.Client, body: Any, status: int, kind: str, field: str) -> None:
    answer = client.post("/predict", json=body)
    assert (answer.status_code, answer.json()["error"]["type"]) == (status, kind)
    assert answer.json()["error"]["field"] == field
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "value", ["/etc/hostname", "../../secret.png", "http://127.0.0.1/x.png", "a.zip!b.png", "file:///etc/hosts"]
)
def test_no_value_names_a_file_of_the_server(client: httpx.Client, folder: Path, value: str) -> None:
    for field in ("photo", "sound"):
        answer = client.post("/predict", json={"inputs": {field: value}})
        assert answer.status_code == 422
        assert "a server opens none" in answer.json()["error"]["message"]


def test_several_inputs_do_not_come_as_one_raw_value(client: httpx.Client) -> None:
    answer = client.post("/predict", content=picture(), headers={"content-type": "image/png"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (415, "unsupported_type")


def test_a_broken_form_is_refused(client: httpx.Client) -> None:
    kind = {"content-type": "multipart/form-data; boundary=b"}
    part = b'--b\r\nContent-Disposition: form-data; name="note"\r\n\r\nx\r\n'
    for body in (b"", b"nothing", part, part * 2 + b"--b--\r\n", part.replace(b'; name="note"', b"") + b"--b--\r\n"):
        assert client.post("/predict", content=body, headers=kind).status_code == 400
    assert client.post("/predict", content=b"", headers={"content-type": "multipart/form-data"}).status_code == 400
    assert client.post("/predict", content=part + b"--b--\r\n", headers=kind).status_code == 200


# ---- the pages beside it -----------------------------------------------------------------------------------------------


def test_it_says_whether_it_lives_and_is_ready(client: httpx.Client) -> None:
    assert client.get("/livez").status_code == 200
    assert client.get("/readyz").status_code == 200
    assert client.get("/nothing").json()["error"]["type"] == "not_found"
    assert client.get("/predict").json()["error"]["type"] == "method_not_allowed"


def test_prometheus_reads_its_numbers(client: httpx.Client) -> None:
    client.post("/predict", json={"inputs": {"note": "x"}})
    client.post("/predict", content=b"{", headers={"content-type": "application/json"})
    families = {item.name: item for item in text_string_to_metric_families(client.get("/metrics").text)}
    assert {
        "endwise_requests",
        "endwise_request_seconds",
        "endwise_queue_depth",
        "endwise_batch_rows",
        "endwise_shed",
    } <= families.keys()
    by_status = {sample.labels["status"]: sample.value for sample in families["endwise_requests"].samples
                 if sample.name.endswith("_total")}  # fmt: skip
    assert by_status["200"] >= 1
    assert by_status["400"] >= 1


def test_its_openapi_has_an_example_that_works(client: httpx.Client) -> None:
    page = client.get("/openapi.json").json()
    assert page["openapi"].startswith("3.1")
    body = page["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"]["properties"]["inputs"]["properties"].keys() == {"photo", "sound", "note", "weight"}
    assert body["example"]["inputs"].keys() == {"photo", "sound", "note", "weight"}
    answer = client.post("/predict", json=body["example"])
    assert answer.status_code == 200
    promised = page["paths"]["/predict"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert set(promised["required"]) == answer.json().keys()


# ---- the page for people -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's chromium")
@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (390, "dark")])
def test_a_browser_gives_a_file_and_sees_the_answer(server: Serving, several: Model, width: int, scheme: Any) -> None:
    from playwright.sync_api import sync_playwright

    said: list[str] = []
    own = (f"{server.url}/", "data:", f"blob:{server.url}")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith(own) else said.append(request.url))
        page.goto(f"{server.url}/")
        for name in ("photo", "sound", "note", "weight"):
            assert page.get_by_label(name, exact=True).count() == 1
        page.get_by_label("photo", exact=True).set_input_files(
            {"name": "p.png", "mimeType": "image/png", "buffer": picture(200)}
        )
        page.locator(".value").wait_for()
        expected = several.predict({"photo": picture(200)})
        assert page.locator(".value").text_content() == expected["mood"]
        assert f"{100 * (expected.answers['mood'].confidence or 0):.1f} %" in (
            page.locator("#answer").text_content() or ""
        )
        page.get_by_label("weight", exact=True).focus()
        page.keyboard.type("heavy")
        page.keyboard.press("Enter")
        page.get_by_role("alert").wait_for()
        assert "weight: 'heavy' is no number" in (page.get_by_role("alert").text_content() or "")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        browser.close()
    assert [line for line in said if "422" not in line] == []  # the browser notes the status, too


# ---- under load --------------------------------------------------------------------------------------------------------


def test_everybody_gets_their_own_answer(numbers: Serving) -> None:
    """2,000, a hundred at a time, each with its own number: answers that lie further apart than the tolerance are not swapped unseen."""
    weights = np.linspace(0, 49, 2_000).tolist()
    expected = [answer["price"] for answer in number_model(0).predict([{"weight": weight} for weight in weights])]
    assert (np.diff(np.sort(expected)) > 4e-3).mean() > 0.9

    async def ask(connection: int) -> list[tuple[int, dict[str, Any]]]:
        """Every hundredth of them on one connection; by hand, since a client of thousands would cost more than the server."""
        reader, writer = await asyncio.open_connection(*numbers.url.removeprefix("http://").split(":"))
        found = []
        for index in range(connection, 2_000, 100):
            body = json.dumps({"inputs": {"weight": weights[index]}})
            writer.write(
                f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nX-Request-Id: r{index}\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
            )
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            assert head.startswith("http/1.1 200"), head
            found.append(
                (index, json.loads(await reader.readexactly(int(head.split("content-length: ")[1].split()[0]))))
            )
        writer.close()
        return found

    async def ask_all() -> list[list[tuple[int, dict[str, Any]]]]:
        return await asyncio.gather(*map(ask, range(100)))

    answers = [
        answer
        for _, answer in sorted((item for part in asyncio.run(ask_all()) for item in part), key=lambda item: item[0])
    ]
    assert [answer["id"] for answer in answers] == [f"r{index}" for index in range(2_000)]
    got = [answer["outputs"]["price"]["value"] for answer in answers]
    np.testing.assert_allclose(got, expected, atol=2e-3, rtol=0)


class Slow:
    """A version whose answers wait until they are let go; what it was asked, batch by batch."""

    def __init__(self, model: Model) -> None:
        self.free, self.begun = threading.Event(), threading.Semaphore(0)
        self.batches: list[list[float]] = []
        recipe = model.recipe
        self.version = Version(
            place=Path(), name="slow", sha256="0" * 64, inputs=recipe.inputs, outputs=recipe.outputs,
            contracts=model.contracts, info={}, recipe={}, answers=self.answers,
        )  # fmt: skip

    def answers(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        values = [float(row["weight"]) for row in rows]  # type: ignore[arg-type]
        self.batches.append(values)
        self.begun.release()
        self.free.wait()
        if any(value == 13 for value in values):
            raise ValueError("unlucky")
        return [{"price": {"value": value, "confidence": None}} for value in values]


@pytest.fixture
def slow() -> Iterator[Slow]:
    found = Slow(number_model(0))
    yield found
    found.free.set()


def task_of(weight: float, seconds: float = 60.0, client: str = "") -> Task:
    return Task(lambda version: version.read({"weight": weight}), time.monotonic() + seconds, weight, client)


def test_a_batch_is_what_came_while_the_last_one_ran(slow: Slow) -> None:
    done: list[Task] = []
    batcher = Batcher(done.extend, queue=100, max_batch=4, readers=3)
    batcher.version = slow.version
    batcher.submit(task_of(0))
    slow.begun.acquire()  # alone, at once
    for weight in range(1, 8):
        batcher.submit(task_of(weight))
    while len(batcher._ready) < 7:
        time.sleep(0.001)
    slow.free.set()
    batcher.close()
    assert slow.batches[0] == [0]
    assert [len(batch) for batch in slow.batches] == [1, 4, 3]
    assert sorted(task.context for task in done) == list(range(8))
    assert all(task.outcome == {"price": {"value": task.context, "confidence": None}} for task in done)
    assert batcher.waiting == 0


def test_a_row_that_breaks_the_network_spoils_no_other(slow: Slow) -> None:
    done: list[Task] = []
    batcher = Batcher(done.extend, queue=100, max_batch=8, readers=3)
    batcher.version = slow.version
    batcher.submit(task_of(0))
    slow.begun.acquire()
    for weight in (12, 13, 14):
        batcher.submit(task_of(weight))
    while len(batcher._ready) < 3:
        time.sleep(0.001)
    slow.free.set()
    batcher.close()
    outcomes = {task.context: task.outcome for task in done}
    assert isinstance(outcomes[13], Problem)
    assert outcomes[13].status == 422  # the network answers others: it is the row
    assert outcomes[12] == {"price": {"value": 12.0, "confidence": None}}
    assert outcomes[14] == {"price": {"value": 14.0, "confidence": None}}


def test_what_nobody_waits_for_is_not_computed(slow: Slow) -> None:
    done: list[Task] = []
    batcher = Batcher(done.extend, queue=100, max_batch=8, readers=3)
    batcher.version = slow.version
    batcher.submit(task_of(0))
    slow.begun.acquire()
    tasks = [task_of(weight) for weight in range(1, 6)]
    late = task_of(9, seconds=0.0)
    for task in [*tasks, late]:
        batcher.submit(task)
    for task in tasks[:3]:
        task.abandoned = True
    slow.free.set()
    batcher.close()
    assert sorted(value for batch in slow.batches for value in batch) == [0, 4, 5]
    assert sorted(task.context for task in done) == [0, 1, 2, 3, 4, 5, 9]
    assert batcher.waiting == 0


def test_a_full_queue_says_when_to_come_again(slow: Slow, folder: Path) -> None:
    number_model(0).save(folder / "full")
    with serving(folder / "full", port=0, queue=2, timeout_s=60) as server, httpx.Client(base_url=server.url) as client:
        server.service.batcher.version = slow.version
        answers: list[httpx.Response] = []

        def ask() -> None:
            answers.append(httpx.post(f"{server.url}/predict", json={"inputs": {"weight": 1}}, timeout=60))

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        while server.service.batcher.waiting < 2:
            time.sleep(0.001)
        refused = client.post("/predict", json={"inputs": {"weight": 1}})
        assert (refused.status_code, refused.json()["error"]["type"]) == (503, "busy")
        assert int(refused.headers["retry-after"]) >= 1
        assert client.get("/livez").status_code == 200
        slow.free.set()
        for thread in threads:
            thread.join()
        assert [answer.status_code for answer in answers] == [200, 200]
        assert client.post("/predict", json={"inputs": {"weight": 1}}).status_code == 200


def test_a_promised_latency_bounds_the_queue() -> None:
    batcher = Batcher(lambda tasks: None, queue=1_000, max_batch=8, budget_s=0.1)
    assert batcher.room() == 1_000  # nothing is known yet
    batcher.costs.ran(0.08, 8)
    assert 5 <= batcher.room() <= 7  # 10 ms a row, 70 % of 100 ms
    batcher.close()


def test_a_promised_latency_bounds_a_batch() -> None:
    batcher = Batcher(lambda tasks: None, queue=1_000, max_batch=32, budget_s=0.1)
    assert batcher.most_rows() == 32  # nothing is known yet
    batcher.costs.ran(0.08, 8)
    assert batcher.most_rows() == 3  # 10 ms a row: who comes while one batch runs is in the next, both within 100 ms
    batcher.close()


def test_clients_take_turns(slow: Slow) -> None:
    batcher = Batcher(lambda tasks: None, queue=100, max_batch=2, readers=3)
    batcher.version = slow.version
    batcher.submit(task_of(0, client="flood"))
    slow.begun.acquire()
    for weight in range(1, 7):
        batcher.submit(task_of(weight, client="flood"))
    for weight in (100, 200):
        batcher.submit(task_of(weight, client=f"other {weight}"))
    while len(batcher._ready) < 8:
        time.sleep(0.001)
    slow.free.set()
    batcher.close()
    assert slow.batches[0] == [0]
    assert {100, 200} <= set(
        slow.batches[1] + slow.batches[2]
    )  # in one turn each, however many the first one asked for
    assert not batcher._turns.held
    assert not batcher._turns._last


def test_a_client_that_fills_the_queue_leaves_room_for_another(slow: Slow) -> None:
    batcher = Batcher(lambda tasks: None, queue=4, max_batch=2, readers=3)
    batcher.version = slow.version
    for weight in range(4):
        batcher.submit(task_of(weight, client="flood"))
    with pytest.raises(Problem, match="4 requests are waiting"):
        batcher.submit(task_of(4, client="flood"))
    batcher.submit(task_of(5, client="other"))
    batcher.submit(task_of(6, client="other"))
    with pytest.raises(Problem, match="6 requests are waiting"):
        batcher.submit(task_of(7, client="other"))  # has its half
    for name in "ab":
        batcher.submit(task_of(8, client=name))
    with pytest.raises(Problem, match="8 requests are waiting"):
        batcher.submit(task_of(9, client="one more"))  # twice the queue, whoever asks
    slow.free.set()
    batcher.close()


def test_only_a_flood_hears_its_refusals_later() -> None:
    pace = Pace()
    twice = [pace.refused("a", moment / 1_000, able_per_s=1_000.0) for moment in range(3_000)]
    assert max(twice) == 0  # as many refusals as answers
    flood = [pace.refused("b", 10.0, able_per_s=100.0) for _ in range(1_000)]
    assert flood[:50] == [0.0] * 50
    assert flood[100] > 0
    assert max(flood) == 1.0
    assert pace.refused("c", 10.0, able_per_s=100.0) == 0
    assert pace.refused("b", 20.0, able_per_s=100.0) == 0
    for client in range(2_000):
        pace.refused(f"{client}", 30.0 + client, able_per_s=100.0)
    assert len(pace._next) < 1_100


def test_it_stops_waiting_in_time(slow: Slow, folder: Path) -> None:
    number_model(0).save(folder / "late")
    with serving(folder / "late", port=0, timeout_s=0.2) as server:
        server.service.batcher.version = slow.version
        answer = httpx.post(f"{server.url}/predict", json={"inputs": {"weight": 1}}, timeout=60)
        assert (answer.status_code, answer.json()["error"]["type"]) == (504, "timeout")
        slow.free.set()


def test_a_client_that_leaves_is_forgotten(slow: Slow, folder: Path) -> None:
    number_model(0).save(folder / "left")
    with serving(folder / "left", port=0, timeout_s=60) as server:
        server.service.batcher.version = slow.version

        async def ask_and_leave() -> None:
            async with httpx.AsyncClient(base_url=server.url) as client:
                first = asyncio.create_task(client.post("/predict", json={"inputs": {"weight": 0}}))
                await asyncio.to_thread(slow.begun.acquire)
                others = [
                    asyncio.create_task(client.post("/predict", json={"inputs": {"weight": 1}})) for _ in range(20)
                ]
                while server.service.batcher.waiting < 21:
                    await asyncio.sleep(0.001)
                for task in [first, *others]:
                    task.cancel()
                await asyncio.gather(first, *others, return_exceptions=True)

        asyncio.run(ask_and_leave())
        while not all(task.gone() for task in list(server.service.batcher._ready)):
            time.sleep(0.001)
        slow.free.set()
        while server.service.batcher.waiting:
            time.sleep(0.001)
        assert slow.batches == [[0.0]]


# ---- another version ---------------------------------------------------------------------------------------------------


def test_another_version_takes_over_without_a_lost_request(folder: Path) -> None:
    models = {name: number_model(seed) for seed, name in enumerate(("old", "new"))}
    place = folder / "swapped"
    models["old"].save(place)
    with serving(place, port=0, timeout_s=120) as server:
        names = {server.service.version.id: "old"}  # type: ignore[union-attr]
        answers: list[httpx.Response] = []
        enough = threading.Event()

        def ask() -> None:
            with httpx.Client(base_url=server.url, timeout=120) as client:
                while not enough.is_set():
                    answers.append(client.post("/predict", json={"inputs": {"weight": 7.0}}))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        while len(answers) < 20:
            time.sleep(0.001)
        models["new"].save(place)
        server.reload()
        names[server.service.version.id] = "new"  # type: ignore[union-attr]
        swapped_at = len(answers)
        while len(answers) < swapped_at + 40:
            time.sleep(0.001)
        enough.set()
        for thread in threads:
            thread.join()
    assert {answer.status_code for answer in answers} == {200}
    assert {names[answer.headers["x-model-version"]] for answer in answers} == {"old", "new"}
    expected = {name: model.predict({"weight": 7.0}).to_dict() for name, model in models.items()}
    assert not same(expected["old"], expected["new"])
    for answer in answers:
        assert same(expected[names[answer.json()["model"]]], answer.json()["outputs"])


def test_a_version_that_cannot_be_read_leaves_the_old_one(folder: Path) -> None:
    place = folder / "damaged"
    number_model(0).save(place)
    with serving(place, port=0) as server:
        (place / "weights.safetensors").write_bytes(b"nothing")
        with pytest.raises(ModelError, match="cannot be read"):
            server.reload()
        assert httpx.post(f"{server.url}/predict", json={"inputs": {"weight": 1}}).status_code == 200
        assert 'endwise_reloads_total{outcome="failed"} 1.0' in httpx.get(f"{server.url}/metrics").text


def test_what_is_written_into_the_folder_takes_over_when_asked_to(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "POLL_S", 0.01)
    place = folder / "watched"
    number_model(0).save(place)
    with serving(place, port=0, watch=True) as server:
        old = server.service.version
        time.sleep(0.1)
        number_model(1).save(place)
        while server.service.version is old:
            time.sleep(0.01)
        assert httpx.get(f"{server.url}/readyz").text.strip() == server.service.version.id  # type: ignore[union-attr]


def test_what_was_looked_at_half_written_is_looked_at_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "POLL_S", 0.01)
    place, new = folder / "halves", folder / "whole"
    number_model(0).save(place)
    number_model(1).save(new)
    with serving(place, port=0, watch=True) as server:
        old = server.service.version
        (new / "model.json").replace(place / "model.json")
        while 'endwise_reloads_total{outcome="failed"}' not in httpx.get(f"{server.url}/metrics").text:
            time.sleep(0.01)
        (new / "weights.safetensors").replace(place / "weights.safetensors")
        until = time.monotonic() + 120
        while server.service.version is old:
            assert time.monotonic() < until
            time.sleep(0.01)


# ---- who may ask -------------------------------------------------------------------------------------------------------


def test_another_machine_needs_a_token() -> None:
    with pytest.raises(RecipeError, match="without a token only this machine may ask"):
        Options(host="0.0.0.0")
    with pytest.raises(RecipeError, match="at least 16 characters"):
        Options(host="0.0.0.0", token="short")
    for host in ("127.0.0.1", "127.8.9.1", "::1", "localhost"):
        assert Options(host=host).token is None
    with pytest.raises(RecipeError, match="--queue"):
        Options(queue=0)


def test_the_token_is_asked_for_on_every_route_and_method(folder: Path) -> None:
    number_model(0).save(folder / "guarded")
    with serving(folder / "guarded", port=0, token=TOKEN) as server, httpx.Client(base_url=server.url) as client:
        basic = "Basic " + base64.b64encode(f"me:{TOKEN}".encode()).decode()
        paths = {route.path for route in app.build(server.service).app.app.routes}
        assert {"/", "/predict", "/livez", "/readyz", "/metrics", "/openapi.json"} <= paths
        for path in [*sorted(paths), "/docs", "/nothing", "//", "/%2e%2e"]:
            for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE"):
                for given in (
                    {},
                    {"authorization": "Bearer wrong"},
                    {"authorization": TOKEN},
                    {"authorization": "Basic !"},
                ):
                    answer = client.request(method, path, headers=given)
                    assert answer.status_code == 401, (method, path, given)
        for good in (f"Bearer {TOKEN}", f"bearer {TOKEN}", basic):
            answer = client.post("/predict", json={"inputs": {"weight": 1}}, headers={"authorization": good})
            assert answer.status_code == 200
        named = {"authorization": f"Bearer {TOKEN}", "host": "model.example"}  # behind a proxy
        assert client.get("/readyz", headers=named).status_code == 200


def test_no_other_name_and_no_other_origin(client: httpx.Client, server: Serving) -> None:
    ask = {"json": {"inputs": {"note": "x"}}}
    assert client.post("/predict", **ask, headers={"host": "evil.example"}).status_code == 403
    assert client.post("/predict", **ask, headers={"host": "127.0.0.1.evil.example"}).status_code == 403
    assert client.post("/predict", **ask, headers={"origin": "http://evil.example"}).status_code == 403
    assert client.post("/predict", **ask, headers={"origin": "null"}).status_code == 403
    assert client.post("/predict", **ask, headers={"origin": server.url}).status_code == 200
    assert client.post("/predict", **ask, headers={"host": "localhost"}).status_code == 200


TRAVERSALS = [
    prefix + step * depth + "etc/passwd"
    for prefix in ("/", "/predict/", "/static/", "/models/")
    for step in (
        "../",
        "..%2f",
        "%2e%2e/",
        "%2e%2e%2f",
        "%252e%252e%252f",
        "..%5c",
        "%2e%2e%5c",
        "..\\",
        "....//",
        "..%c0%af",
    )
    for depth in (3,)
]


def test_no_path_reads_a_file(client: httpx.Client, server: Serving) -> None:
    assert len(TRAVERSALS) == 40
    for path in TRAVERSALS:
        request = httpx.Request("GET", server.url)
        request.url = httpx.URL(server.url, raw_path=path.encode())
        answer = client.send(request)
        assert answer.status_code == 404, path
        assert "root:" not in answer.text


# ---- what is too much --------------------------------------------------------------------------------------------------


def bomb_png(side: int) -> bytes:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1_000_000))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def many_frames(count: int) -> bytes:
    """A GIF of one black pixel, again and again."""
    file = io.BytesIO()
    Image.new("P", (1, 1)).save(file, "GIF")
    head, _, tail = file.getvalue().partition(b",")
    return head + (b"," + tail[:-1]) * count + b";"


def long_wav(seconds_claimed: int) -> bytes:
    data = bytearray(sound())
    data[40:44] = struct.pack("<I", seconds_claimed * 16_000)
    return bytes(data)


def wide_flac() -> bytes:
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, np.zeros((5_000_000, 8), np.int16), 192_000, format="FLAC")
    return file.getvalue()


BOMBS = {
    "a picture of 50,000 x 50,000": ("photo", bomb_png(50_000)),
    "a picture of 6,000 x 6,000": ("photo", bomb_png(6_000)),
    "a GIF of 100,000 frames": ("photo", many_frames(100_000)),
    "a picture that is a program": ("photo", b"<svg>" + b"<g>" * 100_000),
    "a packed picture": ("photo", gzip.compress(bytes(50_000_000))),
    "a recording of two gigabytes": ("sound", long_wav(125_000)),
    "a recording of many channels": ("sound", wide_flac()),
    "a packed recording": ("sound", gzip.compress(bytes(50_000_000))),
    "a very long text": ("note", b"x" * 1_500_000),
}


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("what", BOMBS)
def test_a_bomb_is_not_unpacked(client: httpx.Client, what: str) -> None:
    field, data = BOMBS[what]
    before = resident_bytes() if sys.platform == "linux" else 0
    answer = client.post("/predict", files={field: ("bomb", data)})
    assert answer.status_code in (413, 422)
    assert answer.json()["error"]["field"] == field
    if sys.platform == "linux":
        assert resident_bytes() - before < 100 << 20
    assert client.post("/predict", json={"inputs": {"note": "x"}}).status_code == 200


def test_json_that_grows_is_refused(client: httpx.Client) -> None:
    kind = {"content-type": "application/json"}
    deep = b'{"inputs": {"weight": ' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}}"
    wide = b'{"inputs": {"weight": [' + b"[]," * 1_200_000 + b"[]]}}"
    big = b'{"inputs": {"weight": ' + b"9" * 1_000_000 + b"}}"
    for body in (deep, wide, big, b'{"inputs": {"weight": NaN}}', b'{"inputs": {"a": 1, "a": 2}}', b"\xff", b""):
        assert client.post("/predict", content=body, headers=kind).status_code in (400, 413)
    commas = json.dumps({"inputs": {"note": "," * 100}}).encode()
    assert client.post("/predict", content=commas, headers=kind).status_code == 200


def test_a_body_is_only_so_large(client: httpx.Client) -> None:
    kind = {"content-type": "application/json"}
    too_much = b" " * ((4 << 20) + 1)
    assert client.post("/predict", content=too_much, headers=kind).status_code == 413
    assert client.post("/predict", content=iter([too_much[:1000], too_much]), headers=kind).status_code == 413
    packed = client.post("/predict", content=gzip.compress(b"{}"), headers={**kind, "content-encoding": "gzip"})
    assert packed.status_code == 415


def test_a_body_that_does_not_come_is_not_waited_for(folder: Path) -> None:
    import socket

    number_model(0).save(folder / "trickle")
    with serving(folder / "trickle", port=0, timeout_s=0.3) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as line:
            line.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
            assert line.recv(100).startswith(b"HTTP/1.1 408")


ENDLESS = {
    "a header": [b"X: "] + [b"x" * 60_000] * 3,
    "headers": [b"X-A: 1\r\n" * 10_000] * 3,
    "an address": [b"POST /" + b"x" * 60_000] + [b"x" * 60_000] * 3,
    "trailers": [b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n"] + [b"X-A: 1\r\n" * 10_000] * 3,
    "the name of a chunk": [b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 60_000] + [b"x" * 60_000] * 3,
}


@pytest.mark.parametrize("what", ENDLESS)
def test_what_comes_before_a_body_has_an_end(server: Serving, what: str) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as line:
        start = b"" if what == "an address" else b"POST /predict HTTP/1.1\r\nHost: localhost\r\n"
        with contextlib.suppress(ConnectionError):  # told and gone before all of it was sent
            line.sendall(start)
            for part in ENDLESS[what]:
                line.sendall(part)
            told = line.recv(100)
            assert told == b"" or told.startswith(b"HTTP/1.1 400"), told
            while told:
                told = line.recv(1_000)


def test_a_head_that_does_not_come_is_not_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number_model(0).save(folder / "silent")
    with serving(folder / "silent", port=0) as server:
        monkeypatch.setattr(sys.modules["endwise.serve.wire"], "HEAD_S", 0.2)
        host, port = server.url.removeprefix("http://").split(":")
        for sent in (b"", b"POST /predict HTTP/1.1\r\nHost: local"):
            with socket.create_connection((host, int(port)), timeout=30) as line:
                line.sendall(sent)
                assert line.recv(100) == b""
        with httpx.Client(base_url=server.url) as client:  # after a whole head nothing is cut off
            assert client.post("/predict", json={"inputs": {"weight": 1}}).status_code == 200
            time.sleep(0.3)
            assert client.post("/predict", json={"inputs": {"weight": 1}}).status_code == 200


KINDS = [
    "application/json",
    "multipart/form-data; boundary=b",
    "multipart/form-data",
    "image/png",
    "text/plain",
    "",
    "a/b; c=\xe4",
]
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary().map(lambda data: base64.b64encode(data).decode()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["bytes", "path", "edges", "x"]), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
NAMES = st.sampled_from(["photo", "sound", "note", "weight", "mood", "other", ""])
HEADS = st.sampled_from(
    [
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"RIFF\0\0\0\0WAVE",
        b"fLaC",
        b"OggS",
        b"GIF89a",
        b"PK\x03\x04",
        b"\x1f\x8b\x08",
        b"\x93NUMPY",
    ]
)
PARTS = st.dictionaries(
    NAMES,
    st.tuples(st.none() | st.just("f"), st.tuples(HEADS, st.binary()).map(b"".join) | st.text().map(str.encode)),
    max_size=4,
)


def check_answer(answer: httpx.Response) -> None:
    assert answer.status_code < 500, answer.text
    assert "Traceback" not in answer.text
    if answer.status_code != 200:
        assert answer.json()["error"].keys() == {"type", "field", "message"}


fuzzed = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@fuzzed
@given(body=st.binary(max_size=300) | JSONS.map(lambda value: json.dumps(value).encode()), kind=st.sampled_from(KINDS))
def test_no_bytes_make_it_fail(client: httpx.Client, body: bytes, kind: str) -> None:
    check_answer(client.post("/predict", content=body, headers=[(b"content-type", kind.encode("latin-1"))]))


@fuzzed
@given(inputs=st.dictionaries(NAMES, JSONS, max_size=4))
def test_no_values_make_it_fail(client: httpx.Client, inputs: dict[str, Any]) -> None:
    body = json.dumps({"inputs": inputs}).encode()
    check_answer(client.post("/predict", content=body, headers={"content-type": "application/json"}))


@fuzzed
@given(parts=PARTS)
def test_no_form_makes_it_fail(client: httpx.Client, parts: dict[str, tuple[str | None, bytes]]) -> None:
    check_answer(client.post("/predict", files=parts))


@fuzzed
@given(places=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
       field=st.sampled_from(["photo", "sound"]))  # fmt: skip
def test_no_damaged_file_makes_it_fail(client: httpx.Client, places: list[tuple[float, int]], field: str) -> None:
    data = bytearray(picture() if field == "photo" else sound())
    for place, value in places:
        data[int(place * len(data))] = value
    check_answer(client.post("/predict", files={field: ("f", bytes(data))}))


# ---- decisions ---------------------------------------------------------------------------------------------------------


def test_what_was_answered_is_written_down(client: httpx.Client, server: Serving, folder: Path) -> None:
    answer = client.post("/predict", json={"inputs": {"note": "remember"}}, headers={"x-request-id": "kept-1"}).json()
    client.post("/predict", json={"inputs": {"note": 1.5}}, headers={"x-request-id": "refused-1"})
    with Decisions.open(folder / "decisions.db") as log:
        shown = log.show("kept-1")
        assert log.verify().ok
        with pytest.raises(Exception, match="no decision 'refused-1'"):
            log.show("refused-1")
    assert shown.decision["outputs"] == answer["outputs"]
    assert shown.decision["inputs"].keys() == {"note"}
    assert shown.there
    assert answer["model"].endswith(shown.model["model"][:12])
    assert shown.model["recipe"]["inputs"].keys() == {"photo", "sound", "note", "weight"}


def test_what_cannot_be_written_down_is_not_given_away(folder: Path) -> None:
    number_model(0).save(folder / "unwritten")
    with serving(folder / "unwritten", port=0, log=str(folder / "broken.db")) as server:
        ask = {"json": {"inputs": {"weight": 1}}}
        assert httpx.post(f"{server.url}/predict", **ask).status_code == 200
        assert server.service.log is not None
        server.service.log.close()
        assert httpx.post(f"{server.url}/predict", **ask).json()["error"]["type"] == "failed"


# ---- the process -------------------------------------------------------------------------------------------------------

WITHOUT_TORCH = """
import importlib.abc, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ImportError("a bundle needs no torch")
sys.meta_path.insert(0, Refuse())
from endwise.cli import main
sys.argv = ["endwise", *sys.argv[1:]]
main()
"""


def test_what_was_taken_is_answered_before_the_end(slow: Slow, folder: Path) -> None:
    number_model(0).save(folder / "drained")
    answers: list[httpx.Response] = []
    with serving(folder / "drained", port=0, timeout_s=60) as server:
        server.service.batcher.version = slow.version

        def ask() -> None:
            answers.append(httpx.post(f"{server.url}/predict", json={"inputs": {"weight": 1}}, timeout=60))

        threads = [threading.Thread(target=ask) for _ in range(5)]
        for thread in threads:
            thread.start()
        while server.service.batcher.waiting < 5:
            time.sleep(0.001)
        threading.Timer(0.2, slow.free.set).start()  # while the block ends
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [200] * 5
    assert {answer.headers["connection"] for answer in answers} == {"close"}


def test_who_was_let_in_before_the_doors_closed_is_answered(folder: Path) -> None:
    number_model(0).save(folder / "late")
    body = json.dumps({"inputs": {"weight": 1}}).encode()
    with contextlib.ExitStack() as late:
        with serving(folder / "late", port=0) as server:
            address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
            caller = late.enter_context(socket.create_connection(address, timeout=60))

            def ask() -> None:
                """Only when nobody is let in any more, and on a connection that is open since before."""
                with contextlib.suppress(ConnectionRefusedError):
                    while True:
                        socket.create_connection(address, timeout=60).close()
                        time.sleep(0.005)
                caller.sendall(b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n")
                caller.sendall(b"content-length: %d\r\n\r\n" % len(body) + body)

            thread = threading.Thread(target=ask)
            thread.start()
        thread.join()
        assert caller.recv(1 << 16).startswith(b"HTTP/1.1 200")


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_bundle_is_served_without_torch_and_drains_when_told_to_stop(tmp_path: Path) -> None:
    model = number_model(0)
    bundle = export(model, tmp_path / "bundle", examples=[{"weight": float(row)} for row in range(6)]).folder
    command = [sys.executable, "-c", WITHOUT_TORCH, "serve", str(bundle), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        expected = model.predict({"weight": 7.0}).to_dict()
        assert same(expected, httpx.post(f"{told['url']}/predict", json={"inputs": {"weight": 7.0}}).json()["outputs"])
        statuses: list[int] = []
        unready: list[int] = []

        def ask() -> None:
            """Until the doors are closed; a server that ends connections says so before."""
            with httpx.Client(base_url=told["url"], timeout=60) as client:
                while True:
                    try:
                        answer = client.post("/predict", json={"inputs": {"weight": 7.0}})
                    except httpx.NetworkError:  # the doors closed before it was let in
                        return
                    statuses.append(answer.status_code)

        def watch() -> None:
            while True:
                try:
                    unready.append(httpx.get(f"{told['url']}/readyz").status_code)
                except httpx.NetworkError:
                    return

        threads = [threading.Thread(target=ask) for _ in range(4)] + [threading.Thread(target=watch)]
        for thread in threads:
            thread.start()
        while len(statuses) < 20 or not unready:
            time.sleep(0.001)
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        _, complaints = process.communicate(timeout=60)
    assert process.returncode == 0, complaints
    assert "Traceback" not in complaints
    assert set(statuses) == {200}
    assert set(unready) == {200, 503}


def test_what_cannot_be_served_is_said_before_it_begins(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError), serving(tmp_path / "nothing", port=0):
        pass
    number_model(0).save(tmp_path / "broken")
    (tmp_path / "broken" / "weights.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="cannot be read"), serving(tmp_path / "broken", port=0):
        pass
    number_model(0).save(tmp_path / "busy")
    with serving(tmp_path / "busy", port=0) as server:
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(SetupError, match="--port 0"), serving(tmp_path / "busy", port=port):
            pass


def test_the_command_is_documented() -> None:
    import typer.testing

    shown = typer.testing.CliRunner().invoke(commands, ["serve", "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown.output)
    for option in ("--host", "--port", "--token", "--queue", "--p99-ms", "--watch", "--log"):
        assert option in text
