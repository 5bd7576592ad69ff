"""5,013 chains of 40 to 128 residues from the PDB (CC0): sequence and alpha carbons, split by a hash of the PDB id.

`python -m recipes.protein-fold.prepare` writes all of them, and `short.parquet` with those of at most 80 residues.
"""

import pyarrow.compute as pc
import pyarrow.parquet as pq

from recipes import source

MOST = 80  # residues of a short chain


def main() -> None:
    folder = source.target("protein-fold")
    local = source.required("protein_ca", "the structure database of the Debian package promod3-data")
    table = pq.read_table(local / "chains.parquet", columns=["id", "sequence", "ca", "split"])
    table = table.rename_columns(["id", "sequence", "fold", "split"])
    pq.write_table(table, folder / "chains.parquet")
    short = table.filter(pc.less_equal(pc.utf8_length(table["sequence"]), MOST))
    pq.write_table(short, folder / "short.parquet")
    print(f"written to {folder}")


if __name__ == "__main__":
    main()
