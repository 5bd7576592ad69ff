"""Multi30k: captions of Flickr photographs in English and German (Elliott et al. 2016; for research), official splits."""

import gzip

from recipes import source

FILES = {"train.csv": "train", "val.csv": "val", "test.csv": "test_2016_flickr"}


def main() -> None:
    folder, local = source.target("caption-retrieval"), source.local("multi30k")
    archive = None if local else source.github("multi30k/dataset", "a3d2e0d")
    for name, part in FILES.items():
        if local is not None:
            rows = [(row["en"], row["de"]) for row in source.read_csv(local / f"{part}.csv")]
        else:
            rows = list(zip(*(_lines(archive, f"task1/raw/{part}.{code}.gz") for code in ("en", "de")), strict=True))
        source.write_csv(folder / name, ["en", "de"], rows)
    print(f"written to {folder}")


def _lines(archive, name: str) -> list[str]:
    member = next(item for item in archive.namelist() if item.endswith(name))
    return gzip.decompress(archive.read(member)).decode().strip("\n").split("\n")


if __name__ == "__main__":
    main()
