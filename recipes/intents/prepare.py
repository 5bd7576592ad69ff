"""banking77: customer messages and one of 77 intents (Casanueva et al. 2020; CC BY 4.0), official split."""

from recipes import source


def main() -> None:
    folder, local = source.target("intents"), source.local("banking77")
    archive = None if local else source.github("PolyAI-LDN/task-specific-datasets", "57ec275")
    for name in ("train.csv", "test.csv"):
        if local is not None:
            data = (local / name).read_bytes()
        else:
            data = archive.read(next(item for item in archive.namelist() if item.endswith(f"banking_data/{name}")))
        (folder / name).write_bytes(data)
    print(f"written to {folder}")


if __name__ == "__main__":
    main()
