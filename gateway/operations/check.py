"""Whether right settings fit the machine: ports, folders, files, certificates, time zone, and what lets others in.

It is called by `check-config`; `serve` starts where some of it is wrong, because a share may be mounted later.
"""

from __future__ import annotations

import errno
import socket
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from gateway.delivery.dicom import report_step
from gateway.errors import SettingsError, StorageError
from gateway.operations.listeners import holder
from gateway.security.certificates import look
from gateway.security.tls import check_tls, words
from gateway.settings import (
    At,
    DicomDestination,
    FolderDestination,
    Mistake,
    Settings,
    TlsSettings,
    WebSettings,
    is_loopback,
    unknown_time_zone,
)
from gateway.spool.owner import owner
from gateway.store.accounts import accounts_exist
from gateway.store.store import database_url


def surroundings(settings: Settings, now: datetime) -> list[Mistake]:
    """Return what is wrong with the settings on this machine, as this user; nothing is changed."""
    return [
        *_ports(settings),
        *_folders(settings),
        *_files(settings),
        *_certificates(settings, now),
        *_commitment(settings),
        *_web(settings),
        *_time_zone(),
    ]


def _ports(settings: Settings) -> Iterator[Mistake]:
    """Yield ports that cannot be listened on; those of the gateway that runs on these settings are its own."""
    try:
        ours = owner(settings.storage.path, settings.storage.node)
    except StorageError:  # a gateway of another user, whose ports the system does not tell either
        ours = 0
    for at, host, port in settings.listening():
        try:
            socket.create_server((host, port)).close()
        except OSError as error:
            process, words = holder(port)
            if error.errno == errno.EADDRINUSE:
                if ours is None or process not in (None, ours):
                    yield Mistake(at=at, value=port, words=f"the port is in use by {words}")
            elif error.errno in (errno.EACCES, errno.EPERM):
                yield Mistake(at=at, value=port, words="this user may not listen on a port below 1024")
            else:
                yield Mistake(at=_host(at), value=host, words="is no address of this machine")


def _host(port: At) -> At:
    """Return the setting of the host that a port is listened on at."""
    return (port[0], "host")


def _folders(settings: Settings) -> Iterator[Mistake]:
    root = settings.storage.path
    if problem := _unwritable(root, make=True):
        yield Mistake(at=("storage", "path"), value=str(root), words=problem)
    for number, folder in enumerate(settings.folders):
        if problem := _unwritable(folder.path, make=folder.create):
            yield Mistake(at=("folders", number, "path"), value=str(folder.path), words=problem)
    for number, destination in enumerate(settings.destinations):
        if isinstance(destination, FolderDestination) and (
            problem := _unwritable(destination.path, make=destination.create)
        ):
            yield Mistake(at=("destinations", number, "path"), value=str(destination.path), words=problem)


def _unwritable(path: Path, *, make: bool) -> str:
    """Return why no file can be made in a folder, or in the one that it would be made in; "" where one can."""
    existing = path
    while make and not existing.exists() and existing != existing.parent:
        existing = existing.parent
    try:
        with tempfile.TemporaryFile(dir=existing):  # without a name where the file system can
            return ""
    except FileNotFoundError:
        return "the folder is missing: make it, or mount it" if not existing.exists() else "cannot be made here"
    except NotADirectoryError:
        return f"{existing} is no folder"
    except OSError as error:
        return f"{existing} cannot be written to: {words(error)}"


def _files(settings: Settings) -> Iterator[Mistake]:
    for at, value in _leaves(settings):
        if isinstance(value, Path) and str(at[-1]).endswith("_file") and (problem := _unreadable(value)):
            yield Mistake(at=at, value=str(value), words=problem)
    layouts = settings.digitizer.layouts
    if layouts is not None:
        from gateway.worker.process import check_layouts  # loads much: only a file of layouts pays for it

        try:
            check_layouts(layouts)
        except SettingsError as error:
            yield Mistake(at=("digitizer", "layouts"), value=str(layouts), words=str(error))


def _unreadable(path: Path) -> str:
    try:
        with path.open("rb"):
            return ""
    except OSError as error:
        return f"the file cannot be read: {words(error)}"


def _certificates(settings: Settings, now: datetime) -> Iterator[Mistake]:
    for at, section in _leaves(settings, TlsSettings):
        problems = 0
        for name, file in (("certificate_file", section.certificate_file), ("ca_file", section.ca_file)):
            if file is None or _unreadable(file):
                continue
            found = look(file, now, ours=name == "certificate_file")
            problems += not found.usable
            if found.problem:
                end = f"expire{'s' if found.usable else 'd'} on {found.not_after:%Y-%m-%d}" if found.not_after else ""
                words = end or "holds no PEM certificate"
                yield Mistake(at=(*at, name), value=str(file), words=words, fatal=not found.usable)
        files = [value for name, value in section if name.endswith("_file") and value is not None]
        if problems or any(_unreadable(file) for file in files):
            continue
        try:
            check_tls(section)
        except SettingsError as error:
            others = ((*at, "certificate_file"),)
            yield Mistake(
                at=(*at, "private_key_file"), value=str(section.private_key_file), words=str(error), others=others
            )


def _leaves(section: BaseModel, kind: type[Any] = object, at: At = ()) -> Iterator[tuple[At, Any]]:
    """Yield every setting or section of a kind in a tree, with its path."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        several = isinstance(value, tuple)
        for number, each in enumerate(value if several else (value,)):
            path = (*at, name, number) if several else (*at, name)
            if isinstance(each, kind):
                yield path, each
            if isinstance(each, BaseModel):
                yield from _leaves(each, kind, path)


def _commitment(settings: Settings) -> Iterator[Mistake]:
    for number, destination in enumerate(settings.destinations):
        if isinstance(destination, DicomDestination) and destination.storage_commitment:
            results = report_step(destination, settings.dicom)
            if not results.ok:
                at = ("destinations", number, "storage_commitment")
                yield Mistake(at=at, value=True, words=results.advice, others=(("dicom", "host"),))


def _web(settings: Settings) -> Iterator[Mistake]:
    web = settings.web
    try:
        problem = closed_web(web, exist=accounts_exist(database_url(settings.storage)))
    except StorageError:  # whoever starts on it is told
        return
    if problem:
        yield Mistake(at=("web", "host"), value=web.host, words=problem)
    elif web.enabled and not is_loopback(web.host) and web.tls is None and not web.proxies:
        problem = "passwords and patients cross the network in the clear: set [web.tls], or proxies that encrypt"
        yield Mistake(at=("web", "host"), value=web.host, words=problem, fatal=False)


def closed_web(web: WebSettings, *, exist: bool) -> str:
    """Return why the web pages are not served at their address; "" where they are.

    Parameters
    ----------
    exist
        Whether there are accounts.
    """
    if not web.enabled or is_loopback(web.host) or exist or web.logs_in_elsewhere:
        return ""
    return (
        "the web pages are not served to other machines while nobody can log in: "
        "make an account with `ecg-gateway user add NAME --role admin`, or set proxy_user_header or [web.oidc]"
    )


def _time_zone() -> Iterator[Mistake]:
    if zone := unknown_time_zone():
        problem = "the environment names a time zone that this machine does not have: local times would be in UTC"
        yield Mistake(at=("TZ",), value=zone, words=problem)
