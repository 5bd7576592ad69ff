"""The rivals of the recipes: what they are held to be."""

import importlib
import math
from pathlib import Path

import numpy as np
import pytest

from endwise.recipe import Recipe

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def test_bm25_finds_the_text_with_the_rare_word_and_equals_its_formula() -> None:
    rivals = importlib.import_module("recipes.rivals")
    texts = ["the cat sat", "the dog sat on the mat", "a bird"]
    index = rivals.BM25(texts)
    assert index.nearest(["which dog ?", "bird", "cat cat"]).tolist() == [1, 2, 0]
    rarity = math.log(1 + (3 - 1 + 0.5) / (1 + 0.5))  # of "dog": in one text of three
    length = 6 / (11 / 3)
    expected = rarity * 2.5 / (1 + 1.5 * (0.25 + 0.75 * length))
    assert index.scores(["dog"])[0].tolist() == pytest.approx([0, expected, 0])


def test_ngrams_are_a_distribution_and_learn_what_follows() -> None:
    ngrams = importlib.import_module("recipes.language-model.ngrams")
    model = ngrams.NGrams("abracadabra banana cabana " * 3, 4)
    for before in ("", "ab", "zz", "bana"):
        assert sum(model.probability(before, letter) for letter in "abrcdn ?") == pytest.approx(1)
    assert model.probability("aban", "a") > 0.5
    assert model.nats("ab", "ra") == pytest.approx(
        -math.log(model.probability("ab", "r")) - math.log(model.probability("abr", "a"))
    )


def test_ranks_count_the_share_among_equals() -> None:
    rank = importlib.import_module("recipes.support-replies.rank")
    assert rank.shares(np.array([[2.0, 1, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]])) == [1, 0.5, 0, pytest.approx(1 / 3)]
    histories = ["S: Hello | U: Thanks, that is all."]
    scores = rank.by_rules(histories, [["Have a great day", *["It leaves at 3:40 pm."] * 9]])
    assert scores[0, 0] > scores[0, 1:].max()


@pytest.mark.parametrize(
    "file", sorted((ROOT / "recipes").glob("**/*.yaml")), ids=lambda file: f"{file.parent.name}/{file.stem}"
)
def test_every_recipe_is_a_legal_declaration(file: Path) -> None:
    found = Recipe.load(file)
    assert found.inputs
    assert found.outputs


def test_the_edges_of_road_scenes_are_where_the_class_changes() -> None:
    prepare = importlib.import_module("recipes.road-scenes.prepare")
    mask = np.zeros((4, 6), np.uint8)
    mask[:, 3:] = 1
    mask[3, 0] = prepare.UNLABELLED
    said = [[0, 0, 1, 1, 0, 0]] * 2 + [[2, 0, 1, 1, 0, 0], [2, 2, 1, 1, 0, 0]]
    assert prepare.edges(mask).tolist() == said
    assert prepare.present(mask) == ["sky", "building"]
