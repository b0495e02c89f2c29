"""Runs the parts that are named, or all: starts what they need, says what ran against which version,
and stops everything again. A part is a file in parts/, with NEEDS (programs that it starts) and tests
(functions marked with @test, each of which gets the machine). What tests and parts share is made by a
function that is given to `machine.once`."""

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
    "tokens",
    "keys",
    "clamav",
    "load",
    "browser",
    "sdk",
    "rules",
    "proxies",
    "systemd",
    "package",
    "image",
]


def main(names):
    # "tokens:limits" is those tests of a part whose names have this word.
    chosen = [name.partition(":")[::2] for name in names] or [(name, "") for name in PARTS]
    unknown = [name for name, _ in chosen if name not in PARTS]
    if unknown:
        sys.exit(f"there are no such parts: {' '.join(unknown)}; there are: {' '.join(PARTS)}")
    # Each of these ends the run the way that Ctrl-C does: everything is stopped first.
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.default_int_handler)
    os.umask(0o022)
    begun = time.monotonic()
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    with Machine(pathlib.Path(os.environ["SCANNER"])) as machine:
        for name, word in chosen:
            run_part(name, importlib.import_module(f"parts.{name}"), word, machine, counts)
        print("\nran against:")
        for line in sorted(machine.versions):
            print(f"  {line}")
    print(f"in {time.monotonic() - begun:.0f} s")
    print(", ".join(f"{count} {what}" for what, count in counts.items()))
    return 1 if counts["failed"] or not counts["passed"] else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
