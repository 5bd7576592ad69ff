"""What the masks of single things have to do, in pictures and in volumes."""

from typing import Any

import torch

import endwise as ew
from endwise.data.dataset import fit_contracts
from endwise.data.loader import Loader
from endwise.errors import BadValue
from endwise.model import Model


def nothing(path: str) -> bytes:
    """In the place of files, where there are none."""
    raise BadValue(f"no file {path}")


def assert_masks_move(own: ew.Recipe, axes: int, side: int) -> None:
    """The true masks of `things` are where their input is seen, also if that is mirrored along its last axis; and the mask's
    loss has a gradient."""
    dataset = ew.prepare(own)
    contracts = fit_contracts(own, dataset)
    model = Model.build(own, contracts, seed=0)
    loader = Loader(dataset, own, contracts, dataset.splits.train, batch_size=4, seed=0, shuffle=False)
    batch = loader.batch(0).to("cpu")
    head: Any = model.network.head("things")
    prediction = model.network.eval()(batch.inputs, batch.present)["things"]
    target, sizes = batch.targets["things"].values, batch.targets["things"].sizes
    still, _ = head._laid(prediction, target, sizes)
    real = head._real(target, sizes)
    kept = target[..., 1 + 2 * axes :].reshape(*target.shape[:2], *[side] * axes)
    assert real.any()
    assert (head._wanted(prediction, target, still) - kept)[real].abs().max() < 0.05
    turned = torch.eye(axes, axes + 1)
    turned[-1, -2:] = torch.tensor([-1.0, 1.0])
    mirrored = {**prediction, "seen": turned.expand(len(target), axes, axes + 1)}
    moved, _ = head._laid(mirrored, target, sizes)
    assert (head._wanted(mirrored, target, moved) - kept.flip(-1))[real].abs().max() < 0.05
    terms = head.loss(prediction, target, sizes)
    assert set(terms) == {"class", "box", "mask", "many"}
    assert len(terms) == own.outputs["things"].num_terms
    (slope,) = torch.autograd.grad(terms["mask"].sum(), [head.asking.weight])
    assert slope.abs().sum() > 0
