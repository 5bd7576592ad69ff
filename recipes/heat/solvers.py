"""Reference solvers: heat in a plate whose conductivity differs from place to place, and Burgers' equation along a line.
Both are periodic, and small enough to be read."""

import numpy as np

SIDE, INNER, RATE = 32, 24, 0.03  # cells of the plate; inner steps between two fields; of an inner step, dt / dx^2
CELLS, SUBSTEPS, STEP_S, VISCOSITY = 64, 20, 2e-3, 0.01  # along a line of length 1


def smooth(random: np.random.Generator, shape: tuple[int, ...], waves: float) -> np.ndarray:
    """A periodic field of mean 0 and deviation 1 with about so many waves along each axis."""
    axes = np.meshgrid(*(np.fft.fftfreq(size) * size for size in shape), indexing="ij")
    faded = np.exp(-sum(np.square(axis) for axis in axes) / (2 * waves**2))
    made = np.fft.ifftn(np.fft.fftn(random.normal(size=shape)) * faded).real
    found: np.ndarray = (made - made.mean()) / made.std()
    return found


def heat(random: np.random.Generator, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """[step, y, x] of dT/dt = div(k grad T) by finite volumes, explicit in time; and k."""
    now, k = smooth(random, (SIDE, SIDE), 3), np.exp(0.5 * np.clip(smooth(random, (SIDE, SIDE), 2), -3, 3))
    walls = [2 / (1 / k + 1 / np.roll(k, -1, axis)) for axis in (0, 1)]  # harmonic means between neighbours
    fields = [now]
    for _ in range(steps):
        for _ in range(INNER):
            flows = [wall * (np.roll(now, -1, axis) - now) for axis, wall in enumerate(walls)]
            now = now + RATE * sum(flow - np.roll(flow, 1, axis) for axis, flow in enumerate(flows))
        fields.append(now)
    return np.array(fields), k


def burgers(random: np.random.Generator, steps: int) -> np.ndarray:
    """[step, x] of du/dt + u du/dx = v d2u/dx2: spectral without the upper third of the waves, Heun's method in time."""
    wave = 2j * np.pi * np.fft.rfftfreq(CELLS) * CELLS
    kept, fade = np.arange(len(wave)) <= CELLS // 3, np.exp(STEP_S * VISCOSITY * (wave**2).real)

    def slope(u: np.ndarray) -> np.ndarray:
        return np.fft.irfft(-0.5 * wave * kept * np.fft.rfft(u * u))

    now = 0.5 * smooth(random, (CELLS,), 2)
    fields = [now]
    for _ in range(steps):
        for _ in range(SUBSTEPS):
            now = now + STEP_S / 2 * (slope(now) + slope(now + STEP_S * slope(now)))
            now = np.fft.irfft(np.fft.rfft(now) * fade)
        fields.append(now)
    return np.array(fields)
