"""Tests, and running a part's. A test is a function marked with @test whose name is a sentence; it gets
the machine, and fails by any exception but Skip."""

import os
import shutil
import time
import traceback


class Skip(Exception):
    """Why a test cannot run here."""


def test(function):
    """Marks a test. They run in the order of their file."""
    function.is_test = True
    return function


def same(got, expected, about=""):
    """Fails where the two differ, with both of them in short."""
    if got != expected:
        raise AssertionError(f"{about}\n  got      {shown(got)}\n  expected {shown(expected)}")


def shown(value):
    text = repr(value)
    return text if len(text) <= 1000 else f"{text[:1000]}… ({len(text)} characters)"


def run_part(name, module, word, machine, counts):
    """Runs those tests of a part whose names have this word. A program that is missing skips them all,
    and fails them in CI."""
    print(f"\n== {name}", flush=True)
    missing = [program for program in module.NEEDS if not shutil.which(program)]
    for function in vars(module).values():
        if not getattr(function, "is_test", False) or word not in function.__name__:
            continue
        what = f"{name}: {function.__name__.replace('_', ' ')}"
        begun = time.monotonic()
        try:
            if missing and os.environ.get("CI"):
                raise AssertionError(f"not installed: {' '.join(missing)}")
            if missing:
                raise Skip(f"not installed: {' '.join(missing)}")
            note = function(machine)
            result, detail = "passed", f" ({note})" if note else ""
        except Skip as reason:
            result, detail = "skipped", f": {reason}"
            write_skipped(f"{what}: {reason}")
        except Exception:
            result, detail = "failed", f"\n{traceback.format_exc()}{machine.what_was_said()}"
        counts[result] += 1
        print(f"{result:7} {what} [{time.monotonic() - begun:.1f} s]{detail}", flush=True)


def write_skipped(line):
    """`./test` counts these."""
    path = os.environ.get("SKIPPED_TESTS")
    if path:
        with open(path, "a", encoding="utf-8") as skipped:
            skipped.write(f"{line}\n")
