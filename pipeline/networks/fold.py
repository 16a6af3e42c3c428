"""The trained networks as they run: the same functions, with fewer passes over memory.

Three rewritings, each exact but for rounding: BatchNorm is folded into the convolution before it; a 1x1 convolution
over (skip, enlarged features) is split in two, whose second half runs before the enlargement, on a quarter of the
cells; sums and LeakyReLU work in place.  Training never sees these modules; weights files hold the networks of
`pipeline.networks.unet`.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pipeline.networks.unet import Block, LabelNetwork, SpikeNetwork, UNet


class _Folded(nn.Module):
    """Convolution with its norm inside it, an optional summand, LeakyReLU."""

    def __init__(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.convolution = fuse_conv_bn_eval(convolution, norm)

    def forward(self, x: Tensor, summand: Tensor | None = None) -> Tensor:
        y = cast(Tensor, self.convolution(x))
        if summand is not None:
            y += summand
        return functional.leaky_relu(y, 0.01, inplace=True)


class _FoldedBlock(nn.Module):
    def __init__(self, block: Block) -> None:
        super().__init__()
        self.first = _Folded(block.conv1, block.norm1)
        self.second = _Folded(block.conv2, block.norm2)
        self.skip = block.skip

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.second(self.first(x), self.skip(x)))


class _FoldedUNet(nn.Module):
    def __init__(self, unet: UNet) -> None:
        super().__init__()
        self.stem = _Folded(unet.stem, unet.stem_norm)
        self.encoder = nn.ModuleList(_FoldedBlock(cast(Block, block)) for block in unet.encoder)
        self.decoder = nn.ModuleList(_FoldedBlock(cast(Block, block)) for block in unet.decoder)
        self.down = unet.down
        halves = [_halves(cast(nn.Conv2d, merge)) for merge in unet.merge]
        self.merge_skip = nn.ModuleList(skip for skip, _ in halves)
        self.merge_below = nn.ModuleList(below for _, below in halves)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.to(self.stem.convolution.weight.dtype))
        skips = []
        for index, block in enumerate(self.encoder):
            if index:
                x = self.down[index - 1](x)
            x = block(x)
            skips.append(x)
        del skips[-1]
        for index in range(len(self.decoder) - 1, -1, -1):
            skip = skips.pop()
            merged = self.merge_skip[index](skip)
            below = self.merge_below[index](x)
            merged += functional.interpolate(below, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            x = self.decoder[index](merged)
        return x


class _FoldedLabelNetwork(nn.Module):
    def __init__(self, network: LabelNetwork) -> None:
        super().__init__()
        self.multiple = network.multiple
        self.layers = _layers(network.convolutions, network.norms)
        self.head = network.head

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.head.weight.dtype)
        for layer in self.layers:
            x = layer(x)
        return cast(Tensor, self.head(x))


class _FoldedSpikeNetwork(nn.Module):
    def __init__(self, network: SpikeNetwork) -> None:
        super().__init__()
        self.network, self.multiple = network, network.multiple
        pairs = zip(network.convolutions, network.norms, strict=True)
        self.parts = nn.ModuleList(_layers(*(cast(nn.ModuleList, part) for part in pair)) for pair in pairs)
        del network.convolutions, network.norms

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.network.head.weight.dtype)
        seen = []
        for picture, layers in zip(self.network.split(x), self.parts, strict=True):
            for layer in cast(nn.ModuleList, layers):
                picture = layer(picture)
            seen.append(picture)
        return self.network.answer(seen, x)


def _layers(convolutions: nn.ModuleList, norms: nn.ModuleList) -> nn.ModuleList:
    """Fold each norm into its convolution."""
    pairs = zip(convolutions, norms, strict=True)
    return nn.ModuleList(_Folded(cast(nn.Conv2d, c), cast(nn.BatchNorm2d, n)) for c, n in pairs)


def _halves(merge: nn.Conv2d) -> tuple[nn.Conv2d, nn.Conv2d]:
    """Split a 1x1 convolution over (skip, below) into one over each; the results are to be added."""
    outputs = merge.out_channels  # as wide as the skip
    parts = []
    for weight in (merge.weight[:, :outputs], merge.weight[:, outputs:]):
        part = nn.Conv2d(weight.shape[1], outputs, 1, bias=False)
        part.weight = nn.Parameter(weight.detach().clone())
        parts.append(part)
    return parts[0], parts[1]


def fold(network: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return a trained network ready to run; it takes float32 pictures whatever the format of its weights.

    Parameters
    ----------
    network : nn.Module
        Any network of `pipeline.networks.specification`.  It must not be used afterwards: the result has its parts.
    dtype : torch.dtype
        Format of weights and activations; bfloat16 keeps about two digits.

    Returns
    -------
    nn.Module
        A U-Net inside a network is folded; other parts stay as they are.
    """
    network = network.float().eval()
    if isinstance(network, LabelNetwork):
        network = _FoldedLabelNetwork(network).eval()
    elif isinstance(network, SpikeNetwork):
        network = _FoldedSpikeNetwork(network).eval()
    for name, part in list(network.named_children()):
        if isinstance(part, UNet):
            setattr(network, name, _FoldedUNet(part).eval())
    return network.to(dtype).requires_grad_(False)
