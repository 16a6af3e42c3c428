"""Networks, losses, optimizer, checkpoints and shipped weights."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipeline.errors import WeightsMismatch
from pipeline.networks.inference import WEIGHTS, load_network
from pipeline.networks.specification import PAGE, ROW_BINS, SPECIFICATIONS
from pipeline.training.dataset import CropStream
from pipeline.training.losses import trace_loss
from pipeline.training.progress import plot_progress
from pipeline.training.recordings.records import load_records
from pipeline.training.recordings.simulate import simulate_ecg
from pipeline.training.tasks import TASKS
from pipeline.training.train import Muon, Trainer, export


@pytest.fixture(scope="module")
def signals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of recordings in the archive format, simulated."""
    folder = tmp_path_factory.mktemp("signals")
    rng = np.random.default_rng(0)
    arrays = {f"x{k:04d}": np.rint(simulate_ecg(rng) * 1000).astype(np.int16) for k in range(24)}
    meta = [{"record": str(k), "patient": f"p{k // 2}", "fs": 500} for k in range(24)]
    np.savez(folder / "simulated.npz", meta=json.dumps(meta), **arrays)
    return folder


def test_records_are_split_by_patient(signals: Path) -> None:
    train, validation = load_records(signals, "train", 0.4), load_records(signals, "validation", 0.4)
    assert len(train) + len(validation) == 24
    assert len(train) % 2 == 0 and len(validation) % 2 == 0 and validation


def test_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no train recordings"):
        load_records(tmp_path, "train")


@pytest.mark.parametrize("name", TASKS)
def test_one_step_and_a_checkpoint(name: str, signals: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    trainer = Trainer(TASKS[name], tmp_path, seed=0, lr=1e-3, device="cpu")
    stream = iter(CropStream(TASKS[name], signals, "train", (0,), mix=0))
    sample = tuple(torch.stack(tensors) for tensors in zip(next(stream), next(stream), strict=True))
    trainer.model.train()
    losses = [trainer.update(sample, 0.0) for _ in range(2)]
    assert np.isfinite(losses).all()
    trainer.history.append({"loss": losses[-1]})
    trainer.save()
    again = Trainer(TASKS[name], tmp_path, seed=1, lr=1e-3, device="cpu")
    again.load(tmp_path / "checkpoint.pt")
    assert again.step == 2
    for a, b in zip(trainer.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)
    export(name, tmp_path / "checkpoint.pt", tmp_path / "weights")
    network = load_network(TASKS[name].specification, torch.device("cpu"), tmp_path / "weights")
    assert network.sha256 == json.loads((tmp_path / "weights" / f"{name}.json").read_text())["sha256"]


def test_muon_descends() -> None:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(8, 4, 3, 3))
    target = torch.randn(8, 4, 3, 3)
    optimizer = Muon([weight], lr=0.05)
    errors = []
    for _ in range(60):
        loss = ((weight - target) ** 2).mean()
        errors.append(float(loss.detach()))
        weight.grad = None
        loss.backward()
        optimizer.step()
    assert errors[-1] < 0.5 * errors[0]


def test_trace_loss_is_least_at_the_truth() -> None:
    y = torch.full((1, 6), 100.4)
    y[0, 3] = float("nan")
    bins = torch.arange(ROW_BINS)[None, :, None].float()

    def loss_at(centre: float) -> float:
        logits = -((bins - centre) ** 2) / (2 * 0.8**2)
        return float(trace_loss((logits.expand(1, ROW_BINS, 6), torch.where(torch.isfinite(y), 9.0, -9.0)), y))

    assert loss_at(100.4) < loss_at(100.9) and loss_at(100.4) < loss_at(99.9)


def test_training_starts_from_shipped_weights(tmp_path: Path) -> None:
    trainer = Trainer(TASKS["label"], tmp_path, seed=0, lr=1e-3, device="cpu")
    trainer.start_from(WEIGHTS / "label.safetensors")
    shipped = load_file(WEIGHTS / "label.safetensors")
    for model in (trainer.model, trainer.average):
        assert all(torch.equal(value.float(), shipped[key].float()) for key, value in model.state_dict().items())


def test_progress_is_drawn(tmp_path: Path) -> None:
    history = [{"step": k, "minutes": 5.0 * k, "loss": 1.0 / k, "accuracy": 0.1 * k} for k in (1.0, 2.0)]
    plot_progress({"label": history}, tmp_path / "progress.png")
    picture = cv2.imread(str(tmp_path / "progress.png"))
    assert picture is not None and picture.std() > 5
    with pytest.raises(ValueError, match="label has no entry"):
        plot_progress({"label": []}, tmp_path / "empty.png")


def test_every_network_has_a_task_and_all_tasks_share_the_time() -> None:
    assert [task.specification for task in TASKS.values()] == list(SPECIFICATIONS)
    assert sum(task.share for task in TASKS.values()) == pytest.approx(1.0)


def test_shipped_weights_are_the_recorded_ones() -> None:
    for specification in SPECIFICATIONS:
        load_network(specification, torch.device("cpu"))
        assert (WEIGHTS / f"{specification.name}.safetensors").stat().st_size < 15 * 2**20


def test_altered_weights_are_refused(tmp_path: Path) -> None:
    for suffix in (".safetensors", ".json"):
        (tmp_path / f"page{suffix}").write_bytes((WEIGHTS / f"page{suffix}").read_bytes())
    data = bytearray((tmp_path / "page.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "page.safetensors").write_bytes(bytes(data))
    with pytest.raises(WeightsMismatch, match="sha256"):
        load_network(PAGE, torch.device("cpu"), tmp_path)
