"""Packets made by hand, and sockets in other network namespaces, to see what a firewall lets through."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
from dataclasses import dataclass
from pathlib import Path

TCP, UDP, ICMP, GRE = socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_ICMP, 47
SYN, ACK = 0x02, 0x10
ETH_IP = 0x0800
PATIENCE = 20.0
"""Seconds to wait for a packet that must come; never for one that must not."""

_LIBC = ctypes.CDLL(None, use_errno=True)
_NEWNET = 0x40000000


def socket_in(namespace: str, family: int, kind: int, protocol: int) -> socket.socket:
    """Open a socket in a network namespace: it stays there, the caller does not move."""
    made: list[socket.socket] = []
    failed: list[OSError] = []

    def work() -> None:
        try:
            with Path(f"/run/netns/{namespace}").open("rb") as file:
                if _LIBC.setns(file.fileno(), _NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), f"setns to {namespace}")
            made.append(socket.socket(family, kind, protocol))
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    made[0].settimeout(PATIENCE)
    return made[0]


def wire(namespace: str, interface: str) -> socket.socket:
    """Open a socket for whole frames of one interface."""
    opened = socket_in(namespace, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_IP))
    opened.bind((interface, ETH_IP))
    return opened


@dataclass(frozen=True, slots=True)
class Packet:
    """An IPv4 packet: addresses, protocol, and its payload."""

    src: str
    dst: str
    protocol: int
    payload: bytes

    def raw(self) -> bytes:
        """Return it with its header."""
        head = struct.pack(
            "!BBHHHBBH4s4s",
            0x45,
            0,
            20 + len(self.payload),
            1,
            0,
            64,
            self.protocol,
            0,
            socket.inet_aton(self.src),
            socket.inet_aton(self.dst),
        )
        return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + self.payload

    def frame(self, to: bytes) -> bytes:
        """Return it in an Ethernet frame for a hardware address."""
        return to + bytes(6) + struct.pack("!H", ETH_IP) + self.raw()


def checksum(data: bytes) -> int:
    """Return the Internet checksum."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data)) if len(data) % 2 == 0 else checksum_odd(data)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def checksum_odd(data: bytes) -> int:
    """Return the sum of words of data with an odd length."""
    return sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0"))


def _with_pseudo_header(src: str, dst: str, protocol: int, segment: bytes, at: int) -> bytes:
    pseudo = socket.inet_aton(src) + socket.inet_aton(dst) + struct.pack("!BBH", 0, protocol, len(segment))
    return segment[:at] + struct.pack("!H", checksum(pseudo + segment)) + segment[at + 2 :]


def tcp(
    src: str, dst: str, ports: tuple[int, int], flags: int = SYN, mss: int = 1460, token: bytes = b""
) -> Packet:
    """Make a TCP segment with an MSS option; ports are (from, to)."""
    options = struct.pack("!BBH", 2, 4, mss)
    head = struct.pack("!HHIIBBHHH", *ports, 1, 1, 6 << 4, flags, 1000, 0, 0) + options + token
    return Packet(src, dst, TCP, _with_pseudo_header(src, dst, TCP, head, 16))


def udp(src: str, dst: str, ports: tuple[int, int], token: bytes = b"") -> Packet:
    """Make a UDP datagram."""
    head = struct.pack("!HHHH", *ports, 8 + len(token), 0) + token
    return Packet(src, dst, UDP, _with_pseudo_header(src, dst, UDP, head, 6))


def icmp(src: str, dst: str, kind: int, code: int, token: bytes = b"") -> Packet:
    """Make an ICMP message; 3, 4 is "fragmentation needed", 0, 0 an echo reply."""
    head = struct.pack("!BBHI", kind, code, 0, 1476) + token
    return Packet(src, dst, ICMP, head[:2] + struct.pack("!H", checksum(head)) + head[4:])


def mss_of(packet: bytes) -> int:
    """Return the MSS option of an IPv4 TCP SYN."""
    segment = packet[(packet[0] & 0xF) * 4 :]
    size: int = struct.unpack("!H", segment[22:24])[0]
    assert segment[20:22] == b"\2\4", segment
    assert (
        checksum(
            socket.inet_aton(socket.inet_ntoa(packet[12:16]))
            + packet[16:20]
            + struct.pack("!BBH", 0, TCP, len(segment))
            + segment
        )
        == 0
    )
    return size


def token() -> bytes:
    """Return bytes that no other packet of this run has; an even number."""
    return os.urandom(12)


def received(opened: socket.socket, last: bytes) -> list[bytes]:
    """Read until a packet with these bytes comes; returns all that came, it included."""
    found: list[bytes] = []
    while True:
        packet = opened.recv(65535)
        found.append(packet)
        if last in packet:
            return found
