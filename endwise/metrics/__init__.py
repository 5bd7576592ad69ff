"""Metrics as pure functions of truths and answers, each with n and a bootstrap interval. The library's figure is the
oracle in the tests.

Here: the public list. `engine` computes values, intervals, groups and differences of any metric; the usual metrics are
functions that make a Metric, in a file for each kind of answer. Not here: which metrics an output has
(`Modality.metrics`), and tables or plots of them. Numpy only: training-time validation and reports call this without torch.

Truths are the user's kind of value; answers are `Answer`s, of which `value`, `confidence` and
`detail["probabilities"]` ({class: p}, booleans as "true" and "false") are looked at. A metric `of_term` looks at a
loss term of the head instead, and needs no answer: how probable a text is can be said without writing one.
"""

from endwise.metrics.anomalies import image_accuracy, image_auroc, pixel_auroc
from endwise.metrics.boards import cell_accuracy
from endwise.metrics.classes import (
    accuracy,
    auroc,
    average_precision,
    balanced_accuracy,
    brier,
    ece,
    f1,
    label,
    log_loss,
    macro_f1,
    precision,
    recall,
    tags_auroc,
    tags_exact_match,
    tags_macro_f1,
    tags_micro_f1,
)
from endwise.metrics.engine import (
    MISSING,
    RESAMPLES,
    Estimate,
    Gap,
    Metric,
    by_group,
    difference,
    estimate,
    estimates,
    gap,
    mean_of,
    summable,
    value,
)
from endwise.metrics.fields import field_rmse, relative_l2
from endwise.metrics.forecasts import forecast_metrics
from endwise.metrics.masks import boundary_f1, class_dice, mean_dice, mean_iou, pixel_accuracy
from endwise.metrics.numbers import mae, r2, rmse
from endwise.metrics.paths import ade, collision_rate, fde, min_ade, min_fde, miss_rate
from endwise.metrics.pictures import frechet, picture_error, psnr, recognised, ssim
from endwise.metrics.runs import pooled, pooled_difference
from endwise.metrics.sound import duration_error, mcd
from endwise.metrics.structures import chain_lddt, chain_rmsd, chain_tm_score
from endwise.metrics.texts import (
    bits_per_byte,
    bleu,
    cer,
    chrf,
    exact_match,
    lag,
    mean_cost,
    nats_per_character,
    perplexity,
    wer,
)

__all__ = [
    "MISSING",
    "RESAMPLES",
    "Estimate",
    "Gap",
    "Metric",
    "accuracy",
    "ade",
    "auroc",
    "average_precision",
    "balanced_accuracy",
    "bits_per_byte",
    "bleu",
    "boundary_f1",
    "brier",
    "by_group",
    "cell_accuracy",
    "cer",
    "chain_lddt",
    "chain_rmsd",
    "chain_tm_score",
    "chrf",
    "class_dice",
    "collision_rate",
    "difference",
    "duration_error",
    "ece",
    "estimate",
    "estimates",
    "exact_match",
    "f1",
    "fde",
    "field_rmse",
    "forecast_metrics",
    "frechet",
    "gap",
    "image_accuracy",
    "image_auroc",
    "label",
    "lag",
    "log_loss",
    "macro_f1",
    "mae",
    "mcd",
    "mean_cost",
    "mean_dice",
    "mean_iou",
    "mean_of",
    "min_ade",
    "min_fde",
    "miss_rate",
    "nats_per_character",
    "perplexity",
    "picture_error",
    "pixel_accuracy",
    "pixel_auroc",
    "pooled",
    "pooled_difference",
    "precision",
    "psnr",
    "r2",
    "recall",
    "recognised",
    "relative_l2",
    "rmse",
    "ssim",
    "summable",
    "tags_auroc",
    "tags_exact_match",
    "tags_macro_f1",
    "tags_micro_f1",
    "value",
    "wer",
]
