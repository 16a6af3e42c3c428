"""What a running gateway takes up of changed settings, and what needs a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.errors import SettingsError
from gateway.settings import NEEDS_RESTART, Settings, take_up

ROOT = Path(__file__).resolve().parents[3]


def settings(**changes: Any) -> Settings:
    return Settings.model_validate(changes)


def folder(name: str, **changes: Any) -> dict[str, Any]:
    return {"kind": "folder", "name": name, "path": f"/srv/{name}"} | changes


def test_what_needs_a_restart_is_named_and_stays() -> None:
    running = settings(dicom={"port": 104}, web={"port": 80})
    change = take_up(running, settings(dicom={"port": 105, "timeout_s": 5.0}, web={"port": 81}, log={"level": "DEBUG"}))
    assert change.needs_restart == ("dicom.port", "web.port")
    assert change.taken == ("dicom.timeout_s", "log.level")
    assert (change.settings.dicom.port, change.settings.web.port) == (104, 80)
    assert (change.settings.dicom.timeout_s, change.settings.log.level) == (5.0, "DEBUG")
    assert take_up(change.settings, settings(dicom={"port": 105, "timeout_s": 5.0}, log={"level": "DEBUG"})).taken == ()


def test_destinations_callers_and_folders_are_named_one_by_one() -> None:
    callers = ({"ae_title": "A"}, {"ae_title": "B"})
    running = settings(destinations=[folder("same"), folder("gone"), folder("other")], dicom={"callers": callers})
    new = settings(
        destinations=[folder("same"), folder("other", rejection_note=False), folder("new")],
        dicom={"callers": callers[:1]},
        folders=[{"path": "/srv/in"}],
    )
    change = take_up(running, new)
    assert change.taken == (
        "dicom.callers B",
        "folders var/inbox",
        "folders /srv/in",
        "destinations gone",
        "destinations other",
        "destinations new",
    )
    assert change.settings == new and change.needs_restart == ()


def test_what_does_not_fit_without_its_restart_changes_nothing() -> None:
    tls = {"certificate_file": "/etc/x.pem", "private_key_file": "/etc/x.key", "ca_file": "/etc/ca.pem"}
    new = settings(dicom={"tls": tls, "callers": [{"ae_title": "A", "certificate_names": ["a"]}]})
    with pytest.raises(SettingsError, match=r"without a restart for dicom.tls: certificate_names need \[dicom.tls\]"):
        take_up(settings(), new)


def test_every_setting_that_needs_a_restart_exists_and_is_documented() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8").partition("## Reload")[2]
    rows = {
        line.split("|")[1].strip(" `[]"): line.split("|")[2] for line in text.splitlines() if line.startswith("| `[")
    }
    for section, name in NEEDS_RESTART:
        assert str(name) in type(getattr(Settings(), str(section))).model_fields
        assert f"`{name}`" in rows[str(section)]
    assert sum(cell.count("`") // 2 for cell in rows.values()) == len(NEEDS_RESTART)
