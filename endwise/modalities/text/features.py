"""The classical baseline's view of text: TF-IDF features, and whole training texts as answers.

Here: what stands beside the network in every evaluation. Not here: anything the network uses. Imported only when a
baseline is asked for: scikit-learn costs half a second.
"""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors

MOST_FEATURES = 200_000  # of each kind; the rarest beyond are left out
CLOSED_LIST = 100  # at most so many different texts, each seen twice on average, are classes
MOST_LINES = 300  # optimiser steps of the logistic regression

Decoded = Sequence[np.ndarray | None]


class TextFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """TF-IDF of words and pairs of words, and of 2 to 4 neighbouring characters inside words; a 1 in the last column
    where the text is missing. Sparse [rows, features]."""

    def fit(self, values: Decoded, y: Any = None) -> Self:
        """Learn which words and characters there are."""
        texts = _texts(values)
        # any run without spaces is a word: the default pattern would drop "I", "7" and most of Chinese
        found = [
            TfidfVectorizer(token_pattern=r"\w+|[^\w\s]", ngram_range=(1, 2), sublinear_tf=True, max_features=MOST_FEATURES),
            TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, max_features=MOST_FEATURES),
        ]  # fmt: skip
        self.parts_ = [part.fit(texts) for part in found if any(map(part.build_analyzer(), texts))]
        return self

    def transform(self, values: Decoded) -> Any:
        """Rows of unit length for each of the two kinds."""
        texts = _texts(values)
        missing = sparse.csr_array(np.array([[float(value is None)] for value in values]).reshape(len(texts), 1))
        return sparse.hstack([*(part.transform(texts) for part in self.parts_), missing], format="csr")


class TextRetrieval(BaseEstimator):  # type: ignore[misc]
    """Features -> a whole text of the training rows: logistic regression where they are a closed list, else the text
    of the most similar row (cosine)."""

    def fit(self, features: Any, texts: Sequence[str]) -> Self:
        """Remember the texts."""
        self.texts_ = np.array(list(texts), dtype=object)
        distinct = sorted(set(self.texts_))
        self.classes_seen_ = distinct
        self.lines_, self.nearest_ = None, None
        if 2 <= len(distinct) <= min(CLOSED_LIST, len(self.texts_) // 2):
            self.lines_ = LogisticRegression(C=10.0, max_iter=MOST_LINES).fit(features, self.texts_.astype(str))
        elif len(distinct) > 1:
            self.nearest_ = NearestNeighbors(n_neighbors=1, metric="cosine").fit(features)
        return self

    def predict(self, features: Any) -> np.ndarray:
        """One text a row, object [rows]."""
        if self.lines_ is not None:
            return np.asarray(self.lines_.predict(features), dtype=object)
        if self.nearest_ is not None:
            found = self.nearest_.kneighbors(features, return_distance=False)[:, 0]
            return np.asarray(self.texts_[found], dtype=object)
        return np.array([self.classes_seen_[0]] * features.shape[0], dtype=object)


def _texts(values: Decoded) -> list[str]:
    return ["" if value is None else value.tobytes().decode() for value in values]
