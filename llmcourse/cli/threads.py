"""How many threads a notebook's kernel may use, and how they wait.

Students keep several kernels open. Two processes of two OpenMP threads each on two cores do not share them: they
spin, waiting for each other, and run many times slower than two of one thread. So a kernel gets half of the cores,
at most four, and its threads sleep while they wait. A person's own OMP_NUM_THREADS wins. Weeks 2 and 11.
"""

import os

MOST = 4


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads() -> int:
    """OpenMP threads for one kernel: half of the cores, at least 1, at most 4."""
    return max(1, min(MOST, cores() // 2))


def kernel_environment() -> dict[str, str]:
    """Settings for a kernel's environment; what the person has set already stays."""
    wanted = {"OMP_NUM_THREADS": str(threads()), "OMP_WAIT_POLICY": "PASSIVE", "JUPYTER_PREFER_ENV_PATH": "1"}
    return {name: os.environ.get(name, value) for name, value in wanted.items()}
