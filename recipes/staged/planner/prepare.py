"""Traffic scenes from the simulator beside this file: what is seen, what is there, where it goes, how a driver who knows goes."""

import argparse
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from recipes import source
from recipes.staged.planner import traffic

ROWS = {"train": 5000, "val": 500, "test": 1000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the rows")
    args = parser.parse_args()
    folder = source.target("staged/planner")
    sides = [side for side, count in ROWS.items() for _ in range(round(args.share * count))]
    rows = [row(seed, side) for seed, side in enumerate(sides)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "scenes.parquet")
    print(f"written to {folder}: {len(rows)} scenes")


def row(seed: int, side: str) -> dict[str, object]:
    made = traffic.scene(seed)
    return {
        "scene": png(traffic.picture(made, seed)), "speed": made.speed, "obstacles": png(traffic.obstacles(made)),
        "futures": png(traffic.futures(made)), "path": traffic.expert(made).ravel().tolist(),
        "others": made.others.astype(np.float32).ravel().tolist(), "split": side,
    }  # fmt: skip


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


if __name__ == "__main__":
    main()
