"""Multi30k, English -> German (Elliott et al. 2016; captions of Flickr photographs, for research), official splits."""

import gzip

from recipes import source

FILES = {"train.csv": "train", "val.csv": "val", "test.csv": "test_2016_flickr"}


def main() -> None:
    folder, local = source.target("translation"), source.local("multi30k")
    archive = None if local else source.github("multi30k/dataset", "a3d2e0d")
    for name, part in FILES.items():
        if local is not None:
            rows = [(row["en"], row["de"]) for row in source.read_csv(local / f"{part}.csv")]
        else:
            members = [
                next(item for item in archive.namelist() if item.endswith(f"task1/raw/{part}.{language}.gz"))
                for language in ("en", "de")
            ]
            texts = [gzip.decompress(archive.read(member)).decode().strip("\n").split("\n") for member in members]
            rows = list(zip(*texts, strict=True))
        source.write_csv(folder / name, ["en", "de"], rows)
    print(f"written to {folder}")


if __name__ == "__main__":
    main()
