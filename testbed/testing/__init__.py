"""What every device kind promises, as a suite that ours and third parties' kinds are held to."""

from testbed.testing.device_contract import Case, DeviceContract

__all__ = ["Case", "DeviceContract"]
