"""The classical baseline's view of one-token values: scikit-learn transformers and estimators.

Here: features of numbers, classes, dates and tags, and estimators that suit whatever features they get. Every
transformer takes a list of decoded values in which None stands for a missing one, says so in a column of its own, and
invents nothing. Not here: which of them a modality uses, and how several inputs are put together. Imported only when
a baseline is asked for: scikit-learn costs half a second.
"""

import json
import warnings
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, TransformerMixin, clone
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import train_test_split
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

DENSE_COLUMNS = 512  # as many features as a tree model looks at; more are a linear model's
FEWEST_FOR_TREES = 200  # rows
MOST_CLASSES_FOR_TREES = 30  # a boosting round grows one tree a class
TREE_CELLS = 50_000_000  # rows x columns x trees per round: about a minute on two cores
HELD_BACK = 0.2  # share of the training rows on which trees and lines are compared
MOST_LINES = 2_000  # optimiser steps of the logistic regression
MOST_ONE_HOT = 2_000  # columns of one category; the rarest classes share one
WEEK_S, DAY_S, YEAR_S = 604_800.0, 86_400.0, 31_556_952.0

Decoded = Sequence[np.ndarray | None]


# ---- features --------------------------------------------------------------------------------------------------


class NumberFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Standardised numbers; where one is missing, zeros and a 1 in the last column."""

    def fit(self, values: Decoded, y: Any = None) -> Self:
        """Mean and deviation of what is there."""
        found = [np.atleast_1d(item) for item in values if item is not None]
        table = np.array(found, dtype=np.float64) if found else np.zeros((1, 1))
        self.mean_, deviation = table.mean(0), table.std(0)
        self.scale_ = np.where(deviation > 0, deviation, 1.0)
        return self

    def transform(self, values: Decoded) -> np.ndarray:
        """[rows, numbers + 1]."""
        out = np.zeros((len(values), len(self.mean_) + 1))
        for row, item in enumerate(values):
            if item is None:
                out[row, -1] = 1.0
            else:
                out[row, :-1] = (np.atleast_1d(item) - self.mean_) / self.scale_
        return out


class CategoryFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """One column a class, and one for missing; a class never seen has none. Sparse."""

    def fit(self, values: Decoded, y: Any = None) -> Self:
        """The classes there are."""
        self.encoder_ = OneHotEncoder(handle_unknown="ignore", max_categories=MOST_ONE_HOT, dtype=np.float64)
        self.encoder_.fit(_names(values))
        return self

    def transform(self, values: Decoded) -> Any:
        """Sparse [rows, classes]."""
        return self.encoder_.transform(_names(values))


def _names(values: Decoded) -> np.ndarray:
    """A column of names; a missing one has a mark in front that no name has."""
    names = ["\0missing" if item is None else "=" + text_of(item) for item in values]
    return np.array(names, dtype=object).reshape(-1, 1)


class BooleanFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Two columns: yes, and missing."""

    def fit(self, values: Decoded, y: Any = None) -> Self:
        """Nothing is learnt."""
        self.columns_ = 2
        return self

    def transform(self, values: Decoded) -> np.ndarray:
        """[rows, 2]."""
        return np.array([[0.0, 1.0] if item is None else [float(item), 0.0] for item in values]).reshape(-1, 2)


class DateFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """The standardised moment, hour, weekday, and the phases of day, week and year; and missing."""

    def fit(self, values: Decoded, y: Any = None) -> Self:
        """Mean and deviation of what is there."""
        seconds = np.array([float(item) for item in values if item is not None] or [0.0])
        self.mean_, self.scale_ = float(seconds.mean()), float(seconds.std()) or 1.0
        return self

    def transform(self, values: Decoded) -> np.ndarray:
        """[rows, 10]."""
        missing = np.array([item is None for item in values], dtype=np.float64)
        seconds = np.array([self.mean_ if item is None else float(item) for item in values], dtype=np.float64)
        columns = [(seconds - self.mean_) / self.scale_, seconds % DAY_S / 3600, (seconds // DAY_S + 3) % 7]
        for period in (DAY_S, WEEK_S, YEAR_S):
            angle = 2 * np.pi * (seconds / period % 1)
            columns += [np.sin(angle), np.cos(angle)]
        return np.stack([*(column * (1 - missing) for column in columns), missing], axis=1)


class TagsFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """One column a tag, one for how many unknown tags, one for missing."""

    def fit(self, values: Decoded, y: Any = None) -> Self:
        """The tags there are."""
        tags = sorted({tag for item in values if item is not None for tag in json.loads(text_of(item))})
        self.columns_ = {tag: index for index, tag in enumerate(tags)}
        return self

    def transform(self, values: Decoded) -> np.ndarray:
        """[rows, tags + 2]."""
        out = np.zeros((len(values), len(self.columns_) + 2))
        for row, item in enumerate(values):
            if item is None:
                out[row, -1] = 1.0
                continue
            for tag in json.loads(text_of(item)):
                out[row, self.columns_.get(tag, len(self.columns_))] += 1.0
        return out


def text_of(value: np.ndarray) -> str:
    """A stored name: uint8 utf-8 bytes as text."""
    return bytes(np.asarray(value, dtype=np.uint8)).decode("utf-8")


# ---- estimators ------------------------------------------------------------------------------------------------


class SuitedClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Logistic regression, or gradient-boosted trees where the features are a table and the trees do better on 20 %
    of the training rows. `chosen_` says which. `balanced` weighs the classes inversely to their frequency."""

    def __init__(self, balanced: bool = False) -> None:
        self.balanced = balanced

    def fit(self, X: Any, y: Any) -> Self:
        """Choose, then fit on all rows."""
        X, y = _dense_if_narrow(X), np.asarray(y)
        weight = "balanced" if self.balanced else None
        lines = make_pipeline(
            StandardScaler(with_mean=not hasattr(X, "tocsr")),
            LogisticRegression(max_iter=MOST_LINES, class_weight=weight),
        )
        classes, counts = np.unique(y, return_counts=True)
        self.classes_ = classes
        if len(classes) < 2:
            self.chosen_, self.model_ = "constant", DummyClassifier().fit(X, y)
            return self
        trees = HistGradientBoostingClassifier(class_weight=weight, random_state=0)
        per_round = len(classes) if len(classes) > 2 else 1
        suited = _suits_trees(X, per_round) and len(classes) <= MOST_CLASSES_FOR_TREES and counts.min() >= 2
        self.chosen_, self.model_ = _better(lines, trees, X, y, suited, stratify=y)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each row."""
        return np.asarray(self.model_.predict(_dense_if_narrow(X)))

    def predict_proba(self, X: Any) -> np.ndarray:
        """[rows, classes] in the order of `classes_`."""
        return np.asarray(self.model_.predict_proba(_dense_if_narrow(X)))


class SuitedRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Ridge regression, or gradient-boosted trees, chosen as by SuitedClassifier. `y` holds numbers or equal lists."""

    def fit(self, X: Any, y: Any) -> Self:
        """Choose, then fit on all rows."""
        X, y = _dense_if_narrow(X), np.asarray(y, dtype=np.float64)
        lines = make_pipeline(StandardScaler(with_mean=not hasattr(X, "tocsr")), Ridge(alpha=1.0))
        trees: Any = HistGradientBoostingRegressor(random_state=0)
        numbers = 1 if y.ndim == 1 else y.shape[1]
        if y.ndim > 1:
            trees = MultiOutputRegressor(trees)
        self.chosen_, self.model_ = _better(lines, trees, X, y, _suits_trees(X, numbers), stratify=None)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """[rows] or [rows, numbers]."""
        return np.asarray(self.model_.predict(_dense_if_narrow(X)))


class SuitedTagger(BaseEstimator):  # type: ignore[misc]
    """One SuitedClassifier a tag. `predict` gives {tag: probability} for each row."""

    def __init__(self, tags: Sequence[str] = ()) -> None:
        self.tags = tags

    def fit(self, X: Any, y: Sequence[Sequence[str]]) -> Self:
        """y: the tags of each row."""
        X, sets = _dense_if_narrow(X), [frozenset(item) for item in y]
        self.models_ = {tag: SuitedClassifier().fit(X, np.array([tag in item for item in sets])) for tag in self.tags}
        return self

    def predict(self, X: Any) -> list[dict[str, float]]:
        """{tag: probability} for each row."""
        X = _dense_if_narrow(X)
        columns = {}
        for tag, model in self.models_.items():
            yes = np.flatnonzero(model.classes_)
            columns[tag] = model.predict_proba(X)[:, yes[0]] if len(yes) else np.zeros(X.shape[0])
        return [{tag: float(column[row]) for tag, column in columns.items()} for row in range(X.shape[0])]


def _dense_if_narrow(X: Any) -> Any:
    if hasattr(X, "tocsr"):
        return X.toarray() if X.shape[1] <= DENSE_COLUMNS else X
    return np.asarray(X, dtype=np.float64)


def _suits_trees(X: Any, trees_per_round: int) -> bool:
    if hasattr(X, "tocsr"):
        return False
    rows, columns = X.shape
    affordable = rows * columns * trees_per_round <= TREE_CELLS
    return bool(rows >= FEWEST_FOR_TREES and columns <= DENSE_COLUMNS and affordable)


def _better(lines: Any, trees: Any, X: Any, y: np.ndarray, suited: bool, *, stratify: Any) -> tuple[str, Any]:
    """The name and the fitted one of the two estimators that scores higher on rows held back from it."""
    with warnings.catch_warnings():
        # a line that has not quite converged after 2000 steps is still an honest baseline
        warnings.simplefilter("ignore", ConvergenceWarning)
        if not suited:
            return "linear", lines.fit(X, y)
        own, other, own_y, other_y = train_test_split(X, y, test_size=HELD_BACK, random_state=0, stratify=stratify)
        scores = [clone(model).fit(own, own_y).score(other, other_y) for model in (lines, trees)]
        return ("trees", trees.fit(X, y)) if scores[1] > scores[0] else ("linear", lines.fit(X, y))
