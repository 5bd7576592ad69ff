"""Batches: every row once an epoch, the same whatever is read ahead, wherever training begins."""

import threading
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from endwise.batch import Batch, Ragged
from endwise.data.dataset import Dataset, fit_contracts, prepare
from endwise.data.loader import Loader
from endwise.errors import DataError
from endwise.modalities.base import Contract, Role
from endwise.recipe import Recipe
from tests.test_store import Array
from tests.toys import Amount, Kind, Letters

ROWS = 150


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Dataset, dict[str, Contract]]:
    random = np.random.default_rng(0)
    table: dict[str, list[Any]] = {
        "text": ["x" * int(random.integers(1, 60)) for _ in range(ROWS)],
        "amount": [None if row == 7 else row / 3 for row in range(ROWS)],
        "kind": [None if row == 11 else "ab"[row % 2] for row in range(ROWS)],
        "more": [1.0] * ROWS,
        "w": [row + 1.0 for row in range(ROWS)],
    }
    table["text"][5] = None
    recipe = Recipe(
        data={"path": table, "weight": "w"},
        inputs={"text": Letters(), "amount": Amount()},
        outputs={"kind": Kind(), "more": Amount()},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENDWISE_CACHE", str(tmp_path_factory.mktemp("store")))
        dataset = prepare(recipe)
    return recipe, dataset, fit_contracts(recipe, dataset)


def loader(made: Any, count: int = ROWS, **settings: Any) -> Loader:
    recipe, dataset, contracts = made
    return Loader(
        dataset, recipe, contracts, np.arange(count), **{"batch_size": 16, "seed": 0, "shuffle": True, **settings}
    )


def same(one: Batch, two: Batch) -> bool:
    arrays = [
        [*(part for ragged in (*batch.inputs.values(), *batch.targets.values()) for part in (ragged.values, ragged.sizes)),
         *batch.present.values(), batch.weight, batch.row_ids]
        for batch in (one, two)
    ]  # fmt: skip
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(*arrays, strict=True))


SHAPES = given(
    count=st.integers(1, ROWS), batch_size=st.integers(1, 40), seed=st.integers(0, 2**31), epoch=st.integers(0, 10**6)
)
RELAXED = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@RELAXED
@SHAPES
def test_every_row_is_in_exactly_one_batch_of_an_epoch(
    made: Any, count: int, batch_size: int, seed: int, epoch: int
) -> None:
    found = loader(made, count, batch_size=batch_size, seed=seed)
    steps = range(epoch * found.batches_per_epoch, (epoch + 1) * found.batches_per_epoch)
    batches = [found.batch_rows(step) for step in steps]
    assert sorted(np.concatenate(batches).tolist()) == list(range(count))
    assert sorted(map(len, batches), reverse=True)[:-1] == [batch_size] * (len(batches) - 1)


@RELAXED
@given(start=st.integers(0, 200), length=st.integers(0, 25), prefetch=st.integers(0, 5), seed=st.integers(0, 99))
def test_a_batch_is_a_pure_function_of_its_step(made: Any, start: int, length: int, prefetch: int, seed: int) -> None:
    walked = list(loader(made, seed=seed).iterate(start, start + length, prefetch=prefetch))
    assert len(walked) == length
    jumped = loader(made, seed=seed)
    for step in reversed(range(start, start + length)):
        assert same(walked[step - start], jumped.batch(step))


def test_the_order_is_another_in_every_epoch_and_for_every_seed(made: Any) -> None:
    one, other = loader(made), loader(made, seed=1)
    per_epoch = one.batches_per_epoch
    assert one.batch_rows(0).tolist() != one.batch_rows(per_epoch).tolist()
    assert one.batch_rows(0).tolist() != other.batch_rows(0).tolist()


def test_the_order_is_the_one_of_every_release(made: Any) -> None:
    assert loader(made, 20, batch_size=5).batch_rows(3).tolist() == [9, 0, 11, 19, 14]


def test_rows_of_a_batch_are_of_about_one_length(made: Any) -> None:
    sorted_, given_ = loader(made), loader(made, shuffle=False)
    for one in (sorted_, given_):
        for step in range(one.batches_per_epoch):
            one.batch(step)
    assert sorted_.counters.padded_share < 0.12 < 0.3 < given_.counters.padded_share


def test_pairs_of_texts_are_padded_little_on_both_sides() -> None:
    """Sorted by one length alone, half of the other would be padding; and lengths count in units, not in bytes."""
    from endwise.modalities.text import Text

    random = np.random.default_rng(0)
    words = ["a", "sea", "meerschweinchen", "ja", "calm", "übermorgen"]
    rows = [
        {"one": " ".join(random.choice(words, size=random.integers(1, 40))),
         "two": " ".join(random.choice(words, size=random.integers(1, 40)))}
        for _ in range(1_500)
    ]  # fmt: skip
    declared = Recipe(data=rows, inputs={"one": Text()}, outputs={"two": Text(units="bpe")})
    dataset = prepare(declared)
    found = Loader(
        dataset, declared, fit_contracts(declared, dataset), dataset.splits.train, batch_size=8, seed=0, shuffle=True
    )
    for step in range(found.batches_per_epoch):
        found.batch(step)
    assert found.counters.padded_share < 0.12


def test_without_shuffling_the_order_is_the_given_one_or_by_length(made: Any) -> None:
    recipe, dataset, contracts = made
    rows = np.array([9, 3, 40, 2, 3])
    given_ = Loader(dataset, recipe, contracts, rows, batch_size=2, seed=0, shuffle=False)
    assert [batch.row_ids.tolist() for batch in given_.iterate(0, 3)] == [[9, 3], [40, 2], [3]]
    by_length = loader(made, shuffle=False, order="length")
    order = np.concatenate([by_length.batch_rows(step) for step in range(by_length.batches_per_epoch)])
    lengths = dataset.fields["text"].lengths(Letters())[order] / 30 + 0
    assert (np.diff(lengths) <= 0).all()
    assert sorted(order.tolist()) == list(range(ROWS))


def test_values_masks_weights_and_ids_belong_together(made: Any) -> None:
    recipe, dataset, contracts = made
    found = Loader(dataset, recipe, contracts, np.arange(ROWS), batch_size=20, seed=3, shuffle=True)
    for batch in found.iterate(0, found.batches_per_epoch):
        for index, row in enumerate(batch.row_ids.tolist()):
            text = batch.inputs["text"]
            if row == 5:
                assert not batch.present["text"][index]
                assert text.sizes[index].tolist() == [1]
            else:
                size = int(text.sizes[index, 0])
                assert text.values[index, :size].tobytes() == dataset.fields["text"][row].astype(np.int64).tobytes()
                assert (text.values[index, size:] == 0).all()
            assert bool(batch.present["amount"][index]) == (row != 7)
            assert bool(batch.present["kind"][index]) == (row != 11)
            if row != 7:
                assert batch.inputs["amount"].values[index] == pytest.approx(row / 3)
            if row != 11:
                assert contracts["kind"].names[batch.targets["kind"].values[index]] == "ab"[row % 2]
            assert batch.weight[index] == row + 1
        assert batch.inputs["amount"].sizes.shape == (len(batch), 0)


def test_targets_that_are_not_there_are_left_out(made: Any) -> None:
    recipe, _, contracts = made
    dataset = prepare(recipe, source={"text": ["a", "bcd"], "amount": [1, 2]}, need_targets=False)
    batch = Loader(dataset, recipe, contracts, dataset.splits.test, batch_size=2, seed=0, shuffle=False).batch(0)
    assert batch.targets == {}
    assert set(batch.present) == {"text", "amount"}


def test_rows_of_one_shape_take_a_short_cut_that_gives_the_same() -> None:
    values = [np.full((3, 2), row, np.uint8) for row in range(20)]

    def batch(cells: list[Any], rows: list[int]) -> Batch:
        recipe = Recipe(
            data={"x": cells, "y": [float(row) for row in range(len(cells))]},
            inputs={"x": Picture()}, outputs={"y": Amount()},
        )  # fmt: skip
        dataset = prepare(recipe)
        contracts = fit_contracts(recipe, dataset)
        return Loader(dataset, recipe, contracts, np.array(rows), batch_size=9, seed=0, shuffle=False).batch(0)

    class Picture(Array):
        axes = 2

        def blank(self, contract: Any) -> np.ndarray:
            return np.zeros((1, 2), np.uint8)

        def fit(self, values: Iterable[np.ndarray], *, missing: int, role: Role) -> Contract:
            return Contract(count=sum(1 for _ in values), missing=missing)

    fast, slow = batch(values, [3, 1, 8]), batch([*values, np.zeros((1, 2), np.uint8)], [3, 1, 8])
    assert same(fast, slow)
    assert fast.inputs["x"].sizes.tolist() == [[3, 2]] * 3
    mixed = batch([*values, np.full((1, 2), 40_000, np.uint16), None], [0, 20, 21])
    assert mixed.inputs["x"].values[1, 0].tolist() == [40_000, 40_000]
    assert mixed.present["x"].tolist() == [True, True, False]


def test_an_error_reaches_the_consumer_and_threads_end(made: Any) -> None:
    broken = loader(made)
    fine = broken.batch

    def batch(step: int) -> Batch:
        if step == 3:
            raise DataError("the disk is gone")
        return fine(step)

    broken.batch = batch  # type: ignore[method-assign]
    batches = broken.iterate(0, 9)
    for _ in range(3):
        next(batches)
    with pytest.raises(DataError, match="the disk is gone"):
        next(batches)
    stopped = loader(made).iterate(0, 9, prefetch=4)
    next(stopped)
    stopped.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("endwise-batch")]


def test_it_counts_what_it_does(made: Any) -> None:
    found = loader(made)
    assert found.counters.batches == 0
    list(found.iterate(0, found.batches_per_epoch))
    counted = found.counters
    assert (counted.batches, counted.rows) == (10, ROWS)
    assert 0 < counted.padded_share < 1
    assert counted.read_s > 0


def test_rows_of_several_dtypes_are_padded_without_loss() -> None:
    found = Ragged.stack([np.array([7], np.uint8), np.array([1.5, 2.5])], 1)
    np.testing.assert_array_equal(found.values, [[7.0, 0.0], [1.5, 2.5]])


def test_no_rows_are_refused(made: Any) -> None:
    with pytest.raises(DataError, match="at least one row"):
        loader(made, 0)
