"""What a recogniser hears in spoken answers: `python -m recipes.speech-to-speech.judge RUN [RUN ...] JUDGE_RUN`.

Each network's answers to the test questions (of this recipe, or of staged/interpreter), the true answers (what the judge itself can reach), the answer of the
nearest training question by hand features, and the most central training answer, each transcribed by the judge.
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jiwer
import numpy as np

from endwise import metrics
from endwise.baselines import baselines
from endwise.data.dataset import prepare
from endwise.modalities.base import Answer
from endwise.recording import Recording
from endwise.run import Run
from endwise.stages import direct_recipe

PAIRS = Path(__file__).parent / "data" / "pairs.csv"


def digit_accuracy() -> metrics.Metric:
    """Digits of the truth that were heard in their place, over all digits: 1 - (substituted + left out) / digits."""

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        pairs = zip(truths, answers, strict=True)
        found = [jiwer.process_words(truth, answer.value) for truth, answer in pairs]
        return np.array([[item.hits, item.hits + item.substitutions + item.deletions] for item in found], np.float64)

    return metrics.summable("digit accuracy", "max", rows, lambda sums: np.asarray(sums[..., 0] / sums[..., 1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("judge")
    given = parser.parse_args()
    judge = Run.open(given.judge).model()
    (heard,) = judge.recipe.inputs
    (written,) = judge.recipe.outputs
    with PAIRS.open(newline="") as file:
        table = [row for row in csv.DictReader(file) if row["split"] == "test"]
    asked = [{"question": f"strings.zip!{row['question']}"} for row in table]
    said: dict[str, list[Recording]] = {}
    for path in given.runs:
        run = Run.open(path)
        model, name = run.model(), next(name for name, item in run.recipe.outputs.items() if item.type == "audio")
        said[run.name] = [answer[name] for answer in model.predict(asked, base=PAIRS.parent)]
    dataset, item = prepare(run.recipe), run.recipe.outputs[name]
    test, ends = dataset.splits.test, direct_recipe(run.recipe) if run.recipe.stages else run.recipe
    beside = baselines(model.contracts, ends, dataset, dataset.splits.train, test)[name]
    said |= {
        "the true answers": [item.truth(dataset.fields[name][row], model.contracts[name]) for row in test.tolist()],
        "nearest question": [answer.value for answer in beside["classical"] or []],
        "central answer": [answer.value for answer in beside["trivial"]],
    }
    wanted = [row["digits"] for row in table]
    for label, recordings in said.items():
        sounding = [row for row, one in enumerate(recordings) if len(one.samples)]
        transcripts = [Answer("")] * len(recordings)  # of an answer without any sound
        for row, found in zip(sounding, judge.predict([{heard: recordings[row]} for row in sounding]), strict=True):
            transcripts[row] = Answer(found[written])
        for metric in (digit_accuracy(), metrics.wer(), metrics.accuracy()):
            print(f"{label:<30} {metric.name:<15} {metrics.estimate(metric, wanted, transcripts)}")


if __name__ == "__main__":
    main()
