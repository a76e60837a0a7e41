"""What this machine is: CPUs, memory, precision; and C++ libraries that start without a word."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from trainer.errors import InputError

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
SHARED_BY = "TRAINER_SHARED_BY"  # how many processes like this one share the machine: a sweep tells its trials
CPUS = "TRAINER_CPUS"  # how many CPUs a scheduler has granted: a cluster tells its trials
MEMORY_SHARE = 4  # a quarter of the memory may be filled with images


def available_cpus() -> int:
    """How many CPUs this process may use, at least 1.

    The least of its affinity, its share of its cgroup's, and what a scheduler has granted.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    allowed = min(allowed, int(os.environ.get(CPUS, allowed)))
    try:
        membership = MEMBERSHIP.read_text()
    except OSError:
        return allowed
    # Rounded down: a thread beyond the quota is throttled, and the rest of the batch waits for it.
    return max(1, int(min(allowed, cgroup_cpus(membership, CGROUPS) / shared_by())))


def shared_by() -> int:
    """How many processes, this one included, share what the machine or the container has."""
    return int(os.environ.get(SHARED_BY, "1"))


def cgroup_cpus(membership: str, root: Path) -> float:
    """The tightest CPU quota, in CPUs, on the way from a process's cgroup up to the root; inf without any.

    `membership` is the text of /proc/PID/cgroup; `root` is where the cgroups (version 2, or 1) are mounted.
    """
    quotas = [float("inf")]
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / "cpu" if controllers else root
        folder = base / path.lstrip("/")
        # In a container the path may be the host's, which is not mounted; the container's own is the base.
        while True:
            quotas.append(_quota(folder))
            if folder == base or base not in folder.parents:
                break
            folder = folder.parent
    return min(quotas)


def _quota(folder: Path) -> float:
    """CPUs that one cgroup allows (`cpu.max` in version 2, `cpu.cfs_*` in version 1); inf without a limit."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else float("inf")
    except (OSError, ValueError):  # not there, or "max"
        return float("inf")


def require_home() -> None:
    """Raise InputError for a user without a home folder, under which TensorFlow, W&B and others make one called `~`."""
    try:
        Path.home()
    except RuntimeError:
        raise InputError(
            f"the user {os.getuid()} has no home folder; set HOME to a folder that it may write to (BENTOML_HOME, the "
            "models, and TRAINER_CACHE_DIR, decoded images, lie in it where they are not set)"
        ) from None


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Drop what C++ code writes to stderr: LiteRT announces its delegate, and knows no switch for that."""
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(nowhere)
        os.close(saved)


def start_tensorflow() -> None:
    """Import TensorFlow and let it look for GPUs, without its warnings of missing CUDA drivers.

    They come before any setting of its own is read, and look like a failure to people who have no GPU.
    """
    with quiet_stderr():
        import tensorflow as tf

        tf.config.list_physical_devices()


def memory_limit() -> int:
    """Bytes that this machine has, or that its container may use."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(file).read_text()))
        except (OSError, ValueError):  # no such version of cgroups, or "max"
            continue
    return total


def memory_budget() -> int:
    """Bytes of images that may be held in memory: a share of what there is for this process."""
    return memory_limit() // (MEMORY_SHARE * shared_by())


def evaluation_batch(height: int, width: int) -> int:
    """How many pictures are run at once where nothing is trained: their activations grow with the pixels."""
    return max(8, min(256, 256 * 64 * 64 // (height * width)))


def resolve_precision(precision: str, *, cpu_gains: bool = True) -> str:
    """`auto` → bfloat16 where every GPU computes in it, or the processor does and the network gains; else float32."""
    if precision != "auto":
        return precision
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capabilities = [
            tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) for gpu in gpus
        ]
        return "bfloat16" if min(capabilities) >= (8, 0) else "float32"
    if not cpu_gains:
        return "float32"
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:  # not Linux
        return "float32"
    return "bfloat16" if {"avx512_bf16", "amx_bf16"} & set(flags) else "float32"
