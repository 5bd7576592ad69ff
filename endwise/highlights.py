"""Attributions laid over a raw value: for a page (HTML that needs nothing else), for a terminal of 80 columns, and as a picture.

Orange speaks for the answer and blue against it, in all of them (Okabe & Ito 2008: told apart by everybody). Numpy and the
standard library only. Not here: where attributions come from (attribution.py), which answer they are of (explanation.py).
"""

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

import numpy as np

from endwise.drawing import nearest, png, to_uri
from endwise.recording import Recording

FOR, AGAINST = (213, 94, 0), (0, 114, 178)
COLUMNS = 80
SIDE_PX = 320  # of a picture on a page; in a file it has its own size
BARS = 160  # of a drawn sound
SOUND_PX = (640, 96)
SHOWN_CELLS = 40  # of many cells on a page those with the most to say
TOP = 5
TILES = 64  # that a picture or a grid is divided into for words
WORD = re.compile(r"\w+|[^\w\s]+")
BACKGROUND_SHARE = 0.55  # how much of a picture's own light is left beneath its colours

Kind = Literal["cells", "picture", "sound", "text"]


@dataclass(frozen=True)
class Piece:
    """One part of a raw value: where it is for people, which places it spans along each axis, and its share of all that the
    answer leans on, below 0 where it speaks against it."""

    where: str
    span: tuple[tuple[int, int], ...]
    share: float


@dataclass(frozen=True)
class Highlight:
    """One input with its attributions, in the raw value's own coordinates.

    shares: attributions over the sum of all inputs' absolute ones. names: of the places, where they have some. seconds: how
    long a sound is. preview: the raw value where it has no drawing of its own."""

    name: str
    kind: Kind
    value: np.ndarray
    shares: np.ndarray
    names: tuple[str, ...]
    seconds: float = 0.0
    rate_hz: int = 0

    # ---- in words ------------------------------------------------------------------------------------------------

    def strongest(self, count: int = TOP) -> list[Piece]:
        """The pieces with the largest shares, for or against, the largest first: words, cells, stretches, rectangles."""
        found = sorted(self.pieces(), key=lambda piece: -abs(piece.share))
        return [piece for piece in found[:count] if piece.share]

    def pieces(self) -> list[Piece]:
        """The whole value in pieces that people have words for."""
        if self.kind == "text":
            text = self.text
            return [
                Piece(repr(word[0]), ((word.start(), word.end()),), float(self.shares[word.start() : word.end()].sum()))
                for word in WORD.finditer(text)
            ]
        if self.kind in ("picture", "sound") or (not self.names and self.shares.ndim > 1):
            return self._tiles()
        flat = self.shares.reshape(-1)
        names = self.names or [str(place) for place in range(len(flat))]
        places = [np.unravel_index(place, self.shares.shape) for place in range(len(flat))]
        return [
            Piece(name, tuple((int(at), int(at) + 1) for at in place), float(share))
            for name, place, share in zip(names, places, flat, strict=True)
        ]

    def _plane(self) -> np.ndarray:
        """Two axes to look at: of steps and channels the steps from left to right; of more axes sums over the first ones."""
        if self.names:
            return self.shares.reshape(self.shares.shape[0], -1).T
        plane: np.ndarray = self.shares.sum(axis=tuple(range(self.shares.ndim - 2)))
        return plane

    def _tiles(self) -> list[Piece]:
        shape = self.shares.shape
        most = TILES ** (1 / len(shape))
        counts = [max(1, min(side, round(most))) for side in shape] if len(shape) > 1 else [min(shape[0], 32)]
        edges = [np.linspace(0, side, count + 1).astype(int) for side, count in zip(shape, counts, strict=True)]
        found = []
        for tile in np.ndindex(*counts):
            span = tuple((int(edge[at]), int(edge[at + 1])) for edge, at in zip(edges, tile, strict=True))
            share = float(self.shares[tuple(slice(*ends) for ends in span)].sum())
            found.append(Piece(self._where(span), span, share))
        return found

    def _where(self, span: Sequence[tuple[int, int]]) -> str:
        if self.kind == "sound":
            start, stop = (self.seconds * end / max(1, len(self.shares)) for end in span[0])
            return f"{start:.2f} s to {stop:.2f} s"
        if self.kind != "picture":
            return ", ".join(f"{start} to {stop}" for start, stop in span)
        return f"x {span[1][0]} to {span[1][1]}, y {span[0][0]} to {span[0][1]}"

    @property
    def text(self) -> str:
        """The text, of a text."""
        return self.value.tobytes().decode()

    def lines(self) -> list[str]:
        """For a terminal: the strongest pieces with a bar."""
        found = [f"{self.name}"]
        for piece in self.strongest():
            bar = "#" * max(1, round(20 * min(1.0, abs(piece.share))))
            where = piece.where if len(piece.where) <= 40 else piece.where[:39] + "…"
            found.append(f"  {where:<42}{piece.share:>+7.1%}  {bar}"[:COLUMNS])
        return found

    # ---- drawn ---------------------------------------------------------------------------------------------------

    def html(self) -> str:
        """For a page or a notebook."""
        body = {"text": self._words, "picture": self._picture, "sound": self._sound, "cells": self._cells}[self.kind]()
        return f'<div style="margin:.4rem 0"><b>{escape(self.name)}</b>{body}</div>'

    def picture(self, side: int | None = None) -> np.ndarray:
        """uint8 [height, width, 3]: the picture in grey beneath its colours, at its own size or so long a side at most."""
        pixels = self.value if self.value.dtype == np.uint8 else (self.value // 257).astype(np.uint8)
        shape = pixels.shape[:2]
        share = min(1.0, side / max(shape)) if side else 1.0
        size = [max(1, round(share * length)) for length in shape]
        grey = nearest(pixels.astype(np.float32).mean(-1), size)
        colours, strength = tinted(smoothed(self.shares), size)
        ground = 255 * (1 - BACKGROUND_SHARE) + BACKGROUND_SHARE * grey[..., None]
        found: np.ndarray = ((1 - strength) * ground + strength * colours).clip(0, 255).astype(np.uint8)
        return found

    def image(self) -> str:
        """The picture as a data URI, reduced for a page."""
        return to_uri(png(self.picture(SIDE_PX)))

    def _picture(self) -> str:
        top = ", ".join(f"{piece.where} ({piece.share:+.0%})" for piece in self.strongest(3))
        image = self.image()
        alt = escape(f"{self.name}: orange speaks for the answer, blue against it. Most: {top}", quote=True)
        shown = max(SIDE_PX // 2, min(SIDE_PX, max(self.value.shape[:2])))
        return f'<div><img src="{image}" alt="{alt}" style="width:{shown}px;max-width:100%;image-rendering:auto"></div>'

    def _sound(self) -> str:
        width, height = SOUND_PX
        wave, count = np.abs(self.value.astype(np.float64)), min(BARS, len(self.value))
        edges = np.linspace(0, len(wave), count + 1).astype(int)
        levels = np.array([wave[a:b].max(initial=0) for a, b in itertools.pairwise(edges)])
        ends = np.linspace(0, len(self.shares), count + 1).astype(int)
        shares = np.array([self.shares[a:b].sum() for a, b in itertools.pairwise(ends)])
        most, loudest = max(1e-12, float(np.abs(shares).max())), max(1e-12, float(levels.max()))
        bars = []
        for index, (level, share) in enumerate(zip(levels, shares, strict=True)):
            tall = max(2.0, height * level / loudest)
            bars.append(
                f'<rect x="{index * width / count:.1f}" y="{(height - tall) / 2:.1f}" width="{0.8 * width / count:.1f}" '
                f'height="{tall:.1f}" fill="{_shade(share / most)}"><title>{self.seconds * index / count:.2f} s: {share:+.1%}</title></rect>'
            )
        alt = ", ".join(f"{piece.where} ({piece.share:+.0%})" for piece in self.strongest(3))
        player = ""
        if self.rate_hz and self.value.dtype == np.int16:
            player = f'<audio controls src="{Recording.of(self.value, self.rate_hz).to_json()}"></audio>'
        return (
            f'<div><svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape("most: " + alt, quote=True)}" '
            f'style="width:100%;max-width:40rem;height:auto;display:block">{"".join(bars)}</svg>{player}</div>'
        )

    def _words(self) -> str:
        text, parts, at = self.text, list[str](), 0
        pieces = {piece.span[0]: piece.share for piece in self.pieces()}
        most = max((abs(share) for share in pieces.values()), default=0.0) or 1.0
        for (start, stop), share in pieces.items():
            parts.append(escape(text[at:start]))
            parts.append(
                f'<span title="{share:+.1%}" style="background:{_clear(share / most)};border-radius:3px">{escape(text[start:stop])}</span>'
            )
            at = stop
        return f'<div style="white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.7">{"".join(parts)}{escape(text[at:])}</div>'

    def _cells(self) -> str:
        found = self.pieces()
        heat = ""
        if self.shares.ndim > 1 or len(found) > SHOWN_CELLS:
            flat = self.shares[None] if self.shares.ndim == 1 else self._plane()
            size = [max(len(flat), min(160, 8 * len(flat))), max(flat.shape[1], min(640, 8 * flat.shape[1]))]
            colours, strength = tinted(flat, size)
            image = to_uri(png((255 * (1 - strength) + strength * colours).astype(np.uint8)))
            heat = f'<div><img src="{image}" alt="{escape(self.name, quote=True)} along its places" style="max-width:100%;min-height:2rem"></div>'
            found = self.strongest(TOP)
        most = max((abs(piece.share) for piece in found), default=0.0) or 1.0
        rows = [
            f'<tr><td style="padding:.1rem .8rem .1rem 0">{escape(piece.where)}</td><td style="text-align:right;padding-right:.5rem">'
            f'{piece.share:+.1%}</td><td><div style="width:{max(1, round(120 * abs(piece.share) / most))}px;height:.7rem;'
            f'background:{_shade(math.copysign(1.0, piece.share))}"></div></td></tr>'
            for piece in found
        ]
        return f'{heat}<table style="border-collapse:collapse">{"".join(rows)}</table>'


def smoothed(shares: np.ndarray) -> np.ndarray:
    """A mean over about a thirty-second of each side: single pixels are too fine to be seen."""
    for axis, side in enumerate(shares.shape):
        reach = max(0, round(side / 64))
        if reach:
            sums = np.cumsum(
                np.pad(
                    shares, [(reach + 1, reach) if other == axis else (0, 0) for other in range(shares.ndim)], "edge"
                ),
                axis,
            )
            wide = 2 * reach + 1
            shares = (np.take(sums, range(wide, wide + side), axis) - np.take(sums, range(side), axis)) / wide
    return shares


def tinted(shares: np.ndarray, size: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """(colours [height, width, 3], strength [height, width, 1] from 0 to 1) of shares at a size."""
    fine = nearest(shares, size)
    most = float(np.quantile(np.abs(fine), 0.995)) or float(np.abs(fine).max()) or 1.0
    strength = np.sqrt((np.abs(fine) / most).clip(0, 1))[..., None] * 0.9
    return np.where(fine[..., None] >= 0, np.array(FOR), np.array(AGAINST)).astype(np.float64), strength


def _shade(share: float) -> str:
    """An opaque colour between grey and full, for a share from -1 to 1."""
    colour, strength = FOR if share >= 0 else AGAINST, math.sqrt(min(1.0, abs(share)))
    return "#" + "".join(f"{round(170 + strength * (part - 170)):02x}" for part in colour)


def _clear(share: float) -> str:
    """The same as a tint that text can be read on."""
    colour = FOR if share >= 0 else AGAINST
    return f"rgba({colour[0]},{colour[1]},{colour[2]},{0.75 * min(1.0, abs(share)):.2f})"


__all__ = ["Highlight", "Piece"]
