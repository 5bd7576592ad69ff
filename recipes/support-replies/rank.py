"""Which of ten replies was given? `python -m recipes.support-replies.rank [--run RUN ...] [--rows 1000]`.

The true reply and nine others, drawn from replies of other test dialogues: recall@1, chance 10 %; among equals each
counts its share. A network that writes replies ranks by how probable it finds one, per symbol, and by how much more probable
after this history than after others (Li et al. 2016: else what is always likely wins); one that was taught which reply belongs to
which history (ranked.yaml) by the cosine of the two. Their rivals stand below.
"""

import argparse
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

import endwise as ew
from endwise import metrics
from endwise.batch import Batch
from endwise.data.loader import Loader
from endwise.metrics import Metric, summable
from endwise.modalities.text.features import TextFeatures
from recipes import source
from recipes.rivals import BM25

CANDIDATES, NEIGHBOURS = 10, 10
ELSEWHERE = 8  # training histories that say how usual a reply is
# written by hand: what a customer's last words ask for, and what a reply to that looks like
RULES = [
    (r"thank|that's all|that is all|nothing else|no more|i'm good|bye", r"anything else|great day|nice day|good day|enjoy|welcome|bye"),
    (r"address|located|where is", r"\d+ [A-Z]|address|located|street|avenue|road"),
    (r"phone|number|call them|contact", r"\d{3}.?\d{3,4}|phone number"),
    (r"^(yes|yeah|sure|correct|right|okay|ok|perfect|great|good)\b|sounds good|works for me", r"booked|reserved|confirmed|success|bought|purchased|made|done|playing"),
    (r"^no\b|don't|not really|actually", r"anything else|sorry|confirm|change"),
    (r"time|when|what day|date", r"\d:\d\d|\b(am|pm)\b|o'clock|morning|evening|noon|march|today|tomorrow"),
    (r"price|cost|how much|expensive|fare", r"\$|dollar|cost|price|free|expensive"),
    (r"rating|good is|review", r"rating|rated|stars|\d\.\d"),
    (r"flight|fly|airline", r"flight|airline|airport|depart|fly|leav"),
    (r"restaurant|eat|food|table|dinner|lunch", r"restaurant|table|eat|reserv|cuisine|place"),
    (r"movie|film|theat|show", r"movie|theat|show|watch|film"),
    (r"song|music|album|listen|artist", r"song|music|album|play|by "),
    (r"event|concert|game|ticket|match", r"event|concert|game|ticket|match|artist"),
    (r"hotel|stay|room|house|place to", r"hotel|room|stay|check|house|place"),
    (r"bus|train|travel", r"bus|train|leav|travel|depart"),
    (r"weather|rain|hot|temperature", r"weather|rain|degree|temperature|wind"),
    (r"find|look|search|want|need|like to", r"\?$"),
    (r"book|reserve|buy|purchase", r"confirm|how many|what time|which"),
]  # fmt: skip


def last_words(history: str) -> str:
    """What the customer said last."""
    return history.rsplit("U: ", 1)[-1]


def by_rules(histories: Sequence[str], replies: list[list[str]]) -> np.ndarray:
    """How many rules suit each reply."""
    compiled = [(re.compile(asked, re.I), re.compile(said, re.I)) for asked, said in RULES]
    scores = np.zeros((len(histories), CANDIDATES))
    for row, history in enumerate(histories):
        wanted = [said for asked, said in compiled if asked.search(last_words(history))]
        scores[row] = [sum(bool(said.search(reply)) for said in wanted) for reply in replies[row]]
    return scores


def by_bm25(histories: Sequence[str], replies: list[list[str]], known: Sequence[str]) -> np.ndarray:
    """The history as a query, the ten replies as documents."""
    index = BM25([reply for ten in replies for reply in ten], known)
    scores = np.zeros((len(histories), CANDIDATES))
    for row, history in enumerate(histories):
        mine = slice(row * CANDIDATES, (row + 1) * CANDIDATES)
        asked = index.counter.transform([history]) > 0
        scores[row] = np.asarray((asked.astype(np.float64) @ index.weights[mine].T).todense())[0]
    return scores


def by_tfidf(histories: Sequence[str], replies: list[list[str]], train: list[dict[str, str]]) -> dict[str, np.ndarray]:
    """Cosine of history and reply; and of the reply and those that the most similar training histories got."""
    told, given = ([_bytes(row[name]) for row in train] for name in ("history", "reply"))
    asked = [_bytes(history) for history in histories]
    features = TextFeatures().fit([*told, *given])
    offered = _unit(features.transform([_bytes(reply) for ten in replies for reply in ten]))
    queries = _unit(features.transform(asked))
    direct = np.array([
        (queries[row : row + 1] @ offered[row * CANDIDATES : (row + 1) * CANDIDATES].T).toarray()[0] for row in range(len(asked))
    ])  # fmt: skip
    known, seen = _unit(features.transform(told)), _unit(features.transform(given))
    retrieved = np.zeros_like(direct)
    for row in range(len(asked)):
        alike = (queries[row : row + 1] @ known.T).toarray()[0]
        best = np.argpartition(-alike, NEIGHBOURS)[:NEIGHBOURS]
        near = (seen[best] @ offered[row * CANDIDATES : (row + 1) * CANDIDATES].T).toarray()
        retrieved[row] = alike[best] @ near
    return {"TF-IDF": direct, "TF-IDF retrieval": retrieved}


def by_network(
    run: Path, histories: Sequence[str], replies: list[list[str]], known: Sequence[str]
) -> dict[str, np.ndarray]:
    """Scores by name, of a network that writes replies or of one that compares them; nothing is written."""
    model = ew.Run.open(run).model()
    asked = [(history, reply) for history, ten in zip(histories, replies, strict=True) for reply in ten]
    shape = (len(histories), CANDIDATES)
    if "reply" in model.recipe.inputs:
        return {f"{run.name}, cosine": np.concatenate(list(_cosines(model, asked))).reshape(shape)}
    told = np.concatenate(list(_log_p(model, asked)))
    different = sorted({reply for _, reply in asked})
    elsewhere = [(history, reply) for reply in different for history in known]
    usual = np.concatenate(list(_log_p(model, elsewhere)))[:, 0].reshape(len(different), len(known))
    often = dict(zip(different, np.logaddexp.reduce(usual, axis=1) - np.log(len(known)), strict=True))
    more = told[:, 0] - [often[reply] for _, reply in asked]
    return {
        f"{run.name}, per symbol": (told[:, 0] / told[:, 1]).reshape(shape),
        f"{run.name}, more than usual": more.reshape(shape),
    }


def _log_p(model: ew.Model, asked: Sequence[tuple[str, str]]) -> Iterator[np.ndarray]:
    """Log-probability of each reply after its history, and its symbols: [row, 2]."""
    for batch in _batches(model, asked):
        (terms,) = model.row_losses(model.predictions(batch), batch).values()
        losses = sum(pairs[:, 0] * pairs[:, 1] for pairs in terms.values())
        yield np.stack([-losses, next(iter(terms.values()))[:, 1]], axis=1)


def _cosines(model: ew.Model, asked: Sequence[tuple[str, str]]) -> Iterator[np.ndarray]:
    for batch in _batches(model, asked):
        (found,) = model.decoded(model.predictions(batch)).values()
        yield (found["vectors"][:, 0] * found["vectors"][:, 1]).sum(1)


def _batches(model: ew.Model, asked: Sequence[tuple[str, str]]) -> Iterator[Batch]:
    """In the order they are asked."""
    rows = [{"dialogue_id": str(row), "history": history, "reply": reply} for row, (history, reply) in enumerate(asked)]
    dataset = ew.prepare(model.recipe, source=rows)
    loader = Loader(
        dataset, model.recipe, model.contracts, dataset.splits.test, batch_size=CANDIDATES * 8, seed=0, shuffle=False
    )
    return loader.iterate(0, loader.batches_per_epoch)


def recall_at_1() -> Metric:
    """Share of rows whose best score is the first one's."""
    return summable(
        "recall@1",
        "max",
        lambda _, shares: np.stack([shares, np.ones(len(shares))], 1),
        lambda sums: sums[..., 0] / sums[..., 1],
    )


def shares(scores: np.ndarray) -> list[float]:
    """1 where the first of a row is best, its share among equals, else 0."""
    best = scores == scores.max(1, keepdims=True)
    return (best[:, 0] / best.sum(1)).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, nargs="*", default=[], help="trained runs; none: their rivals alone")
    parser.add_argument("--rows", type=int, default=1000, help="so many test rows, drawn at random")
    given = parser.parse_args()
    folder = Path(__file__).parent / "data"
    train, test = (source.read_csv(folder / f"{split}.csv") for split in ("train", "test"))
    draw = np.random.default_rng(0)
    rows = [test[index] for index in draw.permutation(len(test))[: given.rows]]
    histories, replies = [row["history"] for row in rows], [_ten(row, test, draw) for row in rows]
    scores = {
        "keyword rules": by_rules(histories, replies),
        "BM25": by_bm25(histories, replies, [row["reply"] for row in train]),
        **by_tfidf(histories, replies, train),
    }
    known = [train[index]["history"] for index in draw.permutation(len(train))[:ELSEWHERE]]
    ours: dict[str, np.ndarray] = {}
    for run in given.run:
        ours |= by_network(run, histories, replies, known)
    found = {name: shares(values) for name, values in {**scores, **ours}.items()}
    dialogues = [row["dialogue_id"] for row in rows]
    for name, values in found.items():
        print(
            f"{name:<34} recall@1 of {CANDIDATES} {metrics.estimate(recall_at_1(), values, values, clusters=dialogues)}"
        )
    for name, rival in itertools.product(ours, scores):
        gain = metrics.difference(recall_at_1(), found[rival], found[name], found[rival], clusters=dialogues)
        print(f"{name} against {rival}: {gain}")


def _ten(row: dict[str, str], test: list[dict[str, str]], draw: np.random.Generator) -> list[str]:
    """The reply that was given first, then nine different ones of other dialogues."""
    found = {row["reply"]: None}
    while len(found) < CANDIDATES:
        other = test[int(draw.integers(len(test)))]
        if other["dialogue_id"] != row["dialogue_id"]:
            found.setdefault(other["reply"])
    return list(found)


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), dtype=np.uint8)


def _unit(matrix):
    """Rows of length one (the features are of several kinds, each of length one)."""
    from sklearn.preprocessing import normalize

    return normalize(matrix)


if __name__ == "__main__":
    main()
