"""Daily exchange rates of eight countries against the US dollar, 1990 to 2016 (Lai et al. 2018; no licence is stated)."""

import gzip

from recipes import source

SOURCE = "https://raw.githubusercontent.com/laiguokun/multivariate-time-series-data/7f402f1/exchange_rate/exchange_rate.txt.gz"
COUNTRIES = ("australia", "britain", "canada", "switzerland", "china", "japan", "new_zealand", "singapore")


def main() -> None:
    folder, local = source.target("exchange-rate"), source.local("exchange_rate")
    if local is not None:
        data = (local / "exchange_rate.csv").read_bytes()
    else:
        data = f"{','.join(COUNTRIES)}\n".encode() + gzip.decompress(source.download(SOURCE))
    (folder / "exchange_rate.csv").write_bytes(data)
    print(f"written to {folder}")


if __name__ == "__main__":
    main()
