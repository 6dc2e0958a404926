"""``python -m device_bench.virtual``: run a virtual device until SIGTERM or Ctrl-C.

One JSON line on stdout says when it is ready: ``host``, ``port``, ``serial`` and ``pid``.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from pathlib import Path

from device_bench.virtual.server import VirtualDevice
from sparserec.errors import SparseRecError


def main() -> int:
    """Parse the command line and serve; the process's exit code."""
    parser = argparse.ArgumentParser(prog="python -m device_bench.virtual", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="directory for the device's files")
    parser.add_argument("--port", type=int, default=0, help="port on loopback; 0 for a free one")
    parser.add_argument(
        "--authorized-keys",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="public keys (adbkey.pub) whose owners may connect; without any, nobody may",
    )
    parser.add_argument("--harness", type=Path, help="the app's launcher; default: the built one")
    parser.add_argument("--serial", default="sparserec-virtual", help="the device's ro.serialno")
    options = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        virtual = VirtualDevice(
            options.root,
            port=options.port,
            authorized_keys=options.authorized_keys,
            harness=options.harness,
            serial=options.serial,
        )
        with virtual:
            ready = {"host": virtual.host, "port": virtual.port}
            ready |= {"serial": options.serial, "pid": os.getpid()}
            print(json.dumps(ready), flush=True)
            stop.wait()
    except SparseRecError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
