"""The networks, all of them: four small residual U-Nets on one plan, and two small classifiers.

After the paper's segmentation network (arXiv 2510.19590, "Segmentation"): encoder blocks of two convolutions without
bias, each followed by a norm and LeakyReLU, 2x2 strided convolutions down, bilinear interpolation and skips up.
Unlike it, a strided stem halves the work, widths are a tenth, and the norm is BatchNorm, whose running statistics make
a wide row and a narrow training crop see the same network (and fold into the convolutions).

Scale, stride and crop of each: `pipeline.networks.specification`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

LEAD_CLASSES = 19  # classes 1..19 in the order of NAMED_LEADS; 0 = none


class Block(nn.Module):
    """Two convolutions with norm and LeakyReLU around a skip."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H, W)."""
        y = functional.leaky_relu(self.norm1(self.conv1(x)), 0.01, inplace=True)
        return functional.leaky_relu(self.norm2(self.conv2(y)) + self.skip(x), 0.01, inplace=True)


class UNet(nn.Module):
    """Strided stem, encoder, decoder; features come out at the stem's resolution."""

    def __init__(self, inputs: int, widths: tuple[int, ...], stem_stride: tuple[int, int]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(inputs, widths[0], 5, stride=stem_stride, padding=2, bias=False)
        self.stem_norm = nn.BatchNorm2d(widths[0])
        self.encoder = nn.ModuleList([Block(width, width) for width in widths])
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList([nn.Conv2d(a, b, 2, stride=2, bias=False) for a, b in pairs])
        self.merge = nn.ModuleList([nn.Conv2d(a + b, a, 1, bias=False) for a, b in pairs])
        self.decoder = nn.ModuleList([Block(a, a) for a, _ in pairs])

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, widths[0], H / stride, W / stride); sides must divide by 16 strides."""
        x = functional.leaky_relu(self.stem_norm(self.stem(x)), 0.01, inplace=True)
        skips = []
        for index, block in enumerate(self.encoder):
            if index:
                x = self.down[index - 1](x)
            x = block(x)
            skips.append(x)
        for index in range(len(self.decoder) - 1, -1, -1):
            up = functional.interpolate(x, size=skips[index].shape[-2:], mode="bilinear", align_corners=False)
            x = self.decoder[index](self.merge[index](torch.cat([skips[index], up], 1)))
        return x


class PageNetwork(nn.Module):
    """Four classes at full resolution: background, grid, trace, text."""

    multiple = 32  # sides of the input must divide by this

    def __init__(self) -> None:
        super().__init__()
        self.unet = UNet(3, (32, 48, 80, 112, 144), (2, 2))
        self.head = nn.Conv2d(32, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W) to logits (B, 4, H, W)."""
        return functional.pixel_shuffle(self.head(self.unet(x)), 2)


class BendNetwork(nn.Module):
    """How far the paper under every cell of 1 mm is from where the canvas has it, and how sure that is.

    The canvas says where lines should be: 5 mm lines on whole multiples of 5 mm.  Four channels carry that (sine and
    cosine of the 5 mm grid along both axes), since a convolution does not know where it is.
    """

    multiple = 64
    px_per_mm = 8.0  # of its input: it knows where the 5 mm lines belong

    def __init__(self) -> None:
        super().__init__()
        self.unet = UNet(7, (32, 64, 96, 128, 160), (4, 4))
        self.head = nn.Conv2d(32, 4, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, 4, H/8, W/8): dx, dy in mm, log of the expected |error| in mm of each."""
        height, width = x.shape[2:]
        period_px = 5.0 * self.px_per_mm
        size = (x.shape[0], 7, height, width)
        seen = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        seen[:, :3] = x
        for first, length, shape in ((3, width, (2, 1, -1)), (5, height, (2, -1, 1))):
            place = torch.arange(length, device=x.device, dtype=torch.float32) + 0.5
            angle = (2 * torch.pi / period_px) * place
            seen[:, first : first + 2] = torch.stack([angle.sin(), angle.cos()]).view(shape).to(x.dtype)
        return cast(Tensor, self.head(self.unet(seen)))


class LayoutNetwork(nn.Module):
    """Row bands, column boundaries and calibration pulses (three logits), at half resolution."""

    multiple = 32

    def __init__(self) -> None:
        super().__init__()
        self.unet = UNet(3, (32, 56, 96, 128, 160), (2, 2))
        self.head = nn.Conv2d(32, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W) to logits (B, 3, H/2, W/2)."""
        return cast(Tensor, self.head(self.unet(x)))


class LabelNetwork(nn.Module):
    """Which lead's name stands upright in a window; on a canvas, an answer every 8 pixels.

    Convolutions are not padded, so that a window gets the same answer alone and inside a canvas.
    """

    multiple = 8  # its stride

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 96, 128)
        pairs = list(pairwise(widths))
        self.convolutions = nn.ModuleList(
            [nn.Conv2d(a, b, 3, stride=2 if k < 3 else 1, bias=False) for k, (a, b) in enumerate(pairs)]
        )
        self.norms = nn.ModuleList([nn.BatchNorm2d(b) for _, b in pairs])
        self.head = nn.Conv2d(128, 1 + LEAD_CLASSES, (3, 9))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, 48 + 8 i, 96 + 8 j) to logits (B, 20, 1 + i, 1 + j); class 0 is "no name"."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = functional.leaky_relu(norm(convolution(x)), 0.01, inplace=True)
        return cast(Tensor, self.head(x))


class SpikeNetwork(nn.Module):
    """Whether an upright stroke of ink is a pacing spike of its row, and how tall that is beside the stroke.

    It is shown the stroke from nearby and from afar, side by side, and beside both a block of one colour, whose three
    levels are numbers; see `pipeline.rows.spikes.pictures`.
    """

    multiple = 4
    height_px, near_px, far_px, numbers_px = 40, 41, 81, 2

    def __init__(self) -> None:
        super().__init__()
        widths = ((3, 16, 32, 32), (3, 16, 24, 24))
        self.convolutions = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1, bias=False) for a, b in pairwise(part))
            for part in widths
        )
        self.norms = nn.ModuleList(nn.ModuleList(nn.BatchNorm2d(b) for b in part[1:]) for part in widths)
        self.near, self.far = nn.Linear(5 * 6 * 32, 32), nn.Linear(5 * 11 * 24, 24)
        self.hidden, self.head = nn.Linear(32 + 24 + 3, 32), nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, 40, 124) to (B, 2): logit, and the spike's height as a share of the stroke's."""
        seen = []
        for picture, convolutions, norms in zip(self.split(x), self.convolutions, self.norms, strict=True):
            for convolution, norm in zip(cast(nn.ModuleList, convolutions), cast(nn.ModuleList, norms), strict=True):
                picture = functional.leaky_relu(norm(convolution(picture)), 0.01, inplace=True)
            seen.append(functional.dropout2d(picture, 0.1, self.training))
        return self.answer(seen, x)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the two pictures of every stroke."""
        return x[..., : self.near_px], x[..., self.near_px : self.near_px + self.far_px]

    def answer(self, seen: Sequence[Tensor], x: Tensor) -> Tensor:
        """Map the last features of both pictures, and the numbers beside them, to (B, 2)."""
        sums = (self.near, self.far)
        summed = [functional.leaky_relu(each(part.flatten(1)), 0.01) for each, part in zip(sums, seen, strict=True)]
        hidden = functional.leaky_relu(self.hidden(torch.cat([*summed, x[..., 0, -1]], 1)), 0.01)
        return cast(Tensor, self.head(hidden))


class TraceNetwork(nn.Module):
    """Where the row's centre line runs: logits over the height in bins and of presence, for every column.

    A cell of the features is 0.2 mm wide and one bin tall; it answers for the four columns inside it.
    """

    multiple = 32  # width of the input must divide by this
    columns_per_cell = 4
    half_height_px = 239.5  # the strip of a row: the place of a pixel is its distance from the middle in this unit

    def __init__(self) -> None:
        super().__init__()
        self.unet = UNet(4, (32, 56, 80, 112, 144), (2, 2))
        self.head = nn.Conv2d(32, self.columns_per_cell, 3, padding=1)
        self.presence = nn.Conv1d(32, self.columns_per_cell, 9, padding=4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, 3, 2 * bins, W) to logits (B, bins, 2 W) and presence logits (B, 2 W)."""
        half = (x.shape[2] - 1) / 2 / self.half_height_px
        place = torch.linspace(-half, half, x.shape[2], device=x.device).to(x.dtype)[None, None, :, None]
        features = self.unet(torch.cat([x, place.expand(x.shape[0], 1, -1, x.shape[3])], 1))
        y = self.head(features)
        columns = y.permute(0, 2, 3, 1).reshape(y.shape[0], y.shape[2], -1)
        tallest = functional.max_pool2d(features, (features.shape[2], 1)).squeeze(2)  # twenty times as fast as amax
        presence = self.presence(tallest)
        return columns, presence.permute(0, 2, 1).reshape(presence.shape[0], -1)


def normalise(pixels: Tensor) -> Tensor:
    """Map uint8 RGB (B, H, W, 3) to float (B, 3, H, W) around 0: paper near +0.5, ink near -2."""
    return pixels.permute(0, 3, 1, 2).float().div(100).sub(2)
