"""Everything that would leave a network namespace, counted: a TUN device with the default route, and a resolver on it.

Must be made inside a namespace of its own (scripts/check_nothing_leaves.py does): it takes the default route. No packet
goes anywhere. A DNS question is answered with an address of the documentation range, so that who asked goes on to
connect, and is counted again; a TCP connection is refused at once.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import subprocess
import threading
from collections import Counter
from dataclasses import dataclass, field

RESOLVER = "198.51.100.53"  # Addresses are those that RFC 5737 and RFC 3849 keep for documentation.
_ANSWER = "203.0.113.1"
_DEVICE = "sink0"
_SET_UP = (
    "link set lo up",
    f"addr add 198.51.100.2/24 dev {_DEVICE}",
    f"link set {_DEVICE} up",
    f"route add default dev {_DEVICE}",
)
#: Not every kernel has IPv6; where it is, it is watched too.
_SET_UP_IPV6 = (f"-6 addr add 2001:db8::2/64 dev {_DEVICE} nodad", f"-6 route add default dev {_DEVICE}")
_TUNSETIFF = 0x400454CA
_IFF_TUN_NO_PI = 0x1001
_TCP, _UDP, _ICMPV6, _HOP_BY_HOP = 6, 17, 58, 0
_DNS_PORTS = {53, 5353, 853}
_SYN, _RST_ACK = 0x02, 0x14


@dataclass
class Seen:
    """What was tried: names looked up, and ``protocol address:port`` of each connection or datagram flow."""

    lookups: Counter[str] = field(default_factory=Counter)
    connections: Counter[str] = field(default_factory=Counter)

    def describe(self) -> str:
        """Names and addresses with how often, in one line."""
        return ", ".join(f"{what} ×{count}" for what, count in sorted((self.lookups + self.connections).items()))


class PacketSink:
    """Counts until ``close``; ``take`` gives what was seen since the last call.

    Raises OSError or CalledProcessError where the device cannot be made.
    """

    def __init__(self) -> None:
        self._device = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(self._device, _TUNSETIFF, struct.pack("16sH", _DEVICE.encode(), _IFF_TUN_NO_PI))
        for command in _SET_UP:
            subprocess.run(["ip", *command.split()], check=True, capture_output=True, text=True)
        for command in _SET_UP_IPV6:
            subprocess.run(["ip", *command.split()], check=False, capture_output=True, text=True)
        self._seen = Seen()
        self._flows: set[tuple[object, ...]] = set()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="packet-sink", daemon=True)
        self._thread.start()

    def take(self) -> Seen:
        """What was seen since the last call."""
        with self._lock:
            taken, self._seen = self._seen, Seen()
            self._flows.clear()
        return taken

    def close(self) -> None:
        """Stop counting and remove the device."""
        self._stopping.set()
        self._thread.join()
        os.close(self._device)

    def _run(self) -> None:
        while not self._stopping.is_set():
            if select.select([self._device], [], [], 0.1)[0]:
                packet = os.read(self._device, 65535)
                with self._lock:
                    answer = self._count(packet)
                if answer:
                    os.write(self._device, answer)

    def _count(self, packet: bytes) -> bytes | None:
        version = packet[0] >> 4
        if version == 4:
            protocol, payload = packet[9], packet[(packet[0] & 15) * 4 :]
            target = socket.inet_ntop(socket.AF_INET, packet[16:20])
        else:
            protocol, payload = packet[6], packet[40:]
            target = socket.inet_ntop(socket.AF_INET6, packet[24:40])
            if protocol == _HOP_BY_HOP and payload:
                protocol, payload = payload[0], payload[(payload[1] + 1) * 8 :]
            if protocol == _ICMPV6 and target.startswith("ff02::"):
                return None  # The kernel's own neighbour discovery, as with any IPv6 device.
        if protocol not in (_TCP, _UDP):
            self._seen.connections[f"protocol {protocol} {target}"] += 1
            return None
        source_port, port = struct.unpack("!HH", payload[:4])
        if protocol == _TCP:
            if payload[13] & _SYN:
                self._flow("tcp", target, port, source_port, f"tcp {target}:{port}")
                return _refusal(packet, payload) if version == 4 else None
            return None
        if port in _DNS_PORTS:
            name = _question(payload[8:])
            self._seen.lookups[name] += 1
            return _dns_answer(packet, payload) if version == 4 and port == 53 else None
        self._flow("udp", target, port, source_port, f"udp {target}:{port}")
        return None

    def _flow(self, protocol: str, target: str, port: int, source_port: int, shown: str) -> None:
        """A connection counts once, however often its first packet is sent again."""
        flow = (protocol, target, port, source_port)
        if flow not in self._flows:
            self._flows.add(flow)
            counted = self._seen.lookups if port in _DNS_PORTS else self._seen.connections
            counted[shown] += 1


def _question(message: bytes) -> str:
    """The name that a DNS message asks for."""
    labels, at = [], 12
    while at < len(message) and message[at]:
        labels.append(message[at + 1 : at + 1 + message[at]].decode("ascii", "replace"))
        at += 1 + message[at]
    return ".".join(labels) or "(no name)"


def _dns_answer(packet: bytes, payload: bytes) -> bytes:
    """One A record for a question of that type, no record for any other."""
    query = payload[8:]
    end = query.index(b"\0", 12) + 5
    question = query[12:end]
    is_a = question[-4:-2] == b"\0\1"
    header = query[:2] + b"\x81\x80" + struct.pack("!HHHH", 1, int(is_a), 0, 0)
    record = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + socket.inet_aton(_ANSWER) if is_a else b""
    body = header + question + record
    udp = payload[2:4] + payload[0:2] + struct.pack("!HH", 8 + len(body), 0) + body
    return _ipv4(packet, _UDP, udp)


def _refusal(packet: bytes, payload: bytes) -> bytes:
    sequence = (struct.unpack("!I", payload[4:8])[0] + 1) & 0xFFFFFFFF
    reset = payload[2:4] + payload[0:2] + struct.pack("!IIBBHHH", 0, sequence, 0x50, _RST_ACK, 0, 0, 0)
    pseudo = packet[16:20] + packet[12:16] + struct.pack("!BBH", 0, _TCP, len(reset))
    return _ipv4(packet, _TCP, reset[:16] + struct.pack("!H", _checksum(pseudo + reset)) + reset[18:])


def _ipv4(packet: bytes, protocol: int, payload: bytes) -> bytes:
    """A packet back to the sender of ``packet``."""
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0) + packet[16:20] + packet[12:16]
    return header[:10] + struct.pack("!H", _checksum(header)) + header[12:] + payload


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    padded = data + b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
