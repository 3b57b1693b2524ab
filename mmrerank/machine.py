"""What this machine has for models: cores, memory, GPUs. Imports torch only where a GPU may be there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

_SECONDS = 10
_QUERY = ("--query-gpu=name,memory.total", "--format=csv,noheader,nounits")


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU: its name, and its memory in bytes."""

    name: str
    memory: int


@dataclass(frozen=True, kw_only=True)
class Machine:
    """``cores`` that this process may use, ``memory`` in bytes (0: not known), and the GPUs."""

    cores: int
    memory: int = 0
    gpus: tuple[Gpu, ...] = ()

    @property
    def gpu_memory(self) -> int:
        """Bytes of the largest GPU: a model is not spread over several unless it is asked to be."""
        return max((g.memory for g in self.gpus), default=0)


def look() -> Machine:
    """What is here, as `nvidia-smi` and the system describe it, torch where there is no `nvidia-smi`."""
    return Machine(cores=_cores(), memory=_memory(), gpus=_gpus())


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


def _memory() -> int:
    """Bytes of memory, those of the container where it has fewer; 0 where the system does not say."""
    if sys.platform == "win32":
        return _windows_memory()
    try:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(file).read_text("ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if text.isdigit() and 0 < int(text) < whole:
            return int(text)
    return whole


def _windows_memory() -> int:
    import ctypes

    class Status(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_ulong), ("load", ctypes.c_ulong), ("total", ctypes.c_ulonglong),
            ("rest", ctypes.c_ulonglong * 6),
        )  # fmt: skip

    status = Status()
    status.length = ctypes.sizeof(Status)
    kernel = vars(ctypes).get("windll")
    if kernel is None or not kernel.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return 0
    return int(status.total)


def _gpus() -> tuple[Gpu, ...]:
    if tool := shutil.which("nvidia-smi"):
        try:
            done = subprocess.run(
                [tool, *_QUERY], capture_output=True, text=True, timeout=_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return ()
        return parsed(done.stdout) if done.returncode == 0 else ()
    if not any(Path(p).exists() for p in ("/dev/nvidia0", "/dev/kfd")) or find_spec("torch") is None:
        return ()
    import torch

    if not torch.cuda.is_available():
        return ()
    found = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return tuple(Gpu(name=str(p.name), memory=int(p.total_memory)) for p in found)


def parsed(text: str) -> tuple[Gpu, ...]:
    """The GPUs in the lines that `nvidia-smi` prints, each a name and its memory in MiB.

    >>> parsed("NVIDIA A10G, 23028")
    (Gpu(name='NVIDIA A10G', memory=24146608128),)
    """
    rows = (re.fullmatch(r"\s*(.+?)\s*,\s*(\d+)\s*", line) for line in text.splitlines())
    return tuple(Gpu(name=row[1], memory=int(row[2]) * 2**20) for row in rows if row)
