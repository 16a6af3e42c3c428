"""The package as others install it: a wheel built from exactly what the Dockerfile copies, used far from a checkout.

Nothing is downloaded: the build runs without isolation, and the dependencies are those of this environment.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import gateway
import pipeline
from gateway.settings import Settings, load_settings
from tests.fake_digitizer import page_png
from tests.waiting import PATIENCE_S

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = ROOT / "docker" / "Dockerfile"
IGNORE = shutil.ignore_patterns("__pycache__", "*.egg-info")


def copied_by(dockerfile: str) -> list[str]:
    """The paths that a Dockerfile copies from the checkout."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", dockerfile, re.MULTILINE)
    return [path for line in lines for path in line.split()[:-1]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built in a folder that holds what the Dockerfile copies and nothing else."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for path in copied_by(DOCKERFILE.read_text(encoding="utf-8")):
        if (ROOT / path).is_dir():
            shutil.copytree(ROOT / path, source / path, ignore=IGNORE)
        else:
            shutil.copy(ROOT / path, source / path)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*command, "--wheel-dir", str(built), str(source)], capture_output=True, text=True, timeout=4 * PATIENCE_S
    )
    assert done.returncode == 0, done.stderr
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel; its dependencies are borrowed from the environment of the tests."""
    venv = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True, timeout=PATIENCE_S)
    pip = [sys.executable, "-m", "pip", "--python", str(venv / "bin" / "python"), "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", "--no-compile", str(wheel)], check=True, timeout=2 * PATIENCE_S)
    packages = next((venv / "lib").glob("python*/site-packages"))
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return venv / "bin"


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty working directory."""
    return tmp_path_factory.mktemp("elsewhere")


def run(*command: str | Path, cwd: Path, status: int = 0) -> str:
    """Standard output of a command that must end with `status`."""
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=4 * PATIENCE_S
    )
    assert done.returncode == status, done.stderr
    return done.stdout


def test_wheel_holds_every_file_of_both_packages_and_the_configuration(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        str(path.relative_to(ROOT))
        for package in ("gateway", "pipeline")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert sorted(expected - names) == []
    assert {"pipeline/layout/layouts.toml", "gateway/settings/gateway.example.toml"} <= names


def test_installed_commands_run_from_the_wheel(installed: Path, elsewhere: Path) -> None:
    where = run(installed / "python", "-c", "import gateway; print(gateway.__file__)", cwd=elsewhere)
    assert Path(where.strip()).is_relative_to(installed.parent)
    assert run(installed / "ecg-gateway", "--version", cwd=elsewhere) == f"ecg-gateway {gateway.__version__}\n"
    assert run(installed / "ecg-digitize", "--version", cwd=elsewhere) == f"ecg-digitize {pipeline.__version__}\n"
    assert run(installed / "ecg-digitize", "layouts", cwd=elsewhere).splitlines()[0] == "3x4+1R"


def test_installed_gateway_finds_its_example_and_its_migrations(installed: Path, elsewhere: Path) -> None:
    config, page = elsewhere / "gateway.toml", elsewhere / "page.png"
    config.write_text(run(installed / "ecg-gateway", "example-config", cwd=elsewhere), encoding="utf-8")
    assert load_settings(config) == Settings()
    assert "port = 11112" in run(installed / "ecg-gateway", "config", "show", "--config", config, cwd=elsewhere)
    page.write_bytes(page_png())
    run(installed / "ecg-gateway", "submit", page, "--patient-id", "P1", cwd=elsewhere)
    (job,) = json.loads(run(installed / "ecg-gateway", "jobs", "--json", cwd=elsewhere))
    assert job["status"] == "QUEUED"


def test_version_stands_once() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{gateway.__version__}"' in project
    assert gateway.__version__ == pipeline.__version__
