"""What the cache is worth: `python -m benchmarks.decoding [--size small --rows 16 --longest 128 --rounds 5]`.

Greedy writing of `--longest` symbols for a batch, with the cache of keys and values (what `Model.predict` does) beside
running the whole prefix again for every symbol, in turns. Untrained networks: speed does not depend on the weights, and
with END never chosen all rows are written to the full length. Target: the cache at least 5 times as fast.
"""

import argparse
import statistics
import time

import torch

from endwise.nn.decoder import END, NEVER, Decoder, Memory, search
from endwise.nn.size import Size

TARGET = 5.0


def again(decoder: Decoder, memory: Memory, longest: int) -> torch.Tensor:
    """Greedy, the whole prefix run again for every symbol."""
    symbols = torch.full((memory.mask.shape[0], 1), END)
    for _ in range(longest):
        scores = decoder(symbols, memory)[:, -1]
        symbols = torch.cat([symbols, scores.argmax(1, keepdim=True)], 1)
    return symbols[:, 1:]


def timed(decoder: Decoder, tokens: torch.Tensor, mask: torch.Tensor, longest: int) -> tuple[float, float]:
    """Seconds (with the cache, without); both must write the same."""
    began = time.perf_counter()
    cached = search(decoder, decoder.begin(tokens, mask), beams=1, longest=longest, penalty=0.0)[0][:, 0]
    middle = time.perf_counter()
    whole = again(decoder, decoder.begin(tokens, mask), longest)
    end = time.perf_counter()
    same = float((cached == whole).float().mean())
    if same < 0.99:  # equal scores may fall either way in the last digit
        raise SystemExit(f"only {same:.3f} of the symbols are the same: the cache is wrong")
    return middle - began, end - middle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="small")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--places", type=int, default=32, help="tokens of the memory")
    parser.add_argument("--symbols", type=int, default=1024)
    parser.add_argument("--longest", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    for prefix in (False, True):
        decoder = Decoder(Size.of(args.size), args.symbols, prefix=prefix).eval()
        tokens = torch.randn(args.rows, args.places, decoder.width)
        mask = torch.ones(args.rows, args.places, dtype=torch.bool)
        with torch.inference_mode():
            decoder.bias[END] = NEVER
            timed(decoder, tokens, mask, args.longest)  # the first turn warms up
            times = [timed(decoder, tokens, mask, args.longest) for _ in range(args.rounds)]
        ratios = [slow / fast for fast, slow in times]
        median = statistics.median(ratios)
        print(
            f"{'prefix' if prefix else 'across'}: {args.rows} rows x {args.longest} symbols, "
            f"{statistics.median(fast for fast, _ in times):.2f} s with the cache; {median:.1f} times as fast as without "
            f"[{min(ratios):.1f}, {max(ratios):.1f}] n={args.rounds}; target {TARGET}: {'met' if median >= TARGET else 'missed'}"
        )


if __name__ == "__main__":
    main()
