"""`check-config` and `example-config`: the settings of this gateway, and all there are."""

from __future__ import annotations

import sys

from gateway.cli.arguments import Config
from gateway.domain.clock import utc_now
from gateway.security.certificates import certificates, check_tls
from gateway.settings import example_text, load_settings, to_toml


def check_config(config: Config = None) -> None:
    """Check a settings file and the certificates it names, and print every setting in effect, as TOML."""
    settings = load_settings(config)
    check_tls(settings)
    print(to_toml(settings))
    for certificate in certificates(settings, utc_now()):
        if certificate.not_after is not None:
            print(f"# {certificate.file} ends on {certificate.not_after:%Y-%m-%d}")
        if certificate.problem:
            print(f"warning: {certificate.problem}", file=sys.stderr)


def example_config() -> None:
    """Print a settings file that names and explains every setting, each with its default."""
    print(example_text(), end="")
