import platform
import subprocess
import sys

import pytest
import torch

from dynlearn_services.server.models.loaded_model import LoadedModel
from dynlearn_services.server.models.memory import evict, hand_back
from dynlearn_services.server.models.served_model import ServedModel

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


def test_the_least_recently_used_leave_first_and_the_current_never(make_model):
    def loaded(version, last_used):
        loaded = LoadedModel("arm", version, make_model())
        loaded.size, loaded.last_used = 10, last_used
        return loaded

    arm = ServedModel("arm")
    for version, last_used in (("1", 0.0), ("2", 2.0), ("3", 1.0)):
        arm.keep(loaded(version, last_used))
    leg = ServedModel("leg")
    leg.keep(loaded("1", 3.0))
    arm.current = arm.versions["1"]
    served = {"arm": arm, "leg": leg}
    assert evict(served, 30) == []
    assert evict(served, 15) == ["arm", "arm"]
    assert (list(arm.versions), list(leg.versions)) == (["1"], ["1"])


def test_what_a_gpu_has_of_them_is_handed_back_too(monkeypatch):
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    hand_back()
    assert emptied == [True]
