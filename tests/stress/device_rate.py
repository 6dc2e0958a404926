"""How fast files get to a device: ``python -m tests.stress.device_rate``.

The project's own push and stock adb's, in turns, of the same file to the same virtual device.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from device_bench import keys
from device_bench.adb import Device, Socket
from device_bench.virtual_process import Running, start

NEEDED = 0.7
"""The least that our rate may be of stock adb's."""


def main() -> int:
    """Print both rates in MB/s and their ratio; 1 where it is less than needed."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress.device_rate", description=__doc__)
    parser.add_argument("--mb", type=int, default=200, help="size of the file")
    parser.add_argument("--times", type=int, default=5, help="pushes of each client")
    options = parser.parse_args()
    if shutil.which("adb") is None:
        print("stock adb is not installed: apt install adb", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="sparserec-rate-") as folder:
        rates = measure(Path(folder), options.mb * 1_000_000, options.times)
    ratios = [ours / stock for ours, stock in zip(rates["ours"], rates["stock"], strict=True)]
    for name, values in rates.items():
        shown = " ".join(f"{value:.0f}" for value in values)
        print(f"{name}: median {statistics.median(values):.0f} MB/s ({shown})")
    ratio = statistics.median(ratios)
    print(f"ours / stock: median of {len(ratios)} pairs {ratio:.2f}, at least {NEEDED} needed")
    return int(ratio < NEEDED)


def measure(folder: Path, size: int, times: int) -> dict[str, list[float]]:
    """Push in turns; MB/s of each push by client, ``ours`` and ``stock``."""
    source = folder / "source"
    source.write_bytes(os.urandom(size))
    os.environ |= {"HOME": str(folder), "XDG_STATE_HOME": str(folder / "state")}
    rates: dict[str, list[float]] = {"ours": [], "stock": []}
    with start(folder / "root") as running, _stock(running, source) as stock:
        transport = Socket(running.host, running.port)
        with Device(running.address, transport, [keys.virtual_key()]) as device:

            def ours() -> None:
                device.push(source, "/sdcard/pushed", lambda _: None)

            for _ in range(times):
                for name, push in (("ours", ours), ("stock", stock)):
                    began = time.monotonic()
                    push()
                    rates[name].append(size / 1e6 / (time.monotonic() - began))
                    pushed = folder / "root" / "sdcard" / "pushed"
                    assert pushed.stat().st_size == size
                    pushed.unlink()
    return rates


@contextmanager
def _stock(running: Running, source: Path) -> Iterator[Callable[[], None]]:
    """Stock adb with a server of its own, connected."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    environment = {**os.environ, "ANDROID_ADB_SERVER_PORT": port}
    environment["ADB_VENDOR_KEYS"] = str(keys.virtual_key())
    environment["TMPDIR"] = os.environ["HOME"]  # where the server keeps its log

    def adb(*arguments: str) -> None:
        command = ["adb", *arguments]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)

    adb("connect", running.address)
    try:
        yield lambda: adb("-s", running.address, "push", str(source), "/sdcard/pushed")
    finally:
        adb("kill-server")


if __name__ == "__main__":
    sys.exit(main())
