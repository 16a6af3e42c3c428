"""The whole tree of settings, and how it is read from a TOML file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from zoneinfo import available_timezones

from pydantic import model_validator

from gateway.errors import SettingsError
from gateway.settings.destinations import Destination, FolderDestination
from gateway.settings.dicom import DicomSettings
from gateway.settings.folders import FolderSettings
from gateway.settings.hl7 import Hl7Settings
from gateway.settings.section import Section, same_socket
from gateway.settings.site import (
    AuditSettings,
    DigitizerSettings,
    LogSettings,
    ObjectSettings,
    ReviewSettings,
    StorageSettings,
    WorkerSettings,
)
from gateway.settings.source.examine import examine, nearest
from gateway.settings.source.file import SettingsFile
from gateway.settings.source.mistakes import rule
from gateway.settings.source.positions import At
from gateway.settings.web import WebSettings


class Settings(Section):
    """The whole tree."""

    dicom: DicomSettings = DicomSettings()
    hl7: Hl7Settings = Hl7Settings()
    folders: tuple[FolderSettings, ...] = (FolderSettings(path=Path("var/inbox"), create=True),)
    destinations: tuple[Destination, ...] = ()
    objects: ObjectSettings = ObjectSettings()
    digitizer: DigitizerSettings = DigitizerSettings()
    review: ReviewSettings = ReviewSettings()
    worker: WorkerSettings = WorkerSettings()
    storage: StorageSettings = StorageSettings()
    web: WebSettings = WebSettings()
    audit: AuditSettings = AuditSettings()
    log: LogSettings = LogSettings()

    def listening(self) -> Iterator[tuple[At, str, int]]:
        """Yield every port that is listened on: its setting, the host and the number."""
        if self.dicom.plain:
            yield ("dicom", "port"), self.dicom.host, self.dicom.port
        if self.dicom.tls is not None:
            yield ("dicom", "tls", "port"), self.dicom.host, self.dicom.tls.port
        if self.hl7.enabled:
            yield ("hl7", "port"), self.hl7.host, self.hl7.port
        if self.web.enabled:
            yield ("web", "port"), self.web.host, self.web.port

    @model_validator(mode="after")
    def _destinations_differ(self) -> Settings:
        for number, destination in enumerate(self.destinations):
            for earlier, other in enumerate(self.destinations[:number]):
                if destination.name == other.name:
                    others = (("destinations", earlier, "name"),)
                    raise rule("another destination has this name", "destinations", number, "name", others=others)
                own = {"name", "retry", "timeout_s"}
                if destination.model_dump(exclude=own) == other.model_dump(exclude=own):
                    words = f"is the same as {other.name}: everything would be sent twice"
                    raise rule(words, "destinations", number, others=(("destinations", earlier),))
        return self

    @model_validator(mode="after")
    def _names_are_known(self) -> Settings:
        names = [destination.name for destination in self.destinations]
        for number, folder in enumerate(self.folders):
            for place, name in enumerate(folder.destinations or ()):
                if name not in names:
                    words = f"no destination has this name{nearest(name, names)}"
                    raise rule(words, "folders", number, "destinations", place)
        return self

    @model_validator(mode="after")
    def _folders_differ(self) -> Settings:
        """Refuse a watched folder that would take the gateway's own files, or those of another one."""
        storage = self.storage.path.resolve()
        taken: list[tuple[At, str, Path]] = [(("storage", "path"), "the spool", storage / "spool")]
        for number, folder in enumerate(self.folders):
            path, at = folder.path.resolve(), ("folders", number, "path")
            if storage.is_relative_to(path):
                words = f"is or contains the storage path {self.storage.path}"
                raise rule(words, *at, others=(("storage", "path"),))
            for setting, what, other in taken:
                if path.is_relative_to(other) or other.is_relative_to(path):
                    raise rule(f"is, contains or lies inside {what}", *at, others=(setting,))
            taken.append((at, f"folder {folder.path}", path))
        return self

    @model_validator(mode="after")
    def _ports_differ(self) -> Settings:
        taken: list[tuple[At, str, int]] = []
        for at, host, port in self.listening():
            for other, other_host, other_port in taken:
                if port and port == other_port and same_socket(host, other_host):
                    raise rule(f"{'.'.join(map(str, other))} is the same", *at, others=(other,))
            taken.append((at, host, port))
        return self


def unknown_time_zone() -> str:
    """Return the time zone that the environment names, if the system would take UTC for it in silence; else ""."""
    zone = os.environ.get("TZ", "").removeprefix(":")
    if not zone or Path(zone).is_absolute() or re.match(r"([A-Za-z]{3,}|<[\w+-]{3,}>)[+-]?\d", zone):
        return ""
    return "" if zone in available_timezones() else zone


def load_settings(path: Path | None) -> Settings:
    """Read settings from a TOML file; None gives the embedded defaults, and a folder `var/results` for the results.

    Raises
    ------
    SettingsError
        The file cannot be read, is no TOML, has an unknown key, or a value breaks its rule; every mistake is a line
        of the message.
    """
    file = SettingsFile.read(path)
    examined = examine(Settings, file.tree)
    if examined.right is None or examined.mistakes:
        raise SettingsError(file.report(examined.mistakes))
    if path is None:
        results = FolderDestination(name="results", path=Path("var/results"), create=True)
        return examined.right.model_copy(update={"destinations": (results,)})
    return examined.right
