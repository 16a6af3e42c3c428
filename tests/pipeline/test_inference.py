"""The networks as they run give what the networks as they were trained give."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.fold import fold
from pipeline.inference import choose_device, load_network
from pipeline.unet import LABEL_WINDOW_PX, NETWORKS, ROW_BINS, normalise

_SIDES = {"page": (64, 96), "layout": (64, 96), "label": LABEL_WINDOW_PX, "trace": (2 * ROW_BINS, 64)}


def _trained(name: str) -> nn.Module:
    """A network with norms that did see something."""
    torch.manual_seed(0)
    network = NETWORKS[name]()
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
    network = load_network(name, torch.device("cpu"))
    pixels = _picture(name)
    together = network.run(pixels)
    alone = [network.run(pixels[k : k + 1]) for k in range(len(pixels))]
    for head, heads in zip(together, zip(*alone, strict=True), strict=True):
        assert torch.allclose(head, torch.cat(heads), atol=1e-2 * float(head.abs().max()))


def test_cuda_that_is_asked_for_and_absent_is_an_error_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="no CUDA device"):
        choose_device("cuda")
