"""Train one network for a given time: resumable, seeded, with an averaged copy that is what ships.

Optimizer: Muon for convolution weights, AdamW for the rest.
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
from torch.utils.data import DataLoader

from pipeline.networks.unet import normalise
from pipeline.training.dataset import CropStream
from pipeline.training.tasks import Sample, Task

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


class Trainer:
    """One network, its averaged copy, its optimizers and its clock."""

    def __init__(self, task: Task, out: Path, *, seed: int, lr: float, device: str) -> None:
        torch.manual_seed(seed)
        self.task, self.out, self.lr, self.device = task, out, lr, torch.device(device)
        self.model = task.specification.network().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = task.specification.network().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
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
        """Take one step.

        Parameters
        ----------
        sample : tuple of Tensor
            Pixels, then the truth as the loss takes it.
        progress : float
            In [0, 1]; it sets the learning rate (warm-up, then cosine to a hundredth).

        Returns
        -------
        float
            The loss before the step.
        """
        lr = self.lr * min(1.0, (self.step + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
        loss = self.task.loss(self._forward(self.model, sample[0]), *(t.to(self.device) for t in sample[1:]))
        self.model.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        keep = min(0.998, self.step / (self.step + 9))  # the last tenth of a short run
        with torch.no_grad():
            for a, b in zip(self.average.state_dict().values(), self.model.state_dict().values(), strict=True):
                if a.dtype.is_floating_point:
                    a.lerp_(b, 1 - keep)
        return float(loss.detach())

    def validate(self, batches: list[Sample]) -> dict[str, float]:
        """Score the averaged copy."""
        self.average.eval()
        with torch.no_grad():
            scores = [self.task.figures(self._forward(self.average, b[0]), *b[1:]) for b in batches]
        return {key: float(np.nanmean([s[key] for s in scores])) for key in scores[0]}


def train(
    task: Task,
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
    task : Task
        Says which network, and what it learns from.
    signals : Path
        Folder of recordings.
    out : Path
        Receives checkpoint.pt and history.json every `validate_every_s` seconds.
    minutes : float
        Total training time of the run, earlier parts included; the learning rate follows it.
    start : Path, optional
        Folder of weights (safetensors) to start from where there is no checkpoint; None starts from chance.
    """
    trainer = Trainer(task, out, seed=seed, lr=lr, device=device)
    if (out / "checkpoint.pt").exists():
        trainer.load(out / "checkpoint.pt")
    elif start is not None:
        trainer.start_from(start / f"{task.specification.name}.safetensors")
    held = iter(DataLoader(CropStream(task, signals, "validation", (seed, 7), mix=8), batch_size=8))
    validation = [next(held) for _ in range(8)]
    stream = CropStream(task, signals, "train", (seed, trainer.step))
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
            log.info("%s %s", task.specification.name, " ".join(f"{k}={v:.4g}" for k, v in entry.items()))
        if progress >= 1:
            break


def export(network: str, checkpoint: Path, target: Path) -> None:
    """Write the averaged weights as fp16 safetensors, with a record of hash and figures beside them.

    Parameters
    ----------
    network : str
        Name of the specification.
    checkpoint : Path
        The checkpoint.pt of a run.
    target : Path
        Folder that receives both files.
    """
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
