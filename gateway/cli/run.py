"""`serve`, `worker` and `demo`: commands that run until they are stopped, or until all is shown."""

from __future__ import annotations

import os
import socket
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.arguments import Config, open_spool, open_store
from gateway.logs import configure_logging
from gateway.service import Service
from gateway.settings import load_settings
from gateway.spool.owner import owned


def serve(
    config: Config = None,
    new: Annotated[
        bool, typer.Option("--new", help="Start even if the spool holds files that the database does not know.")
    ] = False,
) -> None:
    """Run the gateway: receive, digitize and deliver until SIGINT or SIGTERM."""
    settings = load_settings(config)
    configure_logging(settings.log)
    command = [sys.executable, "-m", "gateway", "worker"]
    with owned(settings.storage.path, settings.storage.node):
        status = Service(settings, worker_command=command, config=config, new=new).run()
    sys.exit(status)


def worker(
    config: Config = None,
    name: Annotated[str, typer.Option(help="The holder of its leases; unique among all workers.")] = "",
    parent: Annotated[int | None, typer.Option(hidden=True)] = None,
    settings_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run one worker: digitize queued jobs until SIGINT or SIGTERM. `serve` starts its own workers."""
    from gateway.worker.process import CurrentSettings, run_worker  # loads torch, which only this command needs

    if settings_fd is not None:  # those that `serve` works by, whatever is in its file now
        config = Path(f"/proc/self/fd/{settings_fd}")
    settings = load_settings(config)
    configure_logging(settings.log)
    store, spool = open_store(settings, create=True), open_spool(settings)
    name = name or f"worker-{socket.gethostname()}-{os.getpid()}"
    current = CurrentSettings(settings, partial(load_settings, config))
    run_worker(current, store, spool, name=name, parent_pid=parent)


def demo() -> None:
    """Show the whole way on simulated pages: received by DICOM and folder, sent to a PACS and an HL7 listener."""
    from gateway.demo.run import run_demo  # loads peers and drawing, which only this command needs

    sys.exit(run_demo())
