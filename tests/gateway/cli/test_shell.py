"""The commands as a shell sees them: help, version, completion, exit status, signals and pipes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway import __version__
from gateway.cli.commands import app
from gateway.store.tables import Job
from tests.waiting import PATIENCE_S

ROOT = Path(__file__).resolve().parents[3]
GATEWAY = (sys.executable, "-m", "gateway")


def gateway(*arguments: str | Path, **environment: str) -> Result:
    """The command line in this process."""
    return CliRunner().invoke(app, list(map(str, arguments)), env=environment, prog_name="ecg-gateway")


def complete_bash(*words: str | Path) -> list[str]:
    """What bash is offered for the last of these words."""
    line = "\n".join(["ecg-gateway", *map(str, words)])
    done = gateway(_ECG_GATEWAY_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words)))
    assert (done.exit_code, done.stderr) == (0, "")
    return done.stdout.split()


def test_version() -> None:
    assert gateway("--version").stdout == f"ecg-gateway {__version__}\n"


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_names_commands_and_exit_status(option: str) -> None:
    shown = gateway(option, COLUMNS="120")
    assert shown.exit_code == 0 and "Usage: ecg-gateway" in shown.stdout
    assert "Exit status: 0 done; 1 something failed" in shown.stdout
    assert "Usage: ecg-gateway jobs" in gateway("jobs", option).stdout


def test_a_wrong_command_line_is_status_two_on_standard_error() -> None:
    for arguments in (("jobs", "--colour"), ("jubs",), ("jobs", "--status", "gone"), ("show",)):
        done = gateway(*arguments)
        assert (done.exit_code, done.stdout) == (2, "") and "Usage: ecg-gateway" in done.stderr


def test_bash_completes_commands_states_jobs_and_destinations(config: Path, reviewed: Job) -> None:
    assert complete_bash("ch") == ["check-config"]
    assert "--status" in complete_bash("jobs", "--s")
    assert complete_bash("jobs", "--status", "need") == ["NEEDS_REVIEW"]
    assert complete_bash("show", "--config", config, reviewed.id[:2]) == [reviewed.id]
    assert complete_bash("echo", "--config", config, "p") == ["pacs"]
    assert complete_bash("resend", "--config", config, "--destination", "") == ["pacs", "drop"]


def test_completion_elsewhere_is_empty_and_creates_nothing(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(f"[storage]\npath = '{tmp_path}/var'\n[dicom]\nprot = 1\n", encoding="utf-8")
    assert complete_bash("show", "--config", wrong, "a") == []
    wrong.write_text(f"[storage]\npath = '{tmp_path}/var'\n", encoding="utf-8")
    assert complete_bash("show", "--config", wrong, "a") == []
    assert not (tmp_path / "var").exists()


def test_zsh_and_fish_complete_too() -> None:
    zsh = gateway(_ECG_GATEWAY_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS="ecg-gateway check")
    assert '"check-config"' in zsh.stdout and zsh.stdout.startswith("_arguments")
    fish = gateway(
        _ECG_GATEWAY_COMPLETE="complete_fish",
        _TYPER_COMPLETE_ARGS="ecg-gateway check",
        _TYPER_COMPLETE_FISH_ACTION="get-args",
    )
    assert fish.stdout.startswith("check-config\t")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_for_the_console_script(shell: str) -> None:
    script = gateway(_ECG_GATEWAY_COMPLETE=f"source_{shell}").stdout
    assert "_ECG_GATEWAY_COMPLETE=complete_" in script and "ecg-gateway" in script and "python" not in script


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_itself_completes(tmp_path: Path) -> None:
    """The script that is installed, run by bash as a Tab runs it."""
    command = tmp_path / "ecg-gateway"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gateway "$@"\n', encoding="utf-8")
    command.chmod(0o700)
    script = gateway(_ECG_GATEWAY_COMPLETE="source_bash").stdout
    tab = 'COMP_WORDS=(ecg-gateway check); COMP_CWORD=1; _ecg_gateway_completion ecg-gateway; echo "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "--norc", "-c", f"{script}\n{tab}"],
        cwd=ROOT,
        env=os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.stdout.split() == ["check-config"], done.stderr


@pytest.mark.parametrize("arguments", [("example-config",), ("jobs", "--json"), ("jobs",), ("show", "JOB")])
def test_a_reader_that_stops_ends_it_without_a_traceback(
    config: Path, reviewed: Job, arguments: tuple[str, ...]
) -> None:
    arguments = tuple(reviewed.id if each == "JOB" else each for each in arguments)
    settings = () if arguments[0] == "example-config" else ("--config", str(config))
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        done = subprocess.run(
            [*GATEWAY, *arguments, *settings], cwd=ROOT, stdout=closed, stderr=subprocess.PIPE, timeout=PATIENCE_S
        )
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize(
    ("program", "commands"),
    [("gateway.cli", "gateway.cli.commands"), ("pipeline.__main__", "pipeline.command_line")],
)
def test_ctrl_c_ends_it_without_a_traceback_even_while_it_loads(program: str, commands: str) -> None:
    code = f"""
import importlib, sys
class Interrupted:
    def find_spec(self, name, path=None, target=None):
        if name == {commands!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupted())
importlib.import_module({program!r}).main()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_completion_installs_itself_for_the_shell_it_is_typed_in(tmp_path: Path) -> None:
    command = f'"{sys.executable}" -m gateway --install-completion; true'
    done = subprocess.run(
        ["bash", "--norc", "-c", command],
        cwd=ROOT,
        env=os.environ | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.stderr == "" and "bash completion installed" in done.stdout
    script = (tmp_path / ".bash_completions" / "ecg-gateway.sh").read_text(encoding="utf-8")
    assert script.rstrip().endswith("ecg-gateway") and str(tmp_path) in (tmp_path / ".bashrc").read_text("utf-8")


def test_units_and_images_start_commands_that_exist() -> None:
    units = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "systemd").iterdir())]
    started = re.findall(r"^ExecStart=.*(?:-m gateway|/ecg-gateway) (\S+)", "\n".join(units), re.MULTILINE)
    compose = (ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8")
    started += re.findall(r'^ +command: \["([^"]+)"', compose, re.MULTILINE)
    started += re.findall(
        r'^CMD \["([^"]+)"', (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert started == ["serve", "worker", "serve", "worker", "serve"]
    for command in started:
        assert gateway(command, "--help").exit_code == 0
