"""What this process may use of the machine: in a pod that is less than the machine has."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

LOCAL_PROCESSES = "LOCAL_WORLD_SIZE"
"""Environment variable by which Ray Train and torchrun say how many workers of a process group share this machine."""
_V2, _V1 = "sys/fs/cgroup", ("sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct", "sys/fs/cgroup/cpuacct,cpu")


def cpus(root: Path = Path("/")) -> int:
    """Return how many CPUs this process may use, at least 1.

    That is the least of what it is pinned to (cpusets included) and of the quotas of its control groups, rounded down:
    a quota of 2.5 CPUs feeds two threads without a pause.

    Args:
        root: where ``proc`` and ``sys`` are.
    """
    return max(1, int(min(_pinned(root), *_quotas(root))))


def cpu_share(root: Path = Path("/")) -> int:
    """Return how many CPUs are this process's own where several workers of one training share the machine, at least 1.

    Args:
        root: where ``proc`` and ``sys`` are.
    """
    return max(1, cpus(root) // local_processes())


def local_processes() -> int:
    """Return how many workers of this process's group are on this machine; 1 for a process alone."""
    given = os.environ.get(LOCAL_PROCESSES, "")
    return max(1, int(given)) if given.isascii() and given.isdigit() else 1


def resident_bytes(root: Path = Path("/")) -> int | None:
    """Return the bytes of memory that this process occupies; none where the system does not say.

    What the system can take back at any moment, the pages of mapped files, is left out.
    """
    kilobytes = [
        int(line.split()[1])
        for line in _text(root / "proc/self/status").splitlines()
        if line.startswith(("RssAnon:", "RssShmem:"))
    ]
    return 1024 * sum(kilobytes) if kilobytes else None


def cpu_name(root: Path = Path("/")) -> str:
    """Return what the processor calls itself; empty where it does not say."""
    return _cpu_line(root, "model name")


def cpu_features(root: Path = Path("/")) -> str:
    """Return the names of the processor's extensions, such as ``avx512_bf16 amx_bf16``; empty where unknown."""
    return _cpu_line(root, "flags") or _cpu_line(root, "Features")


def _cpu_line(root: Path, name: str) -> str:
    for line in _text(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _pinned(root: Path) -> float:
    """Return the CPUs that the scheduler may put this process on."""
    for line in _text(root / "proc/self/status").splitlines():
        if line.startswith("Cpus_allowed_list:"):
            return _length(line.partition(":")[2])
    return os.cpu_count() or 1


def _length(ranges: str) -> float:
    """Return how many numbers ``0-3,8`` names."""
    try:
        ends = [part.split("-") for part in ranges.strip().split(",") if part]
        return sum(int(end[-1]) - int(end[0]) + 1 for end in ends) or 1
    except ValueError:
        return os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[float]:
    """Yield the quota in CPUs of every control group above this process; a container sees its own as the topmost."""
    yield float("inf")
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            for group in _groups(root / _V2, path):
                quota, _, period = _text(group / "cpu.max").strip().partition(" ")
                yield _quota(quota, period)
        elif "cpu" in controllers.split(","):
            for mount in _V1:
                for group in _groups(root / mount, path):
                    yield _quota(_text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us"))


def _groups(mount: Path, path: str) -> Iterator[Path]:
    """Yield a group's folder and those above it, as far as they can be seen from here."""
    # A path that leads out of the namespace, /../.., names groups that are not mounted here.
    parts = [part for part in path.split("/") if part and part != ".."]
    for length in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:length])


def _quota(quota: str, period: str) -> float:
    try:
        share = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # "max", or no such file
        return float("inf")
    return share if share > 0 else float("inf")  # -1 is version 1's word for none


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def death_by(number: int) -> str:
    """Return the words for a process that a signal ended, such as ``died by signal SIGSEGV (11)``."""
    try:
        return f"died by signal {signal.Signals(number).name} ({number})"
    except ValueError:
        return f"died by signal {number}"
