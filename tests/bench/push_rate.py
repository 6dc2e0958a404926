"""How fast files go to a device, beside stock adb: ``python -m tests.bench.push_rate``.

A virtual device in a process of its own is pushed the same file by stock adb (through a server of
its own, on another port), by us directly, by us through that server, and by us as ``sparserec
deploy`` sends a file: in pieces, with its SHA-256 checked on the device. The ways take turns, and
each gives the ratio to stock adb's rate of the same round; the median is what counts.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from device_bench import keys, virtual_process
from device_bench.adb import Device, Socket
from device_bench.adb_server import ThroughServer
from device_bench.transfer import Transfer, send

Way = Callable[[], object]


def main() -> int:
    """Measure and print a line for each round and the medians; 1 where a ratio is below --least."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=200, help="size of the file")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--least", type=float, default=0.7, help="smallest ratio that is enough")
    options = parser.parse_args()
    if shutil.which("adb") is None:
        print("stock adb is missing (Debian: apt install adb)", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="push-rate-") as folder:
        return measure(Path(folder), options.megabytes * 1_000_000, options.rounds, options.least)


def measure(folder: Path, size: int, rounds: int, least: float) -> int:
    """Push ``size`` bytes each way ``rounds`` times."""
    os.environ |= {"HOME": str(folder), "XDG_STATE_HOME": str(folder)}
    os.environ |= {"ANDROID_ADB_SERVER_PORT": str(free_port())}
    os.environ["ADB_VENDOR_KEYS"] = str(keys.virtual_key())
    file = folder / "file"
    file.write_bytes(random.Random(1).randbytes(size))
    with virtual_process.start(folder / "phone") as running:
        try:
            adb("connect", running.address)
            return compare(ways(running, file), size, rounds, least)
        finally:
            adb("kill-server")


def ways(running: virtual_process.Running, file: Path) -> dict[str, Way]:
    """What is compared; stock adb first."""
    direct = Device(running.address, Socket(running.host, running.port), [keys.virtual_key()])
    direct.connect()
    served = Device(running.address, ThroughServer(running.address))
    served.connect()
    digest = hashlib.sha256(file.read_bytes()).hexdigest()

    def checked() -> None:
        direct.shell("rm -f /sdcard/d /sdcard/d.part")
        send(direct, Transfer(file, "/sdcard/d", digest, file.stat().st_size))

    return {
        "stock adb": lambda: adb("-s", running.address, "push", str(file), "/sdcard/a"),
        "direct": lambda: direct.push(file, "/sdcard/b", lambda _: None),
        "adb server": lambda: served.push(file, "/sdcard/c", lambda _: None),
        "direct, in pieces, checked": checked,
    }


def compare(found: dict[str, Way], size: int, rounds: int, least: float) -> int:
    """Run the ways in turn, the first round uncounted, and print rates and ratios."""
    ratios: dict[str, list[float]] = {name: [] for name in found}
    for index in range(rounds + 1):
        rates = {name: size / 1e6 / seconds(way) for name, way in found.items()}
        if index:
            print(", ".join(f"{name} {rate:.0f} MB/s" for name, rate in rates.items()), flush=True)
            for name, rate in rates.items():
                ratios[name].append(rate / rates["stock adb"])
    medians = {name: statistics.median(values) for name, values in ratios.items()}
    print("median of the ratios to stock adb:")
    for name, median in medians.items():
        print(f"  {name}: {median:.2f}")
    return int(any(median < least for median in medians.values()))


def seconds(way: Way) -> float:
    """How long it takes."""
    started = time.perf_counter()
    way()
    return time.perf_counter() - started


def adb(*arguments: str) -> None:
    """Run stock adb."""
    subprocess.run(["adb", *arguments], check=True, capture_output=True)


def free_port() -> int:
    """A port for the server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
