"""`[web]`: where the pages are served, for whom, and who stands in front of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gateway.settings.section import Host, Port, Section, matching

RootPath = Annotated[
    str, matching(r"(/[A-Za-z0-9._~-]+)*", "must be empty or a path such as /ecg, without a / at its end")
]


class WebSettings(Section):
    """The web pages.  Reviewers and administrators see patients; others do where `show_patient` says so."""

    enabled: bool = True
    host: Host = "127.0.0.1"
    port: Port = 8080
    root_path: RootPath = ""  # under which a reverse proxy shows us
    show_patient: bool = False
    session_idle_minutes: int = Field(default=30, ge=1, le=1440)
    session_hours: int = Field(default=12, ge=1, le=168)
    maximum_connections: int = Field(default=100, ge=1)
    maximum_connections_per_host: int = Field(default=50, ge=1)  # behind a proxy all come from one
