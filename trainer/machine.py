"""Limits of this process on this machine (CPUs, memory, processes, files), precision, and the start of libraries."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from trainer import cgroups
from trainer.errors import InputError

SHARED_BY = "TRAINER_SHARED_BY"  # number of processes that share the machine; a sweep sets it for its trials
CPUS = "TRAINER_CPUS"  # number of CPUs that a scheduler has granted; a cluster sets it for its trials
IMAGES_SHARE = 1 / 4  # of the memory that may be filled with images
PROCESSES_PER_CPU = 8  # threads and processes: decoding, batches, networks and libraries have one for each CPU


def available_cpus() -> int:
    """Number of CPUs that this process may use, at least 1.

    The smallest of its CPU affinity, the number that a scheduler has granted, and its share of its cgroup's quota.
    Where the cgroup allows few processes, fewer: each CPU in use costs PROCESSES_PER_CPU.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    allowed = min(allowed, int(os.environ.get(CPUS, allowed)))
    limit = min(cgroups.cpu_limit(), cgroups.process_limit() / PROCESSES_PER_CPU)
    # Rounded down: a thread beyond the quota is throttled, and the rest of the batch waits for it.
    return max(1, int(min(allowed, limit / shared_by())))


def shared_by() -> int:
    """Number of processes, this one included, that share the machine or the container."""
    return int(os.environ.get(SHARED_BY, "1"))


def memory_limit() -> int:
    """Bytes of memory that this process may use: the machine's, or the smallest limit of its cgroups."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(min(total, cgroups.memory_limit()))


def memory_budget() -> int:
    """Bytes of images that this process may hold in memory."""
    return int(memory_limit() * IMAGES_SHARE) // shared_by()


def raise_open_file_limit() -> None:
    """Let this process open as many files as its hard limit allows; the soft limit is 256 or 1,024 on many systems."""
    import resource  # not on Windows

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS refuses its own hard limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def require_home() -> None:
    """Raise InputError for a user without a home folder: TensorFlow, W&B and others would create one called `~`."""
    try:
        Path.home()
    except RuntimeError:
        raise InputError(
            f"the user {os.getuid()} has no home folder; set HOME to a folder that it may write to (BENTOML_HOME, the "
            "models, and TRAINER_CACHE_DIR, decoded images, lie in it where they are not set)"
        ) from None


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Drop what C++ code writes to stderr: LiteRT announces its delegate and has no switch against that."""
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(nowhere)
        os.close(saved)


def limit_tensorflow_threads() -> None:
    """Give TensorFlow, before its import, a thread for each available CPU; by itself it ignores a cgroup's quota."""
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(name, str(available_cpus()))


def start_tensorflow() -> None:
    """Import TensorFlow and list the GPUs, without its warnings about missing CUDA drivers.

    TensorFlow logs them before it reads any of its settings, and they look like a failure to people without a GPU.
    """
    limit_tensorflow_threads()
    with quiet_stderr():
        import tensorflow as tf

        tf.config.list_physical_devices()


def resolve_precision(precision: str, *, cpu_gains: bool = True) -> str:
    """Resolve `auto`: bfloat16 where every GPU supports it, or the CPU does and the network gains; else float32."""
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
    return "bfloat16" if {"avx512_bf16", "amx_bf16"} & cpu_flags() else "float32"


def cpu_flags() -> set[str]:
    """Instruction sets of an x86 processor, by Linux's names; empty elsewhere."""
    try:
        return set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return set()


def return_free_memory() -> None:
    """Give memory that was freed back to the system; glibc keeps much of it otherwise."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
