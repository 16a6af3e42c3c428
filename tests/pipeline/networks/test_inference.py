"""The networks as they run give what the networks as they were trained give."""

import copy
import platform
import resource
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from pipeline.errors import DeviceError
from pipeline.networks.fold import fold
from pipeline.networks.inference import Network, choose_device, keep_memory, load_network, share_processor
from pipeline.networks.specification import LABEL, ROW_BINS, ROW_COLUMNS_PER_MM, SPECIFICATIONS, SPIKE, TRACE
from pipeline.networks.unet import normalise
from pipeline.threads import cores_of
from tests.waiting import PATIENCE_S, eventually

NETWORKS = {specification.name: specification for specification in SPECIFICATIONS}
_SIDES = {
    "page": (64, 96),
    "bend": (64, 128),
    "layout": (64, 96),
    "label": LABEL.crop_px,
    "trace": (2 * ROW_BINS, 64),
    "spike": SPIKE.crop_px,
}


def _trained(name: str) -> nn.Module:
    """A network with norms that did see something."""
    torch.manual_seed(0)
    network = NETWORKS[name].network()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    return network.eval()


def _picture(name: str) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, *_SIDES[name], 3), dtype=np.uint8)


def _heads(output: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return output if isinstance(output, tuple) else (output,)


@pytest.mark.parametrize("dtype,tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("name", NETWORKS)
def test_folded_network_computes_the_same(name: str, dtype: torch.dtype, tolerance: float) -> None:
    network = _trained(name)
    x = normalise(torch.from_numpy(_picture(name)))
    with torch.inference_mode():
        expected = _heads(network(x))
        got = _heads(fold(copy.deepcopy(network), dtype)(x))
    assert len(got) == len(expected)
    for mine, theirs in zip(got, expected, strict=True):
        assert mine.dtype == dtype and mine.shape == theirs.shape
        assert (mine.float() - theirs).abs().max() < tolerance * theirs.abs().max()


@pytest.mark.parametrize("name", NETWORKS)
def test_folded_network_has_no_norms_left(name: str) -> None:
    assert not [module for module in fold(_trained(name)).modules() if isinstance(module, nn.BatchNorm2d)]


@pytest.mark.parametrize("name", NETWORKS)
def test_pictures_of_a_batch_get_the_answers_they_get_alone(name: str) -> None:
    network = load_network(NETWORKS[name], torch.device("cpu"))
    pixels = _picture(name)
    together = network.run(pixels)
    alone = [network.run(pixels[k : k + 1]) for k in range(len(pixels))]
    for head, heads in zip(together, zip(*alone, strict=True), strict=True):
        assert torch.allclose(head, torch.cat(heads), atol=1e-2 * float(head.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pictures_are_normalised_bit_for_bit_as_in_training(dtype: torch.dtype) -> None:
    class Mirror(nn.Module):
        multiple = 1

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.dtype == dtype and x.is_contiguous(memory_format=torch.channels_last)
            return x

    network = Network(name="page", module=Mirror(), sha256="", device=torch.device("cpu"), dtype=dtype)
    pixels = np.arange(2 * 16 * 24 * 3, dtype=np.uint8).reshape(2, 16, 24, 3)
    (seen,) = network.run(pixels)
    assert seen.equal(normalise(torch.from_numpy(pixels)).to(dtype).float())


def test_cuda_that_is_asked_for_and_absent_is_an_error_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="no CUDA device"):
        choose_device("cuda")


class _Means(nn.Module):
    """Answers with each picture's mean; remembers how many it was given at once; fails on request."""

    multiple = 1

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []
        self.most = 99
        self.first = Event()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(x))
        if len(self.batches) == 1:
            self.first.wait(PATIENCE_S)
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        if (x < -1.99).all(dim=(1, 2, 3)).any():  # a black picture
            raise RuntimeError("broken")
        return x.mean((1, 2, 3), keepdim=True)


def _side_by_side(network: Network, pictures: list[np.ndarray]) -> list[float | Exception]:
    """Run every picture in a thread of its own; the first keeps the network busy until all others wait."""

    def run(pixels: np.ndarray) -> float | Exception:
        try:
            return float(network.run(pixels[None])[0])
        except (DeviceError, RuntimeError) as error:
            return error

    module = network.module
    assert isinstance(module, _Means)
    with ThreadPoolExecutor(len(pictures)) as pool:
        results = []
        for count, picture in enumerate(pictures):
            results.append(pool.submit(run, picture))
            eventually(lambda count=count: len(network._waiting) >= count)
        eventually(lambda: module.batches)
        module.first.set()
        return [result.result(PATIENCE_S) for result in results]


def _grey(value: int, side: int = 4) -> np.ndarray:
    return np.full((side, side, 3), value, np.uint8)


def _network(at_once: int) -> tuple[Network, _Means]:
    module = _Means()
    return Network(name="page", module=module, sha256="", device=torch.device("cpu"), at_once=at_once), module


def test_what_waits_goes_together_up_to_the_bound_and_by_size() -> None:
    network, module = _network(at_once=3)
    pictures = [_grey(100), _grey(110), _grey(120, side=8), _grey(130), _grey(140), _grey(150)]
    assert _side_by_side(network, pictures) == pytest.approx([-1.0, -0.9, -0.8, -0.7, -0.6, -0.5], abs=1e-5)
    assert sorted(module.batches) == [1, 1, 1, 3]  # the first alone, then 110, 130 and 140, then the two left over


def test_sizes_that_differ_by_padding_only_go_together() -> None:
    network, module = _network(at_once=3)
    module.multiple = 8
    assert _side_by_side(network, [_grey(100), _grey(110, side=7), _grey(120, side=8)]) == pytest.approx(
        [-1.0, -0.9, -0.8], abs=1e-5
    )
    assert module.batches == [1, 2]


def test_more_pictures_than_go_at_once_are_run_in_parts() -> None:
    network, module = _network(at_once=2)
    module.first.set()
    (means,) = network.run(np.stack([_grey(100 + k) for k in range(5)]))
    assert means.flatten().tolist() == pytest.approx([-1.0 + 0.01 * k for k in range(5)], abs=1e-5)
    assert module.batches == [2, 2, 1]


def test_one_broken_picture_does_not_break_those_beside_it() -> None:
    network, _ = _network(at_once=8)
    first, broken, last = _side_by_side(network, [_grey(100), _grey(0), _grey(110)])
    assert (first, last) == pytest.approx((-1.0, -0.9), abs=1e-5)
    assert isinstance(broken, RuntimeError)


def test_full_device_falls_back_to_one_picture_at_a_time() -> None:
    network, module = _network(at_once=8)
    module.most = 1
    assert _side_by_side(network, [_grey(100), _grey(110), _grey(120)]) == pytest.approx([-1.0, -0.9, -0.8], abs=1e-5)
    assert module.batches == [1, 2, 1, 1]


def test_device_too_small_for_one_picture_is_said_in_words() -> None:
    network, module = _network(at_once=1)
    module.first.set()
    module.most = 0
    with pytest.raises(DeviceError, match="memory does not hold the page network"):
        network.run(_grey(100)[None])


def test_machine_out_of_memory_is_a_memory_error() -> None:
    class Greedy(nn.Module):
        multiple = 1

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.empty(1 << 60, dtype=torch.uint8)

    network = Network(name="page", module=Greedy(), sha256="", device=torch.device("cpu"))
    with pytest.raises(MemoryError, match="page network"):
        network.run(_grey(100)[None])


def test_processes_share_the_cores() -> None:
    before, cores = torch.get_num_threads(), cores_of()
    try:
        assert share_processor(1) == torch.get_num_threads() == cores
        assert share_processor(cores) == torch.get_num_threads() == 1
        assert share_processor(4 * cores) == 1
        assert share_processor(0) == cores
    finally:
        torch.set_num_threads(before)
        cv2.setNumThreads(-1)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library decides by itself")
def test_memory_is_kept_for_the_next_picture() -> None:
    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        np.ones(50_000_000, np.uint8)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    keep_memory()
    faults()
    assert faults() < 1000  # of 12,000 pages


def test_specifications_name_the_geometry_of_the_answers() -> None:
    for name, specification in NETWORKS.items():
        height, width = specification.crop_px
        pixels = torch.zeros((1, height, width, 3), dtype=torch.uint8)
        with torch.inference_mode():
            answer = _heads(specification.network().eval()(normalise(pixels)))[0]
        if name == "trace":
            assert answer.shape[1:] == (ROW_BINS, width / specification.px_per_mm_x * ROW_COLUMNS_PER_MM)
        elif name == "label":
            assert answer.shape[2:] == (1, 1)
        elif name == "spike":
            assert answer.shape[1:] == (2,)
        else:
            assert answer.shape[2:] == (height // specification.stride_px, width // specification.stride_px)
    assert (ROW_BINS, TRACE.height_mm, TRACE.cell_mm, ROW_COLUMNS_PER_MM) == (240, 60.0, 0.25, 20.0)
    with pytest.raises(ValueError, match=r"trace: 10\.0 px/mm across, 8\.0 px/mm down"):
        _ = TRACE.px_per_mm
