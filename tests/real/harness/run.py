"""Runs the tests of a part. A test is a function marked with @test. It gets the machine, and fails by any exception
except Skip."""

import os
import shutil
import time
import traceback


class Skip(Exception):
    """Raised with the reason why a test cannot run on this machine."""


def test(function):
    """Marks a test. Tests run in file order."""
    function.is_test = True
    return function


def assert_equal(got, expected, about=""):
    """Raises AssertionError with both values, shortened, if they differ."""
    if got != expected:
        raise AssertionError(f"{about}\n  got      {shorten(got)}\n  expected {shorten(expected)}")


def shorten(value):
    text = repr(value)
    return text if len(text) <= 1000 else f"{text[:1000]}… ({len(text)} characters)"


def run_part(name, module, word, machine, counts):
    """Runs the tests of a part whose names contain `word`. If a required program is missing, all tests are skipped;
    in CI they fail."""
    print(f"\n== {name}", flush=True)
    missing = [program for program in module.NEEDS if not shutil.which(program)]
    # A copy: a warning at run time adds a name to the module.
    for function in list(vars(module).values()):
        if not getattr(function, "is_test", False) or word not in function.__name__:
            continue
        title = f"{name}: {function.__name__.replace('_', ' ')}"
        start = time.monotonic()
        try:
            if missing and os.environ.get("CI"):
                raise AssertionError(f"not installed: {' '.join(missing)}")
            if missing:
                raise Skip(f"not installed: {' '.join(missing)}")
            note = function(machine)
            result, detail = "passed", f" ({note})" if note else ""
        except Skip as reason:
            result, detail = "skipped", f": {reason}"
            record_skipped(f"{title}: {reason}")
        except Exception:
            result, detail = "failed", f"\n{traceback.format_exc()}{machine.log_excerpts()}"
        counts[result] += 1
        print(f"{result:7} {title} [{time.monotonic() - start:.1f} s]{detail}", flush=True)


def record_skipped(line):
    """Appends a line to $SKIPPED_TESTS, which `./test` counts."""
    path = os.environ.get("SKIPPED_TESTS")
    if path:
        with open(path, "a", encoding="utf-8") as skipped:
            skipped.write(f"{line}\n")
