"""One dial, `size`, sets every width and depth. The formula stands here, and nowhere else.

Depth-to-width follows the shallow end of the compute-optimal range for small transformers (Levine et al. 2020,
"Limits to depth efficiencies of self-attention": width should grow at least as fast as exp(depth)); head width 32
keeps attention cheap on CPUs. Each number can be overridden one by one in the recipe's `trunk:` section.
"""

from dataclasses import dataclass

DIALS = {"tiny": 1, "small": 2, "base": 3, "large": 4}
WIDTHS = {1: 64, 2: 128, 3: 256, 4: 512}
HEAD_WIDTH = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """The resolved dial: token width, blocks of depth, attention heads, dropout; and whether inputs of one token each attend to
    each other."""

    dial: int  # 1 tiny .. 4 large
    width: int
    depth: int
    heads: int
    dropout: float
    attention: bool

    @classmethod
    def of(
        cls,
        name: str,
        *,
        width: int | None = None,
        depth: int | None = None,
        heads: int | None = None,
        dropout: float | None = None,
        attention: bool = False,
    ) -> "Size":
        """width = 64 * 2^(dial-1); depth = dial + 1; heads = width / 32; dropout 0.1. Given values win."""
        dial = DIALS[name]
        width = width or WIDTHS[dial]
        return cls(
            dial=dial,
            width=width,
            depth=dial + 1 if depth is None else depth,
            heads=heads or max(1, width // HEAD_WIDTH),
            dropout=0.1 if dropout is None else dropout,
            attention=attention,
        )
