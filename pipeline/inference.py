"""Load a shipped network and run it: the only code that knows devices and number formats.

Weights are fp16 safetensors; the record beside each file states its sha256 and how it was trained.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor, nn

from pipeline.datatypes import ByteArray
from pipeline.errors import WeightsMismatch
from pipeline.fold import fold
from pipeline.unet import NETWORKS, normalise

WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Network:
    """A network ready to run, and the hash of its weights.

    Its numbers are bfloat16 where the device multiplies those in hardware (CUDA, AMX), float32 elsewhere.
    """

    name: str
    module: nn.Module
    sha256: str
    device: torch.device

    def run(self, pixels: ByteArray) -> tuple[Tensor, ...]:
        """Run on pictures (B, H, W, 3) uint8; sides are padded by repetition to what the network needs and cut back.

        Returns float32 tensors on the CPU, one per head, at the head's resolution for the padded picture.
        """
        multiple = self.module.multiple
        pad_h, pad_w = (-pixels.shape[1]) % multiple, (-pixels.shape[2]) % multiple
        padded = np.pad(pixels, ((0, 0), (0, pad_h), (0, pad_w), (0, 0)), mode="edge")
        with torch.inference_mode():
            x = normalise(torch.from_numpy(padded).to(self.device)).contiguous(memory_format=torch.channels_last)
            output = self.module(x)
        heads = output if isinstance(output, tuple) else (output,)
        return tuple(head.float().cpu() for head in heads)


def choose_device(device: str) -> torch.device:
    """Return the device for "auto", "cpu" or "cuda"; raise ValueError where CUDA is asked for and absent."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device = 'cuda', but no CUDA device is available; use 'auto' or 'cpu'")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def load_network(name: str, device: torch.device, folder: Path = WEIGHTS) -> Network:
    """Load a network with its shipped weights.

    Parameters
    ----------
    name : {"page", "layout", "label", "trace"}

    Raises
    ------
    WeightsMismatch
        A file is missing, its hash is not the recorded one, or it does not fit the network.
    """
    try:
        data = (folder / f"{name}.safetensors").read_bytes()
        record: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    except OSError as error:
        raise WeightsMismatch(f"weights of the {name} network cannot be read: {error}") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != record["sha256"]:
        raise WeightsMismatch(f"{name}.safetensors has sha256 {digest}, its record says {record['sha256']}")
    module = NETWORKS[name]()
    try:
        module.load_state_dict(load(data))
    except RuntimeError as error:
        raise WeightsMismatch(f"{name}.safetensors does not fit the network: {error}") from error
    half = device.type == "cuda" or torch.cpu._is_amx_tile_supported()
    folded = fold(module, torch.bfloat16 if half else torch.float32)
    folded = folded.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Network(name=name, module=folded, sha256=digest, device=device)
