"""Where a webhook may lead: the rules of its address, and of each IP address that its name stands for.

The name is resolved when the connection is made, every address that it stands for is checked, and the connection goes to
the one that was checked: a name that points elsewhere a moment later changes nothing.
"""

import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address
from urllib.parse import urlsplit

# IANA's registry of special addresses, as networks; what Python says of them differs between its releases. At the end what a
# cloud answers its machines on, an address that is otherwise a public one.
_REFUSED_IPV4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32",
    )
)  # fmt: skip
# Of IPv6 only this is the public internet, without documentation's addresses and tunnels to any IPv4 address.
_PUBLIC_IPV6 = IPv6Network("2000::/3")
_REFUSED_IPV6 = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
# By these an IPv4 address is reached: it is the one that counts.
_CARRIES_IPV4 = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))
# Below these, ports belong to other protocols, and a server of one of them may take a POST for commands.
FIRST_FREE_PORT = 1024
_PORTS = {"https": 443, "http": 80}

# As `socket.getaddrinfo` answers.
Found = Sequence[tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]]
Resolve = Callable[[str, int], Found]


class AddressRefused(Exception):
    """The name stands for an address that events are not sent to."""


class NameUnknown(Exception):
    """The name stands for no address."""


def url_faults(url: str, *, allow_private: bool) -> list[str]:
    """What is wrong with the address of a webhook, as far as it can be told without asking anybody; each with its remedy."""
    if not url.isascii() or any(letter <= " " or letter == "\x7f" for letter in url):
        return ["Must be ASCII without spaces; write a name of other letters as xn--…, and percent-encode the rest."]
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
    except ValueError:
        return ["Not a URL such as https://bff.example/events."]
    faults = []
    if parts.scheme not in _PORTS or not host or "\\" in url:
        return ["Not a URL such as https://bff.example/events."]
    if parts.scheme == "http" and not allow_private:
        faults.append("Must begin with https://.")
    if "@" in parts.netloc:
        faults.append("Must not hold a user or password; deliveries are signed instead.")
    if parts.fragment or url.endswith("#"):
        faults.append("Must not have a fragment.")
    if port is not None and port != _PORTS[parts.scheme] and port < FIRST_FREE_PORT:
        faults.append(f"Must use port {_PORTS[parts.scheme]}, or one from {FIRST_FREE_PORT} on.")
    if not allow_private and _is_refused_at_sight(host):
        faults.append("Must not lead to a private address; see WEBHOOK_ALLOW_PRIVATE.")
    return faults


def resolve(host: str, port: int) -> Found:
    """The addresses that a name stands for; raises `NameUnknown`."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)  # type: ignore[return-value]
    except (OSError, UnicodeError) as error:
        raise NameUnknown(host) from error


def checked(found: Found, *, allow_private: bool) -> Found:
    """The same addresses; raises `AddressRefused` where one of them is refused, since who controls the name chooses."""
    if not allow_private:
        for *_, place in found:
            if not is_public(place[0]):
                raise AddressRefused(place[0])
    return found


def is_public(text: str) -> bool:
    """Whether an IP address is one of the public internet, and not of a machine, a network or a cloud of one's own."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _REFUSED_IPV4)
    if any(address in network for network in _CARRIES_IPV4):
        return is_public(str(IPv4Address(int(address) & 0xFFFFFFFF)))
    return address in _PUBLIC_IPV6 and not any(address in network for network in _REFUSED_IPV6)


def _is_refused_at_sight(host: str) -> bool:
    """An address written out, in any of the ways that a resolver reads one, or a name that means this machine."""
    host = host.rstrip(".")
    if host == "localhost" or host.endswith((".localhost", ".local", ".internal")):
        return True
    try:
        return not is_public(socket.inet_ntoa(socket.inet_aton(host)))  # 127.1, 0x7f000001, 2130706433
    except OSError:
        pass
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return not is_public(host)
