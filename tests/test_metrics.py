"""Metrics: the library's figure, with an honest interval, for any order, weights and groups of the rows."""

import json
import math
from collections.abc import Sequence
from typing import Any

import jiwer
import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from endwise import metrics
from endwise.metrics import Estimate, Metric
from endwise.modalities.base import Answer

CLASSES = ("cat", "dog", "owl")


def make_classes(n: int, seed: int) -> tuple[list[str], list[Answer], np.ndarray]:
    random = np.random.default_rng(seed)
    truths = [CLASSES[i] for i in random.integers(0, 3, n)]
    scores = random.dirichlet([1, 1, 1], n).round(2)
    scores = scores / scores.sum(1, keepdims=True)
    answers = []
    for row in scores:
        best = int(row.argmax())
        named = {name: float(p) for name, p in zip(CLASSES, row, strict=True)}
        answers.append(Answer(CLASSES[best], float(row[best]), detail={"probabilities": named}))
    return truths, answers, scores


def make_booleans(n: int, seed: int) -> tuple[list[bool], list[Answer], np.ndarray]:
    random = np.random.default_rng(seed)
    score = random.random(n).round(1)  # many ties
    truths = [bool(item) for item in random.random(n) < score]
    answers = [
        Answer(
            bool(p >= 0.5), float(max(p, 1 - p)), detail={"probabilities": {"false": float(1 - p), "true": float(p)}}
        )
        for p in score
    ]
    return truths, answers, score


def make_tags(n: int, seed: int) -> tuple[list[list[str]], list[Answer], np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    tags, scores = np.array(["a", "b", "c", "d"]), random.random((n, 4)).round(1)
    true = random.random((n, 4)) < scores
    truths = [tags[row].tolist() for row in true]
    answers = [
        Answer(
            tags[row >= 0.5].tolist(),
            0.5,
            detail={"probabilities": dict(zip(tags.tolist(), row.tolist(), strict=True))},
        )
        for row in scores
    ]
    return truths, answers, true, scores


WEIGHTS = np.random.default_rng(9).integers(0, 4, 60).astype(float)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_class_metrics_equal_scikit_learn(weights: np.ndarray | None) -> None:
    truths, answers, scores = make_classes(60, 0)
    said = [answer.value for answer in answers]
    expected = {
        "accuracy": oracle.accuracy_score(truths, said, sample_weight=weights),
        "balanced_accuracy": oracle.balanced_accuracy_score(truths, said, sample_weight=weights),
        "macro_f1": oracle.f1_score(truths, said, average="macro", sample_weight=weights),
        "log_loss": oracle.log_loss(truths, scores, labels=CLASSES, sample_weight=weights),
    }
    made = [metrics.accuracy(), metrics.balanced_accuracy(), metrics.macro_f1(), metrics.log_loss()]
    for metric in made:
        assert metrics.value(metric, truths, answers, weights=weights) == pytest.approx(expected[metric.name]), (
            metric.name
        )


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_yes_no_metrics_equal_scikit_learn(weights: np.ndarray | None) -> None:
    truths, answers, score = make_booleans(60, 1)
    said = [answer.value for answer in answers]
    expected = {
        "auroc": oracle.roc_auc_score(truths, score, sample_weight=weights),
        "average_precision": oracle.average_precision_score(truths, score, sample_weight=weights),
        "f1": oracle.f1_score(truths, said, sample_weight=weights),
        "precision": oracle.precision_score(truths, said, sample_weight=weights),
        "recall": oracle.recall_score(truths, said, sample_weight=weights),
        "brier": oracle.brier_score_loss(truths, score, sample_weight=weights),
        "log_loss": oracle.log_loss(truths, score, sample_weight=weights),
    }
    made = [
        metrics.auroc(("true",)), metrics.average_precision(("true",)), metrics.f1(), metrics.precision(),
        metrics.recall(), metrics.brier(), metrics.log_loss(),
    ]  # fmt: skip
    for metric in made:
        assert metrics.value(metric, truths, answers, weights=weights) == pytest.approx(expected[metric.name]), (
            metric.name
        )


def test_ranking_several_classes_equals_scikit_learn() -> None:
    truths, answers, scores = make_classes(80, 2)
    expected = oracle.roc_auc_score(truths, scores, multi_class="ovr", average="macro", labels=list(CLASSES))
    assert metrics.value(metrics.auroc(CLASSES), truths, answers) == pytest.approx(expected)


def test_the_brier_score_of_several_classes_is_the_squared_distance() -> None:
    truths, answers, scores = make_classes(50, 3)
    one_hot = np.array([[truth == name for name in CLASSES] for truth in truths], dtype=float)
    assert metrics.value(metrics.brier(), truths, answers) == pytest.approx(((scores - one_hot) ** 2).sum(1).mean())


def test_calibration_error_by_hand() -> None:
    truths = ["a"] * 4
    answers = [Answer("a", 0.9), Answer("b", 0.9), Answer("a", 0.3), Answer("a", 1.0)]
    # bins of confidence: {0.9, 0.9} holds 50 % right, {0.3} 100 %, {1.0} 100 %
    assert metrics.value(metrics.ece(), truths, answers) == pytest.approx((abs(1.8 - 1) + abs(0.3 - 1) + 0) / 4)


@pytest.mark.parametrize("size", [1, 3], ids=["number", "vector"])
def test_number_metrics_equal_scikit_learn(size: int) -> None:
    random = np.random.default_rng(4)
    true = random.normal(1e6, 3.0, (40, size)).squeeze()
    said = true + random.normal(0, 1.0, true.shape)
    answers = [Answer(item.tolist()) for item in said]
    weights = random.integers(1, 4, 40).astype(float)
    for metric, expected in [
        (metrics.mae("kg"), oracle.mean_absolute_error(true, said, sample_weight=weights)),
        (metrics.rmse("kg"), oracle.root_mean_squared_error(true, said, sample_weight=weights)),
        (metrics.r2(), oracle.r2_score(true, said, sample_weight=weights)),
    ]:
        assert metrics.value(metric, true.tolist(), answers, weights=weights) == pytest.approx(expected)
    assert metrics.mae("kg").unit == "kg"


def test_tag_metrics_equal_scikit_learn() -> None:
    truths, answers, true, scores = make_tags(50, 5)
    said = scores >= 0.5
    for metric, expected in [
        (metrics.tags_macro_f1(), oracle.f1_score(true, said, average="macro")),
        (metrics.tags_micro_f1(), oracle.f1_score(true, said, average="micro")),
        (metrics.tags_auroc(("a", "b", "c", "d")), oracle.roc_auc_score(true, scores, average="macro")),
        (metrics.tags_exact_match(), oracle.accuracy_score(true, said)),
    ]:
        assert metrics.value(metric, truths, answers) == pytest.approx(expected), metric.name


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.text("ab ", max_size=6), st.text("ab ", max_size=6)), min_size=1, max_size=6))
def test_error_rates_equal_jiwer(pairs: list[tuple[str, str]]) -> None:
    truths, said = [true for true, _ in pairs], [other for _, other in pairs]
    answers = [Answer(text) for text in said]
    assert metrics.value(metrics.wer(), truths, answers) == pytest.approx(jiwer.wer(truths, said))
    assert metrics.value(metrics.cer(), truths, answers) == pytest.approx(jiwer.cer(truths, said))


WORDS = st.lists(st.sampled_from(["a", "bb", "c.", "dé", "Ee"]), max_size=9).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=5))
def test_text_scores_equal_sacrebleu(pairs: list[tuple[str, str]]) -> None:
    truths, said = [true for true, _ in pairs], [other for _, other in pairs]
    answers = [Answer(text) for text in said]
    expected = sacrebleu.corpus_bleu(said, [truths]).score, sacrebleu.corpus_chrf(said, [truths]).score
    assert metrics.value(metrics.bleu(), truths, answers) == pytest.approx(expected[0], abs=1e-9)
    assert metrics.value(metrics.chrf(), truths, answers) == pytest.approx(expected[1], abs=1e-9)


def test_an_interval_of_bleu_is_made_of_whole_corpora() -> None:
    """The same as drawing rows with replacement and asking sacrebleu for each corpus drawn."""
    random = np.random.default_rng(0)
    truths = [" ".join(random.choice(list("abcdefgh"), 8)) for _ in range(25)]
    answers = [
        Answer(text.replace("b", "x").replace("c", "y" if index % 2 else "c")) for index, text in enumerate(truths)
    ]
    made = metrics.estimate(metrics.bleu(), truths, answers, resamples=400)
    scores = []
    for _ in range(200):
        rows = random.integers(0, 25, 25)
        scores.append(sacrebleu.corpus_bleu([answers[i].value for i in rows], [[truths[i] for i in rows]]).score)
    assert made.value == pytest.approx(sacrebleu.corpus_bleu([item.value for item in answers], [truths]).score)
    assert made.high - made.low == pytest.approx(np.subtract(*np.quantile(scores, [0.975, 0.025])), rel=0.3)


def test_exact_match_is_up_to_what_is_taken_away() -> None:
    truths, answers = ["ls  -l", "PWD", "cat x"], [Answer(" ls -l\n"), Answer("pwd"), Answer("cat y")]
    assert metrics.value(metrics.accuracy(), truths, answers) == 0
    assert metrics.value(metrics.exact_match(), truths, answers) == pytest.approx(1 / 3)
    folded = metrics.exact_match(str.lower, name="same_letters")
    assert metrics.value(folded, truths, answers) == pytest.approx(1 / 3)
    assert folded.name == "same_letters"


def test_likelihoods_by_hand() -> None:
    truths, pairs = (
        ["ab", "é€"],
        [(math.log(2), 3.0), (math.log(4), 1.0)],
    )  # 5 ln 2 nats on 4 units, 4 characters, 7 bytes
    at = {
        metric.name: metrics.value(metric, truths, pairs)
        for metric in (metrics.perplexity("lm"), metrics.bits_per_byte("lm"), metrics.nats_per_character("lm"))
    }
    assert at["perplexity"] == pytest.approx(2 ** (5 / 4))
    assert at["bits_per_byte"] == pytest.approx(5 / 7)
    assert at["nats_per_character"] == pytest.approx(5 / 4 * math.log(2))
    assert metrics.value(metrics.perplexity("lm"), ["a"], [(1e6, 1.0)]) == math.inf


def test_metrics_of_a_term_need_no_answers_and_stand_beside_those_that_do() -> None:
    truths, terms = ["a b", "c"] * 5, {"lm": np.array([[1.0, 2.0], [2.0, 1.0]] * 5)}
    made = metrics.estimates([metrics.perplexity("lm")], truths, [], terms=terms, resamples=50)
    assert made["perplexity"].value == pytest.approx(math.exp(4 / 3))
    both = [metrics.perplexity("lm"), metrics.wer()]
    answers = [Answer("a b")] * 10
    assert metrics.estimates(both, truths, answers, terms=terms, resamples=50)["perplexity"] == made["perplexity"]
    grouped = metrics.by_group(both, truths, answers, ["x", "y"] * 5, terms=terms, resamples=20)
    assert grouped["x"]["perplexity"].value == pytest.approx(math.e)
    assert grouped["x"]["wer"].value == 0


def test_words_said_into_silence_are_errors() -> None:
    assert metrics.value(metrics.wer(), ["", "one two"], [Answer("noise"), Answer("one two")]) == 0.5


def every_case() -> list[tuple[Metric, Sequence[Any], Sequence[Answer]]]:
    truths, answers, _ = make_classes(30, 6)
    yes, sure, _ = make_booleans(30, 7)
    sets, tagged, _, _ = make_tags(30, 8)
    random = np.random.default_rng(9)
    numbers = random.normal(size=30).tolist()
    near = [Answer(item + 0.3 * random.normal()) for item in numbers]
    words = ["one two", "three", "four five six"] * 10
    heard = [Answer(text) for text in ["one too", "three", "for six"] * 10]
    nats = [
        (float(loss), float(units)) for loss, units in zip(random.exponential(size=30), [3, 1, 4] * 10, strict=True)
    ]
    longer = ["a b b a c d e", "b a d e c b a b", "e d c b a"] * 10
    return [
        *((metric, truths, answers) for metric in (
            metrics.accuracy(), metrics.balanced_accuracy(), metrics.macro_f1(), metrics.log_loss(), metrics.brier(),
            metrics.ece(), metrics.auroc(CLASSES), metrics.average_precision(CLASSES),
        )),
        *((metric, yes, sure) for metric in (
            metrics.auroc(("true",)), metrics.f1(), metrics.precision(), metrics.recall(),
        )),
        *((metric, sets, tagged) for metric in (
            metrics.tags_macro_f1(), metrics.tags_micro_f1(), metrics.tags_exact_match(),
            metrics.tags_auroc(("a", "b", "c", "d")),
        )),
        *((metric, numbers, near) for metric in (metrics.mae(), metrics.rmse(), metrics.r2())),
        *((metric, words, heard) for metric in (
            metrics.wer(), metrics.cer(), metrics.accuracy(), metrics.exact_match(), metrics.chrf(),
        )),
        (metrics.bleu(), longer, [Answer(text.replace("b", "c", index % 3)) for index, text in enumerate(longer)]),
        *((metric, words, nats) for metric in (
            metrics.perplexity("lm"), metrics.bits_per_byte("lm"), metrics.nats_per_character("lm"),
        )),
    ]  # fmt: skip


CASES = every_case()
NAMES = [f"{index}-{metric.name}" for index, (metric, _, _) in enumerate(CASES)]


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_the_order_of_the_rows_says_nothing(case: tuple[Metric, Sequence[Any], Sequence[Answer]]) -> None:
    metric, truths, answers = case
    order = np.random.default_rng(1).permutation(len(truths))
    shuffled = metrics.value(metric, [truths[i] for i in order], [answers[i] for i in order])
    assert shuffled == pytest.approx(metrics.value(metric, truths, answers))


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_a_row_of_weight_two_is_that_row_twice(case: tuple[Metric, Sequence[Any], Sequence[Answer]]) -> None:
    metric, truths, answers = case
    weights = np.random.default_rng(2).integers(0, 3, len(truths))
    rows = np.repeat(np.arange(len(truths)), weights)
    repeated = metrics.value(metric, [truths[i] for i in rows], [answers[i] for i in rows])
    assert metrics.value(metric, truths, answers, weights=weights) == pytest.approx(repeated)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_an_interval_holds_its_value_and_is_the_same_every_time(
    case: tuple[Metric, Sequence[Any], Sequence[Answer]],
) -> None:
    metric, truths, answers = case
    first = metrics.estimate(metric, truths, answers, resamples=50)
    assert first.low <= first.value <= first.high
    assert first.low < first.high
    assert first == metrics.estimate(metric, truths, answers, resamples=50)
    assert first.n == len(truths)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_statistics_of_rows_can_be_computed_once_for_all_groups(
    case: tuple[Metric, Sequence[Any], Sequence[Answer]],
) -> None:
    metric, truths, answers = case
    groups = ["x", "y", "y"] * 10
    terms = {} if metric.of_term is None else {metric.of_term: np.array(answers)}
    found = metrics.by_group([metric], truths, answers, groups, terms=terms, resamples=20)
    rows = [i for i, group in enumerate(groups) if group == "y"]
    expected = metrics.value(metric, [truths[i] for i in rows], [answers[i] for i in rows])
    assert list(found) == ["x", "y"]
    assert found["y"][metric.name].value == pytest.approx(expected)
    assert found["y"][metric.name].n == 20


def test_the_interval_of_a_mean_is_that_of_the_textbook() -> None:
    random = np.random.default_rng(0)
    errors = random.exponential(size=400)
    made = metrics.estimate(metrics.mae(), [0.0] * 400, [Answer(float(item)) for item in errors], resamples=2000)
    half = 1.96 * errors.std() / 20
    assert made.low == pytest.approx(errors.mean() - half, abs=0.15 * half)
    assert made.high == pytest.approx(errors.mean() + half, abs=0.15 * half)


def test_95_percent_intervals_of_twelve_rows_hold_the_truth_about_95_times_in_100() -> None:
    random = np.random.default_rng(3)
    held = 0
    for _ in range(300):
        answers = [Answer(float(item)) for item in 5 + random.normal(size=12)]
        made = metrics.estimate(metrics.mae(), [0.0] * 12, answers, resamples=300)
        held += made.low <= 5 <= made.high
    assert 0.92 <= held / 300 <= 0.98


def test_few_rows_that_are_all_right_do_not_prove_perfection() -> None:
    made = metrics.estimate(metrics.accuracy(), ["a"] * 5, [Answer("a")] * 5)
    assert made.value == made.high == 1
    assert 0.5 < made.low < 0.6  # Wilson: 5 of 5


def said(truth: Any, sure: float = 1.0) -> Answer:
    spread = dict.fromkeys(CLASSES, (1 - sure) / 2)
    if isinstance(truth, list):
        return Answer(truth, sure, detail={"probabilities": {tag: float(tag in truth) for tag in "ab"}})
    named = {"true": float(truth), "false": 1.0 - truth} if isinstance(truth, bool) else {**spread, truth: sure}
    return Answer(truth, sure, detail={"probabilities": named})


PERFECT = [
    *((metric, list(CLASSES) * 20, 60) for metric in (metrics.macro_f1(), metrics.balanced_accuracy())),
    *((metric, list(CLASSES) * 20, 60) for metric in (metrics.auroc(CLASSES), metrics.average_precision(CLASSES))),
    (metrics.auroc(("true",)), [True, False] * 30, 60),
    *((metric, [True, False] * 30, 30) for metric in (metrics.f1(), metrics.precision(), metrics.recall())),
    (metrics.tags_micro_f1(), [["a"], ["b"], []] * 20, 40),
    (metrics.tags_macro_f1(), [["a"], ["b"]] * 30, 60),
    (metrics.tags_auroc("ab"), [["a"], ["b"]] * 30, 120),
    *((metric, ["one two", "three"] * 30, 60) for metric in (metrics.wer(), metrics.cer())),
]


@pytest.mark.parametrize(("metric", "truths", "rows"), PERFECT, ids=lambda item: getattr(item, "name", ""))
def test_a_perfect_score_is_bounded_by_how_many_rows_it_stands_on(metric: Metric, truths: list[Any], rows: int) -> None:
    """The bootstrap of rows that are all right is [1, 1] whatever their number; n rows without an error leave room
    for 3.84 / (n + 3.84) of them (Wilson 1927)."""
    made = metrics.estimate(metric, truths, [said(truth) for truth in truths])
    room = 3.841459 / (rows + 3.841459)
    expected = (1 - room, 1.0) if metric.direction == "max" else (0.0, room)
    assert (made.low, made.high) == pytest.approx(expected, abs=1e-6)
    assert made.value in (0.0, 1.0)


def test_a_mean_over_classes_is_no_surer_than_its_rarest_class() -> None:
    rare = ["cat"] * 98 + ["dog"] * 2
    low = [metrics.estimate(metrics.macro_f1(), truths, [said(truth) for truth in truths]).low
           for truths in (rare, ["cat", "dog"] * 50)]  # fmt: skip
    assert low[0] < 0.7 < 0.95 < low[1]
    of_one_speaker = metrics.estimate(metrics.macro_f1(), ["cat", "dog"] * 50, [said(t) for t in ["cat", "dog"] * 50],
                                      clusters=[row // 25 for row in range(100)])  # fmt: skip
    assert of_one_speaker.low < 0.7  # four speakers, not a hundred rows


def test_an_interval_that_nothing_bounds_is_called_degenerate() -> None:
    made = metrics.estimate(metrics.mae(), [1.0, 2.0, 3.0], [Answer(1.5), Answer(2.5), Answer(3.5)])
    assert made.low == made.high == 0.5
    assert str(made) == "0.5 (degenerate interval) n=3"


def test_one_row_gives_no_interval_and_no_row_no_value() -> None:
    one = metrics.estimate(metrics.mae(), [1.0], [Answer(3.0)])
    assert one.to_dict() == {"value": 2.0, "low": None, "high": None, "n": 1}
    none = metrics.estimate(metrics.mae(), [], [])
    assert none.to_dict() == {"value": None, "low": None, "high": None, "n": 0}
    assert str(one) == "2 (no interval) n=1"
    assert str(none) == "undefined n=0"
    assert str(Estimate(0.5, 0.25, 0.75, 8)) == "0.5 [0.25, 0.75] n=8"


def test_what_is_undefined_is_null_in_json_not_zero_and_not_nan() -> None:
    _, answers, _ = make_booleans(10, 0)
    made = metrics.estimates(
        [metrics.auroc(("true",)), metrics.average_precision(("true",)), metrics.r2()], [False] * 10, answers
    )
    bare = metrics.estimates(
        [metrics.log_loss(), metrics.brier(), metrics.ece(), metrics.auroc(CLASSES)], ["a"], [Answer("a")]
    )
    for name, estimate in [*made.items(), *bare.items()]:
        assert estimate.to_dict()["value"] is None, name
    json.dumps([item.to_dict() for item in made.values()], allow_nan=False)


def test_a_class_that_training_never_saw_is_never_right() -> None:
    truths, answers, _ = make_classes(20, 0)
    truths = ["bat", *truths[1:]]
    assert metrics.value(metrics.accuracy(), truths[:1], answers[:1]) == 0
    assert metrics.value(metrics.log_loss(), truths[:1], answers[:1]) > 30
    assert 0 < metrics.value(metrics.macro_f1(), truths, answers) < 1
    assert math.isfinite(metrics.value(metrics.auroc(CLASSES), truths, answers))


def test_rows_of_one_speaker_are_no_independent_evidence() -> None:
    truths = ["a"] * 60
    answers = [Answer("a" if speaker % 2 else "b") for speaker in range(6) for _ in range(10)]
    rows = metrics.estimate(metrics.accuracy(), truths, answers)
    speakers = metrics.estimate(metrics.accuracy(), truths, answers, clusters=[i // 10 for i in range(60)])
    assert rows.value == speakers.value
    assert speakers.high - speakers.low > 2 * (rows.high - rows.low)


def test_a_paired_difference_cancels_what_is_hard_for_both() -> None:
    random = np.random.default_rng(0)
    hard = random.normal(0, 10, 200)
    first, second = [Answer(float(x + 0.1)) for x in hard], [Answer(float(x)) for x in hard]
    made = metrics.difference(metrics.mae(), [-100.0] * 200, first, second)
    assert made.value == pytest.approx(0.1)
    assert made.high - made.low < 0.01
    assert made.n == 200
    same = metrics.difference(metrics.accuracy(), ["a"] * 9, [Answer("a")] * 9, [Answer("a")] * 9)
    assert (same.value, same.low, same.high) == (0, 0, 0)


@pytest.mark.parametrize(("metric", "best"), [(metrics.accuracy(), "x"), (metrics.mae(), "y")], ids=["max", "min"])
def test_the_gap_between_groups_names_both(metric: Metric, best: str) -> None:
    truths = [1.0] * 40
    answers = [Answer(1.0 if i % 4 else 9.0) for i in range(20)] + [Answer(2.0) for _ in range(20)]
    found = metrics.gap(metric, truths, answers, ["x"] * 20 + ["y"] * 20, resamples=200)
    assert found is not None
    assert found.best == best
    assert found.estimate.low <= found.estimate.value <= found.estimate.high
    assert set(found.to_dict()) == {"best", "worst", "value", "low", "high", "n"}
    assert metrics.gap(metric, truths, answers, ["x"] * 40) is None


def test_a_metric_of_ones_own_needs_two_functions() -> None:
    """Rows give statistics, combine gives the value for weights: here a weighted median, which is no sum."""

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        return np.abs(np.array(truths) - np.array([answer.value for answer in answers]))

    def combine(stats: np.ndarray, weights: np.ndarray) -> float:
        order = np.argsort(stats)
        return float(stats[order][np.searchsorted(np.cumsum(weights[order]), weights.sum() / 2)])

    made = metrics.estimate(
        Metric("median_error", "min", rows, combine), [0.0] * 5, [Answer(float(i)) for i in range(5)]
    )
    assert made.value == 2
    assert made.low < 2 < made.high
