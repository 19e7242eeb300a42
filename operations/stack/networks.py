"""The private networks that Label Studio must not call, but for one address or network."""

from ipaddress import IPv4Network, ip_network

# The private networks that Label Studio 1.23 refuses to call by default (label_studio/core/utils/io.py).
# fmt: off
RESERVED_NETWORKS = [
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
    "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
    "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "::/128", "::1/128", "::ffff:0:0/96", "::ffff:0:0:0/96",
    "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/32", "2001:20::/28", "2001:db8::/32", "2002::/16",
    "fc00::/7", "fe80::/10", "ff00::/8",
]
# fmt: on


def blocked_networks(exempt: str) -> list[str]:
    """The networks that Label Studio must not call: its default list without an address or network.

    >>> "127.0.0.0/8" in blocked_networks("127.0.0.1"), "127.0.0.0/32" in blocked_networks("127.0.0.1")
    (False, True)
    """
    exempt_network = ip_network(exempt)
    networks: list[str] = []
    for text in RESERVED_NETWORKS:
        network = ip_network(text)
        contains_exempt = (
            isinstance(network, IPv4Network)
            and isinstance(exempt_network, IPv4Network)
            and exempt_network.subnet_of(network)
        )
        networks += (
            map(str, network.address_exclude(exempt_network))  # type: ignore[arg-type]
            if contains_exempt
            else [text]
        )
    return networks
