"""Train one network for a given time: resumable, seeded, with an averaged copy that is what ships.

Losses: page and layout networks soft Dice + focal (the paper's), the bend network a likelihood, the trace network
cross-entropy of every column against a narrow Gaussian around the true centre line, and noise to signal.  Optimizer:
Muon for convolution weights, AdamW for the rest.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from pipeline.networks.unet import NETWORKS, ROW_BINS, normalise
from pipeline.rows.trace import posterior
from pipeline.training.dataset import CropStream, Sample

log = logging.getLogger(__name__)


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised by Newton-Schulz steps (Jordan 2024), for convolution kernels seen as matrices.

    torch's own Muon takes two-dimensional parameters only.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, decay: float = 0.001):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                momentum = state.setdefault("momentum", torch.zeros_like(p))
                momentum.lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(momentum, group["momentum"]).flatten(1)
                turned = update.shape[0] > update.shape[1]
                x = update.T if turned else update
                x = x / (x.norm() + 1e-7)
                for _ in range(5):
                    a = x @ x.T
                    x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
                x = x.T if turned else x
                p.mul_(1 - group["lr"] * group["decay"])
                p.add_(x.view_as(p), alpha=-group["lr"] * 0.2 * math.sqrt(max(x.shape)))


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
    """Dice + focal over background, grid, trace, text; `classes` (B, H, W, 3) uint8 shares."""
    shares = classes.permute(0, 3, 1, 2).float() / 255
    target = torch.cat([(1 - shares.sum(1, keepdim=True)).clamp(0), shares], 1)
    weight = torch.tensor([0.5, 1.0, 2.0, 2.0])
    return _dice(output.softmax(1), target) + 4 * _focal(output, target, weight.to(output.device))


def bend_loss(output: Tensor, shift_mm: Tensor) -> Tensor:
    """Negative log likelihood of a Laplace distribution; `shift_mm` (B, H, W, 2).

    It weighs every cell by what the network itself believes, so that cells without a grid teach doubt and nothing else.
    """
    error = (output[:, :2] - shift_mm.permute(0, 3, 1, 2)).abs()
    doubt = output[:, 2:].clamp(-6, 2)
    return (error * (-doubt).exp() + doubt).mean()


def layout_loss(output: Tensor, bands: Tensor) -> Tensor:
    """Dice + cross-entropy of row bands, boundaries and pulses; `bands` (B, H, W, 3) uint8."""
    target = bands.permute(0, 3, 1, 2).float() / 255
    return _dice(output.sigmoid(), target) + functional.binary_cross_entropy_with_logits(output, target)


def trace_loss(output: tuple[Tensor, Tensor], y_bin: Tensor, sigma: float = 0.8, steepest: float = 6.0) -> Tensor:
    """Cross-entropy of each column against a Gaussian around the centre line and of its presence, and noise to signal.

    Where the line is steep its ink fills the column over `slope` bins: the Gaussian is as wide.  Those columns are few
    and hold most of the signal's power, so they count for more.  The last term is what the weights are measured by: the
    log of the mean's squared error over the line's power, crop by crop; it sees the tips of QRS complexes.
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
    weight = there * (1 + slope)
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
    """Cross-entropy; `lead` (B,) 0..12."""
    return functional.cross_entropy(output[:, :, 0, 0], lead, label_smoothing=0.02)


LOSSES: dict[str, Callable[..., Tensor]] = {
    "page": page_loss,
    "bend": bend_loss,
    "layout": layout_loss,
    "label": label_loss,
    "trace": trace_loss,
}


def _score(network: str, output: Any, truth: Sample) -> dict[str, float]:
    """Figures a person can read, for one validation batch."""
    if network == "page":
        shares = truth[0].permute(0, 3, 1, 2).float() / 255
        p = output.softmax(1)[:, 1:]
        overlap = (p * shares).sum((0, 2, 3)) * 2 / ((p**2).sum((0, 2, 3)) + (shares**2).sum((0, 2, 3)) + 1)
        return dict(zip(("dice_grid", "dice_trace", "dice_text"), overlap.tolist(), strict=True))
    if network == "bend":
        true = truth[0].permute(0, 3, 1, 2)
        error = (output[:, :2] - true).abs()
        surest = output[:, 2:] < output[:, 2:].median()
        return {
            "error_mm": float(error.mean()),
            "surest_error_mm": float(error[surest].mean()),
            "expected_error_mm": float(output[:, 2:].exp()[surest].mean()),
            "unmoved_mm": float(true.abs()[surest].mean()),
        }
    if network == "layout":
        target = truth[0].permute(0, 3, 1, 2) > 127
        iou = ((output > 0) & target).sum((0, 2, 3)) / ((output > 0) | target).sum((0, 2, 3)).clamp(1)
        return dict(zip(("band_iou", "boundary_iou", "pulse_iou"), iou.tolist(), strict=True))
    if network == "label":
        found, true = output[:, :, 0, 0].argmax(1), truth[0]
        return {"accuracy": float((found == true).float().mean())}
    p = posterior(functional.log_softmax(output[0], 1).cpu().numpy())
    y = torch.from_numpy((p @ np.arange(ROW_BINS, dtype=np.float32)).T)
    snr = []
    for estimate, true_y in zip(y, truth[0], strict=True):
        there = torch.isfinite(true_y)
        if there.sum() > 100:
            t, e = true_y[there], estimate[there]
            t, e = t - t.mean(), e - e.mean()
            snr.append(float(10 * torch.log10((t**2).sum() / ((t - e) ** 2).sum().clamp(1e-6))))
    there = torch.isfinite(truth[0])
    return {
        "snr_db": float(np.mean(snr)),
        "snr_db_p10": float(np.quantile(snr, 0.1)),
        "presence_error": float(((output[1] > 0) != there).float().mean()),
    }


class Trainer:
    """One network, its averaged copy, its optimizers and its clock."""

    def __init__(self, network: str, out: Path, *, seed: int, lr: float, device: str) -> None:
        torch.manual_seed(seed)
        self.network, self.out, self.lr, self.device = network, out, lr, torch.device(device)
        self.model = NETWORKS[network]().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = NETWORKS[network]().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average.load_state_dict(self.model.state_dict())
        kernels = [p for p in self.model.parameters() if p.ndim == 4 and p.shape[0] > 2]
        rest = [p for p in self.model.parameters() if not (p.ndim == 4 and p.shape[0] > 2)]
        self.optimizers = [Muon(kernels, lr), torch.optim.AdamW(rest, lr, weight_decay=0.0)]
        self.step, self.elapsed_s = 0, 0.0
        self.history: list[dict[str, float]] = []
        out.mkdir(parents=True, exist_ok=True)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint."""
        state = torch.load(path, map_location=self.device, weights_only=False)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.elapsed_s, self.history = state["step"], state["elapsed_s"], state["history"]

    def start_from(self, weights: Path) -> None:
        """Start from shipped weights instead of chance."""
        state = load_file(weights)
        for model in (self.model, self.average):
            model.load_state_dict(state)

    def save(self) -> None:
        """Write the checkpoint beside the old one, then replace it."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "history": self.history,
        }
        torch.save(state, self.out / "checkpoint.tmp")
        (self.out / "checkpoint.tmp").replace(self.out / "checkpoint.pt")
        (self.out / "history.json").write_text(json.dumps(self.history, indent=1))

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def _forward(self, model: nn.Module, pixels: Tensor) -> Any:
        x = normalise(pixels.to(self.device)).contiguous(memory_format=torch.channels_last)
        with self._autocast():
            output = model(x)
        return tuple(o.float() for o in output) if isinstance(output, tuple) else output.float()

    def update(self, sample: Sample, progress: float) -> float:
        """Take one step; `progress` in [0, 1] sets the learning rate (warm-up, then cosine to a hundredth)."""
        lr = self.lr * min(1.0, (self.step + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
        loss = LOSSES[self.network](self._forward(self.model, sample[0]), *(t.to(self.device) for t in sample[1:]))
        self.model.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        keep = min(0.998, 1 - 1 / (self.step + 1))
        with torch.no_grad():
            for a, b in zip(self.average.state_dict().values(), self.model.state_dict().values(), strict=True):
                if a.dtype.is_floating_point:
                    a.lerp_(b, 1 - keep)
        return float(loss.detach())

    def validate(self, batches: list[Sample]) -> dict[str, float]:
        """Score the averaged copy."""
        self.average.eval()
        with torch.no_grad():
            scores = [_score(self.network, self._forward(self.average, b[0]), b[1:]) for b in batches]
        return {key: float(np.nanmean([s[key] for s in scores])) for key in scores[0]}


def train(
    network: str,
    signals: Path,
    out: Path,
    *,
    minutes: float,
    batch: int = 12,
    lr: float = 2e-3,
    seed: int = 0,
    workers: int = 1,
    device: str = "cpu",
    start: Path | None = None,
    validate_every_s: float = 300.0,
) -> None:
    """Train until `minutes` of training time are used up, continuing from ``out/checkpoint.pt`` if there is one.

    Parameters
    ----------
    network : {"page", "bend", "layout", "label", "trace"}
    signals : Path
        Folder of recordings.
    out : Path
        Receives checkpoint.pt and history.json every `validate_every_s` seconds.
    minutes : float
        Total training time of the run, earlier parts included; the learning rate follows it.
    start : Path, optional
        Folder of weights (safetensors) to start from where there is no checkpoint; None starts from chance.
    """
    trainer = Trainer(network, out, seed=seed, lr=lr, device=device)
    if (out / "checkpoint.pt").exists():
        trainer.load(out / "checkpoint.pt")
    elif start is not None:
        trainer.start_from(start / f"{network}.safetensors")
    held = iter(DataLoader(CropStream(network, signals, "validation", (seed, 7), mix=8), batch_size=8))
    validation = [next(held) for _ in range(8)]
    stream = CropStream(network, signals, "train", (seed, trainer.step))
    loader = DataLoader(
        stream,
        batch_size=batch,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        multiprocessing_context="spawn" if workers else None,  # a fork would inherit locked thread pools
    )
    started, last, base, losses = time.monotonic(), time.monotonic(), trainer.elapsed_s, []
    trainer.model.train()
    for sample in loader:
        trainer.elapsed_s = base + time.monotonic() - started
        progress = min(1.0, trainer.elapsed_s / (60 * minutes))
        losses.append(trainer.update(sample, progress))
        if time.monotonic() - last > validate_every_s or progress >= 1:
            last = time.monotonic()
            figures = trainer.validate(validation)
            entry = {"step": trainer.step, "minutes": trainer.elapsed_s / 60, "loss": float(np.mean(losses)), **figures}
            trainer.history.append(entry)
            trainer.save()
            losses.clear()
            log.info("%s %s", network, " ".join(f"{k}={v:.4g}" for k, v in entry.items()))
        if progress >= 1:
            break


def export(network: str, checkpoint: Path, target: Path) -> None:
    """Write the averaged weights as fp16 safetensors, with a record of hash and figures beside them."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=False)
    weights = {k: v.half() if v.dtype.is_floating_point else v for k, v in state["average"].items()}
    target.mkdir(parents=True, exist_ok=True)
    path = target / f"{network}.safetensors"
    save_file({k: v.contiguous() for k, v in weights.items()}, path)
    record = {
        "network": network,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "steps": state["step"],
        "training_minutes": round(state["elapsed_s"] / 60, 1),
        "validation": state["history"][-1],
    }
    (target / f"{network}.json").write_text(json.dumps(record, indent=1) + "\n")
