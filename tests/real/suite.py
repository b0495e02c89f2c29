"""Runs all parts or the named ones, prints the versions of the systems used, and stops all started programs.

A part is a file in parts/ with NEEDS (required programs) and tests (functions marked with @test; each gets the
machine). Objects shared by tests and parts are created by functions passed to `machine.shared`."""

import importlib
import os
import pathlib
import signal
import sys
import time

from harness.machine import Machine
from harness.run import run_part

PARTS = [
    "synapse",
    "api",
    "tokens",
    "incidents",
    "keys",
    "clamav",
    "false_positive",
    "load",
    "browser",
    "operator_page",
    "sdk",
    "rules",
    "types",
    "proxies",
    "systemd",
    "package",
    "image",
]


def main(names):
    # "tokens:limits" selects the tests of the part "tokens" whose names contain "limits".
    chosen = [name.partition(":")[::2] for name in names] or [(name, "") for name in PARTS]
    unknown = [name for name, _ in chosen if name not in PARTS]
    if unknown:
        sys.exit(f"unknown parts: {' '.join(unknown)}; known parts: {' '.join(PARTS)}")
    # These signals end the run as Ctrl-C does: all started programs are stopped first.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    os.umask(0o022)
    start = time.monotonic()
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    with Machine(pathlib.Path(os.environ["SCANNER"])) as machine:
        for name, word in chosen:
            run_part(name, importlib.import_module(f"parts.{name}"), word, machine, counts)
        print("\nran against:")
        for line in sorted(machine.versions):
            print(f"  {line}")
    print(f"in {time.monotonic() - start:.0f} s")
    print(", ".join(f"{count} {result}" for result, count in counts.items()))
    return 1 if counts["failed"] or not counts["passed"] else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
