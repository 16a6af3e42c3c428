"""Hosts and networks as settings name them."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from gateway.settings.source.mistakes import rule


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
