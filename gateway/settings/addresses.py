"""Hosts and networks as settings name them."""

from __future__ import annotations

from ipaddress import ip_address, ip_network


def is_loopback(host: str) -> bool:
    """Tell whether a host, by address or as `localhost`, is this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def checked_networks(hosts: tuple[str, ...]) -> tuple[str, ...]:
    """Return `hosts`; raise ValueError for one that is no IP address and no CIDR network."""
    for host in hosts:
        ip_network(host, strict=False)
    return hosts
