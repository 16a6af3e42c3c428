"""What every page has at hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fastapi.templating import Jinja2Templates

from gateway.intake.accept import Intake
from gateway.settings import Settings
from gateway.spool.folder import Spool
from gateway.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The store, the files and the settings behind the pages, and the way in for what is handed in there.

    Parameters
    ----------
    current
        Returns the settings in effect.
    alive
        Returns, in words, what should run and does not (threads, workers); empty when everything runs.
    """

    store: Store
    spool: Spool
    current: Callable[[], Settings]
    templates: Jinja2Templates
    alive: Callable[[], list[str]]
    intake: Intake

    @property
    def settings(self) -> Settings:
        """The settings in effect."""
        return self.current()
