"""S-FFSD: simulated card payments, a stand-in by the authors of the antifraud benchmark (github.com/finint/antifraud, commit
33c1344, GPL-3.0). Label 2 means that nobody looked: those payments are edges and no rows to learn from."""

import csv
import gzip

from recipes import source

ADDRESS = "https://raw.githubusercontent.com/finint/antifraud/33c1344/data/S-FFSD.csv"


def main() -> None:
    folder, local = source.target("fraud"), source.local("s_ffsd_fraud")
    data = gzip.decompress((local / "S-FFSD.csv.gz").read_bytes()) if local else source.download(ADDRESS)
    columns = ("Time", "Source", "Target", "Amount", "Location", "Type")
    rows = csv.DictReader(data.decode("utf-8").splitlines())
    labels = {"0": "no", "1": "yes", "2": ""}
    written = ([*(row[name] for name in columns), labels[row["Labels"]]] for row in rows)
    source.write_csv(folder / "payments.csv", [*columns, "fraud"], written)
    print(f"written to {folder}")


if __name__ == "__main__":
    main()
