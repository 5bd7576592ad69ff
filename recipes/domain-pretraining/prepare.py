"""One's own texts without labels, and few with: banking77 messages (CC BY 4.0) and the customers' turns of SGD
(CC BY-SA 4.0) to read; ten labelled messages an intent to learn from; the official 3,080 test messages."""

import random

from recipes import source

LABELLED = 10  # messages an intent


def main() -> None:
    folder = source.target("domain-pretraining")
    banking = source.required("banking77", "github.com/PolyAI-LDN/task-specific-datasets, banking_data/")
    dialogues = source.required("sgd_dialogues", "github.com/google-research-datasets/dstc8-schema-guided-dialogue")
    draw = random.Random(0)
    train, test = (source.read_csv(banking / f"{name}.csv") for name in ("train", "test"))
    turns = [
        turn[3:]
        for row in source.read_csv(dialogues / "train.csv")
        for turn in row["history"].split(" | ")
        if turn.startswith("U: ")
    ]
    held = {row["text"] for row in test}
    texts = [text for text in dict.fromkeys([*(row["text"] for row in train), *turns]) if text not in held]
    draw.shuffle(texts)
    source.write_csv(folder / "corpus.csv", ["text"], [[text] for text in texts])
    by_intent: dict[str, list[str]] = {}
    for row in train:
        by_intent.setdefault(row["category"], []).append(row["text"])
    few = [[text, intent] for intent in sorted(by_intent) for text in draw.sample(by_intent[intent], LABELLED)]
    source.write_csv(folder / "few.csv", ["text", "category"], few)
    source.write_csv(folder / "test.csv", ["text", "category"], [[row["text"], row["category"]] for row in test])
    print(f"written to {folder}: {len(texts)} texts without labels, {len(few)} with")


if __name__ == "__main__":
    main()
