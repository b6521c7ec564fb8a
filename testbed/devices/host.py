"""A host or server: end points of replayed flows live here; it forwards nothing."""

from testbed.devices.linux import LinuxNode

HOST = LinuxNode()
