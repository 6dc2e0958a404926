"""``python -m device_bench.virtual``: run a virtual device until SIGTERM or Ctrl-C.

One JSON line on stdout says when it is ready: ``host``, ``port``, ``serial``, ``pid``
and ``root``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from device_bench.virtual import fault_spec
from device_bench.virtual.server import VirtualDevice
from sparserec.errors import SparseRecError


def main() -> int:
    """Parse the command line and serve; the process's exit code."""
    options = _options()
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
            faults=fault_spec.load(options.faults, options.fault),
        )
        with virtual:
            ready = {"host": virtual.host, "port": virtual.port, "serial": options.serial}
            ready |= {"pid": os.getpid(), "root": str(virtual.device.files.root)}
            if options.until_stdin_ends:
                threading.Thread(target=_wait_for_end, args=(stop,), daemon=True).start()
            with _listed(options.list_in, json.dumps(ready)):
                print(json.dumps(ready), flush=True)
                stop.wait()
    except SparseRecError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


@contextlib.contextmanager
def _listed(folder: Path | None, line: str) -> Iterator[None]:
    """Keep the ready line in ``<folder>/<pid>.json`` while the block runs."""
    if folder is None:
        yield
        return
    record = folder / f"{os.getpid()}.json"
    part = record.with_suffix(".part")
    part.write_text(line)
    part.replace(record)  # whoever lists the folder meanwhile never sees half of it
    try:
        yield
    finally:
        record.unlink(missing_ok=True)


def _wait_for_end(stop: threading.Event) -> None:
    """Our parent holds the other end, so ours ends with it, however it ends."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    stop.set()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m device_bench.virtual", description=__doc__)
    add = parser.add_argument
    add("--root", type=Path, required=True, help="directory for the device's files")
    add("--port", type=int, default=0, help="port on loopback; 0 for a free one")
    add(
        "--authorized-keys",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="public keys (adbkey.pub) whose owners may connect; without any, nobody may",
    )
    add("--harness", type=Path, help="the app's launcher; default: the built one")
    add("--serial", default="sparserec-virtual", help="the device's ro.serialno")
    add("--faults", type=Path, metavar="FILE", help="what is to go wrong, as TOML or JSON")
    add(
        "--fault",
        action="append",
        default=[],
        metavar="LINE",
        help="a line of TOML, such as 'latency_ms = 20' (docs/virtual-device.md)",
    )
    add("--list-in", type=Path, metavar="DIR", help="keep the ready line there too, as a file")
    add("--until-stdin-ends", action="store_true", help="stop also when standard input ends")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
