"""What the nftables template sees beside the service and the policy: values in the form that the grammar wants. Pure."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import collapse_addresses

from dzagent.model import Service
from dzagent.nftrules import tunnels
from dzagent.nftvalues import canonical, interval_text, joined, network_interval
from dzagent.policy import Policy

BGP_PORT = 179
"""The device's port, and that of everybody else's BGP."""

HEADERS = 40
"""Bytes of IPv4 and TCP headers: an MTU less these is an MSS."""

MARTIANS = ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4")
"""Sources that no packet of another host has; the peer's address is let through before."""


def nft_values(service: Service, policy: Policy, links: Collection[str]) -> dict[str, object]:
    """Return the values. Prefixes are joined where they overlap: nft refuses a set with two that do.

    links: our tunnels, by which DoubleZero traffic may leave.
    """
    rules = policy.nftables
    return {
        "nft": rules,
        "tunnels": tunnels((service.link, *links)),
        "bgp_ports": canonical("port", [str(BGP_PORT), str(policy.bgp.port)]),
        "martians": canonical("address", MARTIANS),
        "mss": policy.tunnel.mtu - HEADERS,
        "leak_prefixes": [
            interval_text(network_interval(n), "address") for n in collapse_addresses(service.prefixes)
        ],
        "groups": [str(group) for group in service.subscribe],
        "tcp_ports": [interval_text(ports, "port") for ports in joined(rules.tcp_ports)],
        "udp_ports": [interval_text(ports, "port") for ports in joined(rules.udp_ports)],
    }
