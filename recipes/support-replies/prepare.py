"""SGD: what was said so far between a customer and a service -> the reply (Rastogi et al. 2020; CC BY-SA 4.0)."""

from recipes import source


def main() -> None:
    folder = source.target("support-replies")
    local = source.required(
        "sgd_dialogues",
        "train/ and test/ of github.com/google-research-datasets/dstc8-schema-guided-dialogue: a row a reply with its "
        "dialogue_id, services and history, 'U: ... | S: ... | U: ...'",
    )
    for split in ("train", "test"):
        # the official folders count their dialogues from one each: the split makes the numbers different
        rows = [
            [f"{split} {row['dialogue_id']}", row["services"], row["history"], row["reply"]]
            for row in source.read_csv(local / f"{split}.csv")
            if row["reply"]
        ]
        source.write_csv(folder / f"{split}.csv", ["dialogue_id", "services", "history", "reply"], rows)
    print(f"written to {folder}")


if __name__ == "__main__":
    main()
