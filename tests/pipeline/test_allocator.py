"""The allocator keeps or returns what was freed: seen by the kernel's own counts."""

import platform
import subprocess
import sys

import pytest

PROBE = """
import resource, sys
import numpy as np
from pipeline.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    np.ones(20_000_000, np.float32)
before = faults()
for _ in range(5):
    np.ones(20_000_000, np.float32)
print(faults() - before)
"""


def page_faults(how: str) -> int:
    run = subprocess.run(
        [sys.executable, "-c", PROBE, how], capture_output=True, text=True, check=True
    )
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_large_arrays_are_not_mapped_anew() -> None:
    # 80 MB in huge pages of 2 MiB are 38 faults, in small ones 19,532.
    assert page_faults("keep") < 20 < page_faults("as it is")


HOLES = """
import sys
import numpy as np
from pipeline.allocator import return_freed_memory
if sys.argv[1] == "return":
    assert return_freed_memory()
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
np.ones(6_000_000, np.float32)  # freed: from now on glibc keeps blocks of this size
before = resident()
blocks = []
for _ in range(20):
    blocks += [np.ones(5_000_000, np.float32), np.ones(100_000, np.float32)]
del blocks[::2]
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_holes_go_back_to_the_kernel() -> None:
    """Twenty blocks of 20 MB, one of 400 kB after each, are freed but for the small ones."""
    kept, returned = (
        int(subprocess.check_output([sys.executable, "-c", HOLES, how], text=True))
        for how in ("as it is", "return")
    )
    assert returned < 20_000_000 < 300_000_000 < kept
