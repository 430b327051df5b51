import platform
import subprocess
import sys

import pytest

# Small blocks between others that stay: nothing at the end of the heap becomes free by itself.
FRAGMENT = """
import ctypes, os
from dynlearn_services.server.models import memory

def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

malloc, free = ctypes.CDLL(None).malloc, ctypes.CDLL(None).free
malloc.restype, free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
blocks = [malloc(65536) for _ in range(1600)]
for block in blocks:
    ctypes.memset(block, 1, 65536)
for block in blocks[:-1]:
    free(block)
before = resident()
memory.hand_back()
print(before - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone can be asked")
def test_freed_blocks_are_handed_back():
    run = subprocess.run(
        [sys.executable, "-c", FRAGMENT], capture_output=True, text=True, check=True
    )
    assert int(run.stdout) > 90 * 2**20
