"""The whole tree of settings, and how it is read from a TOML file."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import ValidationError, model_validator
from pydantic_core import ErrorDetails

from gateway.errors import SettingsError
from gateway.settings.destinations import Destination
from gateway.settings.dicom import DicomSettings
from gateway.settings.folders import FolderSettings
from gateway.settings.hl7 import Hl7Settings
from gateway.settings.section import Section
from gateway.settings.site import (
    DigitizerSettings,
    LogSettings,
    ObjectSettings,
    ReviewSettings,
    StorageSettings,
    WebSettings,
    WorkerSettings,
)


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
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _names(self) -> Settings:
        names = [destination.name for destination in self.destinations]
        if len(set(names)) != len(names):
            raise ValueError(f"destination names must differ, got {names}")
        for folder in self.folders:
            unknown = set(folder.destinations or ()) - set(names)
            if unknown:
                raise ValueError(f"folder {folder.path} names unknown destinations {sorted(unknown)}")
        return self

    @model_validator(mode="after")
    def _folders(self) -> Settings:
        """Refuse a watched folder that would take the gateway's own files, or those of another one."""
        storage = self.storage.path.resolve()
        taken: list[tuple[str, Path]] = []
        for folder in self.folders:
            path = folder.path.resolve()
            if storage.is_relative_to(path):
                raise ValueError(f"folder {folder.path} is or contains the storage path {self.storage.path}")
            for what, other in (("the spool", storage / "spool"), *taken):
                if path.is_relative_to(other) or other.is_relative_to(path):
                    raise ValueError(f"folder {folder.path} is, contains or lies inside {what}")
            taken.append((f"folder {folder.path}", path))
        return self


def load_settings(path: Path | None) -> Settings:
    """Read settings from a TOML file; None gives the embedded defaults.

    Raises
    ------
    SettingsError
        The file cannot be read, is no TOML, has an unknown key, or a value breaks its rule; every breach is named.
    """
    if path is None:
        return Settings()
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from error
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise SettingsError(f"{path}: {'; '.join(_breach(each) for each in error.errors())}") from None


def _breach(error: ErrorDetails) -> str:
    """Name a setting, its value and the rule it breaks; a database URL is not repeated, it may hold a password."""
    if not error["loc"]:  # a rule about several settings names them itself
        return error["msg"]
    setting = ".".join(str(part) for part in error["loc"])
    value = "" if setting == "storage.database" else f" = {error.get('input')!r}"
    return f"{setting}{value}: {error['msg']}"
