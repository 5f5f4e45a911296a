"""A fresh gateway for one suite."""

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

CONFIG = Path(__file__).with_name("gateway.toml")
# The suites of Eclipse Paho know no other.
HOST, PORT = "localhost", 1883
START_S, STOP_S = 30, 30


@contextlib.contextmanager
def serving(binary, settings):
    """Serves with an empty data directory; `settings` are SHOPFLOOR_ variables over gateway.toml."""
    with contextlib.closing(socket.socket()) as probe:
        if probe.connect_ex((HOST, PORT)) == 0:
            raise SystemExit(f"something listens on {HOST}:{PORT} already: stop it, the suites know no other port")
    with tempfile.TemporaryDirectory(prefix="shopfloor-conformance-") as data:
        log = Path(data, "gateway.log")
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SHOPFLOOR_")},
            "SHOPFLOOR_GATEWAY__DATA_DIR": f"{data}/spool",
            # Paho's cases do not wait for each SUBACK and UNSUBACK before they publish on another connection, and only
            # one thread serves two connections in the order of their packets.
            "TOKIO_WORKER_THREADS": "1",
            **settings,
        }
        with log.open("w") as output:
            gateway = subprocess.Popen(
                [binary, "gateway", "--config", CONFIG], env=environment, stdout=output, stderr=output
            )
        try:
            wait_until_it_listens(gateway, log)
            yield
            if gateway.poll() is not None:
                raise SystemExit(f"the gateway ended under test:\n{log.read_text()}")
        finally:
            stop(gateway)


def wait_until_it_listens(gateway, log):
    deadline = time.monotonic() + START_S
    while gateway.poll() is None and time.monotonic() < deadline:
        with contextlib.closing(socket.socket()) as probe:
            if probe.connect_ex((HOST, PORT)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"the gateway does not listen on {HOST}:{PORT}:\n{log.read_text()}")


def stop(gateway):
    gateway.send_signal(signal.SIGTERM)
    try:
        gateway.wait(STOP_S)
    except subprocess.TimeoutExpired:
        gateway.kill()
        gateway.wait()
