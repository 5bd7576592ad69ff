"""lDDT, TM-score and RMSD of chains against what their definitions say, worked out another way."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from endwise.chain import helix
from endwise.metrics import structures
from tests.test_structure import turned, walk

GONE = [2, 3, 11]


def noisy(points: np.ndarray, seed: int, angstrom: float) -> np.ndarray:
    """A chain that drifts away from another one."""
    return points + np.cumsum(np.random.default_rng(seed).normal(0, angstrom, points.shape), axis=0)


def pair(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """A truth, every other one with residues that were not resolved, and an answer between near and far."""
    truth = walk(seed, count)
    answer = turned(noisy(truth, seed, 0.2 * (1 + seed % 8)), seed)
    if seed % 2:
        truth[GONE] = np.nan
    return truth, answer


# ---- lDDT ------------------------------------------------------------------------------------------------------------


def lddt_by_definition(truth: np.ndarray, answer: np.ndarray) -> float:
    """One distance after another."""
    shares = []
    for one, place in enumerate(truth):
        right = []
        for other, there in enumerate(truth):
            wanted = math.dist(place, there)
            if other == one or not wanted < 15.0:  # what was not resolved is not near anything
                continue
            off = abs(math.dist(answer[one], answer[other]) - wanted)
            right.append(sum(off < limit for limit in (0.5, 1.0, 2.0, 4.0)) / 4)
        if right:
            shares.append(sum(right) / len(right))
    return sum(shares) / len(shares)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(12, 24))
def test_lddt_is_what_its_definition_says(seed: int, count: int) -> None:
    truth, answer = pair(seed, count)
    assert structures.lddt(truth, answer) == pytest.approx(lddt_by_definition(truth, answer), abs=1e-9)


def test_lddt_by_hand() -> None:
    """Four residues on a line, 4 angstrom apart; the last is answered 1.5 angstrom too far, which is right within 2 and 4. Its
    three distances are half right, those of the others one in three; another residue at 16 angstrom is not asked about."""
    truth = np.array([[0.0, 0, 0], [4, 0, 0], [8, 0, 0], [12, 0, 0]])
    answer = np.array([[0.0, 0, 0], [4, 0, 0], [8, 0, 0], [13.5, 0, 0]])
    assert structures.lddt_by_residue(truth, answer) == pytest.approx([5 / 6, 5 / 6, 5 / 6, 1 / 2])
    far = np.array([[0.0, 0, 0], [4, 0, 0], [20, 0, 0]])
    assert structures.lddt_by_residue(far, far + np.array([[0, 0, 0], [0, 0, 0], [9, 0, 0]])) == pytest.approx([1, 1])


# ---- TM-score and RMSD -----------------------------------------------------------------------------------------------


def searched(truth: np.ndarray, answer: np.ndarray, starts: int) -> tuple[float, float]:
    """(TM-score, RMSD) by their definitions: the rotation and the shift by an optimiser that knows nothing of chains, from many
    random ones."""
    there = np.isfinite(truth).all(1)
    one, other = truth[there], answer[there] - answer[there].mean(0)
    count, random = len(one), np.random.default_rng(0)
    scale = 1.24 * (count - 15) ** (1 / 3) - 1.8 if count > 21 else 0.5

    def apart(found: np.ndarray) -> np.ndarray:
        return np.square(Rotation.from_rotvec(found[:3]).apply(other) + found[3:] - one).sum(1)

    def score(found: np.ndarray) -> float:
        return float((1 / (1 + apart(found) / scale**2)).mean())

    best, least = 0.0, math.inf
    for _ in range(starts):
        first = np.concatenate([Rotation.random(random_state=random).as_rotvec(), one.mean(0)])
        whole = minimize(lambda found: float(apart(found).mean()), first)
        least = min(least, whole.fun)
        # from what lies best as a whole, and from some residues that are laid onto each other
        few = random.choice(count, size=random.integers(3, count + 1), replace=False)
        local = minimize(lambda found, few=few: float(apart(found)[few].mean()), first)
        best = max(best, *(-minimize(lambda found: -score(found), begun).fun for begun in (whole.x, local.x)))
    return best, math.sqrt(least)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_superpositions_are_as_good_as_those_of_an_optimiser(seed: int) -> None:
    truth, answer = pair(seed, 40)
    score, rmsd = searched(truth, answer, starts=12)
    assert structures.rmsd(truth, answer) == pytest.approx(rmsd, abs=1e-3)
    assert structures.tm_score(truth, answer) == pytest.approx(score, rel=0.03)  # neither finds the very best


def test_the_score_of_a_known_part() -> None:
    """Half of a chain as it is and the other half elsewhere: what is laid on itself counts whole, the rest next to nothing."""
    truth = helix(60).points.astype(np.float64)
    answer = truth.copy()
    answer[30:] += [0.0, 400.0, 0.0]
    assert structures.tm_score(truth, answer) == pytest.approx(0.5, abs=1e-3)
    assert structures.tm_score(truth, truth[:30]) == pytest.approx(0.5)
    assert structures.tm_score(truth, turned(truth, 1)) == pytest.approx(1.0)


# the alpha carbons of models 1 and 2 of the conotoxin 1AS5 (PDB, CC0)
TRUTH = """
    8.296,3.537,4.327 8.327,2.765,0.308 5.594,3.948,-2.25 1.997,2.384,-1.567
    2.135,-0.254,-4.486 5.658,-1.763,-4.612 6.885,-5.417,-3.811 3.239,-6.647,-3.591
    2.988,-6.667,0.342 -0.166,-4.571,1.264 0.353,-1.083,2.856 -2.536,1.308,3.444
    -0.055,3.923,4.896 1.269,7.715,5.139 -0.752,9.216,2.22 -1.63,6.415,-0.228
    -5.09,6.227,0.702 -6.914,6.307,-2.635 -4.423,3.566,-3.864 -6.074,0.213,-2.934
    -3.169,-1.849,-4.592 -4.096,-5.01,-2.533 -7.201,-6.046,-4.576 -6.738,-7.453,-8.213
"""
ANSWER = """
    8.273,4.974,3.949 7.8,4.627,-0.089 4.25,4.397,-1.696 2.278,1.262,-0.479
    1.969,-1.012,-3.656 5.693,-1.946,-3.809 7.378,-5.341,-2.763 3.982,-7.126,-3.075
    2.032,-6.946,0.346 -0.536,-4.148,0.687 -0.407,-1.215,3.263 -2.471,1.988,3.921
    0.296,4.317,5.436 2.297,7.741,5.158 0.881,9.016,1.831 -0.864,6.045,0.16
    -4.268,6.042,1.287 -6.478,5.805,-1.841 -4.561,2.507,-2.784 -6.823,-0.052,-4.395
    -3.607,-1.6,-6.026 -3.821,-4.855,-3.972 -6.716,-5.501,-6.509 -5.747,-6.408,-10.208
"""


def points(text: str) -> np.ndarray:
    return np.array([[float(number) for number in place.split(",")] for place in text.split()])


def test_two_models_of_a_protein_score_what_tm_align_says() -> None:
    """TM-align (Zhang & Skolnick 2005, tmtools 0.3.0) aligns them residue by residue and says 0.38788."""
    assert structures.tm_score(points(TRUTH), points(ANSWER)) == pytest.approx(0.38788, abs=2e-4)
    assert structures.tm_score(points(ANSWER), points(TRUTH)) == pytest.approx(0.38788, abs=2e-4)
