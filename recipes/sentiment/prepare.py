"""SST-2, whole sentences: 6,920 training, 872 validation and 1,821 test rows (Socher et al. 2013; for research)."""

import csv
import io

from recipes import source


def main() -> None:
    folder, local = source.target("sentiment"), source.local("sst2")
    archive = None if local else source.github("clairett/pytorch-sentiment-classification", "457ffd8")
    with (folder / "reviews.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["text", "positive", "split"])
        for split, name in (("train", "train"), ("val", "dev"), ("test", "test")):
            if local is not None:
                rows = list(csv.reader((local / f"{name}.csv").open(encoding="utf-8", newline="")))[1:]
            else:
                member = next(item for item in archive.namelist() if item.endswith(f"data/SST2/{name}.tsv"))
                rows = list(csv.reader(io.StringIO(archive.read(member).decode()), delimiter="\t"))
            table.writerows([text, {"1": "yes", "0": "no"}[label], split] for text, label in rows)
    print(f"written to {folder}")


if __name__ == "__main__":
    main()
