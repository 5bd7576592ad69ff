"""What counting reaches: characters by interpolated Kneser-Ney n-grams. `python -m recipes.language-model.ngrams`.

The order is chosen on the validation text; the test text is looked at once. Each order has one discount, made of how
many n-grams occur once and twice (Ney, Essen & Kneser 1994).
"""

import json
import math
from collections import Counter
from pathlib import Path

from endwise import metrics

ORDERS = range(4, 10)


class NGrams:
    """Probability of a character after the characters before it."""

    def __init__(self, text: str, order: int) -> None:
        seen = [Counter(text[at : at + size] for at in range(len(text) - size + 1)) for size in range(1, order + 1)]
        # below the highest order it counts after how many different characters a run occurs, not how often
        self.counts = [Counter(run[1:] for run in longer) for longer in seen[1:]] + [seen[-1]]
        self.discounts = [_discount(counts) for counts in self.counts]
        self.totals: list[Counter[str]] = [Counter() for _ in self.counts]
        self.followers: list[Counter[str]] = [Counter() for _ in self.counts]
        for counts, totals, followers in zip(self.counts, self.totals, self.followers, strict=True):
            for run, count in counts.items():
                totals[run[:-1]] += count
                followers[run[:-1]] += 1
        self.letters = len(self.counts[0]) + 1  # and one that was never seen

    def probability(self, before: str, letter: str) -> float:
        """From the shortest context to the longest that was seen."""
        found = 1 / self.letters
        for size, (counts, totals, followers, discount) in enumerate(
            zip(self.counts, self.totals, self.followers, self.discounts, strict=True)
        ):
            if size > len(before):
                break
            context = before[len(before) - size :]
            total = totals[context]
            if not total:
                break
            kept = max(counts[context + letter] - discount, 0.0)
            found = (kept + discount * followers[context] * found) / total
        return found

    def nats(self, before: str, text: str) -> float:
        """Minus the log-probability of a text."""
        reach, whole = len(self.counts) - 1, before + text
        start = len(before)
        return -sum(
            math.log(self.probability(whole[max(0, at - reach) : at], whole[at])) for at in range(start, len(whole))
        )


def _discount(counts: Counter[str]) -> float:
    often = Counter(counts.values())
    return often[1] / (often[1] + 2 * often[2]) if often[1] and often[2] else 0.5


def main() -> None:
    folder = Path(__file__).parent / "data"
    rows = {split: [json.loads(line) for line in (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]
            for split in ("train", "val", "test")}  # fmt: skip
    train = "".join(row["text"] for row in rows["train"])
    letters = sum(len(row["text"]) for row in rows["val"])
    reached = {}
    for order in ORDERS:
        model = NGrams(train, order)
        reached[order] = sum(model.nats(row["before"], row["text"]) for row in rows["val"]) / letters
        print(f"order {order}: {reached[order]:.4f} nats per character of the validation text", flush=True)
    best = min(reached, key=reached.__getitem__)
    model = NGrams(train, best)
    truths = [row["text"] for row in rows["test"]]
    pairs = [(model.nats(row["before"], row["text"]), 1.0) for row in rows["test"]]
    made = metrics.estimates(
        [metrics.nats_per_character("counted"), metrics.bits_per_byte("counted")], truths, [], terms={"counted": pairs}
    )
    print(f"order {best}, test text: " + ", ".join(f"{name} {value}" for name, value in made.items()))


if __name__ == "__main__":
    main()
