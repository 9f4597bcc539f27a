"""A signal is obeyed wherever it falls, also where Python drops what is raised."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

# Stops the program while it looks for one of its modules, which it would look for ever: only a signal ends that.
STOPPED = """
import gc, itertools, os, signal, sys, weakref
{dropping}
class Finder:
    def find_spec(self, name, path, target=None):
        if name == "dbcli.workflows.status":
            sys.meta_path.remove(self)
            drop()
            for _ in itertools.count():
                pass
sys.meta_path.insert(0, Finder())
from dbcli.cli.app import main
main([])
"""
DROPPING = {
    "a weak reference's callback": """
def drop():
    thing = Finder()
    kept = weakref.ref(thing, lambda gone: os.kill(os.getpid(), {number}))
    del thing
""",
    "a destructor": """
class Thing:
    def __del__(self):
        os.kill(os.getpid(), {number})
def drop():
    Thing()
""",
    "a look for garbage": """
def drop():
    gc.callbacks.append(lambda phase, how: phase == "start" and os.kill(os.getpid(), {number}))
    gc.collect()
    gc.callbacks.pop()
""",
    "plain code": """
def drop():
    os.kill(os.getpid(), {number})
""",
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("place", DROPPING)
def test_a_signal_that_python_drops_stops_the_program(place: str, number: signal.Signals) -> None:
    code = STOPPED.format(dropping=DROPPING[place].format(number=int(number)))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 128 + number
    assert (done.stdout, done.stderr.strip()) == ("", "Stopped.")


def test_anything_else_that_python_drops_is_reported_as_ever() -> None:
    code = STOPPED.format(dropping=DROPPING["a destructor"].format(number="1 / 0") + "    sys.exit(0)\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "ZeroDivisionError" in done.stderr
