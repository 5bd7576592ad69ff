"""Commands as texts: `python -m recipes.language-to-shell.score [--run runs/language-to-shell]`. Nothing is executed."""

import argparse
from pathlib import Path

import endwise as ew
from endwise import metrics
from endwise.execute import command_match, template_match
from endwise.modalities.base import Answer
from recipes import rivals, source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help="a trained run; none: its rivals alone")
    run = parser.parse_args().run
    folder = Path(__file__).parent
    truths, found = rivals.answers_of(ew.Recipe.load(folder / "recipe.yaml"))
    if run is not None:
        test = [row for row in source.read_csv(folder / "data/commands.csv") if row["split"] == "test"]
        assert truths == [row["command"] for row in test]
        said = ew.Run.open(run).model().predict([{"text": row["text"]} for row in test])
        found["the network"] = [Answer(item["command"]) for item in said]
    rivals.table(truths, found, [command_match(), template_match(), metrics.chrf()])


if __name__ == "__main__":
    main()
