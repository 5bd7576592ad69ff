"""The report: one file, opened in a real browser without a network, in which nothing from the data can run."""

import csv
import random
import re
import shutil
from pathlib import Path

import pytest

import endwise as ew
from endwise.report import build, plots

EVIL = '<img src=x onerror="console.error(1)"><script>console.error(2)</script>'


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a small run whose names and texts are markup."""
    folder = tmp_path_factory.mktemp("report")
    chosen = random.Random(0)
    with (folder / "t.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["text", "size", "kind", "price"])
        for index in range(150):
            kind, size = chosen.choice([EVIL, "plain"]), chosen.gauss(0, 1)
            out.writerow([f"{kind[:12]} number {index}", size, kind, size * 2 + chosen.gauss(0, 0.5)])
    recipe = ew.Recipe(
        name=f"evil {EVIL}",
        data=str(folder / "t.csv"),
        inputs={"text": "text", "size": "number"},
        outputs={"kind": "category", "price": {"type": "number", "unit": "<b>€</b>"}},
        train={"size": "tiny", "steps": 30, "precision": "fp32"},
    )
    model = ew.fit(recipe, out=folder / "run")
    return build(model.run)


def test_values_at_one_place_are_no_curve():
    """A run of one evaluation: an axis around a single point would be made up."""
    drawn = plots.curves([plots.Line("<b>", [(60, 0.51234)])], x="step", y="accuracy", alt="Validation")
    assert "<svg" not in drawn
    assert "at step 60 only, &lt;b&gt; 0.512" in drawn
    assert "<svg" in plots.curves([plots.Line("a", [(1, 0.5)]), plots.Line("b", [(2, 0.5)])], x="x", y="y", alt="two")


def test_it_is_one_small_file_that_asks_for_nothing(page):
    html = page.read_text()
    assert len(html) < 5_000_000
    assert not re.findall(r'(?:src|href)="(?!data:|#)', html)
    assert "<script" not in html
    assert 'onerror="' not in html.replace("&quot;", "")


def test_it_says_what_was_learnt_and_how_sure(page):
    html = page.read_text()
    for heading in (
        "Results",
        "Worst mistakes",
        "How it learnt",
        "The data",
        "Where the time went",
        "What made this run",
    ):
        assert heading in html
    assert html.count("<svg") == html.count('role="img" aria-label=')  # every drawing has its text


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's chromium")
@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (1100, "dark"), (390, "light")])
def test_a_browser_opens_it_without_a_complaint(page, width, scheme):
    from playwright.sync_api import sync_playwright

    said: list[str] = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        opened = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        opened.on("console", lambda message: said.append(message.text))
        opened.on("pageerror", lambda error: said.append(str(error)))
        opened.on(
            "request", lambda request: None if request.url.startswith(("file:", "data:")) else said.append(request.url)
        )
        opened.goto(page.as_uri())
        assert opened.evaluate("document.documentElement.scrollWidth") <= width
        assert opened.locator("script").count() == 0
        browser.close()
    assert said == []


def test_plots_bear_anything():
    assert "nothing to draw" in plots.curves([], x="x", y="y", alt="none")
    assert "<svg" in plots.curves(
        [plots.Line("nan", [(1, float("nan")), (2, 3.0), (3, float("inf")), (4, 5.0)])], x="x", y="y", alt="gaps"
    )
    assert "<svg" in plots.scatter([(0, 0), (0, 0)], x="x", y="y", alt="one place")
    assert "&lt;b&gt;" in plots.heatmap(["<b>", "c"], [[1, 0], [2, 3]], alt="confusion")
