"""Cross-validation of the 100 trials beside common spatial patterns and linear discriminant analysis, with a permutation test:
`python -m recipes.bci-fingers.cross [--folds 5] [--shuffles 0]`.

Every trial is held out once. With --shuffles the network learns shuffled labels as often: the p value is the share of those
that reach its accuracy, itself included (Ojala & Garriga 2010), each as long as a cross-validation. That of the spatial
patterns is always made: it takes seconds.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet
from scipy.linalg import eigh
from scipy.signal import butter, sosfiltfilt
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from endwise import metrics
from endwise.modalities.base import Answer
from endwise.recipe import Recipe
from endwise.train import fit

HERE = Path(__file__).parent
PATTERNS, SHUFFLES = 3, 200  # from each end of the spectrum; of the labels for the spatial patterns
SHRINKAGE = 0.1
RATE_HZ, BAND_HZ = 100, (8, 30)  # where the rhythms of movement are; the network gets the raw samples


def features(trials: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """The logarithms of the variances along spatial filters; trials [trial, channel, step]."""
    return np.log(np.var(filters.T @ trials, axis=2) + 1e-12)


def patterns(trials: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Common spatial patterns (Ramoser et al. 2000) with shrunk covariances: [channel, 2 * PATTERNS]."""
    means = []
    for label in np.unique(labels):
        centred = trials[labels == label] - trials[labels == label].mean(2, keepdims=True)
        covariance = np.mean([trial @ trial.T / np.trace(trial @ trial.T) for trial in centred], axis=0)
        level = np.trace(covariance) / len(covariance)
        means.append((1 - SHRINKAGE) * covariance + SHRINKAGE * level * np.eye(len(covariance)))
    _, axes = eigh(means[0], means[0] + means[1])
    return np.concatenate([axes[:, :PATTERNS], axes[:, -PATTERNS:]], axis=1)


def by_patterns(trials: np.ndarray, labels: np.ndarray, fold_of: np.ndarray) -> np.ndarray:
    """What spatial patterns and linear discriminant analysis say about each trial, held out with its fold."""
    said = np.empty_like(labels)
    trials = sosfiltfilt(butter(4, BAND_HZ, "bandpass", fs=RATE_HZ, output="sos"), trials, axis=2)
    for fold in np.unique(fold_of):
        own, held = fold_of != fold, fold_of == fold
        filters = patterns(trials[own], labels[own])
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(
            features(trials[own], filters), labels[own]
        )
        said[held] = model.predict(features(trials[held], filters))
    return said


def by_network(trials: np.ndarray, labels: np.ndarray, fold_of: np.ndarray, folder: Path) -> np.ndarray:
    """The same of the recipe's network: a tenth of the training rows of each fold, none of the held-out ones, validates."""
    said = np.empty_like(labels)
    for fold in np.unique(fold_of):
        held = np.flatnonzero(fold_of == fold)
        sides = np.where(fold_of == fold, "test", "train")
        cells = {"series": trials.tolist(), "label": labels.tolist(), "split": sides.tolist()}
        file = folder / f"fold-{fold}.parquet"
        parquet.write_table(pa.table(cells), file)
        recipe = Recipe.load(HERE / "recipe.yaml").replace(**{"data.path": str(file), "name": f"fold-{fold}"})
        model = fit(recipe, out=folder / f"run-{fold}")
        said[held] = [item["hand"] for item in model.predict([{"brain": trials[row]} for row in held])]
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--shuffles", type=int, default=0, help="of the labels for the network; 99 for p down to 0.01")
    given = parser.parse_args()
    table = parquet.read_table(HERE / "data" / "trials.parquet")
    trials, labels = np.array(table["series"].to_pylist()), np.array(table["label"].to_pylist())
    chance = np.random.default_rng(0)
    fold_of = chance.permutation(np.arange(len(labels)) % given.folds)
    told("patterns + LDA", labels, by_patterns(trials, labels, fold_of))
    right = (by_patterns(trials, labels, fold_of) == labels).mean()
    others = [chance.permutation(labels) for _ in range(SHUFFLES)]
    print(f"  p = {p_value(right, [(by_patterns(trials, other, fold_of) == other).mean() for other in others]):.3f}")
    with tempfile.TemporaryDirectory() as folder:
        said = by_network(trials, labels, fold_of, Path(folder))
        told("network", labels, said)
        scores = []
        for number in range(given.shuffles):
            other, place = chance.permutation(labels), Path(folder) / f"shuffle-{number}"
            place.mkdir()
            scores.append(float((by_network(trials, other, fold_of, place) == other).mean()))
    if scores:
        print(f"  p = {p_value(float((said == labels).mean()), scores):.3f}")


def told(name: str, labels: np.ndarray, said: np.ndarray) -> None:
    """Accuracy with its interval."""
    found = metrics.estimate(metrics.accuracy(), labels.tolist(), [Answer(value) for value in said.tolist()])
    print(f"{name}: accuracy {found}")


def p_value(score: float, others: list[float]) -> float:
    """The share of shuffled scores that reach the true one, itself included."""
    return float((1 + sum(other >= score for other in others)) / (1 + len(others)))


if __name__ == "__main__":
    main()
