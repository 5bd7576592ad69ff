"""Learning curves of cheap models on real data: `ENDWISE_DATA=... python -m benchmarks.advice_curves [NAME ...]`.

What `benchmarks.advice` tests the extrapolation with. Every curve is a learner of scikit-learn trained on nested
subsets of real rows, several seeds, scored on rows that none of them saw; only the scores are kept, with where the
rows came from, in benchmarks/advice_curves.json. Tables that ship with scikit-learn need nothing; the others are taken
from $ENDWISE_DATA and skipped where it is not set. Without names, what the file lacks is added.
"""

import argparse
import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn import datasets, ensemble, linear_model, metrics, naive_bayes, neighbors, neural_network, svm
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

FILE = Path(__file__).with_name("advice_curves.json")
FEWEST_ROWS = 16
SEEDS, SEEDS_LARGE = 4, 2  # of subsets up to an eighth, of larger ones

Rows = tuple[Any, np.ndarray]
Scores = Mapping[str, Callable[[Any, Any, Any], float]]


@dataclass(frozen=True)
class Source:
    """Rows to learn from, rows to score, what is learnt with, and where they came from."""

    train: Rows
    test: Rows
    learners: Mapping[str, Callable[[int], Any]]
    scores: Scores
    provenance: str


# ---- learners and scores -----------------------------------------------------------------------------------------


def classifiers(*names: str) -> dict[str, Callable[[int], Any]]:
    made: dict[str, Callable[[int], Any]] = {
        "logistic": lambda seed: make_pipeline(StandardScaler(), linear_model.LogisticRegression(max_iter=200)),
        "forest": lambda seed: ensemble.RandomForestClassifier(30, random_state=seed),
        "trees": lambda seed: ensemble.HistGradientBoostingClassifier(max_iter=40, random_state=seed),
        "neighbours": lambda seed: make_pipeline(StandardScaler(), neighbors.KNeighborsClassifier(5)),
        "bayes": lambda seed: naive_bayes.GaussianNB(),
        "network": lambda seed: make_pipeline(
            StandardScaler(), neural_network.MLPClassifier(hidden_layer_sizes=(48,), max_iter=80, random_state=seed)
        ),
        "kernel": lambda seed: make_pipeline(StandardScaler(), svm.SVC()),
    }
    return {name: made[name] for name in names}


def regressors(*names: str) -> dict[str, Callable[[int], Any]]:
    made: dict[str, Callable[[int], Any]] = {
        "ridge": lambda seed: make_pipeline(StandardScaler(), linear_model.Ridge()),
        "forest": lambda seed: ensemble.RandomForestRegressor(30, random_state=seed),
        "trees": lambda seed: ensemble.HistGradientBoostingRegressor(max_iter=40, random_state=seed),
        "neighbours": lambda seed: make_pipeline(StandardScaler(), neighbors.KNeighborsRegressor(5)),
        "network": lambda seed: make_pipeline(
            StandardScaler(), neural_network.MLPRegressor(hidden_layer_sizes=(48,), max_iter=100, random_state=seed)
        ),
    }
    return {name: made[name] for name in names}


def texts(*names: str) -> dict[str, Callable[[int], Any]]:
    made: dict[str, Callable[[int], Any]] = {
        "bayes": lambda seed: make_pipeline(TfidfVectorizer(), naive_bayes.MultinomialNB(alpha=0.1)),
        "margin": lambda seed: make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), svm.LinearSVC(random_state=seed)
        ),
        "characters": lambda seed: make_pipeline(
            TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4)), svm.LinearSVC(random_state=seed)
        ),
        "neighbours": lambda seed: make_pipeline(TfidfVectorizer(), neighbors.KNeighborsClassifier(3)),
    }
    return {name: made[name] for name in names}


def accuracy(model: Any, rows: Any, truths: Any) -> float:
    return float(metrics.accuracy_score(truths, model.predict(rows)))


def macro_f1(model: Any, rows: Any, truths: Any) -> float:
    return float(metrics.f1_score(truths, model.predict(rows), average="macro"))


def mae(model: Any, rows: Any, truths: Any) -> float:
    return float(metrics.mean_absolute_error(truths, model.predict(rows)))


def r2(model: Any, rows: Any, truths: Any) -> float:
    return float(metrics.r2_score(truths, model.predict(rows)))


# ---- sources --------------------------------------------------------------------------------------------------------


def held_out(rows: Any, truths: Any, share: float = 0.3) -> tuple[Rows, Rows]:
    stratify = truths if len(np.unique(truths)) <= 100 else None
    a, b, c, d = train_test_split(rows, truths, test_size=share, random_state=0, stratify=stratify)
    return (a, c), (b, d)


def bundled(name: str) -> tuple[Rows, Rows]:
    found = getattr(datasets, f"load_{name}")()
    return held_out(found.data, found.target)


def digits() -> Source:
    train, test = bundled("digits")
    learners = classifiers("logistic", "forest", "neighbours", "network", "bayes", "kernel")
    return Source(train, test, learners, {"accuracy": accuracy}, "scikit-learn: load_digits (1,797 pictures, UCI)")


def cancer() -> Source:
    train, test = bundled("breast_cancer")
    learners = classifiers("logistic", "forest", "network", "kernel")
    return Source(train, test, learners, {"accuracy": accuracy}, "scikit-learn: load_breast_cancer (569 patients, UCI)")


def diabetes() -> Source:
    train, test = bundled("diabetes")
    learners = regressors("ridge", "forest", "neighbours")
    return Source(
        train, test, learners, {"mae": mae, "r2": r2}, "scikit-learn: load_diabetes (442 patients, Efron 2004)"
    )


def folder() -> Path:
    place = os.environ.get("ENDWISE_DATA")
    if not place:
        raise FileNotFoundError("ENDWISE_DATA is not set")
    return Path(place)


def intents() -> Source:
    import pandas as pd

    train, test = (pd.read_csv(folder() / "banking77" / f"{side}.csv") for side in ("train", "test"))
    rows = [(part["text"].to_numpy(), part["category"].to_numpy()) for part in (train, test)]
    learners = texts("bayes", "margin")
    scores = {"accuracy": accuracy, "macro_f1": macro_f1}
    return Source(rows[0], rows[1], learners, scores, "banking77 (Casanueva et al. 2020, CC BY 4.0), official split")


def sentiment() -> Source:
    import pandas as pd

    train, test = (pd.read_csv(folder() / "sst2" / f"{side}.csv") for side in ("train", "test"))
    rows = [(part["text"].to_numpy(), part["label"].to_numpy()) for part in (train, test)]
    learners = texts("bayes", "margin", "characters")
    return Source(
        rows[0],
        rows[1],
        learners,
        {"accuracy": accuracy},
        "SST-2, whole sentences (Socher et al. 2013), official split",
    )


def spoken() -> Source:
    """Mean and deviation over time of 24 log energies in bands of the spectrum."""
    import csv
    import io
    import zipfile

    import soundfile

    kept: dict[str, list[tuple[np.ndarray, str]]] = {"train": [], "test": []}
    with (
        zipfile.ZipFile(folder() / "fsdd" / "recordings.zip") as archive,
        (folder() / "fsdd" / "manifest.csv").open() as file,
    ):
        for row in csv.DictReader(file):
            wave, _ = soundfile.read(io.BytesIO(archive.read(row["audio"])))
            frames = np.lib.stride_tricks.sliding_window_view(np.pad(wave, (0, 256)), 256)[::128]
            power = np.abs(np.fft.rfft(frames * np.hanning(256))) ** 2
            bands = np.log(np.add.reduceat(power[:, 1:], np.arange(0, 120, 5), axis=1) + 1e-8)
            thirds = np.array_split(bands, 3)
            kept["test" if row["split"] == "test" else "train"].append(
                (np.concatenate([*(part.mean(0) for part in thirds), bands.std(0)]), row["digit"])
            )
    rows = [(np.array([x for x, _ in kept[side]]), np.array([y for _, y in kept[side]])) for side in ("train", "test")]
    learners = classifiers("logistic", "forest", "neighbours", "network", "kernel")
    return Source(
        rows[0], rows[1], learners, {"accuracy": accuracy}, "Free Spoken Digit Dataset (CC BY-SA 4.0), official split"
    )


def pictures() -> Source:
    """CIFAR-10: 8 x 8 means of colours and 4 x 4 x 8 histograms of gradients."""
    import io

    import pyarrow.parquet as pq
    from PIL import Image

    def features(side: str, most: int) -> Rows:
        table = pq.read_table(folder() / "cifar10" / f"{side}.parquet").slice(0, most).to_pylist()
        made, labels = [], []
        for row in table:
            raw = row["image"]["bytes"] if isinstance(row["image"], Mapping) else row["image"]
            picture = np.asarray(Image.open(io.BytesIO(raw)).convert("RGB"), dtype=np.float32) / 255
            small = picture.reshape(8, 4, 8, 4, 3).mean((1, 3)).ravel()
            dy, dx = np.gradient(picture.mean(2))
            angle = ((np.arctan2(dy, dx) / np.pi + 1) * 4).astype(int) % 8
            strength = np.hypot(dx, dy)
            cells = np.zeros((4, 4, 8), np.float32)
            at = np.arange(32) // 8
            np.add.at(cells, (at[:, None], at[None, :], angle), strength)
            made.append(np.concatenate([small, np.sqrt(cells.ravel())]))
            labels.append(row["label"])
        return np.array(made), np.array(labels)

    learners = classifiers("forest", "network", "neighbours")
    return Source(
        features("train", 4096),
        features("test", 2000),
        learners,
        {"accuracy": accuracy},
        "CIFAR-10 (Krizhevsky 2009), first 4,096 training and 2,000 test rows",
    )


def xray() -> Source:
    found = np.load(folder() / "pneumonia_xray" / "pneumoniamnist_subset.npz")
    rows = [
        (found[f"{side}_images"].reshape(-1, 784) / 255.0, found[f"{side}_labels"].ravel())
        for side in ("train", "test")
    ]
    learners = classifiers("forest", "network", "neighbours")
    return Source(
        rows[0],
        rows[1],
        learners,
        {"accuracy": accuracy},
        "PneumoniaMNIST, thinned (MedMNIST, CC BY 4.0), official test rows",
    )


def brain() -> Source:
    """Log power of the EEG in 24 bands."""
    import pyarrow.parquet as pq

    table = pq.read_table(folder() / "eeg_bonn" / "eeg_bonn.parquet").to_pylist()
    signals = np.array([row["signal"] for row in table], dtype=np.float64)
    power = np.abs(np.fft.rfft(signals * np.hanning(signals.shape[1]))) ** 2
    edges = np.unique(np.geomspace(10, power.shape[1] // 2, 25).astype(int))
    rows = np.log(np.add.reduceat(power, edges, axis=1)[:, :-1])
    train, test = held_out(rows, np.array([row["label"] for row in table]))
    learners = classifiers("logistic", "forest", "kernel")
    return Source(train, test, learners, {"accuracy": accuracy}, "EEG of Bonn, five classes (Andrzejak et al. 2001)")


def fraud() -> Source:
    import pandas as pd

    table = pd.read_csv(folder() / "s_ffsd_fraud" / "S-FFSD.csv.gz")
    table = table[table["Labels"] < 2].iloc[:8_000]
    counts = [table.groupby(name)["Amount"].transform("size") for name in ("Source", "Target")]
    rows = np.column_stack([table["Amount"], *counts, *(pd.factorize(table[name])[0] for name in ("Location", "Type"))])
    train, test = held_out(rows.astype(np.float64), table["Labels"].to_numpy())
    learners = classifiers("forest", "trees", "neighbours")
    return Source(train, test, learners, {"macro_f1": macro_f1}, "S-FFSD (finint/antifraud), first 8,000 labelled rows")


def power() -> Source:
    """The oil temperature six hours ahead, from a day of seven channels, every third hour."""
    import pandas as pd

    table = pd.read_csv(folder() / "ett" / "ETTh1.csv").drop(columns="date").to_numpy()
    rows = np.array([table[at - 24 : at : 3].ravel() for at in range(24, 14_000)])
    truths = table[24 + 6 : 14_000 + 6, -1]
    learners = regressors("ridge", "forest", "network", "neighbours")
    mixed = held_out(rows[::3], truths[::3])
    return Source(*mixed, learners, {"mae": mae}, "ETTh1 (Zhou et al. 2021, CC BY-ND 4.0), rows mixed in time")


SOURCES: dict[str, Callable[[], Source]] = {
    "digits": digits, "cancer": cancer, "diabetes": diabetes, "intents": intents, "sentiment": sentiment,
    "spoken": spoken, "pictures": pictures, "xray": xray, "brain": brain, "fraud": fraud, "power": power,
}  # fmt: skip


# ---- curves ---------------------------------------------------------------------------------------------------------


def sizes(rows: int) -> list[int]:
    """Halves of all rows, down to FEWEST_ROWS, at most seven."""
    found = [rows]
    while found[-1] // 2 >= FEWEST_ROWS and len(found) < 7:
        found.append(found[-1] // 2)
    return found[::-1]


def curves(name: str, source: Source) -> list[dict[str, Any]]:
    """One curve a learner and score: {"source", "learner", "metric", "direction", "test_rows", "points": [[labels, seed,
    value]], "provenance"}."""
    out = []
    rows, truths = source.train
    for learner, make in source.learners.items():
        points: dict[str, list[list[float]]] = {score: [] for score in source.scores}
        for labels in sizes(len(truths)):
            for seed in range(SEEDS if labels * 8 <= len(truths) else SEEDS_LARGE):
                chosen = np.random.default_rng(seed).permutation(len(truths))[:labels]  # nested in every larger one
                if len(np.unique(truths[chosen])) < 2:
                    continue
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    model = make(seed).fit(rows[chosen], truths[chosen])
                for score, measure in source.scores.items():
                    points[score].append([labels, seed, round(measure(model, *source.test), 5)])
        for score, found in points.items():
            direction = "min" if score == "mae" else "max"
            out.append(
                {"source": name, "learner": learner, "metric": score, "direction": direction,
                 "test_rows": len(source.test[1]), "provenance": source.provenance, "points": found}
            )  # fmt: skip
        print(f"{name} {learner}: {len(points)} curves", flush=True)
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=", ".join(SOURCES))
    args = parser.parse_args(arguments)
    kept = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else []
    names = args.names or [name for name in SOURCES if not any(item["source"] == name for item in kept)]
    for name in names:
        try:
            source = SOURCES[name]()
        except FileNotFoundError as missing:
            print(f"{name}: skipped ({missing})")
            continue
        kept = [item for item in kept if item["source"] != name] + curves(name, source)
        FILE.write_text("[\n" + ",\n".join(json.dumps(item) for item in kept) + "\n]\n", encoding="utf-8")
    print(f"{len(kept)} curves in {FILE.name}")


if __name__ == "__main__":
    main()
