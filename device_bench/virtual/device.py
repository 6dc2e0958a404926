"""What the virtual device is, apart from its connections: files, properties, log and harness."""

from __future__ import annotations

import platform
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from device_bench.virtual.faults import Faults
from device_bench.virtual.files import DeviceFiles
from device_bench.virtual.harness import Harness
from device_bench.virtual.log import Log
from device_bench.virtual.packages import Packages
from device_bench.virtual.storage import Storage

MODEL = "SparseRec Virtual Device"


class Device:
    """The state that all connections and commands share."""

    def __init__(
        self,
        files: DeviceFiles,
        storage: Storage,
        harness: Harness,
        log: Log,
        faults: Faults,
        authorized_keys: Sequence[RSAPublicKey],
        serial: str,
    ) -> None:
        self.files = files
        self.storage = storage
        self.harness = harness
        self.log = log
        self.faults = faults
        self.authorized_keys = authorized_keys
        self.properties = _properties(serial) | faults.spec.properties
        self.packages = Packages(files, storage, self.properties)

    def banner(self, features: Sequence[str]) -> bytes:
        """What the device says of itself when a client connects."""
        names = ("ro.product.name", "ro.product.model", "ro.product.device")
        properties = "".join(f"{name}={self.properties[name]};" for name in names)
        return f"device::{properties}features={','.join(features)}".encode()


def _properties(serial: str) -> dict[str, str]:
    """The properties ``getprop`` shows; ``ro.sparserec.virtual`` marks this device for clients."""
    machine = platform.machine().lower()
    abi = {"amd64": "x86_64", "aarch64": "arm64-v8a", "arm64": "arm64-v8a"}.get(machine, machine)
    return {
        "ro.build.characteristics": "virtual",
        "ro.build.type": "user",
        "ro.build.version.release": "14",
        "ro.build.version.sdk": "34",
        "ro.kernel.qemu": "0",
        "ro.product.brand": "SparseRec",
        "ro.product.cpu.abi": abi,
        "ro.product.cpu.abilist": abi,
        "ro.product.device": "sparserec_virtual",
        "ro.product.manufacturer": "SparseRec",
        "ro.product.model": MODEL,
        "ro.product.name": "sparserec_virtual",
        "ro.serialno": serial,
        "ro.sparserec.virtual": "1",
        "sys.boot_completed": "1",
    }
