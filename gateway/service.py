"""The daemon: everything is built here, from settings alone, started in order and stopped in the reverse order.

    web page -> outbox -> identity look-up -> storage commitment -> workers -> DICOM, MLLP listeners -> watched folders

Nothing is received before it can be processed.  A stop begins with the intake: no new jobs, then running jobs finish or
return to the queue, then the outbox ends its current send.  If a thread dies, the process ends, and systemd or a person
starts a complete one: the gateway never continues with a part missing.
"""

from __future__ import annotations

import ctypes
import logging
import os
import random
import resource
import signal
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import timedelta

from gateway.delivery.committer import Committer
from gateway.delivery.kinds import kind_of
from gateway.delivery.outbox import Outbox
from gateway.dicom.network.scp import StorageScp
from gateway.domain.clock import utc_now
from gateway.errors import StorageError
from gateway.hl7.inbound.receiver import Receiver
from gateway.hl7.transport.mllp import MllpLimits, MllpListener
from gateway.identity.lookup import Lookup
from gateway.identity.orders import Records
from gateway.intake.accept import Intake
from gateway.intake.folder import FolderWatcher
from gateway.intake.recover import check_origin
from gateway.operations.retention import Retention
from gateway.security.certificates import certificates
from gateway.security.connections import ConnectionLimit
from gateway.security.tls import ListenerTls
from gateway.settings import Settings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.web.app import create_app
from gateway.web.pages.health import silence_s
from gateway.web.server import WebServer
from gateway.worker.supervisor import WorkerPool

logger = logging.getLogger(__name__)

_TICK_S = 0.5
_RESCUE_S = 5.0
_SWEEP_S = 3600.0
_CERTIFICATES_S = 86400.0
_LARGE_BLOCK_BYTES = 1 << 18
_OWN_FILES = 256  # database, spool, outgoing connections, workers
_FEWEST_WEB_CONNECTIONS = 8
_WORKER_GRACE_S = 30.0  # a page takes seconds; one that takes longer starts again after the restart


class Service:
    """One gateway.

    Parameters
    ----------
    worker_command
        How to start a worker process (see `WorkerPool`).
    new
        Start even if the spool holds files of jobs that the database does not know.

    Raises
    ------
    StorageError
        Database or spool cannot be opened.
    SettingsError
        Certificates cannot be used.
    """

    def __init__(self, settings: Settings, *, worker_command: Sequence[str], new: bool = False) -> None:
        self._settings = settings
        self._new = new
        root = settings.storage.path
        self._store = Store.open(settings.storage)
        self._spool = Spool(root / "spool", settings.storage.minimum_free_mib)
        self._intake = Intake(self._spool, self._store)
        self._retention = Retention(self._spool, self._store, settings.storage)
        self._records = Records(self._store)
        self._destinations = [kind_of(destination, settings) for destination in settings.destinations]
        committing = [kind.committing for kind in self._destinations if kind.committing is not None]
        self._committer = Committer(self._store, self._spool, settings.dicom, committing, random.Random())
        self._scp = StorageScp(settings.dicom, self._intake.accept, self._spool, self._committer)
        self._listener = self._make_listener() if settings.hl7.enabled else None
        self._watchers = [FolderWatcher(folder, self._intake) for folder in settings.folders]
        self._outbox = Outbox(self._store, self._spool, self._destinations, random.Random())
        peers = {f"folder:{folder.path}": folder.lookup for folder in settings.folders if folder.lookup}
        self._lookup = Lookup(self._store, peers, settings.dicom.ae_title)
        self._workers = WorkerPool(worker_command, self._store, settings.worker)
        self._web = self._make_web_server() if settings.web.enabled else None
        self._stopping = threading.Event()
        self._running = ExitStack()
        self._started_at = time.monotonic()
        self._next_rescue = self._next_sweep = self._next_certificates = 0.0

    def run(self) -> int:
        """Be the daemon until SIGINT, SIGTERM or a fault; return the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.ask_to_stop())
        return_large_blocks()
        self._raise_open_files()
        try:
            self.start()
        except (OSError, StorageError) as error:
            logger.critical("Cannot start: %s", error, extra={"action": "start"})
            self.stop()
            return 1
        notify("READY=1")
        try:
            return self.watch()
        finally:
            notify("STOPPING=1")
            self.stop()

    def start(self) -> None:
        """Start everything.

        Raises
        ------
        OSError
            An address is taken.
        StorageError
            A folder cannot be had, or the database is not the one of the spool.
        """
        if not self._new:
            check_origin(self._spool, self._store)
        if self._web:
            self._begin("web page", self._web)
        self._settle_destinations()
        for kind in self._destinations:
            self._running.callback(kind.close)
        self._begin("outbox", self._outbox)
        self._begin("identity look-up", self._lookup)
        self._begin("storage commitment", self._committer)
        self._workers.start()
        self._running.callback(self._workers.stop, _WORKER_GRACE_S)
        self._begin("C-STORE SCP", self._scp)
        if self._listener:
            self._begin("MLLP listener", self._listener)
        for watcher in self._watchers:
            self._begin("watched folder", watcher)
        logger.info(
            "Receiving as %s on port %d", self._settings.dicom.ae_title, self._scp.port, extra={"action": "start"}
        )

    def watch(self) -> int:
        """Look after everything until a stop is asked for (0) or a part has died (1)."""
        while not self._stopping.wait(_TICK_S):
            if dead := self.dead():
                logger.critical("Ending: %s does not run any more", ", ".join(dead), extra={"action": "dead"})
                return 1
            notify("WATCHDOG=1")
            try:
                self._upkeep(time.monotonic())
            except StorageError as error:  # the health page says so, and it may pass
                logger.error("Storage is not usable: %s", error, extra={"action": "storage"})
        return 0

    def ask_to_stop(self) -> None:
        """Make `watch` return."""
        self._stopping.set()

    def stop(self) -> None:
        """Stop what was started, in the reverse order."""
        logger.info("Stopping", extra={"action": "stop"})
        self._running.close()
        self._store.close()
        logger.info("Stopped", extra={"action": "stop"})

    def dead(self) -> list[str]:
        """Return the parts that ended although nobody stopped them; any one of them ends the process."""
        parts: dict[str, bool] = {
            "outbox": self._outbox.alive,
            "storage commitment": self._committer.alive,
            "C-STORE SCP": self._scp.is_alive,
        }
        parts["identity look-up"] = self._lookup.alive
        parts |= {f"folder {number}": watcher.alive for number, watcher in enumerate(self._watchers, start=1)}
        if self._listener:
            parts["MLLP listener"] = self._listener.alive
        if self._web:
            parts["web page"] = self._web.alive
        return [name for name, alive in parts.items() if not alive]

    def problems(self) -> list[str]:
        """Return, in words, what is wrong now: dead parts, missing folders, a disk that fills up, missing workers."""
        problems = [f"{name} does not run" for name in self.dead()]
        problems += [watcher.problem for watcher in self._watchers if watcher.problem]
        problems += [self._retention.problem] if self._retention.problem else []
        return problems + self._workers.problems() + self._unseen()

    def _unseen(self) -> list[str]:
        """Return, in words, that no worker was seen for too long: of those that others start, nothing else is known."""
        bound_s = silence_s(self._settings.worker)
        if time.monotonic() - self._started_at < bound_s:
            return []
        try:
            seen_at = self._store.workers.last_seen()
        except StorageError:  # the health says so itself
            return []
        if seen_at is not None and (utc_now() - seen_at).total_seconds() < bound_s:
            return []
        return [f"no worker was seen for {bound_s:.0f} s: is one running on this database?"]

    def _settle_destinations(self) -> None:
        """Follow what the settings say of destinations now: what waits for one that is gone is named."""
        committing = {kind.name for kind in self._destinations if kind.committing is not None}
        names = {kind.name for kind in self._destinations}
        for name in names - committing:
            if count := self._store.commitments.deliver_unasked(name):
                logger.info(
                    "%d deliveries to %s wait for no commitment any more", count, name, extra={"action": "start"}
                )
        for name, count in self._store.deliveries.waiting_for_others(names).items():
            logger.warning("%d deliveries wait for %s, which is no destination", count, name, extra={"action": "start"})

    def _begin(
        self, what: str, part: StorageScp | MllpListener | FolderWatcher | Outbox | Lookup | Committer | WebServer
    ) -> None:
        logger.debug("Starting the %s", what, extra={"action": "start"})
        part.start()
        self._running.callback(part.stop)

    def _upkeep(self, now: float) -> None:
        """Start dead workers again, extend the leases of live ones, take back expired ones, delete old files."""
        self._workers.check()
        if now >= self._next_certificates:
            self._next_certificates = now + _CERTIFICATES_S
            for certificate in certificates(self._settings, utc_now()):
                if certificate.problem:
                    logger.warning("Certificate: %s", certificate.problem, extra={"action": "certificate"})
        if now >= self._next_rescue:
            self._next_rescue = now + min(_RESCUE_S, self._settings.worker.lease_s)
            self._bound()
            self._workers.extend()
            for job_id in self._store.jobs.rescue(self._settings.worker.maximum_attempts):
                logger.warning("Taken from a silent worker", extra={"action": "rescue", "job_id": job_id})
            for job_id in self._records.match_waiting():
                logger.info("An order names the patient", extra={"action": "match", "job_id": job_id})
            self._retention.purge()
        if now >= self._next_sweep:
            self._next_sweep = now + _SWEEP_S
            self._retention.sweep()
            for watcher in self._watchers:
                watcher.prune(self._settings.storage.retention_days)
            self._store.patients.forget_messages(utc_now() - timedelta(days=self._settings.storage.retention_days))

    def _bound(self) -> None:
        """Pull in what a clock that stood ahead put off beyond all bounds."""
        for job_id in self._store.jobs.bound_leases(self._settings.worker.lease_s):
            logger.warning("The clock was set back: its lease ends sooner", extra={"action": "clock", "job_id": job_id})
        for kind in self._destinations:
            if count := self._store.deliveries.bound_pauses(kind.name, kind.longest_pause_s):
                logger.warning(
                    "The clock was set back: %d deliveries to %s are due", count, kind.name, extra={"action": "clock"}
                )

    def _raise_open_files(self) -> None:
        """Take as many file descriptors as the system grants, and say how many that is."""
        before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        logger.info("Open files: at most %d (before: %d)", most, before, extra={"action": "open_files"})

    def _make_web_server(self) -> WebServer:
        """Return the web server; where descriptors are few, those of DICOM, HL7 and our own files come first."""
        web, hl7 = self._settings.web, self._settings.hl7
        reserved = _OWN_FILES + self._scp.maximum_connections + (hl7.maximum_connections if hl7.enabled else 0)
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        connections = min(web.maximum_connections, max(most - reserved, _FEWEST_WEB_CONNECTIONS))
        if most < reserved + web.maximum_connections:
            logger.warning(
                "Only %d files may be open: %d are kept for DICOM, HL7 and the gateway's own, %d for the web page. "
                "Raise the limit (systemd: LimitNOFILE), or lower the maximum_... of [dicom], [hl7] and [web]",
                *(most, reserved, connections),
                extra={"action": "open_files"},
            )
        per_host = max(1, web.maximum_connections_per_host * connections // web.maximum_connections)
        app = create_app(self._store, self._spool, self._settings, self.problems)
        return WebServer(app, web.host, web.port, ConnectionLimit("web", connections, per_host))

    def _make_listener(self) -> MllpListener:
        hl7 = self._settings.hl7
        return MllpListener(
            hl7.host,
            hl7.port,
            Receiver(self._records, hl7.character_set, acknowledge_others=hl7.other_messages == "acknowledge"),
            tls=ListenerTls(hl7.tls) if hl7.tls else None,
            limits=MllpLimits(
                hosts=hl7.hosts,
                idle_timeout_s=hl7.idle_timeout_s,
                maximum_frame_bytes=hl7.maximum_message_mib * 1024 * 1024,
                maximum_connections=hl7.maximum_connections,
                maximum_connections_per_host=hl7.maximum_connections_per_host,
            ),
        )


def return_large_blocks() -> None:
    """Have every large block of memory returned to the system when it is freed.

    Otherwise the C library keeps blocks of up to 32 MiB for each thread: a gigabyte after a few large messages.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it
    if mallopt is not None:
        mallopt(-3, _LARGE_BLOCK_BYTES)  # M_MMAP_THRESHOLD


def notify(state: str) -> None:
    """Tell systemd how the service is (sd_notify(3)); without systemd, nothing happens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.setblocking(False)
        try:
            channel.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
        except OSError as error:
            logger.warning("systemd was not notified of %s: %s", state, error.strerror, extra={"action": "notify"})
