"""ETTh1: seven measurements of an electricity transformer, every hour of two years (Zhou et al. 2021; CC BY-ND 4.0)."""

from recipes import source

SOURCE = "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/1d16c8f/ETT-small/ETTh1.csv"


def main() -> None:
    folder, local = source.target("transformer-load"), source.local("ett")
    data = (local / "ETTh1.csv").read_bytes() if local is not None else source.download(SOURCE)
    (folder / "ETTh1.csv").write_bytes(data)
    print(f"written to {folder}")


if __name__ == "__main__":
    main()
