"""How much of the machine training uses: `python -m benchmarks.utilisation [RECIPE ... --batch 32 --steps 60 --rows 4000]`.

Model FLOP utilisation (Chowdhery et al. 2022, appendix B): the floating-point operations of the network's own products,
convolutions and attentions, forwards and backwards, without what is computed twice to save memory, times the steps a second of
endwise's own loop, over what the device can do at most. Operations are counted on one batch as it is run, its padding
included; norms, activations and the optimiser count nothing. The peak is the data sheet's for dense products in bf16 where the
device is one of PEAK_TFLOPS; elsewhere, or with `--measured`, what a product of two large square matrices reaches here, in the precision
that the plan trains in and with its threads.

Default: the 100-million-parameter language model. Target on an accelerator: at least 45 %.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from benchmarks.loop import Case
from endwise.batch import Batch
from endwise.network import Network
from endwise.optimise import autocast

TARGET = 0.45
DEFAULT = ("recipes/language-model/large.yaml",)
WARM_UP = 10  # steps that are not timed
PEAK_TFLOPS = {
    "H200": 989.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "T4": 65.0,
}  # dense, bf16 (T4: fp16)
SIDE, PRODUCTS = 4096, 5  # of the square matrices, and how many products are timed
BACKWARD = 2.5  # of an attention, in forwards: five products in the place of two


def attention_cpu(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """The counter knows every attention but the processor's."""
    return int(sdpa_flop_count(query, key, value))


def attention_cpu_backward(_: Any, query: Any, key: Any, value: Any, *__: Any, **___: Any) -> int:
    return int(BACKWARD * sdpa_flop_count(query, key, value))


def flops(network: Network, batch: Batch, precision: str) -> int:
    """Of one forward and backward pass."""
    own = {
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_cpu,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_cpu_backward,
    }
    with FlopCounterMode(display=False, custom_mapping=own) as counter:
        with autocast(batch.row_ids.device.type, precision)():
            predictions = network(batch.inputs, batch.present)
            terms = [
                term.float().mean()
                for name, target in batch.targets.items()
                for term in network.head(name).loss(predictions[name], target.values, target.sizes).values()
            ]
        torch.stack(terms).sum().backward()  # type: ignore[no-untyped-call]
    network.zero_grad(set_to_none=True)
    return int(counter.get_total_flops())


def peak(device: torch.device, precision: str, measured: bool) -> tuple[float, str]:
    """Operations a second at most, and by what authority."""
    if device.type == "cuda" and not measured:
        name = torch.cuda.get_device_name(device)
        for known, tera in PEAK_TFLOPS.items():
            if known in name.split("-")[0].split():
                return tera * 1e12, f"data sheet of {name}"
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = (torch.randn(SIDE, SIDE, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(PRODUCTS):
        finish(device)
        began = time.perf_counter()
        left @ right
        finish(device)
        best = min(best, time.perf_counter() - began)
    return 2 * SIDE**3 / best, f"measured: {SIDE} x {SIDE} in {precision}"


def finish(device: torch.device) -> None:
    """Wait for what the device has been told to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_a_step(case: Case, device: torch.device) -> float:
    """Of endwise's own loop, its log and its reading included."""
    trainer, times = case.trainer(), []
    log = trainer.run.log

    def say(event: Mapping[str, Any]) -> None:
        log(event)
        if event["event"] == "step" and event["step"] in (WARM_UP, case.plan.steps):
            finish(device)
            times.append(time.perf_counter())

    trainer.say = say
    trainer.train()
    trainer.run.close()
    began, ended = times
    return (ended - began) / (case.plan.steps - WARM_UP)


def measure(path: str, args: argparse.Namespace, folder: Path) -> None:
    case = Case(path, args, folder)
    trainer = case.trainer()
    device, network = next(trainer.model.network.parameters()).device, trainer.model.network
    network.train()
    operations = flops(network, case.loader().batch(0).to(device), case.plan.precision)
    trainer.run.close()
    most, authority = peak(device, case.plan.precision, args.measured)
    step_s = seconds_a_step(case, device)
    tokens = sum(case.tokens[[case.position[int(row)] for row in case.loader().batch_rows(0)]]) / step_s
    share = operations / step_s / most
    print(
        f"{case.name}: {case.plan.parameters:,} parameters, batch {case.plan.batch_size}, {case.plan.precision}, {device}"
    )
    print(f"  {operations / 1e9:,.1f} GFLOP a step, {1000 * step_s:,.1f} ms, {tokens:,.0f} tokens/s")
    print(f"  peak {most / 1e12:,.2f} TFLOP/s ({authority}); utilisation {share:.3f}")
    if device.type == "cuda":
        print(f"  target {TARGET}: {'met' if share >= TARGET else 'missed'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=list(DEFAULT), metavar="RECIPE")
    parser.add_argument("--batch", type=int, default=32, help="rows a step")
    parser.add_argument("--steps", type=int, default=60, help=f"the first {WARM_UP} of them not timed")
    parser.add_argument("--rows", type=int, default=4000, help="training rows at most")
    parser.add_argument("--precision", choices=["fp32", "bf16"], help="default: what the plan measures as faster")
    parser.add_argument("--threads", type=int, help="default: what the plan measures as faster")
    parser.add_argument("--measured", action="store_true", help="the peak as it is measured, whatever the device")
    args = parser.parse_args()
    args.turn = WARM_UP
    with tempfile.TemporaryDirectory() as folder:
        for path in args.recipes:
            measure(path, args, Path(folder))


if __name__ == "__main__":
    main()
