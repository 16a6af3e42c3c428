"""Two services never work on one folder."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.errors import StorageError
from gateway.spool.owner import owned


def test_a_second_service_is_refused_and_told_who_has_the_folder(
    tmp_path: Path, gateway_command: Callable[..., tuple[int, str, str]]
) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(f'[storage]\npath = "{tmp_path / "var"}"\n')
    with owned(tmp_path / "var"):
        status, _, error = gateway_command(config, "serve")
    assert status == 1
    assert "a gateway runs on it already" in error and f"process {os.getpid()} on" in error
    assert not (tmp_path / "var" / "gateway.db").exists()  # nothing was touched


def test_a_folder_is_free_again_when_its_service_has_ended(tmp_path: Path) -> None:
    for _ in range(2):
        with owned(tmp_path / "new"):
            pass


def test_a_folder_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"gateway\.lock"), owned(tmp_path / "file"):
        pass
