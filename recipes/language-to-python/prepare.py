"""MBPP: a task in words -> a Python function, checked by asserts (Austin et al. 2021; CC BY 4.0), official split.

The ten tasks meant for prompts are added to the training rows. The text ends with the first assert, since nothing else
says what the function is called; all asserts judge it.
"""

import json

from recipes import source

ADDRESS = "https://raw.githubusercontent.com/google-research/google-research/master/mbpp/mbpp.jsonl"
SPLITS = {"prompt": "train", "train": "train", "validation": "val", "test": "test"}
FIRST_ID = {"prompt": 1, "test": 11, "validation": 511, "train": 601}


def main() -> None:
    folder, local = source.target("language-to-python"), source.local("mbpp")
    data = source.download(ADDRESS) if local is None else (local / "mbpp.jsonl").read_bytes()
    rows = []
    for line in data.decode().splitlines():
        task = json.loads(line)
        part = max((name for name in FIRST_ID if FIRST_ID[name] <= task["task_id"]), key=FIRST_ID.__getitem__)
        rows.append({
            "task_id": task["task_id"],
            "text": f"{task['text']}\n{task['test_list'][0]}",
            "code": task["code"].replace("\r\n", "\n"),
            "tests": "\n".join([task["test_setup_code"], *task["test_list"]]).strip().replace("\r\n", "\n"),
            "split": SPLITS[part],
        })  # fmt: skip
    source.write_jsonl(folder / "tasks.jsonl", rows)
    print(f"written to {folder}: {len(rows)} tasks")


if __name__ == "__main__":
    main()
