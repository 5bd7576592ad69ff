"""Learning curves: known curves come back, intervals say how far one can see, and nothing is promised beyond bounds."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from endwise import curves
from endwise.curves import Observation, crossing, difference, fit
from endwise.errors import DataError

SIZES = (50, 100, 200, 400, 800)


def observed(function, noise: float = 0.0, seeds: int = 3, sizes=SIZES, draw: int = 0) -> list[Observation]:
    """So many seeds of each size, noise falling with the root of the labels."""
    rng = np.random.default_rng(draw)
    return [
        Observation(size, seed, function(size) + noise * float(rng.standard_normal()) * math.sqrt(sizes[0] / size))
        for size in sizes
        for seed in range(seeds)
    ]


def power(a: float, b: float, c: float):
    return lambda labels: a + b * labels**-c


# ---- known curves ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("a", "b", "c"), [(0.05, 3.0, 0.6), (0.1, 1.5, 0.5), (0.0, 2.0, 0.35)])
def test_a_power_law_is_recovered(a, b, c):
    curve = fit(observed(power(a, b, c), noise=0.002), direction="min", low=0.0)
    for labels in (1600, 3200, 6400):
        found = curve.at(labels)
        assert found.value == pytest.approx(power(a, b, c)(labels), rel=0.2)
        assert found.low <= power(a, b, c)(labels) <= found.high


def test_larger_is_better_is_the_mirror_of_smaller_is_better():
    smaller = fit(observed(power(0.1, 2.0, 0.5), noise=0.01), direction="min", low=0.0, high=1.0)
    mirrored = [Observation(item.labels, item.seed, 1 - item.value) for item in smaller.observations]
    larger = fit(mirrored, direction="max", low=0.0, high=1.0)
    one, other = smaller.at(3000), larger.at(3000)
    assert (other.value, other.low, other.high) == pytest.approx((1 - one.value, 1 - one.high, 1 - one.low), abs=1e-6)


def test_what_saturates_is_not_promised_to_go_on():
    curve = fit(observed(lambda labels: 0.2 + 0.5 * math.exp(-labels / 60), noise=0.002), direction="min", low=0.0)
    assert curve.at(6400).value == pytest.approx(0.2, abs=0.02)


def test_what_does_not_learn_stays():
    curve = fit(observed(lambda labels: 0.5, noise=0.01), direction="max", low=0.0, high=1.0)
    assert curve.at(6000).value == pytest.approx(0.5, abs=0.03)


def test_a_curve_that_falls_back_is_told():
    values = dict(zip(SIZES, (0.5, 0.6, 0.7, 0.55, 0.56), strict=True))
    curve = fit(observed(values.__getitem__, noise=0.001), direction="max", low=0.0, high=1.0)
    assert any("400 labels gave less than 200" in note for note in curve.notes)


# ---- properties ------------------------------------------------------------------------------------------------------

LAWS = st.tuples(st.floats(0.0, 0.3), st.floats(0.5, 3.0), st.floats(0.2, 1.0))


def bounded(law, noise: float, seeds: int = 2) -> list[Observation]:
    function = power(*law)
    return [
        Observation(item.labels, item.seed, min(1.0, max(0.0, item.value)))
        for item in observed(function, noise, seeds=seeds)
    ]


@settings(max_examples=15, deadline=None)
@given(LAWS, st.floats(0, 0.1))
def test_no_value_is_beyond_the_bounds(law, noise):
    curve = fit(bounded(law, noise), direction="min", low=0.0, high=1.0)
    for labels in (50, 130, 800, 2000, 6400):
        found = curve.at(labels)
        assert 0.0 <= found.low <= found.value <= found.high <= 1.0


@settings(max_examples=15, deadline=None)
@given(LAWS, st.floats(0, 0.1))
@example((0.0, 1.0, 1.0), 0.0625)
def test_the_interval_does_not_narrow_with_distance(law, noise):
    curve = fit(observed(power(*law), noise), direction="min")
    widths = [curve.at(labels).high - curve.at(labels).low for labels in (900, 1600, 3200, 6400)]
    assert all(before <= after + 1e-9 for before, after in itertools.pairwise(widths))


@settings(max_examples=10, deadline=None)
@given(LAWS)
def test_more_noise_is_no_narrower_interval(law):
    quiet, loud = (fit(observed(power(*law), noise), direction="min").at(3200) for noise in (0.002, 0.05))
    assert loud.high - loud.low > quiet.high - quiet.low


@settings(max_examples=10, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_observations_does_not_matter(random):
    found = observed(power(0.1, 2.0, 0.5), 0.02)
    shuffled = list(found)
    random.shuffle(shuffled)
    assert fit(shuffled, direction="min", low=0.0).at(3000) == fit(found, direction="min", low=0.0).at(3000)


def test_where_it_is_known_the_interval_covers_about_as_often_as_it_says():
    """Noisy power laws, four times ahead: 80 % is promised."""
    rng, hit = np.random.default_rng(0), 0
    for draw in range(60):
        law = (rng.uniform(0, 0.2), rng.uniform(0.5, 3), rng.uniform(0.3, 0.9))
        found = fit(observed(power(*law), noise=0.03, draw=draw), direction="min", low=None).at(3200)
        hit += found.low <= power(*law)(3200) <= found.high
    assert 0.65 <= hit / 60 <= 1.0


# ---- targets ---------------------------------------------------------------------------------------------------------


def test_the_labels_for_a_target_are_found():
    function = power(0.02, 2.0, 0.5)
    curve = fit(observed(function, noise=0.002), direction="min", low=0.0)
    reach = curve.labels_for(function(3000))
    assert reach.state == "reachable"
    assert 1500 <= reach.labels.value <= 6000
    assert reach.labels.low <= reach.labels.value
    assert not reach.labels.high < reach.labels.value


def test_a_target_that_was_measured_is_already_reached():
    curve = fit(observed(power(0.02, 2.0, 0.5), noise=0.002), direction="min", low=0.0)
    reach = curve.labels_for(0.2)
    assert reach.state == "reached"
    assert reach.labels.value <= 800
    assert "already reached" in str(reach)


def test_a_target_under_the_floor_is_not_reachable_and_nothing_is_promised():
    curve = fit(observed(power(0.3, 2.0, 0.8), noise=0.002), direction="min", low=0.0)
    reach = curve.labels_for(0.1)
    assert reach.state == "not reachable"
    assert reach.labels is None
    assert reach.to_dict()["labels"] is None


def test_an_open_end_is_null_in_json():
    curve = fit(observed(power(0.1, 2.0, 0.5), noise=0.05), direction="min", low=0.0)
    reach = curve.labels_for(curve.at(5500).value)
    assert reach.to_dict()["labels"]["high"] is None


# ---- two curves ------------------------------------------------------------------------------------------------------


def test_a_crossing_is_seen_with_an_interval():
    steep, flat = (lambda labels: 3.0 * labels**-0.5), (lambda labels: 0.25 - 0.02 * math.log10(labels))
    first = fit(observed(steep, 0.003, draw=1), direction="min", low=0.0)
    second = fit(observed(flat, 0.003, draw=2), direction="min", low=0.0)
    found = crossing(first, second)
    truth = next(labels for labels in range(50, 6400) if steep(labels) <= flat(labels))
    assert found.leader == "first"
    assert found.labels.low <= found.labels.value <= found.labels.high
    assert truth / 2 <= found.labels.value <= truth * 2


def test_curves_that_keep_their_order_are_not_seen_to_cross():
    first = fit(observed(power(0.05, 1.0, 0.5), 0.003, draw=1), direction="min", low=0.0)
    second = fit(observed(power(0.25, 1.5, 0.5), 0.003, draw=2), direction="min", low=0.0)
    found = crossing(first, second)
    assert found.labels is None
    assert found.leader == "first"
    assert found.looked_to == 6400
    gap = difference(first, second, 3200)
    assert gap.high < 0
    assert gap.low <= gap.value <= gap.high


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_two_sizes_are_no_curve():
    with pytest.raises(DataError, match="at least 3 different numbers of labels"):
        fit(observed(power(0.1, 1, 0.5), sizes=(50, 100)), direction="min")


@pytest.mark.parametrize("value", [math.nan, 1.5])
def test_a_value_that_cannot_be_is_refused(value):
    found = [*observed(power(0.1, 1, 0.5)), Observation(400, 7, value)]
    with pytest.raises(DataError, match="the value at 400 labels"):
        fit(found, direction="max", low=0.0, high=1.0)


def test_nothing_is_said_beyond_what_can_be_foreseen():
    curve = fit(observed(power(0.1, 1, 0.5)), direction="min")
    with pytest.raises(DataError, match="50 to 6400"):
        curve.at(6401)
    with pytest.raises(DataError, match="measure larger subsets"):
        curve.at(49)
    assert curves.FARTHEST == 8
