"""These tests run on each database."""

from tests.databases import store  # noqa: F401
