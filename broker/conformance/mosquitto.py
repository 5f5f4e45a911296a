"""Plays the packet sequences of Mosquitto's broker tests: test/broker/data/*.json of its repository.

A sequence sends packets written as text and names the answers byte for byte. The comparison looks past two
differences, because the standard leaves them to the server: the order of the properties in CONNACK, and a reason
string, which Mosquitto never sends. Every other one that is no failure stands in expectations.toml.
"""

import json
import socket
import tomllib
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import Path

import gateway

EXPECTATIONS = Path(__file__).with_name("expectations.toml")
# What Mosquitto's own defaults announce in CONNACK; and without Paho's forbidden topic: a wide share that would
# select it is refused.
SETTINGS = {
    "SHOPFLOOR_MQTT__ACL__RULES": "[]",
    "SHOPFLOOR_MQTT__RECEIVE_MAXIMUM": "20",
    "SHOPFLOOR_MQTT__TOPIC_ALIAS_MAXIMUM": "10",
    "SHOPFLOOR_MQTT__MAX_PACKET_BYTES": "2000000",
}
TIMEOUT_S = 10


@dataclass
class Entry:
    """One of expectations.toml."""

    names: list
    reason: str
    expected: bytes = b""
    got: bytes = b""
    before_end: bytes = b""
    any_order: bool = False
    used: int = 0

    @classmethod
    def read(cls, listed):
        return cls(**{key: parse(value) if key in PACKETS else value for key, value in listed.items()})

    def concerns(self, case):
        return any(fnmatchcase(case.name, pattern) for pattern in self.names)


PACKETS = ("expected", "got", "before_end")


class Expectations:
    def __init__(self):
        listed = tomllib.loads(EXPECTATIONS.read_text())
        self.not_applicable = [Entry.read(entry) for entry in listed["not_applicable"]]
        self.also = [Entry.read(entry) for entry in listed["also"]]

    def check_all_used(self):
        for entry in self.not_applicable + self.also:
            if not entry.used:
                raise SystemExit(f"{EXPECTATIONS.name}: no case needs the entry for {entry.names}: remove it")


@dataclass
class Case:
    name: str
    version: int
    connect: bool
    ends: bool
    steps: list
    also: list = field(default_factory=list)
    # Entries that an answer was taken by.
    taken: list = field(default_factory=list)
    # Packets that came before the step that expects them.
    early: list = field(default_factory=list)

    def takes_also(self, differs):
        entry = next((entry for entry in self.also if differs(entry)), None)
        if entry and entry not in self.taken:
            self.taken.append(entry)
        return entry is not None


class Unexpected(Exception):
    """The gateway answered otherwise than the sequence says."""


def cases(checkout):
    """Every enabled sequence, in the order in which Mosquitto runs them: some depend on the ones before."""
    for file in sorted(Path(checkout, "test/broker/data").glob("*.json")):
        for group in json.loads(file.read_text()):
            if group.get("disable"):
                continue
            for test in group["tests"]:
                own = {**group, **test}
                yield Case(
                    name=f"{group['group']} {test['name']}",
                    version=own.get("ver", 4),
                    connect=own.get("connect", True),
                    ends=own.get("expect_disconnect", True),
                    steps=test["msgs"],
                )


def run(checkout):
    """Plays every case against the gateway that serves; gives a `Result`."""
    expectations, result = Expectations(), Result()
    for case in cases(checkout):
        if reason := next((entry for entry in expectations.not_applicable if entry.concerns(case)), None):
            reason.used += 1
            result.not_applicable.append((case.name, reason.reason))
            continue
        case.also = [entry for entry in expectations.also if entry.concerns(case)]
        try:
            play(case)
            result.passed += 1
            result.exactly += not case.taken
            for entry in case.taken:
                entry.used += 1
        except Unexpected as error:
            result.failed.append(f"{case.name}: {error}")
    if not result.failed:
        expectations.check_all_used()
    result.also = [(entry.used, entry.reason) for entry in expectations.also]
    return result


@dataclass
class Result:
    passed: int = 0
    exactly: int = 0
    failed: list = field(default_factory=list)
    not_applicable: list = field(default_factory=list)
    also: list = field(default_factory=list)


def play(case):
    """Raises `Unexpected` where the gateway differs."""
    with connect() as client:
        try:
            if case.connect:
                client.sendall(connect_packet(case.name, case.version))
                expect(client, case, default_connack(case.version), "the answer to CONNECT")
            groups = [(kind, list(steps)) for kind, steps in groupby(case.steps, key=lambda step: step["type"])]
            for at, (kind, steps) in enumerate(groups, 1):
                play_steps(client, case, kind, steps, received(groups[at:]))
            if case.ends:
                expect_end(client, case)
            else:
                client.sendall(b"\xc0\0")
                expect(client, case, b"\xd0\0", "the answer to PINGREQ at the end")
        except TimeoutError:
            raise Unexpected("no answer") from None
        except OSError as error:
            raise Unexpected(str(error)) from None


def received(groups):
    """The packets that these groups of steps expect."""
    steps = [step for kind, steps in groups if kind == "recv" for step in steps]
    return [packet for step in steps for packet in split_packets(parse(step["payload"]))]


def play_steps(client, case, kind, steps, coming):
    match kind:
        case "send":
            for step in steps:
                client.sendall(parse(step["payload"]))
        case "recv":
            expected = b"".join(parse(step["payload"]) for step in steps)
            expect(client, case, expected, steps[0].get("comment", kind), coming)
        case "external_publish":
            for step in steps:
                publish_from_elsewhere(step)
        case other:
            raise SystemExit(f"{case.name}: a step of the unknown type {other!r}")


def connect():
    return socket.create_connection((gateway.HOST, gateway.PORT), TIMEOUT_S)


def connect_packet(client_id, version):
    """As Mosquitto's helper makes it: a clean session, 60 s; MQTT 5 with receive maximum 20."""
    protocol = b"MQIsdp" if version == 3 else b"MQTT"
    properties = b"\x03\x21\0\x14" if version == 5 else b""
    body = sized(protocol) + bytes([version, 2]) + short(60) + properties + sized(client_id.encode())
    return b"\x10" + variable(len(body)) + body


def default_connack(version):
    if version == 5:
        return b"\x20\x0e\0\0\x0b\x22" + short(10) + b"\x27" + (2_000_000).to_bytes(4) + b"\x21" + short(20)
    return b"\x20\x02\0\0"


def publish_from_elsewhere(step):
    qos, helper = step["qos"], Case("helper", version=4, connect=True, ends=False, steps=[])
    first = 0x30 | qos << 1 | int(step.get("retain", False))
    body = sized(step["topic"].encode()) + (short(1) if qos else b"") + step["payload"].encode()
    with connect() as client:
        client.sendall(connect_packet(helper.name, helper.version))
        expect(client, helper, default_connack(helper.version), "the helper's CONNACK")
        client.sendall(bytes([first]) + variable(len(body)) + body)
        if qos == 1:
            expect(client, helper, b"\x40\x02\0\1", "the helper's PUBACK")
        if qos == 2:
            expect(client, helper, b"\x50\x02\0\1", "the helper's PUBREC")
            client.sendall(b"\x62\x02\0\1")
            expect(client, helper, b"\x70\x02\0\1", "the helper's PUBCOMP")


def expect(client, case, expected, comment, coming=()):
    """Reads as many packets as are expected and compares them one by one. Where the order is free, a later one may be
    there already, also one that only a following step expects (`coming`)."""
    packets = list(split_packets(expected))
    for packet in [packet for packet in case.early if packet in packets]:
        case.early.remove(packet)
        packets.remove(packet)
    while packets:
        got = read_packet(client)
        if same(case, got, packets[0]):
            packets.pop(0)
            continue
        later = next((packet for packet in [*packets[1:], *coming] if same(case, got, packet)), None)
        if later and case.takes_also(lambda entry: entry.any_order):
            if later in packets:
                packets.remove(later)
            else:
                case.early.append(later)
        else:
            raise Unexpected(f"{comment}: got {got.hex(' ') or 'the end'}, expected {packets[0].hex(' ')}")


def same(case, got, expected):
    got, packet = comparable(got, case.version), comparable(expected, case.version)
    return got == packet or case.takes_also(
        lambda entry: expected == entry.expected and got == comparable(entry.got, case.version)
    )


def expect_end(client, case):
    try:
        got = read_packet(client)
        told = got and case.takes_also(
            lambda entry: entry.before_end and comparable(got, 5) == comparable(entry.before_end, 5)
        )
        if told:
            got = client.recv(64)
    except ConnectionResetError:
        return
    except TimeoutError:
        raise Unexpected("still connected") from None
    if got:
        raise Unexpected(f"got {got.hex(' ')} where the connection was to end")


def read_packet(client):
    """One whole packet; nothing at the end of the connection."""
    head = client.recv(1)
    if not head:
        return b""
    length, shift = 0, 0
    while True:
        byte = client.recv(1)
        if not byte:
            return head
        head += byte
        length |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            break
    body = b""
    while len(body) < length and (part := client.recv(length - len(body))):
        body += part
    return head + body


def split_packets(packets):
    while packets:
        length, at, shift = 0, 1, 0
        while True:
            length |= (packets[at] & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if packets[at - 1] < 0x80:
                break
        yield packets[: at + length]
        packets = packets[at + length :]


def comparable(packet, version):
    """The packet without what the standard leaves to the server."""
    if version != 5 or len(packet) < 2:
        return packet
    header = 1 + len(variable(len(packet) - 2))
    kind, body = packet[0] >> 4, packet[header:]
    # CONNACK, PUBACK to PUBCOMP, DISCONNECT: where the property list begins.
    start = {2: 2, 4: 3, 5: 3, 6: 3, 7: 3, 14: 1}.get(kind)
    if start is None:
        return packet
    if len(body) <= start:
        return packet[0], body, []
    listed = [one for one in properties(body[start:]) if one[0] != REASON_STRING]
    return packet[0], body[:start], sorted(listed)


REASON_STRING = 0x1F
FIXED_BYTES = {0x11: 4, 0x13: 2, 0x21: 2, 0x22: 2, 0x24: 1, 0x25: 1, 0x27: 4, 0x28: 1, 0x29: 1, 0x2A: 1}


def properties(listed):
    """The properties of a list, each as its bytes."""
    listed = listed[1:] if listed[0] < 0x80 else listed[2:]
    while listed:
        kind = listed[0]
        if kind in FIXED_BYTES:
            count = FIXED_BYTES[kind]
        else:
            count = 2 + int.from_bytes(listed[1:3])
            if kind == 0x26:
                count += 2 + int.from_bytes(listed[1 + count : 3 + count])
        yield listed[: 1 + count]
        listed = listed[1 + count :]


def parse(text):
    """The sequences' notation: hex, i8, H16 (k, m, s too), L32, v (r too) variable length, 'text'."""
    packet, rest = b"", text.strip()
    while rest:
        if rest[0] == "'":
            end = rest.index("'", 1)
            packet, rest = packet + rest[1:end].encode(), rest[end + 1 :].strip()
            continue
        word, _, rest = rest.partition(" ")
        rest = rest.strip()
        match word[0]:
            case "i":
                packet += int(word[1:]).to_bytes(1)
            case "H" | "k" | "m" | "s":
                packet += short(int(word[1:]))
            case "L":
                packet += int(word[1:]).to_bytes(4)
            case "v" | "r":
                packet += variable(int(word[1:]))
            case _:
                packet += bytes.fromhex(word)
    return packet


def short(value):
    return value.to_bytes(2)


def sized(text):
    return short(len(text)) + text


def variable(value):
    """May be longer than four bytes: the sequences send such."""
    encoded = b""
    while True:
        value, low = divmod(value, 128)
        encoded += bytes([low | 0x80 if value else low])
        if not value:
            return encoded
