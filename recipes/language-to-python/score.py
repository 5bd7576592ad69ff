"""Code that is run: `python -m recipes.language-to-python.score [--run runs/language-to-python] [--samples 10]`.

Every program runs against all asserts of its task (see endwise/execute.py for its limits). The reference programs are
run as well: what they do not pass, nobody can. With --samples, so many programs are drawn for each task besides, for
pass@1, pass@10 and pass@100 as far as they go.
"""

import argparse
import json
from pathlib import Path

import endwise as ew
from endwise import metrics
from endwise.execute import pass_at_k
from endwise.modalities.base import Answer
from recipes import rivals

KS = (1, 10, 100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help="a trained run; none: its rivals alone")
    parser.add_argument("--rows", type=int, default=500, help="so many of the 500 test tasks")
    parser.add_argument("--samples", type=int, default=0, help="programs drawn for each task, for pass@k")
    parser.add_argument("--temperature", type=float, default=0.8)
    given = parser.parse_args()
    folder = Path(__file__).parent
    tasks = [json.loads(line) for line in (folder / "data/tasks.jsonl").read_text(encoding="utf-8").splitlines()]
    tasks = [task for task in tasks if task["split"] == "test"][: given.rows]
    truths, found = rivals.answers_of(ew.Recipe.load(folder / "recipe.yaml"))
    assert truths[: len(tasks)] == [task["code"] for task in tasks]
    model = None if given.run is None else ew.Run.open(given.run).model()
    if model is not None:
        said = model.predict([{"text": task["text"]} for task in tasks])
        found["the network"] = [Answer(item["code"]) for item in said]
    found["the reference"] = [Answer(truth) for truth in truths]
    found = {name: answers[: len(tasks)] for name, answers in found.items()}
    rivals.table(truths[: len(tasks)], found, [metrics.chrf(), metrics.exact_match()])
    tests = [task["tests"] for task in tasks]
    rivals.table(tests, found, [pass_at_k(1)])
    if model is not None and given.samples:
        drawn = [
            model.sample(
                {"text": task["text"]}, count=given.samples, temperature=given.temperature, seed=task["task_id"]
            )
            for task in tasks
        ]
        answers = [Answer(None, detail={"samples": [item["code"] for item in programs]}) for programs in drawn]
        several = [pass_at_k(k) for k in KS if k <= given.samples]
        rivals.table(tests, {f"{given.samples} drawn": answers}, several)


if __name__ == "__main__":
    main()
