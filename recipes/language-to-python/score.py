"""Code that is run: `python -m recipes.language-to-python.score [--run runs/language-to-python] [--rows 500]`.

Every program runs against all asserts of its task (see endwise/execute.py for its limits). The reference programs are
run as well: what they do not pass, nobody can.
"""

import argparse
import json
from pathlib import Path

import endwise as ew
from endwise import metrics
from endwise.execute import pass_at_k
from endwise.modalities.base import Answer
from recipes import rivals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help="a trained run; none: its rivals alone")
    parser.add_argument("--rows", type=int, default=500, help="so many of the 500 test tasks")
    given = parser.parse_args()
    folder = Path(__file__).parent
    tasks = [json.loads(line) for line in (folder / "data/tasks.jsonl").read_text(encoding="utf-8").splitlines()]
    tasks = [task for task in tasks if task["split"] == "test"][: given.rows]
    truths, found = rivals.answers_of(ew.Recipe.load(folder / "recipe.yaml"))
    assert truths[: len(tasks)] == [task["code"] for task in tasks]
    if given.run is not None:
        said = ew.Run.open(given.run).model().predict([{"text": task["text"]} for task in tasks])
        found["the network"] = [Answer(item["code"]) for item in said]
    found["the reference"] = [Answer(truth) for truth in truths]
    found = {name: answers[: len(tasks)] for name, answers in found.items()}
    rivals.table(truths[: len(tasks)], found, [metrics.chrf(), metrics.exact_match()])
    rivals.table([task["tests"] for task in tasks], found, [pass_at_k(1)])


if __name__ == "__main__":
    main()
