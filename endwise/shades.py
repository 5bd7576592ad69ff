"""Tables of numbers as small pictures, for reports and notebooks. Numpy and the standard library only: values that are
drawn travel in bundles. Not here: answers that are pictures themselves (drawing.py), the plots of the report.
"""

import numpy as np

from endwise.drawing import png, to_uri

# a dark-to-light map that is even in lightness (after "viridis"; Smith & van der Walt 2015), by eight points
POINTS = np.array(
    [[68, 1, 84], [70, 50, 127], [54, 92, 141], [39, 127, 142], [31, 161, 135], [74, 194, 109], [159, 218, 58], [253, 231, 37]],
    np.float64,
)  # fmt: skip
EMPTY = 235  # the grey of a place that is no number


def png_uri(pixels: np.ndarray) -> str:
    """uint8 [height, width, 3] as a PNG file in a data URI."""
    return to_uri(png(pixels))


def shades(values: np.ndarray, low: float, high: float, *, side_px: int = 96) -> np.ndarray:
    """A table [row, column] as uint8 pixels from dark (`low`) to light (`high`); cells are repeated until the longer side
    has about `side_px`, or thinned where there are more than twice as many."""
    thin = [max(1, count // (2 * side_px)) for count in values.shape]
    table = np.asarray(values, np.float64)[:: thin[0], :: thin[1]]
    there = np.isfinite(table)
    place = np.clip((np.where(there, table, low) - low) / max(high - low, 1e-30), 0, 1) * (len(POINTS) - 1)
    colours = np.stack([np.interp(place, np.arange(len(POINTS)), POINTS[:, channel]) for channel in range(3)], axis=-1)
    pixels = np.where(there[..., None], colours, EMPTY).round().astype(np.uint8)
    times = max(1, side_px // max(table.shape))
    larger: np.ndarray = np.kron(pixels, np.ones((times, times, 1), np.uint8))
    return larger
