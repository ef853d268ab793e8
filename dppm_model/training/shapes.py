"""Drawn shapes: random images, used to pre-train the upsampler without data.

An image is the unit square with a few strokes and arcs in two greys, or overlapping leaves in many
(dead leaves; Matheron 1968, Lee et al. 2001): edges, corners and flat areas at every scale. Shapes
are signed distances, so any window of an image can be drawn at any resolution.
"""

from __future__ import annotations

import math

import torch

from dppm_model.score.upsampler import CROP

_SHAPES = 6  # in an image
_LEAVES = 0.15  # share of images of overlapping leaves
_EXTREME = 0.8  # share of two-grey images in black and white
_OUTLINE = 0.1  # share of images drawn in outline only
_LEAST_WINDOW = 1 / 8


def draw_windows(count: int, side: int, channels: int, generator: torch.Generator) -> torch.Tensor:
    """Draw one window of each of several random images, of any size, centred near an edge.

    Parameters
    ----------
    count, side, channels
        Number of windows, pixels a side, and channels of a pixel.

    Returns
    -------
    (count, channels, side, side) float32 in [-1, 1]; a pixel is roughly the mean over its area.
    """

    def uniform(low: float, high: float, *size: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(count, *size, generator=generator)

    window = torch.exp(uniform(math.log(_LEAST_WINDOW), 0, 1))  # its side over the image's
    leaves = uniform(0, 1, 1) < _LEAVES
    centre = uniform(0.15, 0.85, _SHAPES, 2)
    angle = uniform(0, 2 * math.pi, _SHAPES)
    axis = torch.stack([angle.cos(), angle.sin()], dim=-1)
    length = uniform(0.05, 0.4, _SHAPES)
    weight = torch.exp(uniform(math.log(0.012), math.log(0.1), 1))
    width = weight * torch.where(uniform(0, 1, _SHAPES) < 0.3, uniform(0.3, 1, 1), 1.0)
    width = torch.where(leaves, uniform(0.03, 0.25, _SHAPES), width)
    rounding = width * torch.where(uniform(0, 1, 1) < 0.5, 0.0, uniform(0, 1, 1))
    radius = uniform(0.08, 0.35, _SHAPES)
    arc = uniform(0, 1, _SHAPES) < 0.4
    # The window: a point on the border of the first shape, moved by up to a quarter of a window.
    across = torch.stack([-axis[..., 1], axis[..., 0]], dim=-1)
    straight = centre + axis * (length * uniform(-1, 1, _SHAPES))[..., None]
    straight = straight + across * width[..., None]
    bent = centre + axis * (radius + width)[..., None]
    border = torch.where(arc[..., None], bent, straight)[:, 0]
    place = border + window * uniform(-0.25, 0.25, 2)
    place = place.maximum(window / 2).minimum(1 - window / 2)

    step = (torch.arange(side) + 0.5) / side - 0.5
    rows, columns = torch.meshgrid(step, step, indexing="ij")
    points = (
        place[:, None, None, None]
        + _wide(window)[..., None] * torch.stack([columns, rows], dim=-1)[None, None]
    )
    p = points - centre[:, :, None, None]
    along = (p * axis[:, :, None, None]).sum(-1)
    over = (p * across[:, :, None, None]).sum(-1)
    distance = torch.where(
        arc[..., None, None],
        _arc(along, over, _wide(radius), _wide(width), _wide(length)),
        _bar(along, over, _wide(length), _wide(width), _wide(rounding)),
    )
    outline = (uniform(0, 1, 1) < _OUTLINE) & ~leaves
    thin = _wide(weight / 4)
    distance = torch.where(_wide(outline), distance.abs() - thin, distance)
    cover = (0.5 - distance * side / _wide(window)).clamp(0, 1)  # of each pixel by each shape
    used = uniform(0, 1, _SHAPES) < uniform(0.2, 0.9, 1)
    used[:, 0] = True
    cover = cover * _wide(used)
    return _painted(cover, leaves, channels, generator)


def shape_crops(count: int, crops: int, colours: int, generator: torch.Generator) -> torch.Tensor:
    """Draw shapes in the form of `crop_records`: (count, crops, C, CROP, CROP)."""
    x = draw_windows(count * crops, CROP, colours, generator)
    return x.reshape(count, crops, *x.shape[1:])


def _wide(value: torch.Tensor) -> torch.Tensor:
    return value[..., None, None]


def _bar(
    along: torch.Tensor,
    over: torch.Tensor,
    length: torch.Tensor,
    width: torch.Tensor,
    rounding: torch.Tensor,
) -> torch.Tensor:
    """Return the signed distance to a rounded bar of half sides ``length`` and ``width``."""
    a, b = along.abs() - length + rounding, over.abs() - width + rounding
    return torch.hypot(a.clamp(min=0), b.clamp(min=0)) + torch.maximum(a, b).clamp(max=0) - rounding


def _arc(
    along: torch.Tensor,
    over: torch.Tensor,
    radius: torch.Tensor,
    width: torch.Tensor,
    cut: torch.Tensor,
) -> torch.Tensor:
    """Return the signed distance to a ring (a disc, if wide) cut off by a line."""
    ring = (torch.hypot(along, over) - radius).abs() - width
    return torch.maximum(ring, -along - cut)


def _painted(
    cover: torch.Tensor, leaves: torch.Tensor, channels: int, generator: torch.Generator
) -> torch.Tensor:
    """Paint the shapes over each other: strokes in one colour, leaves each in its own."""
    n, shapes = cover.shape[:2]
    colours = 2 * torch.rand(n, shapes + 1, channels, generator=generator) - 1
    strokes = colours[:, 1:2].expand(-1, shapes, -1)
    sign = torch.where(torch.rand(n, 1, 1, generator=generator) < 0.5, -1.0, 1.0)
    extreme = (torch.rand(n, 1, generator=generator) < _EXTREME) & ~leaves
    ground = torch.where(extreme[..., None], sign, colours[:, :1])[:, 0]
    ink = torch.where(leaves[..., None], colours[:, 1:], strokes)
    ink = torch.where(extreme[..., None], -sign, ink)
    image = ground[:, :, None, None].expand(n, channels, *cover.shape[2:])
    for i in range(shapes):
        share = cover[:, i, None]
        image = (1 - share) * image + share * ink[:, i, :, None, None]
    return image.contiguous()
