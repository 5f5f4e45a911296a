"""Runs Eclipse Paho's interoperability suites, unmodified."""

import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

TIMEOUT_S = 600
# These publish on one connection right behind a SUBSCRIBE on another and wait for the wrong SUBACK. A server that
# serves connections in parallel may take the two in either order; each case is run again, by itself, when it fails.
RACES = {"test_subscribe_options", "test_request_response"}
MAX_RUNS = 5


@dataclass
class Result:
    passed: int = 0
    failed: list = field(default_factory=list)
    # Cases of RACES that needed a further run.
    again: list = field(default_factory=list)


def run(checkout, script):
    """Against the gateway that serves on localhost:1883, the only place where the suites look."""
    output, total, failed = run_once(checkout, script)
    again = [case for case in failed if case in RACES]
    failed = [case for case in failed if case not in RACES or not passes_again(checkout, script, case)]
    if failed:
        print(output, file=sys.stderr)
    return Result(passed=total - len(failed), failed=failed, again=[case for case in again if case not in failed])


def passes_again(checkout, script, case):
    return any(not run_once(checkout, script, f"Test.{case}")[2] for _ in range(1, MAX_RUNS))


def run_once(checkout, script, *cases):
    """The suite's output, the number of its cases, and those that failed."""
    try:
        # Without bytecode: the checkout stays as it was.
        suite = subprocess.run(
            [sys.executable, "-B", script, *cases],
            cwd=Path(checkout, "interoperability"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        # Some cases wait for ever for what does not come.
        raise SystemExit(f"{script} did not end in {TIMEOUT_S} s:\n{(error.stdout or b'').decode()}") from None
    ran = re.search(r"^Ran (\d+) tests? in", suite.stdout, re.MULTILINE)
    if not ran:
        raise SystemExit(f"{script} did not run:\n{suite.stdout}")
    return suite.stdout, int(ran.group(1)), re.findall(r"^(?:FAIL|ERROR): (\w+)", suite.stdout, re.MULTILINE)
