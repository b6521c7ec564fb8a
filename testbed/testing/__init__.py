"""What others' tests build on: a device's contract as a suite, and in `plugin` a pytest fixture for what-ifs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from testbed.testing.device_contract import Case, DeviceContract

__all__ = ["Case", "DeviceContract"]


def __getattr__(name: str) -> object:
    """The contract is imported when it is asked for: pytest imports this package for the plugin, in every run."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from testbed.testing import device_contract  # noqa: PLC0415

    return getattr(device_contract, name)
