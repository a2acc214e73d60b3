"""A real head with its job server: jobs that end well, fail or are ended; work from inside; no secret is shown."""

import importlib.util
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from boneseg.phantom.series import write_phantom
from boneseg.storage import embedded
from boneseg.storage.upload import upload_folder
from boneseg.storage.workspace import Workspace

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(importlib.util.find_spec("aiohttp_cors") is None, reason="needs ray[default]"),
    pytest.mark.skipif(sys.platform != "linux", reason="asks /proc"),
]
SECRET = f"patient-key-{secrets.token_hex(8)}"
ON_NODE = """
import os, sys
from boneseg.ray_cluster.environment import before_ray
before_ray()
import ray
from boneseg.ray_cluster.connect import cluster
from boneseg.ray_cluster.resources import storage_path
from boneseg.settings.loading import load_settings
from boneseg.storage.open import open_workspace

workspace = open_workspace(load_settings(overrides=(f"store.bucket={sys.argv[1]}",)))

def there(workspace):
    workspace.store.write("from-a-node", b"written")
    return str(workspace.folder), os.environ["AWS_ENDPOINT_URL"], os.environ["BONESEG_PATIENT_KEY"]

with cluster(1, workspace):
    assert storage_path(workspace) == workspace.store.uri("ray")
    folder, endpoint, key = ray.get(ray.remote(num_cpus=0)(there).remote(workspace))
assert "AWS_ENDPOINT_URL" not in os.environ
print(folder, endpoint == workspace.store.endpoint, key == os.environ["BONESEG_PATIENT_KEY"])
"""


@dataclass
class Head:
    folder: Path
    node: Path
    jobs: str
    inside: str
    environment: dict[str, str]

    def boneseg(self, *words: str, ray: str | None = None) -> list[str]:
        return [sys.executable, "-m", "boneseg", "--ray", ray or self.jobs, *words]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.boneseg(*words), env=self.environment, capture_output=True, text=True, check=False, timeout=300
        )

    def get(self, path: str) -> str:
        token = {"Authorization": f"Bearer {self.environment['RAY_AUTH_TOKEN']}"}
        with urllib.request.urlopen(urllib.request.Request(self.jobs + path, headers=token), timeout=10) as answer:
            return str(answer.read().decode())


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """Start a head as an administrator does, with a work folder for its node and a token."""
    top = tmp_path_factory.mktemp("head")
    folder = Path("/tmp") / f"bonesegtest-{os.getpid()}"  # short, for Ray's sockets
    gcs, dashboard, client = free_ports(3)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_", "BONESEG_"))}
    clean |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    found = Head(
        folder,
        top / "node",
        f"http://127.0.0.1:{dashboard}",
        f"127.0.0.1:{gcs}",
        {**clean, "BONESEG_HOME": str(top / "caller"), "BONESEG_PATIENT_KEY": SECRET, "BONESEG_STEP_CHECK": "0"},
    )
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2"]
    command += ["--node-ip-address=127.0.0.1", f"--port={gcs}", f"--ray-client-server-port={client}"]
    command += ["--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
    command += [f"--temp-dir={folder}", "--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats"]
    log = top / "head.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, env={**clean, "BONESEG_HOME": str(found.node)}, stdout=file, stderr=file, start_new_session=True
        )
    try:
        until = time.monotonic() + 240
        while "Ray runtime started" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.2)
        yield found
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        subprocess.run(["rm", "-rf", str(folder)], check=True)


@pytest.fixture(scope="module")
def caller(head: Head, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """Start the embedded store of the caller, with two series in it."""
    home = Path(head.environment["BONESEG_HOME"])
    series = tmp_path_factory.mktemp("series")
    for number in range(2):
        write_phantom(series / f"phantom-{number}", number, slices=6, size=64)
    status = embedded.start(home)
    from boneseg.storage.client import ObjectStore

    store = ObjectStore(status.endpoint, "boneseg", embedded.credentials(home))
    store.ensure_bucket()
    upload_folder(store, series, "raw/", 4)
    yield Workspace(store, home)
    embedded.stop(home)


def test_a_stage_runs_as_a_job_in_the_nodes_folder_and_nothing_of_it_is_shown(head: Head, caller: Workspace) -> None:
    done = head.run("pull")
    assert done.returncode == 0, done.stderr
    assert "2 series, 2 with a label" in done.stdout
    assert (head.node / "latest-boneseg.json").is_file()
    assert not (caller.folder / "latest-boneseg.json").exists()

    failed = head.run("train")
    assert failed.returncode == 1
    assert "failed: there is no dataset yet in this work folder; run 'boneseg prepare' first" in failed.stderr

    access = caller.store.credentials
    listed = head.get("/api/jobs/")
    assert json.loads(listed)
    logs = "".join(path.read_text(errors="replace") for path in head.folder.rglob("*") if path.is_file())
    assert "boneseg jobs run" in logs
    for secret in (access.access_key, access.secret_key, SECRET):
        assert secret not in listed
        assert secret not in logs + done.stdout + done.stderr + failed.stderr


def test_a_command_that_is_ended_ends_its_job(head: Head, caller: Workspace) -> None:
    detached = head.run("jobs", "attach", "boneseg-nothing-00000000")
    assert detached.returncode == 1
    assert "knows no job boneseg-nothing-00000000" in detached.stderr
    command = head.boneseg("prepare", "--set", "prepare.parallel=1")
    with subprocess.Popen(
        command, env=head.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as job:
        assert job.stdout is not None
        assert any("Running entrypoint" in line for line in job.stdout)
        job.send_signal(signal.SIGTERM)
        rest = job.communicate(timeout=120)[1]
    assert job.returncode == 130, rest
    states = {job["submission_id"]: job["status"] for job in json.loads(head.get("/api/jobs/"))}
    (state,) = [state for name, state in states.items() if name and name.startswith("boneseg-prepare")]
    assert state == "STOPPED"
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not any(b"boneseg\0jobs\0run" in words for words in commands)


def test_from_inside_a_node_has_its_own_folder_and_access(head: Head, caller: Workspace) -> None:
    # The head's node is 127.0.0.1, which Ray takes for another address otherwise.
    environment = {**head.environment, "RAY_ADDRESS": head.inside, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    command = [sys.executable, "-c", ON_NODE, caller.store.bucket]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(head.node), "True", "True"]
    assert caller.store.read("from-a-node") == b"written"
