"""Losses: one float32 value a row, equal to the library's, and nothing hidden."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import distributed as dist
from torch.nn import functional as F

from endwise import losses


@pytest.fixture
def random() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_every_loss_gives_one_float32_value_a_row_even_in_bfloat16(random: torch.Generator) -> None:
    logits = torch.randn(5, 3, generator=random).bfloat16()
    other = torch.randn(5, 3, generator=random).bfloat16()
    made = {
        "cross_entropy": losses.cross_entropy(logits, torch.tensor([0, 1, 2, 0, 1])),
        "binary": losses.binary_cross_entropy(logits, (other > 0).int()),
        "huber": losses.huber(logits, other),
        "mse": losses.mse(logits, other),
        "mae": losses.mae(logits, other),
        "scalar mae": losses.mae(logits[:, 0], other[:, 0]),
        "ctc": losses.ctc(
            torch.randn(5, 6, 4).bfloat16(), torch.full((5,), 6), torch.ones(5, 2).long(), torch.ones(5).long()
        ),
    }
    for name, value in made.items():
        assert value.shape == (5,), name
        assert value.dtype == torch.float32, name


def test_a_row_does_not_depend_on_its_batch(random: torch.Generator) -> None:
    logits, target = torch.randn(4, 3, generator=random), torch.tensor([0, 1, 2, 1])
    together = losses.cross_entropy(logits, target, smoothing=0.1)
    alone = torch.cat([losses.cross_entropy(logits[i : i + 1], target[i : i + 1], smoothing=0.1) for i in range(4)])
    torch.testing.assert_close(together, alone)


def test_the_mean_of_the_rows_is_the_usual_loss(random: torch.Generator) -> None:
    a, b = torch.randn(6, 4, generator=random), torch.randn(6, 4, generator=random)
    torch.testing.assert_close(losses.mse(a, b).mean(), F.mse_loss(a, b))
    torch.testing.assert_close(losses.mae(a, b).mean(), F.l1_loss(a, b))
    torch.testing.assert_close(losses.huber(3 * a, b).mean(), F.huber_loss(3 * a, b))
    labels = (b > 0).float()
    torch.testing.assert_close(
        losses.binary_cross_entropy(a, labels).mean(), F.binary_cross_entropy_with_logits(a, labels)
    )


def test_ctc_equals_the_sum_over_all_alignments() -> None:
    """Three frames, the target 'a': every path over {blank, a, b} that collapses to 'a', counted by hand."""
    logits = torch.randn(1, 3, 3, generator=torch.Generator().manual_seed(1))
    p = logits[0].softmax(-1)
    paths = [(0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1, 1), (1, 1, 0), (1, 1, 1)]
    total = sum(p[0, i] * p[1, j] * p[2, k] for i, j, k in paths)
    loss = losses.ctc(logits, torch.tensor([3]), torch.tensor([[1]]), torch.tensor([1]))
    torch.testing.assert_close(loss[0], -torch.as_tensor(total).log())


def test_an_impossible_alignment_costs_nothing_and_is_countable() -> None:
    """'aa' needs three frames: the two equal letters have a blank between them."""
    logits = torch.randn(4, 5, 3, requires_grad=True)
    sizes = torch.tensor([2, 3, 0, 0])
    target, target_sizes = (
        torch.tensor([[1, 1, 9], [1, 1, 9], [1, 0, 0], [0, 0, 0]]).clamp(max=2),
        torch.tensor([2, 2, 1, 0]),
    )
    impossible = losses.ctc_impossible(sizes, target, target_sizes)
    assert impossible.tolist() == [True, False, True, False]
    loss = losses.ctc(logits, sizes, target, target_sizes)
    assert loss[0] == 0
    assert loss[1] > 0
    assert loss[2:].tolist() == [0, 0]
    loss.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad[[0, 2, 3]].abs().sum() == 0


def test_padding_of_the_frames_and_of_the_target_changes_nothing() -> None:
    logits = torch.randn(1, 6, 4)
    short = losses.ctc(logits[:, :5], torch.tensor([5]), torch.tensor([[1, 2]]), torch.tensor([2]))
    padded = losses.ctc(logits, torch.tensor([5]), torch.tensor([[1, 2, 3]]), torch.tensor([2]))
    torch.testing.assert_close(short, padded)


def test_an_empty_target_is_all_blanks() -> None:
    logits = torch.randn(1, 4, 3)
    loss = losses.ctc(logits, torch.tensor([4]), torch.zeros(1, 0).long(), torch.tensor([0]))
    torch.testing.assert_close(loss[0], -logits.log_softmax(-1)[0, :, 0].sum())


ROWS = 5  # an odd number: the second process has fewer


def contrast_world() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Raw vectors of three inputs, identities (rows 0 and 4 share one, rows 1 and 2 lack one), and the scale."""
    raw = torch.randn(ROWS, 3, 4, generator=torch.Generator().manual_seed(3))
    identity = torch.arange(1, 3 * ROWS + 1).view(ROWS, 3)
    identity[4, 1], identity[1, 0], identity[2] = identity[0, 1], 0, torch.tensor([0, 9, 0])
    return raw.requires_grad_(), identity, torch.tensor(7.0, requires_grad=True)


def one_worker(rank: int, folder: str) -> None:
    """Its rows' losses and the gradients it has at the end."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    raw, identity, scale = contrast_world()
    mine = slice(0, 3) if rank == 0 else slice(3, ROWS)
    own = raw[mine].detach().requires_grad_()
    loss = losses.contrast(F.normalize(own, dim=-1), identity[mine], scale, across=True)
    loss.sum().backward()
    assert own.grad is not None
    assert scale.grad is not None
    save_file({"loss": loss.detach(), "raw": own.grad, "scale": scale.grad}, f"{folder}/{rank}.safetensors")
    dist.destroy_process_group()


def test_rivals_across_workers_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    raw, identity, scale = contrast_world()
    loss = losses.contrast(F.normalize(raw, dim=-1), identity, scale)
    loss.sum().backward()
    torch.multiprocessing.spawn(one_worker, (str(tmp_path),), nprocs=2)
    found = [load_file(tmp_path / f"{rank}.safetensors") for rank in range(2)]
    torch.testing.assert_close(torch.cat([part["loss"] for part in found]), loss.detach())
    torch.testing.assert_close(torch.cat([part["raw"] for part in found]), raw.grad)
    torch.testing.assert_close(found[0]["scale"] + found[1]["scale"], scale.grad)


def test_rivals_across_workers_need_no_workers() -> None:
    raw, identity, scale = contrast_world()
    torch.testing.assert_close(
        losses.contrast(raw, identity, scale, across=True), losses.contrast(raw, identity, scale), rtol=0, atol=0
    )
