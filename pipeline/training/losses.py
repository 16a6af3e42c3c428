"""The losses of the networks, and the validation figures a person can read.

Page and layout network: soft Dice + focal (the paper's).  Bend network: a likelihood.  Label network: cross-entropy.
Trace network: cross-entropy of every column against a narrow Gaussian around the true centre line, and noise to signal.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.networks.specification import ROW_BINS
from pipeline.rows.trace import posterior


def _focal(logits: Tensor, target: Tensor, weight: Tensor, gamma: float = 2.0) -> Tensor:
    """Focal loss against class shares; both (B, C, H, W)."""
    log_p = functional.log_softmax(logits, 1)
    return -(weight.view(1, -1, 1, 1) * target * (1 - log_p.exp()) ** gamma * log_p).sum(1).mean()


def _dice(probability: Tensor, target: Tensor) -> Tensor:
    """1 - soft Dice, mean over classes; both (B, C, H, W)."""
    axes = (0, 2, 3)
    overlap = (probability * target).sum(axes)
    return 1 - ((2 * overlap + 1) / ((probability**2).sum(axes) + (target**2).sum(axes) + 1)).mean()


def page_loss(output: Tensor, classes: Tensor) -> Tensor:
    """Dice + focal over background, grid, trace, text.

    Parameters
    ----------
    output : (B, 4, H, W) float32
        Logits of the page network.
    classes : (B, H, W, 3) uint8
        Shares of grid, trace and text in [0, 255].

    Returns
    -------
    Tensor
        The loss, one number.
    """
    shares = classes.permute(0, 3, 1, 2).float() / 255
    target = torch.cat([(1 - shares.sum(1, keepdim=True)).clamp(0), shares], 1)
    weight = torch.tensor([0.5, 1.0, 2.0, 2.0])
    return _dice(output.softmax(1), target) + 4 * _focal(output, target, weight.to(output.device))


def bend_loss(output: Tensor, shift_mm: Tensor) -> Tensor:
    """Negative log likelihood of a Laplace distribution.

    The network weighs every cell by its own expected error, so that cells without a grid teach doubt and nothing else.

    Parameters
    ----------
    output : (B, 4, h, w) float32
        Shift in mm along x and y, log of the expected error in mm of each.
    shift_mm : (B, h, w, 2) float32
        The true shift.

    Returns
    -------
    Tensor
        The loss, one number.
    """
    error = (output[:, :2] - shift_mm.permute(0, 3, 1, 2)).abs()
    doubt = output[:, 2:].clamp(-6, 2)
    return (error * (-doubt).exp() + doubt).mean()


def layout_loss(output: Tensor, bands: Tensor) -> Tensor:
    """Dice + cross-entropy of row bands, boundaries and pulses.

    Parameters
    ----------
    output : (B, 3, h, w) float32
        Logits of the layout network.
    bands : (B, h, w, 3) uint8
        Row band, boundary and pulse in [0, 255].

    Returns
    -------
    Tensor
        The loss, one number.
    """
    target = bands.permute(0, 3, 1, 2).float() / 255
    return _dice(output.sigmoid(), target) + functional.binary_cross_entropy_with_logits(output, target)


def trace_loss(output: tuple[Tensor, Tensor], y_bin: Tensor, sigma: float = 0.8, steepest: float = 6.0) -> Tensor:
    """Cross-entropy of each column against a Gaussian around the centre line and of its presence, and noise to signal.

    Where the line is steep its ink fills the column over `slope` bins: the Gaussian is as wide.  Those columns are few
    and hold most of the signal's power, so they count for more.  The last term is the figure by which weights are
    compared: the log of the mean's squared error over the line's power, crop by crop.  It is sensitive to the tips of
    QRS complexes.

    Parameters
    ----------
    output : (B, bins, columns) and (B, columns) float32
        Logits of place and presence of the trace network.
    y_bin : (B, columns) float32
        The true centre line in bins, NaN = no trace.
    sigma : float
        Bins, standard deviation of the Gaussian on a level line.
    steepest : float
        Bins a column, slopes above which count alike.

    Returns
    -------
    Tensor
        The loss, one number.
    """
    columns, presence = output
    there = torch.isfinite(y_bin)
    y = torch.where(there, y_bin, torch.zeros_like(y_bin))
    slope = ((y[:, 2:] - y[:, :-2]).abs() / 2).clamp(max=steepest) * (there[:, 2:] & there[:, :-2])
    slope = functional.pad(slope, (1, 1))
    spread = torch.sqrt(sigma**2 + slope**2 / 12)
    bins = torch.arange(ROW_BINS, device=y.device, dtype=y.dtype)[None, :, None]
    target = torch.exp(-((bins - y[:, None]) ** 2) / (2 * spread[:, None] ** 2))
    target = target / target.sum(1, keepdim=True)
    divergence = (target * (target.clamp(1e-12).log() - functional.log_softmax(columns, 1))).sum(1)
    weight = there * (1 + functional.max_pool1d(slope, 9, stride=1, padding=4))
    line = (divergence * weight).sum() / weight.sum().clamp(1)
    return (
        line
        + 0.15 * _log_noise_to_signal(columns, y, there)
        + functional.binary_cross_entropy_with_logits(presence, there.float())
    )


def _log_noise_to_signal(
    columns: Tensor, y: Tensor, there: Tensor, *, least_noise: float = 0.02, least_power: float = 4.0
) -> Tensor:
    """Mean over crops of the log of noise over power of the expected line; bins squared a column, with floors."""
    expected = (columns.softmax(1) * torch.arange(ROW_BINS, device=y.device, dtype=y.dtype)[None, :, None]).sum(1)
    n = there.sum(1).clamp(1)
    level = (y * there).sum(1, keepdim=True) / n[:, None]
    noise = ((expected - y) ** 2 * there).sum(1) / n
    power = ((y - level) ** 2 * there).sum(1) / n
    full = there.sum(1) > 100
    ratio = ((noise + least_noise) / (power + least_power)).log()
    return (ratio * full).sum() / full.sum().clamp(1)


def label_loss(output: Tensor, lead: Tensor) -> Tensor:
    """Cross-entropy with smoothed labels.

    Parameters
    ----------
    output : (B, 13, 1, 1) float32
        Logits of the label network.
    lead : (B,) int64
        1..19 in the order of NAMED_LEADS, 0 = no name.

    Returns
    -------
    Tensor
        The loss, one number.
    """
    return functional.cross_entropy(output[:, :, 0, 0], lead, label_smoothing=0.02)


def spike_loss(output: Tensor, share: Tensor) -> Tensor:
    """Cross-entropy, and for spikes how far their height is off.

    Parameters
    ----------
    output : (B, 2) float32
        Of the spike network: logit, and the spike's height as a share of the stroke's.
    share : (B,) float32
        The true share; 0 = no spike.

    Returns
    -------
    Tensor
        The loss, one number.
    """
    spike = (share > 0).float()
    off = functional.smooth_l1_loss(output[:, 1], share, beta=0.1, reduction="none")
    wrong = functional.binary_cross_entropy_with_logits(output[:, 0], spike)
    return wrong + 0.5 * (spike * off).sum() / spike.sum().clamp(min=1)


def page_figures(output: Tensor, classes: Tensor) -> dict[str, float]:
    """Dice of grid, trace and text.

    Parameters
    ----------
    output : (B, 4, H, W) float32
        Logits of the page network.
    classes : (B, H, W, 3) uint8
        Shares of grid, trace and text in [0, 255].

    Returns
    -------
    dict of float
        By name.
    """
    shares = classes.permute(0, 3, 1, 2).float() / 255
    p = output.softmax(1)[:, 1:]
    overlap = (p * shares).sum((0, 2, 3)) * 2 / ((p**2).sum((0, 2, 3)) + (shares**2).sum((0, 2, 3)) + 1)
    return dict(zip(("dice_grid", "dice_trace", "dice_text"), overlap.tolist(), strict=True))


def bend_figures(output: Tensor, shift_mm: Tensor) -> dict[str, float]:
    """Mean error in mm over all cells and over the surer half, and what the network expects and the canvas has there.

    Parameters
    ----------
    output : (B, 4, h, w) float32
        Shift in mm along x and y, log of the expected error in mm of each.
    shift_mm : (B, h, w, 2) float32
        The true shift.

    Returns
    -------
    dict of float
        By name.
    """
    true = shift_mm.permute(0, 3, 1, 2)
    error = (output[:, :2] - true).abs()
    surest = output[:, 2:] < output[:, 2:].median()
    return {
        "error_mm": float(error.mean()),
        "surest_error_mm": float(error[surest].mean()),
        "expected_error_mm": float(output[:, 2:].exp()[surest].mean()),
        "unmoved_mm": float(true.abs()[surest].mean()),
    }


def layout_figures(output: Tensor, bands: Tensor) -> dict[str, float]:
    """Intersection over union of row bands, boundaries and pulses.

    Parameters
    ----------
    output : (B, 3, h, w) float32
        Logits of the layout network.
    bands : (B, h, w, 3) uint8
        Row band, boundary and pulse in [0, 255].

    Returns
    -------
    dict of float
        By name.
    """
    target = bands.permute(0, 3, 1, 2) > 127
    iou = ((output > 0) & target).sum((0, 2, 3)) / ((output > 0) | target).sum((0, 2, 3)).clamp(1)
    return dict(zip(("band_iou", "boundary_iou", "pulse_iou"), iou.tolist(), strict=True))


def label_figures(output: Tensor, lead: Tensor) -> dict[str, float]:
    """Share of the windows that are named right.

    Parameters
    ----------
    output : (B, 13, 1, 1) float32
        Logits of the label network.
    lead : (B,) int64
        1..19 in the order of NAMED_LEADS, 0 = no name.

    Returns
    -------
    dict of float
        By name.
    """
    found = output[:, :, 0, 0].argmax(1)
    return {"accuracy": float((found == lead).float().mean())}


def spike_figures(output: Tensor, share: Tensor) -> dict[str, float]:
    """Share of the spikes that are told, and of other strokes that are taken for one.

    Parameters
    ----------
    output : (B, 2) float32
        Of the spike network.
    share : (B,) float32
        The true share of the stroke's height; 0 = no spike.

    Returns
    -------
    dict of float
        By name; NaN where a batch has none.
    """
    told = output[:, 0] > 0
    return {"told": float(told[share > 0].float().mean()), "mistaken": float(told[share == 0].float().mean())}


def trace_figures(output: tuple[Tensor, Tensor], y_bin: Tensor) -> dict[str, float]:
    """SNR in dB of the line as the tracer reads it, its 10th percentile, and share of columns with wrong presence.

    Parameters
    ----------
    output : (B, bins, columns) and (B, columns) float32
        Logits of place and presence of the trace network.
    y_bin : (B, columns) float32
        The true centre line in bins, NaN = no trace.

    Returns
    -------
    dict of float
        By name.
    """
    p = posterior(functional.log_softmax(output[0], 1).cpu().numpy())
    y = torch.from_numpy((p @ np.arange(ROW_BINS, dtype=np.float32)).T)
    snr = []
    for estimate, true_y in zip(y, y_bin, strict=True):
        there = torch.isfinite(true_y)
        if there.sum() > 100:
            t, e = true_y[there], estimate[there]
            t, e = t - t.mean(), e - e.mean()
            snr.append(float(10 * torch.log10((t**2).sum() / ((t - e) ** 2).sum().clamp(1e-6))))
    there = torch.isfinite(y_bin)
    return {
        "snr_db": float(np.mean(snr)),
        "snr_db_p10": float(np.quantile(snr, 0.1)),
        "presence_error": float(((output[1] > 0) != there).float().mean()),
    }
