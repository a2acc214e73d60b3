"""How many CPUs a process may use, told from files as a kernel shows them."""

from pathlib import Path

import pytest

from boneseg.machine import cpu_name, cpu_share, cpus, resident_bytes


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


STATUS = {"proc/self/status": "Name:\tpython\nCpus_allowed_list:\t0-63\nMems_allowed:\t1\n"}
V2, V1 = "0::/\n", "4:memory:/kubepods/pod1\n3:cpuset:/kubepods/pod1\n2:cpu,cpuacct:/kubepods/pod1\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 64),
        ({"proc/self/status": "Cpus_allowed_list:\t0-3,8,10-11\n"}, 7),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/cpu.max": "250000 100000\n"}, 2),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/cpu.max": "max 100000\n"}, 64),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/cpu.max": "nonsense\n"}, 64),
        # A quota further up holds for all below it.
        (
            {
                "proc/self/cgroup": "0::/user.slice/app.scope\n",
                "sys/fs/cgroup/user.slice/cpu.max": "300000 100000\n",
                "sys/fs/cgroup/user.slice/app.scope/cpu.max": "max 100000\n",
            },
            3,
        ),
        # Seen from a container whose namespace was entered from outside.
        ({"proc/self/cgroup": "0::/../../pod1\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        # Version 1: the path is the machine's, the container's group is mounted at the top.
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "600000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            6,
        ),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu/kubepods/pod1/cpu.cfs_quota_us": "150000\n",
                "sys/fs/cgroup/cpu/kubepods/pod1/cpu.cfs_period_us": "50000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        # Both: the tighter one.
        (
            {
                "proc/self/status": "Cpus_allowed_list:\t4-5\n",
                "proc/self/cgroup": V2,
                "sys/fs/cgroup/cpu.max": "800000 100000\n",
            },
            2,
        ),
    ],
)
def test_a_pod_has_the_cpus_that_its_groups_and_pins_leave_it(
    tmp_path: Path, files: dict[str, str], expected: int
) -> None:
    assert cpus(write(tmp_path, {**STATUS, **files})) == expected


def test_a_system_without_these_files_has_all_its_cpus(tmp_path: Path) -> None:
    assert cpus(tmp_path) >= 1
    assert cpu_name(tmp_path) == ""


def test_a_processor_says_its_name(tmp_path: Path) -> None:
    write(tmp_path, {"proc/cpuinfo": "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: fpu amx_bf16\n"})
    assert cpu_name(tmp_path) == "Some CPU @ 2 GHz"


@pytest.mark.parametrize(("given", "share"), [(None, 64), ("1", 64), ("4", 16), ("100", 1), ("0", 64), ("x", 64)])
def test_workers_of_one_machine_share_its_cpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None, share: int
) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if given is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", given)
    assert cpu_share(write(tmp_path, STATUS)) == share


def test_memory_is_what_the_process_holds_without_mapped_files(tmp_path: Path) -> None:
    status = "VmRSS:\t 900 kB\nRssAnon:\t 300 kB\nRssFile:\t 500 kB\nRssShmem:\t 100 kB\n"
    assert resident_bytes(write(tmp_path, {"proc/self/status": status})) == 400 * 1024
    assert resident_bytes(tmp_path / "elsewhere") is None
