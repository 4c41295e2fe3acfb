"""What benchmarks say of themselves: on which machine they ran, and figures with as many digits as mean something."""

import platform
from typing import Any


def device_name(device: str = "cpu") -> str:
    """The CPU or the GPU by the name its maker gave it."""
    if device.startswith("cuda"):
        import torch
        return torch.cuda.get_device_name()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            return next(line.partition(":")[2].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def rounded(value: Any) -> Any:
    """The same with four significant digits."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
