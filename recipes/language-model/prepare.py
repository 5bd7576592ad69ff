"""Tiny Shakespeare (Karpathy 2015; the text is in the public domain): 1,115,394 characters in chunks of 192.

The usual split: the last 10 % of the text are test. The 2 % before them are validation.
"""

from recipes import source

CHUNK, BEFORE = 192, 32
TEST, VAL = 0.9, 0.88  # of the text, where each begins


def main() -> None:
    folder, local = source.target("language-model"), source.local("tinyshakespeare")
    if local is not None:
        text = (local / "input.txt").read_bytes().decode()
    else:
        text = source.download(
            "https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a/data/tinyshakespeare/input.txt"
        ).decode()
    starts = {"train": 0, "val": int(VAL * len(text)), "test": int(TEST * len(text))}
    ends = dict(zip(starts, [*list(starts.values())[1:], len(text)], strict=True))
    for split, start in starts.items():
        rows = [
            # what stands before a chunk, so that its first characters can be judged in their context
            {"text": text[at : min(at + CHUNK, ends[split])], "before": text[max(0, at - BEFORE) : at]}
            for at in range(start, ends[split], CHUNK)
        ]
        source.write_jsonl(folder / f"{split}.jsonl", rows)
    print(f"written to {folder}: {len(text)} characters")


if __name__ == "__main__":
    main()
