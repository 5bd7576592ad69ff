"""NL2Bash: what a command does, in English, and the command (Lin et al. 2018; MIT): 12,607 pairs.

crc32(command) % 10 decides: 0 is test, 1 validation. A command is on one side however often it is described.
"""

import zlib

import pyarrow.parquet as pq

from recipes import source

SPLITS = {0: "test", 1: "val"}


def main() -> None:
    folder, local = source.target("language-to-shell"), source.local("nl2bash")
    if local is not None:
        rows = [(row["text"], row["command"]) for row in pq.read_table(local / "nl2bash.parquet").to_pylist()]
    else:
        archive = source.github("TellinaTool/nl2bash", "466c5fe")
        members = [
            next(item for item in archive.namelist() if item.endswith(f"data/bash/all.{kind}")) for kind in ("nl", "cm")
        ]
        texts = [archive.read(member).decode().strip("\n").split("\n") for member in members]
        rows = [(text.strip(), command.strip()) for text, command in zip(*texts, strict=True)]
    split = [SPLITS.get(zlib.crc32(command.encode()) % 10, "train") for _, command in rows]
    table = [(*row, side) for row, side in zip(rows, split, strict=True)]
    source.write_csv(folder / "commands.csv", ["text", "command", "split"], table)
    print(f"written to {folder}: {len(table)} pairs")


if __name__ == "__main__":
    main()
