"""Writes of a process, seen and failed by the kernel: seccomp's user notifications (Linux 5.5, x86-64).

Each system call that writes (or makes, renames or deletes a file) waits for this process, which answers it: go on, fail
with an errno, or be killed. So every writer is covered, also TensorFlow, NumPy and Pillow, whose writes no Python
function sees, and processes that the process starts. The alternatives cover less: libfiu (`fiu-run`) fails calls at
random and neither by number nor by path, has no mkdir or link, and its preload sees no write within libc, such as
fwrite's; strace counts by thread and knows no folder; patched functions of `os` miss all that is written in C.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import select
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

Kind = Literal["killed", "full", "failing", "read-only"]
KINDS: tuple[Kind, ...] = ("killed", "full", "failing", "read-only")

WRITE, PWRITE, PIDFD_GETFD = 1, 18, 438  # on x86-64
# Number → name, and the arguments that name a file: "d" is the descriptor of a folder that "p" is relative to.
CALLS: dict[int, tuple[str, str]] = {
    WRITE: ("write", "f"),
    PWRITE: ("write", "f"),
    20: ("write", "f"),  # writev
    296: ("write", "f"),  # pwritev
    40: ("write", "f"),  # sendfile
    326: ("write", "  f"),  # copy_file_range
    77: ("truncate", "f"),
    76: ("truncate", "p"),
    74: ("fsync", "f"),
    75: ("fsync", "f"),  # fdatasync
    82: ("rename", " p"),
    264: ("rename", "  dp"),
    316: ("rename", "  dp"),
    83: ("mkdir", "p"),
    258: ("mkdir", "dp"),
    86: ("link", " p"),
    265: ("link", "  dp"),
    88: ("link", " p"),  # symlink
    266: ("link", " dp"),
    87: ("unlink", "p"),
    263: ("unlink", "dp"),
    84: ("unlink", "p"),  # rmdir
    2: ("create", "p"),
    257: ("create", "dp"),
}
OPEN_FLAGS = {2: 1, 257: 2}  # argument with the flags of open and openat, which are seen with O_CREAT only
FREES = ("unlink", "truncate")  # calls that a full disk lets through
AT_FDCWD = 0xFFFFFF9C
X86_64 = 0xC000003E

SECCOMP, SET_MODE_FILTER, NEW_LISTENER, NO_NEW_PRIVS = 317, 1, 8, 38
ALLOW, NOTIFY = 0x7FFF0000, 0x7FC00000
RECEIVE, ANSWER, CONTINUE = 0xC0502100, 0xC0182101, 1  # ioctl numbers and a flag of linux/seccomp.h
_libc = ctypes.CDLL(None, use_errno=True)
NOTIFICATION, RESPONSE = struct.Struct("QIIiIQ6Q"), struct.Struct("QqiI")


class Call(NamedTuple):
    """A system call that writes below the folder that is watched."""

    name: str
    path: str  # relative to the folder

    def __str__(self) -> str:
        return f"{self.name} {self.path}"


@dataclass(frozen=True)
class Fault:
    """A fault at the call `number` (from 1 on): that process killed, or the disk full, failing once, or read-only.

    A full disk stays full, and a read-only one read-only. Of a write, the first half is written before.
    """

    kind: Kind
    number: int

    def __str__(self) -> str:
        return f"{self.kind} at write {self.number}"

    def error(self, number: int, name: str) -> int:
        """The errno with which call `number` fails; 0: it does not."""
        if self.kind == "failing":
            return errno.EIO if number == self.number else 0
        if self.kind == "killed" or number < self.number or (self.kind == "full" and name in FREES):
            return 0
        return errno.ENOSPC if self.kind == "full" else errno.EROFS


Before = Callable[[int, Call], None]  # number, from 1 on, and call


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("program", ctypes.c_void_p))


def is_supported() -> bool:
    """Whether this kernel and processor can do it; a container may forbid it."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return False
    pid = os.fork()
    if pid == 0:
        try:
            _install()
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0


def watch_me(channel: socket.socket) -> None:
    """Let the process at the other end of `channel` answer this process's writes from now on; never taken back."""
    listener = _install()
    socket.send_fds(channel, [b"listener"], [listener])
    os.close(listener)
    channel.recv(1)


def watched_calls(
    channel: socket.socket, pid: int, folder: Path, fault: Fault | None = None, before: Before | None = None
) -> list[Call]:
    """The writes below `folder` of the process group `pid`, which has called `watch_me`, up to its end.

    One may have a `fault`. `before` is called before each, when half of what it writes is written: the folder is as it
    would be if the process were killed there.
    """
    _, (listener,), _, _ = socket.recv_fds(channel, 16, 1)
    channel.send(b"go")
    calls: list[Call] = []
    is_cut = False  # half of a write is written, and this call is about its rest
    try:
        for number, tid, identifier, arguments in _notifications(listener):
            call = _call_of(tid, number, arguments, folder)
            if call is None:
                _answer(listener, identifier)
                continue
            written = 0
            if not is_cut:
                calls.append(call)
                is_hit = fault is not None and len(calls) == fault.number
                written = _write_half(tid, number, arguments) if is_hit or before else 0
                if before:
                    before(len(calls), call)
                if is_hit and fault and fault.kind == "killed":
                    os.killpg(pid, signal.SIGKILL)
                    continue
            is_cut = written > 0
            error = fault.error(len(calls), call.name) if fault and not is_cut else 0
            _answer(listener, identifier, written=written, error=error)
    finally:
        os.close(listener)
    return calls


def _notifications(listener: int) -> Iterator[tuple[int, int, int, tuple[int, ...]]]:
    """Number, thread, identifier and arguments of each call, until no process is left."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while not any(event & select.POLLHUP for _, event in poll.poll()):
        buffer = bytearray(NOTIFICATION.size)
        try:
            fcntl.ioctl(listener, RECEIVE, buffer)
        except FileNotFoundError:  # the process was killed meanwhile
            continue
        identifier, tid, _, number, _, _, *arguments = NOTIFICATION.unpack(buffer)
        yield number, tid, identifier, tuple(arguments)


def _answer(listener: int, identifier: int, *, written: int = 0, error: int = 0) -> None:
    flags = 0 if written or error else CONTINUE
    with suppress(FileNotFoundError):  # the process was killed meanwhile
        fcntl.ioctl(listener, ANSWER, RESPONSE.pack(identifier, written, -error, flags))


def _call_of(tid: int, number: int, arguments: tuple[int, ...], folder: Path) -> Call | None:
    """The call, if it is of a file below `folder`."""
    name, where = CALLS[number]
    base = f"/proc/{tid}/cwd"
    try:
        for kind, value in zip(where, arguments, strict=False):
            if kind in "fd" and value & 0xFFFFFFFF != AT_FDCWD:
                base = f"/proc/{tid}/fd/{value & 0xFFFFFFFF}"
        path = os.readlink(base).removesuffix(" (deleted)")
        if "p" in where:
            path = os.path.normpath(os.path.join(path, _read_path(tid, arguments[where.index("p")])))
    except OSError:  # a descriptor that is closed, or a process that has ended
        return None
    return Call(name, os.path.relpath(path, folder)) if path.startswith(f"{folder}/") else None


def _read_path(tid: int, address: int) -> str:
    with open(f"/proc/{tid}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        return os.fsdecode(memory.read(4096).partition(b"\0")[0])


def _write_half(tid: int, number: int, arguments: tuple[int, ...]) -> int:
    """Write the first half of what a call wants to write → bytes; 0 for other calls, and for a single byte."""
    if number not in (WRITE, PWRITE) or arguments[2] < 2:
        return 0
    descriptor, address, size = arguments[:3]
    with open(f"/proc/{tid}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        half = memory.read(size // 2)
    status = Path(f"/proc/{tid}/status").read_text()
    process = os.pidfd_open(int(status.partition("Tgid:")[2].split()[0]))
    file = _libc.syscall(PIDFD_GETFD, process, descriptor, 0)  # the same open file, with its position
    os.close(process)
    if file < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd")
    try:
        return os.write(file, half) if number == WRITE else os.pwrite(file, half, arguments[3])
    finally:
        os.close(file)


def _install() -> int:
    """Install the filter for this process and those that it starts → the descriptor of its notifications."""
    steps = _program()
    program = ctypes.create_string_buffer(b"".join(steps))
    if _libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    filters = _Filter(len(steps), ctypes.cast(program, ctypes.c_void_p))
    listener: int = _libc.syscall(SECCOMP, SET_MODE_FILTER, NEW_LISTENER, ctypes.byref(filters))
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return listener


def _program() -> list[bytes]:
    """Berkeley packet filter: notify of CALLS, of those that open a file only with O_CREAT, and allow all others."""
    load, equal, is_set, end = 0x20, 0x15, 0x45, 0x06

    def step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("HBBI", code, if_true, if_false, value)

    steps = [step(load, 4), step(equal, X86_64, 1), step(end, ALLOW), step(load, 0)]
    for number in CALLS:
        if number in OPEN_FLAGS:
            flags = [step(load, 16 + 8 * OPEN_FLAGS[number]), step(is_set, os.O_CREAT, 0, 1)]
            steps += [step(equal, number, 0, 4), *flags, step(end, NOTIFY), step(end, ALLOW)]
        else:
            steps += [step(equal, number, 0, 1), step(end, NOTIFY)]
    return [*steps, step(end, ALLOW)]
