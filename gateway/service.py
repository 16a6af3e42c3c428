"""The daemon: everything is built here, from settings alone, started in order and stopped in the reverse order.

    duties -> audit -> web page -> outbox -> identity look-up -> storage commitment -> workers
           -> DICOM, MLLP listeners -> watched folders

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
from functools import partial
from pathlib import Path
from typing import Protocol

from gateway.audit.forwarder import AuditForwarder
from gateway.delivery.committer import Committer
from gateway.delivery.kinds import kind_of
from gateway.delivery.outbox import Outbox
from gateway.dicom.network.scp import StorageScp
from gateway.domain.clock import utc_now
from gateway.errors import SettingsError, StorageError
from gateway.hl7.inbound.receiver import Receiver
from gateway.hl7.transport.mllp import MllpLimits, MllpListener
from gateway.identity.lookup import Lookup, audited_ask
from gateway.identity.orders import Records
from gateway.intake.accept import Intake
from gateway.intake.folder import FolderWatcher
from gateway.intake.recover import check_origin
from gateway.logs import configure_logging
from gateway.operations.check import closed_web, surroundings
from gateway.operations.duties import Duties
from gateway.operations.reload import Outcome, leave_outcome
from gateway.operations.retention import Retention
from gateway.results.decisions import carry_out
from gateway.security.certificates import certificates
from gateway.security.connections import ConnectionLimit
from gateway.security.passwords import digest, new_secret
from gateway.security.tls import ListenerTls
from gateway.settings import (
    DicomDestination,
    FolderSettings,
    Hl7Settings,
    LookupSettings,
    Settings,
    SettingsFile,
    load_settings,
    take_up,
    to_toml,
)
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
_RELOAD_GRACE_S = 10.0  # a share that hangs may hold it up
_OWN_FILES = 256  # database, spool, outgoing connections, workers
_FEWEST_WEB_CONNECTIONS = 8
_WORKER_GRACE_S = 30.0  # a page takes seconds; one that takes longer starts again after the restart


class _Part(Protocol):
    """What is started, and stopped at the end."""

    def start(self) -> None:
        """Start."""

    def stop(self) -> None:
        """Stop."""


class Service:
    """One gateway.

    Parameters
    ----------
    worker_command
        How to start a worker process (see `WorkerPool`); `--settings-fd FD` is added: the settings in effect.
    config
        The file that a reload reads; None: there is none, and nothing to reload.
    new
        Start even if the spool holds files of jobs that the database does not know.

    Raises
    ------
    StorageError
        Database or spool cannot be opened.
    SettingsError
        Certificates cannot be used.
    """

    def __init__(
        self, settings: Settings, *, worker_command: Sequence[str], config: Path | None = None, new: bool = False
    ) -> None:
        self._settings = settings
        self._config = config
        self._new = new
        root = settings.storage.path
        self._store = Store.open(settings.storage)
        self._spool = Spool.open(settings.storage)
        self._intake = Intake(self._spool, self._store)
        self._retention = Retention(self._spool, self._store, settings.storage)
        self._records = Records(self._store)
        self._destinations = [kind_of(destination, settings) for destination in settings.destinations]
        self._duties = Duties(self._store.nodes, settings.storage.node, root)
        self._committer = Committer(
            self._store,
            self._spool,
            settings.dicom,
            self._committing(),
            random.Random(),
            on_duty=self._duties.of("commitment"),
        )
        self._scp = StorageScp(settings.dicom, self._intake.accept, self._spool, self._committer)
        self._listener = self._make_listener() if settings.hl7.enabled else None
        self._watchers = {folder: self._watcher(folder) for folder in settings.folders}
        self._outbox = Outbox(
            self._store,
            self._spool,
            self._destinations,
            random.Random(),
            on_duty=lambda name: self._duties.of(f"outbox {name}"),
        )
        ask = partial(audited_ask, self._store.trail)
        peers, asks = _peers(settings), self._duties.of("identity look-up")
        self._lookup = Lookup(self._store, peers, settings.dicom.ae_title, ask=ask, on_duty=asks)
        self._audit = AuditForwarder(self._store, lambda: self._settings, on_duty=self._duties.of("audit"))
        self._keeps_up = self._duties.of("upkeep")
        self._in_effect = os.memfd_create("settings")  # a copy for workers, whatever becomes of the file
        self._running = ExitStack()
        self._running.callback(os.close, self._in_effect)
        command = (*worker_command, "--settings-fd", str(self._in_effect))
        self._workers = WorkerPool(command, self._store, settings.worker, inherited=(self._in_effect,))
        self._first_secret = new_secret()
        self._pages_are_served = self._said_closed = False
        self._web = self._make_web_server() if settings.web.enabled else None
        self._stopping = threading.Event()
        self._reloading = threading.Thread()  # none yet
        self._half_reloaded = False
        self._unsettled = False  # destinations were exchanged, and deliveries to those before are not looked at yet
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
            A folder or the object store cannot be had, or the database is not the one of the spool.
        """
        self._spool.check()
        if not self._new:
            check_origin(self._spool, self._store)
        self._begin("duties", self._duties)
        self._begin("audit", self._audit)
        self._serve_pages()
        self._settle_destinations()
        self._begin("outbox", self._outbox)
        self._begin("identity look-up", self._lookup)
        self._begin("storage commitment", self._committer)
        self._show_workers(self._settings)
        self._workers.start()
        self._running.callback(self._workers.stop, _WORKER_GRACE_S)
        self._begin("C-STORE SCP", self._scp)
        if self._listener:
            self._begin("MLLP listener", self._listener)
        self._running.callback(self._stop_watchers)
        for watcher in self._watchers.values():
            watcher.start()
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
            self._look_for_reload()
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
        if self._reloading.is_alive():
            self._reloading.join(_RELOAD_GRACE_S)
        self._running.close()
        self._store.close()
        logger.info("Stopped", extra={"action": "stop"})

    def dead(self) -> list[str]:
        """Return the parts that ended although nobody stopped them; any one of them ends the process."""
        parts: dict[str, bool] = {
            "duties": self._duties.alive,
            "outbox": self._outbox.alive,
            "storage commitment": self._committer.alive,
            "C-STORE SCP": self._scp.is_alive,
        }
        parts["audit"] = self._audit.alive
        parts["identity look-up"] = self._lookup.alive
        parts |= {f"folder {number}": each.alive for number, each in enumerate(self._watchers.values(), start=1)}
        parts["reload"] = self._reloading.is_alive() or not self._half_reloaded
        if self._listener:
            parts["MLLP listener"] = self._listener.alive
        if self._web and self._pages_are_served:
            parts["web page"] = self._web.alive
        return [name for name, alive in parts.items() if not alive]

    def problems(self) -> list[str]:
        """Return, in words, what is wrong now: dead parts, missing folders, a disk that fills up, missing workers."""
        problems = [f"{name} does not run" for name in self.dead()]
        problems += [watcher.problem for watcher in self._watchers.values() if watcher.problem]
        problems += [self._audit.problem] if self._audit.problem else []
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

    def _serve_pages(self) -> None:
        """Serve the web pages where they may be: beyond this machine, only once somebody can log in.

        Everything else runs without them: an ECG must not wait for an account.
        """
        if self._web is None or self._pages_are_served:
            return
        exist = self._store.accounts.exist()
        problem = closed_web(self._settings.web, exist=exist)
        if problem:
            if not self._said_closed:
                logger.error("web.host = %s: %s", self._settings.web.host, problem, extra={"action": "web"})
            self._said_closed = True
            return
        self._begin("web page", self._web)
        self._pages_are_served = True
        if not exist:
            web = self._settings.web
            address = f"{'https' if web.tls else 'http'}://{web.host}:{self._web.port}{web.root_path}/first/{self._first_secret}"
            words = "There is no account. This link makes the first one, once, until a restart: %s"
            logger.info(words, address, extra={"action": "account"})

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

    def _begin(self, what: str, part: _Part) -> None:
        logger.debug("Starting the %s", what, extra={"action": "start"})
        part.start()
        self._running.callback(part.stop)

    def _upkeep(self, now: float) -> None:
        """Start dead workers again, extend the leases of live ones, take back expired ones, delete old files."""
        self._workers.check()
        if self._unsettled:
            self._settle_destinations()
            self._unsettled = False
        if now >= self._next_certificates:
            self._next_certificates = now + _CERTIFICATES_S
            for certificate in certificates(self._settings, utc_now()):
                if certificate.problem:
                    logger.warning("Certificate: %s", certificate.problem, extra={"action": "certificate"})
        if now >= self._next_rescue:
            self._next_rescue = now + min(_RESCUE_S, self._settings.worker.lease_s)
            self._serve_pages()
            self._workers.extend()
            if self._keeps_up():
                self._keep_up()
        if now >= self._next_sweep and self._keeps_up():
            self._next_sweep = now + _SWEEP_S
            self._retention.sweep()
            for watcher in self._watchers.values():
                watcher.prune(self._settings.storage.retention_days)
            self._store.patients.forget_messages(utc_now() - timedelta(days=self._settings.storage.retention_days))

    def _keep_up(self) -> None:
        """Do what one node does for all, every few seconds."""
        self._bound()
        for job_id in self._store.jobs.rescue(self._settings.worker.maximum_attempts):
            logger.warning("Taken from a silent worker", extra={"action": "rescue", "job_id": job_id})
        for job_id in self._records.match_waiting():
            logger.info("An order names the patient", extra={"action": "match", "job_id": job_id})
        carry_out(self._store, self._spool, self._settings)
        self._retention.purge()

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
        app = create_app(self._intake, self._spool, lambda: self._settings, self.problems, digest(self._first_secret))
        tls = ListenerTls(web.tls) if web.tls else None
        return WebServer(app, web.host, web.port, ConnectionLimit("web", connections, per_host), tls)

    def _make_listener(self) -> MllpListener:
        hl7 = self._settings.hl7
        return MllpListener(
            hl7.host,
            hl7.port,
            self._receiver(hl7),
            tls=ListenerTls(hl7.tls) if hl7.tls else None,
            limits=_limits(hl7),
        )

    def _receiver(self, hl7: Hl7Settings) -> Receiver:
        return Receiver(self._records, hl7.character_set, acknowledge_others=hl7.other_messages == "acknowledge")

    def _committing(self) -> list[DicomDestination]:
        return [kind.committing for kind in self._destinations if kind.committing is not None]

    def _watcher(self, folder: FolderSettings) -> FolderWatcher:
        return FolderWatcher(folder, self._intake, self._duties.of(f"folder {folder.path}"))

    def _stop_watchers(self) -> None:
        for watcher in self._watchers.values():
            watcher.stop()

    # -- reload ---------------------------------------------------------------------------------------------------

    def _look_for_reload(self) -> None:
        """Begin a reload where SIGHUP asks for one; it is blocked in every thread, so it ends nothing."""
        if not self._reloading.is_alive() and signal.sigtimedwait({signal.SIGHUP}, 0) is not None:
            self._reloading = threading.Thread(target=self._reload_and_say, name="reload", daemon=True)
            self._reloading.start()

    def _reload_and_say(self) -> None:
        """Reload, in a thread of its own: a share that hangs must not hold up the watch."""
        self._half_reloaded = True
        outcome = self.reload()
        try:
            leave_outcome(self._settings.storage.path, outcome, self._settings.storage.node)
        except StorageError as error:
            logger.error("The outcome of the reload is not kept: %s", error, extra={"action": "reload"})
        self._half_reloaded = False

    def reload(self) -> Outcome:
        """Follow the settings file as it is now, without ending an association; a wrong file changes nothing."""
        began_s = time.monotonic()
        try:
            if self._config is None:
                raise SettingsError("the gateway runs without a settings file")
            new = load_settings(self._config)
            change = take_up(self._settings, new)
            self._refuse_new_mistakes(new)
            watchers = self._start_watchers(change.settings)
        except (SettingsError, StorageError) as error:
            for line in str(error).splitlines():
                logger.error("Nothing is reloaded: %s", line, extra={"action": "reload"})
            return Outcome(ok=False, words=f"nothing is changed:\n{error}", began_s=began_s)
        self._take_up(change.settings, watchers)
        taken, restart = ", ".join(change.taken), ", ".join(change.needs_restart)
        logger.info("Reloaded: %s", taken or "nothing is different", extra={"action": "reload"})
        if restart:
            logger.warning("A restart is needed for %s", restart, extra={"action": "reload"})
        words = f"{self._config}: {f'changed: {taken}' if taken else 'nothing is changed'}"
        return Outcome(ok=True, words=words + (f"\nneeds a restart: {restart}" if restart else ""), began_s=began_s)

    def _refuse_new_mistakes(self, new: Settings) -> None:
        """Raise SettingsError for what does not fit this machine where what is in effect does."""
        known = {(each.value, each.words) for each in surroundings(self._settings, utc_now())}
        found = [each for each in surroundings(new, utc_now()) if each.fatal and (each.value, each.words) not in known]
        if found:
            raise SettingsError(SettingsFile.read(self._config).report(found))

    def _start_watchers(self, new: Settings) -> dict[FolderSettings, FolderWatcher]:
        """Start watching the folders that were not watched, all or none; raise StorageError where one cannot be."""
        paths = {folder.path.resolve() for folder in self._watchers}
        started: dict[FolderSettings, FolderWatcher] = {}
        try:
            for folder in new.folders:
                if folder.path.resolve() not in paths:
                    watcher = self._watcher(folder)
                    watcher.start()
                    started[folder] = watcher
        except StorageError:
            for watcher in started.values():
                watcher.stop()
            raise
        return started

    def _take_up(self, new: Settings, started: dict[FolderSettings, FolderWatcher]) -> None:
        """Give every part the new settings; an unchanged destination or folder is not touched."""
        before, self._settings = self._settings, new
        if new.log != before.log:
            configure_logging(new.log)
        self._show_workers(new)
        self._workers.take_up(new.worker)
        kinds = {kind.name: kind for kind in self._destinations}
        same = before.destinations if before.hl7.codes == new.hl7.codes else ()  # they write the codes
        self._destinations = [
            kinds[destination.name] if destination in same else kind_of(destination, new)
            for destination in new.destinations
        ]
        self._committer.replace(new.dicom, self._committing())
        self._outbox.replace(self._destinations)
        self._lookup.replace(_peers(new))
        self._scp.take_up(new.dicom)
        self._retention.take_up(new.storage)
        if self._listener:
            self._listener.take_up(self._receiver(new.hl7), _limits(new.hl7))
        self._unsettled = True
        self._exchange_watchers(new, started)

    def _exchange_watchers(self, new: Settings, started: dict[FolderSettings, FolderWatcher]) -> None:
        """Stop watching what is gone, last of all: a share that hangs may hold it up."""
        gone = [watcher for folder, watcher in self._watchers.items() if folder not in new.folders]
        self._watchers = {folder: each for folder, each in self._watchers.items() if folder in new.folders} | started
        for watcher in gone:
            watcher.stop()
        for folder in new.folders:
            if folder not in self._watchers:  # one that is watched otherwise than before
                watcher = self._watcher(folder)
                watcher.start()
                self._watchers = self._watchers | {folder: watcher}

    def _show_workers(self, settings: Settings) -> None:
        """Write the settings that workers read when they start, and when they are told to."""
        text = to_toml(settings).encode()
        os.pwrite(self._in_effect, text, 0)
        os.ftruncate(self._in_effect, len(text))


def _peers(settings: Settings) -> dict[str, LookupSettings]:
    """Return whom to ask about the pages of each folder."""
    return {f"folder:{folder.path}": folder.lookup for folder in settings.folders if folder.lookup}


def _limits(hl7: Hl7Settings) -> MllpLimits:
    return MllpLimits(
        hosts=hl7.hosts,
        idle_timeout_s=hl7.idle_timeout_s,
        maximum_frame_bytes=hl7.maximum_message_mib * 1024 * 1024,
        maximum_connections=hl7.maximum_connections,
        maximum_connections_per_host=hl7.maximum_connections_per_host,
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
