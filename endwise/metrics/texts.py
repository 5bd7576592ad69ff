"""Metrics of texts: as answers (errors, overlap, delay) and as likelihoods, which need no answer."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from endwise.metrics.engine import Metric, RowStatistics, ratio_of_sums, summable, where_any, with_one


def wer() -> Metric:
    """Word error rate: substitutions, deletions and insertions per reference word, over all rows together (jiwer)."""
    return summable("wer", "min", _edits("process_words"), _errors_per_unit, shares=where_any(1))


def cer() -> Metric:
    """Character error rate: the same per reference character, blanks counted (jiwer)."""
    return summable("cer", "min", _edits("process_characters"), _errors_per_unit, shares=where_any(1))


def _edits(process: str) -> RowStatistics:
    """Errors and reference length of each row. An empty reference is legal: what is said then is all insertions."""

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        import jiwer

        made = getattr(jiwer, process)([str(truth) for truth in truths], [str(answer.value) for answer in answers])
        errors = [sum(_edit_size(part) for part in row) for row in made.alignments]
        return np.array([errors, [len(row) for row in made.references]], dtype=np.float64).T

    return rows


def _edit_size(part: Any) -> int:
    if part.type == "equal":
        return 0
    return int(max(part.ref_end_idx - part.ref_start_idx, part.hyp_end_idx - part.hyp_start_idx))


def _errors_per_unit(sums: np.ndarray) -> np.ndarray:
    """Errors over reference length; over one if all references are empty, as jiwer has it."""
    length = sums[..., 1]
    return np.asarray(sums[..., 0] / np.where(length > 0, length, 1.0))


def exact_match(normalised: Callable[[str], str] | None = None, name: str = "exact_match") -> Metric:
    """Share of rows whose text is the truth, up to what `normalised` takes away; default: how much white space stands
    between words and around the text. (`accuracy` takes nothing away.)"""
    same = normalised or _spaced

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        pairs = zip(truths, answers, strict=True)
        return with_one([float(same(str(truth)) == same(str(answer.value))) for truth, answer in pairs])

    return summable(name, "max", rows, ratio_of_sums, proportion=True)


def _spaced(text: str) -> str:
    return " ".join(text.split())


def lag(unit: str) -> Metric:
    """lag_s or lag_units: how far answers lag behind a stream, in seconds or units of the input, the mean of each row's average
    lagging (Ma et al. 2019), which answers carry as `detail`; rows without a word have none and are left out."""
    key = f"lag_{unit}"

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        found = [answer.detail.get(key) for answer in answers]
        return np.array([[0.0, 0.0] if lag is None else [lag, 1.0] for lag in found]).reshape(-1, 2)

    return summable(key, "min", rows, ratio_of_sums, unit=unit)


BLEU_ORDER, CHRF_ORDER, CHRF_BETA = 4, 6, 2


def bleu() -> Metric:
    """Corpus BLEU in 0 .. 100 (Papineni et al. 2002) as sacrebleu computes it by default: the 13a tokeniser, case
    kept, exponential smoothing, one reference. Resampling adds up n-gram counts, as Koehn (2004) has it."""

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        from sacrebleu.metrics.bleu import BLEU

        # effective_order changes a sentence's score, which is not looked at, and not its counts
        scorer = BLEU(effective_order=True)
        pairs = zip(truths, answers, strict=True)
        found = [scorer.sentence_score(str(answer.value), [str(truth)]) for truth, answer in pairs]
        return np.array([[*row.counts, *row.totals, row.sys_len, row.ref_len] for row in found], dtype=np.float64)

    return summable("bleu", "max", rows, _bleu)


def _bleu(sums: np.ndarray) -> np.ndarray:
    """From summed matches and totals of each n-gram length, and both lengths [..., 10]."""
    right, total = sums[..., :BLEU_ORDER], sums[..., BLEU_ORDER : 2 * BLEU_ORDER]
    said, wanted = sums[..., -2], sums[..., -1]
    empty = np.cumsum((right == 0) & (total > 0), axis=-1)  # the k-th length without a match counts as 1 / 2^k matches
    share = np.where(right > 0, right, 0.5**empty) / np.where(total > 0, total, 1.0)
    defined = (total > 0).all(-1) & (right > 0).any(-1)
    penalty = np.exp(np.minimum(0.0, 1 - wanted / np.where(said > 0, said, 1.0)))
    return np.asarray(np.where(defined, 100 * penalty * np.exp(np.log(share).mean(-1)), 0.0))


def chrf() -> Metric:
    """Corpus chrF2 in 0 .. 100 (Popovic 2015) as sacrebleu computes it by default: F-score, recall weighed twice, of
    runs of 1 to 6 characters, white space left out, one reference."""

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        pairs = zip(truths, answers, strict=True)
        return np.array([_chrf_row(str(answer.value), str(truth)) for truth, answer in pairs], dtype=np.float64)

    return summable("chrf", "max", rows, _chrf)


def _chrf_row(said: str, true: str) -> list[int]:
    """For each length of run: how many the answer has (none where the truth has none), the truth has, and both."""
    said, true = "".join(said.split()), "".join(true.split())
    counts = []
    for size in range(1, CHRF_ORDER + 1):
        ours, wanted = (Counter(text[i : i + size] for i in range(len(text) - size + 1)) for text in (said, true))
        both = sum(min(count, wanted[run]) for run, count in ours.items() if run in wanted)
        counts += [ours.total() if wanted else 0, wanted.total(), both]
    return counts


def _chrf(sums: np.ndarray) -> np.ndarray:
    said, true, both = sums[..., 0::3], sums[..., 1::3], sums[..., 2::3]
    there = (said > 0) & (true > 0)  # only lengths that both have: a short text has no run of six
    count = np.maximum(there.sum(-1), 1)
    precision, recall = (
        (np.where(there, both, 0.0) / np.where(there, whole, 1.0)).sum(-1) / count for whole in (said, true)
    )
    factor = CHRF_BETA**2
    bottom = factor * precision + recall
    return np.asarray(100 * (1 + factor) * precision * recall / np.where(bottom > 0, bottom, 1.0))


# ---- likelihoods -----------------------------------------------------------------------------------------------


def mean_cost(name: str, term: str) -> Metric:
    """The mean of a head's loss term over its units: for what is judged by nothing but its loss."""
    return summable(name, "min", lambda _, pairs: _nats(pairs), ratio_of_sums, of_term=term)


def perplexity(term: str) -> Metric:
    """exp of the mean negative log-likelihood of a unit of the truth; of a head's loss term in nats per unit. Units
    differ from model to model: `bits_per_byte` and `nats_per_character` do not."""

    def from_sums(sums: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):  # beyond e^709 it is infinite, and that is the answer
            return np.asarray(np.exp(ratio_of_sums(sums)))

    return summable("perplexity", "min", lambda _, pairs: _nats(pairs), from_sums, of_term=term)


def bits_per_byte(term: str) -> Metric:
    """Negative log-likelihood in bits over the bytes (UTF-8) of the truths: what a compressor would need. What a
    model spends on saying that a text ends is in the bits, and no byte stands for it."""
    return _per_length("bits_per_byte", term, lambda text: len(text.encode()), math.log(2))


def nats_per_character(term: str) -> Metric:
    """Negative log-likelihood in nats over the characters of the truths, whatever the units are; the end of a text
    as in `bits_per_byte`."""
    return _per_length("nats_per_character", term, len, 1.0)


def _per_length(name: str, term: str, length: Callable[[str], int], nats: float) -> Metric:
    def rows(truths: Sequence[Any], pairs: Sequence[Any]) -> np.ndarray:
        return np.stack([_nats(pairs)[:, 0] / nats, [length(str(truth)) for truth in truths]], axis=1)

    return summable(name, "min", rows, ratio_of_sums, of_term=term)


def _nats(pairs: Any) -> np.ndarray:
    """(loss per unit, units) of each row as (nats, units)."""
    made = np.asarray(pairs, dtype=np.float64).reshape(-1, 2)
    return np.stack([made[:, 0] * made[:, 1], made[:, 1]], axis=1)
