"""What written texts are measured against: the answers of the most similar training rows, fitted on all of them.

`python -m recipes.rivals recipes/translation/recipe.yaml` prints the most frequent answer and the nearest neighbour, by
hand features and, where one text is read, by BM25. (The classical baseline of a run is the first of these two, on at
most 10,000 training rows, since its time comes out of the budget.)
"""

import argparse
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer

from endwise import metrics
from endwise.baselines import baselines
from endwise.data.dataset import fit_contracts, prepare
from endwise.metrics import Estimate, Metric
from endwise.modalities.base import Answer
from endwise.recipe import Recipe

WORDS = r"\w+|[^\w\s]"  # a run without spaces, or a sign
SATURATION, LENGTH = 1.5, 0.75  # k1 and b of BM25 (Robertson & Zaragoza 2009)
CHUNK = 512


class BM25:
    """Texts that can be asked: how well does each suit a query (Robertson & Zaragoza 2009)?"""

    def __init__(self, texts: Sequence[str], known: Sequence[str] = ()) -> None:
        """known: more texts, which say how common words are."""
        self.counter = CountVectorizer(token_pattern=WORDS).fit([*texts, *known])
        counts = self.counter.transform([*texts, *known]).tocsr()
        documents = (counts > 0).sum(0).A1 if hasattr(counts, "A") else np.asarray((counts > 0).sum(0)).ravel()
        self.rarity = np.log1p((counts.shape[0] - documents + 0.5) / (documents + 0.5))
        self.weights = self._weighed(counts[: len(texts)].astype(np.float64), counts.sum() / counts.shape[0])

    def _weighed(self, counts: sparse.csr_matrix, usual: float) -> sparse.csr_matrix:
        length = np.asarray(counts.sum(1)).ravel()
        rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
        bottom = counts.data + SATURATION * (1 - LENGTH + LENGTH * length[rows] / usual)
        data = self.rarity[counts.indices] * counts.data * (SATURATION + 1) / bottom
        return sparse.csr_matrix((data, counts.indices, counts.indptr), shape=counts.shape)

    def scores(self, queries: Sequence[str]) -> np.ndarray:
        """float64 [queries, texts]."""
        asked = (self.counter.transform(queries) > 0).astype(np.float64)
        return np.asarray((asked @ self.weights.T).todense())

    def nearest(self, queries: Sequence[str]) -> np.ndarray:
        """The best text's number for each query."""
        parts = [self.scores(queries[start : start + CHUNK]).argmax(1) for start in range(0, len(queries), CHUNK)]
        return np.concatenate(parts)


def answers_of(recipe: Recipe) -> tuple[list[str], dict[str, list[Answer]]]:
    """(truths of the test rows, {rival: its answers}) of a recipe with one text to write."""
    dataset = prepare(recipe)
    contracts = fit_contracts(recipe, dataset)
    ((name, output),) = recipe.outputs.items()
    store, train, test = dataset.fields[name], dataset.splits.train, dataset.splits.test
    test = test[store.present[test]]
    truths = [output.truth(store[row], contracts[name]) for row in test.tolist()]
    made = baselines(contracts, recipe, dataset, train, test, most_rows=len(train))[name]
    found = {"most frequent": made["trivial"]}
    if made["classical"] is not None:
        found["nearest neighbour"] = made["classical"]
    if len(recipe.inputs) == 1 and next(iter(recipe.inputs.values())).type == "text":
        ((asked, item),) = recipe.inputs.items()
        read = [
            [item.truth(dataset.fields[asked][row], contracts[asked]) for row in rows.tolist()]
            for rows in (train, test)
        ]
        given = [output.truth(store[row], contracts[name]) for row in train.tolist()]
        found["BM25"] = [Answer(given[row]) for row in BM25(read[0]).nearest(read[1])]
    return truths, found


def table(
    truths: Sequence[str], found: dict[str, list[Answer]], wanted: Sequence[Metric]
) -> dict[str, dict[str, Estimate]]:
    """Print every metric of every rival; {rival: {metric: Estimate}}."""
    out = {}
    for name, answers in found.items():
        out[name] = metrics.estimates(wanted, truths, answers)
        print(f"{name:<22}" + "   ".join(f"{metric} {value}" for metric, value in out[name].items()), flush=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    recipe = Recipe.load(parser.parse_args().recipe)
    truths, found = answers_of(recipe)
    print(f"{len(truths)} test rows, {len(Counter(truths))} different answers")
    table(truths, found, [metrics.chrf(), metrics.bleu(), metrics.exact_match(), metrics.wer()])


if __name__ == "__main__":
    main()
