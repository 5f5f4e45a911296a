"""Runs Eclipse Paho's interoperability suites, unmodified."""

import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

TIMEOUT_S = 600


@dataclass
class Result:
    passed: int = 0
    failed: list = field(default_factory=list)


def run(checkout, script):
    """Against the gateway that serves on localhost:1883, the only place where the suites look."""
    try:
        # Without bytecode: the checkout stays as it was.
        suite = subprocess.run(
            [sys.executable, "-B", script],
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
    failed = re.findall(r"^(?:FAIL|ERROR): (\w+)", suite.stdout, re.MULTILINE)
    if failed:
        print(suite.stdout, file=sys.stderr)
    return Result(passed=int(ran.group(1)) - len(failed), failed=failed)
