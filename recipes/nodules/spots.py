"""What is laid into scans: soft ellipsoids, and the tubes that must not be taken for them."""

import numpy as np

RADIUS = (2.0, 4.5)  # voxels of 1 mm


def spot(random: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, list[float]]:
    """A soft ellipsoid [x, y, z] from 0 to 1, and the box around it."""
    radius = random.uniform(*RADIUS) * random.uniform(0.8, 1.25, 3)
    middle = np.array([random.uniform(r, side - r) for r, side in zip(radius, shape, strict=True)])
    away = np.sqrt(sum(((np.arange(side) + 0.5 - m) / r).reshape([-1 if a == b else 1 for b in range(3)]) ** 2
                       for a, (side, m, r) in enumerate(zip(shape, middle, radius, strict=True))))  # fmt: skip
    return 1 / (1 + np.exp(6 * (away - 1))), [
        *(middle - radius).round(2).tolist(),
        *(middle + radius).round(2).tolist(),
    ]


def thread(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A soft tube through the scan, as thick as a spot: what must not be taken for one."""
    point, way = random.uniform(0, shape), random.normal(size=3)
    grid = np.stack(np.meshgrid(*[np.arange(side) + 0.5 for side in shape], indexing="ij"), -1) - point
    along = grid @ (way / np.linalg.norm(way))
    away = np.sqrt(np.maximum((grid**2).sum(-1) - along**2, 0)) / random.uniform(*RADIUS) * 1.5
    return 1 / (1 + np.exp(6 * (away - 1)))
