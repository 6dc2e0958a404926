"""A device on loopback: speaks adb, keeps its files in a directory, runs the desktop harness."""

from device_bench.virtual.server import VirtualDevice

__all__ = ["VirtualDevice"]
