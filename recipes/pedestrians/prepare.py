"""Pedestrians seen from above (ETH: Pellegrini et al. 2009; UCY: Lerner et al. 2007; for research), one table of all scenes.

Each `leave_NAME` column makes one place the test: of the other scenes the last fifth of the time is validation.
"""

from collections.abc import Mapping

from recipes import source

SCENES = {
    "biwi_eth": "eth",
    "students001": "univ",
    "students003": "univ",
    "uni_examples": "examples",
    "crowds_zara01": "zara1",
    "crowds_zara03": "zara3",
}
PLACES = tuple(dict.fromkeys(SCENES.values()))
VALIDATION = 0.2  # of the time of each training scene


def side(scene: str, place: str, when: float) -> str:
    """Of a row of a scene, when `place` is left out. when: the share of the scene's time that lies behind."""
    if SCENES[scene] == place:
        return "test"
    return "val" if when >= 1 - VALIDATION else "train"


def main() -> None:
    folder = source.target("pedestrians")
    local = source.required("eth_ucy", "the pedestrian files of the repository StanfordASL/Trajectron-plus-plus")
    rows: list[list[object]] = []
    for scene in SCENES:
        found: list[Mapping[str, str]] = source.read_csv(local / f"{scene}.csv")
        frames = [float(row["frame"]) for row in found]
        first, last = min(frames), max(frames)
        for row, frame in zip(found, frames, strict=True):
            when = (frame - first) / (last - first)
            sides = [side(scene, place, when) for place in PLACES]
            rows.append([scene, int(frame), int(float(row["ped"])), row["x"], row["y"], *sides])
    names = ["scene", "frame", "ped", "x", "y", *(f"leave_{place}" for place in PLACES)]
    source.write_csv(folder / "walks.csv", names, rows)
    print(f"{len(rows)} positions written to {folder}")


if __name__ == "__main__":
    main()
