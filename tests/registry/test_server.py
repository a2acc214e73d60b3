"""An MLflow server as the registry: one publish of a bucket waits for the other."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow import MlflowClient

from boneseg.registry import publish_lock
from boneseg.registry.client import Registry
from boneseg.registry.publish import PublishResult, publish, resolve
from boneseg.registry.publish_lock import LockLostError, hold_lock
from boneseg.settings.schema import PublishSettings, RunSettings
from boneseg.storage import layout
from boneseg.storage.workspace import Workspace
from tests.registry.factory import BAD, BETTER, GOOD, upload_a_model, write_an_evaluation


def test_who_waits_has_the_turn_after_whoever_had_it(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish_lock, "POLL_SECONDS", 0.01)
    inside, seen = threading.Event(), []

    def second() -> None:
        inside.wait()
        with hold_lock(workspace, "bone"):
            seen.append("second")

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(second)
        with hold_lock(workspace, "bone") as confirm, hold_lock(workspace, "hip"):
            inside.set()
            for _ in range(3):
                confirm()
            seen.append("first")
        waiting.result(timeout=30)
    assert seen == ["first", "second"]


def test_the_turn_of_a_dead_process_is_taken_over_and_a_late_one_learns_of_it(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish_lock, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(publish_lock, "TAKEN_OVER_AFTER", 0.2)
    with hold_lock(workspace, "bone") as confirm, hold_lock(workspace, "bone") as other:
        with pytest.raises(LockLostError):
            confirm()
        other()
    assert workspace.store.read(layout.publishing("bone")) == publish_lock.FREE


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an MLflow server on this machine."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder)]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5).close()
            break
        except OSError:
            if time.monotonic() > deadline or process.poll() is not None:
                raise RuntimeError((folder / "log").read_text()) from None
            time.sleep(0.2)
    yield address
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(30)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_publishes_at_once_on_a_server_end_with_the_best_as_champion(
    workspace: Workspace, dataset: str, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish_lock, "POLL_SECONDS", 0.05)
    settings = RunSettings(publish=PublishSettings(tracking_uri=server, model_name="together"))
    given = []
    for seed, dice in ((1, GOOD), (2, BETTER), (3, BAD)):
        uri, model_hash = upload_a_model(workspace, seed)
        given.append((uri, write_an_evaluation(workspace, model_hash, dice)))
    start = threading.Barrier(len(given))

    def one(index: int) -> PublishResult:
        start.wait()
        place = Workspace(workspace.store, tmp_path / f"other-{index}")
        return publish(place, *given[index], dataset, settings)

    with ThreadPoolExecutor(len(given)) as pool:
        results = list(pool.map(one, range(len(given))))
    assert sorted(result.version for result in results) == ["1", "2", "3"]
    champion = MlflowClient(server, server).get_model_version_by_alias("together", "champion")
    assert champion.source == given[1][0]
    assert resolve(workspace, "together@champion", settings).name == given[1][0].rstrip("/").rpartition("/")[2]
    assert not workspace.store.exists(layout.REGISTRY_STATE)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("step", ["create_version", "describe", "tag", "set_alias"])
def test_a_publish_stopped_on_a_server_ends_the_same_when_started_again(
    workspace: Workspace, dataset: str, server: str, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    settings = RunSettings(publish=PublishSettings(tracking_uri=server, model_name=f"stopped-{step}"))
    uri, model_hash = upload_a_model(workspace, 1)
    evaluation = write_an_evaluation(workspace, model_hash, GOOD)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Registry, step, stop)
        with pytest.raises(KeyboardInterrupt):
            publish(workspace, uri, evaluation, dataset, settings)
    result = publish(workspace, uri, evaluation, dataset, settings)
    assert (result.version, result.promoted) == ("1", True)
    client = MlflowClient(server, server)
    experiment = client.get_experiment_by_name("boneseg")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], f"tags.model_uri = '{uri}'")
    assert len(runs) == 1
