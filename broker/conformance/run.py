#!/usr/bin/env python3
"""Runs the conformance suites of other MQTT implementations against a fresh gateway each, prints the table and
writes it to broker/CONFORMANCE.md. `make conformance` calls it; it needs git, Python 3.11 and port 1883.

Layout: gateway.py serves, paho.py and mosquitto.py run a suite each, expectations.toml says where Mosquitto's
sequences do not apply or another answer is right.
"""

import argparse
import subprocess
import sys
from collections import Counter
from pathlib import Path

import gateway
import mosquitto
import paho

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "broker/CONFORMANCE.md"
CLONES = ROOT / ".run/conformance"
PAHO_URL = "https://github.com/eclipse-paho/paho.mqtt.testing"
MOSQUITTO_URL = "https://github.com/eclipse-mosquitto/mosquitto"


def main():
    arguments = parse_arguments()
    paho_checkout = arguments.paho or clone(PAHO_URL, "PAHO")
    mosquitto_checkout = arguments.mosquitto or clone(MOSQUITTO_URL, "MOSQUITTO")

    with gateway.serving(arguments.gateway, {}):
        v3 = paho.run(paho_checkout, "client_test.py")
    print(line("paho-v3", v3), flush=True)
    with gateway.serving(arguments.gateway, {}):
        v5 = paho.run(paho_checkout, "client_test5.py")
    print(line("paho-v5", v5), flush=True)
    with gateway.serving(arguments.gateway, mosquitto.SETTINGS):
        sequences = mosquitto.run(mosquitto_checkout)
    print(f"{line('mosquitto', sequences)} ({len(sequences.not_applicable)} not applicable)")

    for name, reason in sequences.not_applicable:
        print(f"not applicable: {name}: {reason}")
    failed = [*v3.failed, *v5.failed, *sequences.failed]
    for failure in failed:
        print(f"failed: {failure}")
    TABLE.write_text(table(v3, v5, sequences))
    return 1 if failed else 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gateway", required=True, help="the shopfloor binary")
    parser.add_argument("--paho", help=f"checkout of {PAHO_URL}; cloned without one")
    parser.add_argument("--mosquitto", help=f"checkout of {MOSQUITTO_URL}; cloned without one")
    return parser.parse_args()


def clone(url, variable):
    checkout = CLONES / url.rpartition("/")[2]
    if not checkout.exists():
        CLONES.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run(["git", "clone", "--quiet", "--depth", "1", url, checkout], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise SystemExit(
                f"cannot clone {url} ({error}); clone it elsewhere and say "
                f"make conformance {variable}=<checkout>"
            ) from None
    return checkout


def total(result):
    return result.passed + len(result.failed)


def line(name, result):
    return f"{name} {result.passed}/{total(result)}"


def table(v3, v5, sequences):
    not_applicable = Counter(reason for _, reason in sequences.not_applicable)
    return f"""# Conformance

Written by `make conformance PAHO=<checkout> MOSQUITTO=<checkout>`, which runs the suites of others, unmodified,
against a fresh gateway each; without the variables it clones them. Nothing of theirs is in this repository.

| Suite | Passed | Total | Not applicable |
| --- | --- | --- | --- |
| [paho.mqtt.testing]({PAHO_URL}), `interoperability/client_test.py` | {v3.passed} | {total(v3)} | 0 |
| the same, `client_test5.py` | {v5.passed} | {total(v5)} | 0 |
| [Mosquitto]({MOSQUITTO_URL}), `test/broker/data/*.json` | {sequences.passed} | {total(sequences)} | {len(sequences.not_applicable)} |

Two cases of `client_test5.py` (`test_subscribe_options`, `test_request_response`) publish on one connection right
behind a SUBSCRIBE on another, without waiting for its SUBACK. A gateway takes the two in the order in which they came
where one thread serves both, so the suites run with `TOKIO_WORKER_THREADS=1`.

The gateway runs with `broker/conformance/gateway.toml`; for Mosquitto's sequences also with the limits that its own
defaults announce in CONNACK. The sequences compare packets byte for byte, but for the order of the properties in
CONNACK and reason strings, which Mosquitto never sends.

{listed("Failed", ([*v3.failed, *v5.failed, *sequences.failed]))}## Not applicable

| Cases | Why |
| --- | --- |
{rows((count, reason) for reason, count in not_applicable.items())}
## Another answer than Mosquitto's

{sequences.exactly} sequences were answered as Mosquitto answers. In the others the standard asks for another answer or leaves the
choice; these are taken too (`broker/conformance/expectations.toml` names the sequences and the bytes):

| Sequences | Why |
| --- | --- |
{rows(sequences.also)}"""


def rows(entries):
    return "".join(f"| {count} | {reason} |\n" for count, reason in entries)


def listed(title, entries):
    return f"## {title}\n\n" + "".join(f"- {entry}\n" for entry in entries) + "\n" if entries else ""


if __name__ == "__main__":
    sys.exit(main())
