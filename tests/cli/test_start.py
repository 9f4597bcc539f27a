"""The first moment of the program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys


def test_a_signal_while_the_program_is_imported_shows_no_traceback() -> None:
    code = (
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'dbcli.cli.app': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from dbcli.cli.start import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert (done.returncode, done.stderr) == (128 + signal.SIGINT, "")
