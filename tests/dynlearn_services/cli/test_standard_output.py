import os
import subprocess
import sys

import pytest

SCRIPT = """
import atexit, ctypes, os, sys
from dynlearn_services.cli import app, standard_output
libc = ctypes.CDLL(None)

def say(when):
    print(f"Python {when}")
    print(f"Python's own {when}", file=sys.__stdout__)
    os.write(1, f"system {when}\\n".encode())
    libc.printf(f"C {when}\\n".encode())
    os.system(f"echo shell {when}")

def run(arguments):
    with standard_output.clean_standard_output():
        say("within")
    print("result")
    return 3

app.run = run
atexit.register(say, "at exit")
import dynlearn_services
dynlearn_services.main()
"""


@pytest.mark.parametrize("closed", [None, 1, 2])
def test_whatever_prints_standard_output_holds_the_result_alone(closed: int | None) -> None:
    def close() -> None:
        if closed is not None:
            os.close(closed)

    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, preexec_fn=close
    )
    assert done.returncode == 3, done.stderr
    assert done.stdout == ("" if closed == 1 else "result\n")
    if closed is None:
        for when in ("within", "at exit"):
            for who in ("Python", "Python's own", "system", "C", "shell"):
                assert f"{who} {when}" in done.stderr
