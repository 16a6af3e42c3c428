"""Load a shipped network and run it: the only code that knows devices and number formats.

Weights are fp16 safetensors; the record beside each file states its sha256 and how it was trained.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import cv2
import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor, nn

from pipeline.datatypes import ByteArray
from pipeline.errors import DeviceError, WeightsMismatch
from pipeline.networks.fold import fold
from pipeline.networks.specification import Specification
from pipeline.networks.unet import normalise
from pipeline.threads import cores_of

WEIGHTS = Path(__file__).parent / "weights"
_AT_ONCE_CUDA = 8


@dataclass(eq=False, slots=True)
class _Request:
    """Pictures of one size that wait for a network, and then its answer or why there is none."""

    pixels: ByteArray  # (b, H, W, 3)
    heads: tuple[Tensor, ...] = ()
    error: Exception | None = None


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Network:
    """A network ready to run, and the hash of its weights.

    Its numbers are bfloat16 where the device multiplies those in hardware (CUDA, AVX-512 BF16 and AMX), float32
    elsewhere.  Any number of threads may run it: pictures of one padded size that wait when the device comes free go as
    one batch.
    """

    name: str
    module: nn.Module
    sha256: str
    device: torch.device
    dtype: torch.dtype = torch.float32  # of its weights
    at_once: int = 1  # pictures a batch
    _waiting: list[_Request] = field(default_factory=list, init=False, repr=False)
    _entry: Lock = field(default_factory=Lock, init=False, repr=False)
    _device_free: Lock = field(default_factory=Lock, init=False, repr=False)

    def run(self, pixels: ByteArray) -> tuple[Tensor, ...]:
        """Run on pictures (B, H, W, 3) uint8; sides are padded by repetition to what the network needs.

        Returns float32 tensors on the CPU, one per head, at the head's resolution for the padded picture.

        Raises
        ------
        DeviceError
            A single picture is too much for the device's memory.
        MemoryError
            It is too much for the machine's.
        """
        multiple = self.module.multiple
        pad_h, pad_w = (-pixels.shape[1]) % multiple, (-pixels.shape[2]) % multiple
        padded = np.pad(pixels, ((0, 0), (0, pad_h), (0, pad_w), (0, 0)), mode="edge")
        parts = []
        for k in range(0, len(padded), self.at_once):
            request = _Request(padded[k : k + self.at_once])
            with self._entry:
                self._waiting.append(request)
            with self._device_free:
                if not request.heads and request.error is None:  # else another thread took it along
                    self._serve(request)
            if request.error is not None:
                raise request.error
            parts.append(request.heads)
        return parts[0] if len(parts) == 1 else tuple(torch.cat(part) for part in zip(*parts, strict=True))

    def _serve(self, first: _Request) -> None:
        """Answer a request, and with it what waits beside it."""
        with self._entry:
            batch, room = [first], self.at_once - len(first.pixels)
            for other in self._waiting:
                fits = other.pixels.shape[1:] == first.pixels.shape[1:] and len(other.pixels) <= room
                if other is not first and fits:
                    batch.append(other)
                    room -= len(other.pixels)
            self._waiting[:] = [other for other in self._waiting if other not in batch]
        try:
            heads = self._forward(np.concatenate([request.pixels for request in batch]))
        except (DeviceError, MemoryError, RuntimeError) as error:
            if len(batch) == 1:
                first.error = error
                return
            error.__traceback__ = None  # its frames hold the memory that the next tries need
        else:
            ends = np.cumsum([len(request.pixels) for request in batch])
            for request, end in zip(batch, ends, strict=True):
                request.heads = tuple(head[end - len(request.pixels) : end] for head in heads)
            return
        for request in batch:  # one request's fault, or too many for the memory, must not be the others' end
            try:
                request.heads = self._forward(request.pixels)
            except (DeviceError, MemoryError, RuntimeError) as error:
                request.error = error

    def _forward(self, pixels: ByteArray) -> tuple[Tensor, ...]:
        with _out_of_memory(self.name), torch.inference_mode():
            output = self.module(self._normalised(pixels))
            heads = output if isinstance(output, tuple) else (output,)
            return tuple(head.float().cpu() for head in heads)

    def _normalised(self, pixels: ByteArray) -> Tensor:
        """Return `normalise` of pictures in the network's own format; a processor looks the values up in a table."""
        if self.device.type != "cpu":
            return normalise(torch.from_numpy(pixels).to(self.device)).contiguous(memory_format=torch.channels_last)
        table = normalise(torch.arange(256, dtype=torch.uint8).view(1, 256, 1, 1)).to(self.dtype).flatten()
        same_bits = torch.int16 if self.dtype == torch.bfloat16 else torch.int32  # OpenCV knows no bfloat16
        rows = pixels.reshape(len(pixels) * pixels.shape[1], -1)
        looked_up = cv2.LUT(rows, table.view(same_bits).numpy()).reshape(pixels.shape)
        return torch.from_numpy(looked_up).view(self.dtype).permute(0, 3, 1, 2)


@contextmanager
def _out_of_memory(name: str) -> Iterator[None]:
    """Say plainly which memory is full: torch has a RuntimeError for both."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = f"the device's memory does not hold the {name} network's work on this page"
        raise DeviceError(reason) from error.with_traceback(None)
    except RuntimeError as error:
        if "can't allocate memory" in str(error):
            raise MemoryError(f"no memory for the {name} network's work on this page") from error
        raise


def choose_device(device: str) -> torch.device:
    """Return the device for "auto", "cpu" or "cuda".

    Raises
    ------
    ValueError
        CUDA is wanted and absent.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device = 'cuda', but no CUDA device is available; use 'auto' or 'cpu'")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def share_processor(processes: int) -> int:
    """Give this process its part of the processor's cores, where `processes` like it run; returns the part."""
    threads = max(1, cores_of() // max(processes, 1))
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    return threads


def keep_memory(*, most: int = 1 << 30) -> None:
    """Let this process keep memory that it frees, up to `most` bytes, for its next page.

    The C library of Linux (glibc) returns large blocks to the kernel at once, and the kernel clears them again for the
    next layer: a tenth of a page's time.  All threads share one heap, or each would keep memory of its own.  Other
    libraries are left alone.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        for option, value in ((-3, most), (-1, most), (-8, 1)):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_ARENA_MAX
            set_option(option, value)


def load_network(specification: Specification, device: torch.device, folder: Path = WEIGHTS) -> Network:
    """Load a network with its shipped weights.

    Parameters
    ----------
    specification : Specification
        Says which network.
    device : torch.device
        Where it will run.
    folder : Path
        Holds the weights NAME.safetensors and their record NAME.json.

    Raises
    ------
    WeightsMismatch
        A file is missing, its hash is not the recorded one, or it does not fit the network.
    """
    name = specification.name
    try:
        data = (folder / f"{name}.safetensors").read_bytes()
        record: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    except OSError as error:
        raise WeightsMismatch(f"weights of the {name} network cannot be read: {error}") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != record["sha256"]:
        raise WeightsMismatch(f"{name}.safetensors has sha256 {digest}, its record says {record['sha256']}")
    module = specification.network()
    try:
        module.load_state_dict(load(data))
    except RuntimeError as error:
        raise WeightsMismatch(f"{name}.safetensors does not fit the network: {error}") from error
    half = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
    dtype = torch.bfloat16 if half else torch.float32
    folded = fold(module, dtype)
    folded = folded.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Network(
        name=name,
        module=folded,
        sha256=digest,
        device=device,
        dtype=dtype,
        at_once=max(specification.at_once, _AT_ONCE_CUDA if device.type == "cuda" else 1),
    )
