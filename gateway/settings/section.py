"""What every section of the settings shares: its strictness, and the types of common values."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from gateway.settings.source.mistakes import rule


def matching(pattern: str, words: str) -> AfterValidator:
    """Return the validator of a text that must match a pattern; `words` say what the pattern says."""
    form = re.compile(pattern)

    def check(text: str) -> str:
        if form.fullmatch(text) is None:
            raise rule(words)
        return text

    return AfterValidator(check)


def _ae_title(title: str) -> str:
    if len(title) > 16:
        raise rule(f"has {len(title)} characters; an AE title has at most 16")
    if not title.strip() or re.search(r"[\\\x00-\x1f]", title):
        raise rule("an AE title has 1 to 16 characters, no backslash, no control character, and not only spaces")
    return title


def _host(host: str) -> str:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        name = (
            r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?"
        )
        if re.fullmatch(name, host) is None or re.fullmatch(r"[\d.]+", host):
            raise rule("must be an IP address or a host name, and nothing else: no port, no http://") from None
    return host


AeTitle = Annotated[str, AfterValidator(_ae_title)]
Host = Annotated[str, AfterValidator(_host)]
Port = Annotated[int, Field(ge=0, le=65535)]
Name = Annotated[str, matching(r"[A-Za-z0-9_-]{1,40}", "must be 1 to 40 letters, digits, - or _")]
CharacterSet = Literal[  # HL7 table 0211
    "ASCII",
    "8859/1",
    "8859/2",
    "8859/3",
    "8859/4",
    "8859/5",
    "8859/6",
    "8859/7",
    "8859/8",
    "8859/9",
    "8859/15",
    "ISO IR14",
    "ISO IR87",
    "ISO IR159",
    "GB 18030-2000",
    "KS X 1001",
    "BIG-5",
    "UNICODE",
    "UNICODE UTF-8",
]


def is_loopback(host: str) -> bool:
    """Tell whether a host, by address or as `localhost`, is this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def checked_networks(hosts: tuple[str, ...]) -> tuple[str, ...]:
    """Return `hosts`; raise an error for one that is no IP address and no CIDR network."""
    for number, host in enumerate(hosts):
        try:
            ip_network(host, strict=False)
        except ValueError:
            raise rule("must be an IP address or a network such as 10.1.2.0/24", number) from None
    return hosts


def overlap(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Return whether some address is in both lists of addresses and networks; an empty list has all."""
    if not one or not other:
        return True
    networks = [[ip_network(host, strict=False) for host in hosts] for hosts in (one, other)]
    return any(a.version == b.version and a.overlaps(b) for a in networks[0] for b in networks[1])


def same_socket(one: str, other: str) -> bool:
    """Return whether listening on both hosts with one port cannot be: they are the same, or one is every address."""
    return one == other or bool({one, other} & {"0.0.0.0", "::", ""})


class Section(BaseModel):
    """One table of the file: frozen, and a key that it does not have is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)
