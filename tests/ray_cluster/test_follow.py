"""A job is followed to its end over connections that drop, against a small server that speaks Ray's job protocol."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp.web
import pytest

from boneseg.errors import SettingsError
from boneseg.ray_cluster.job_server import JobError, JobServer
from boneseg.ray_cluster.sealed import HandedOver
from boneseg.ray_cluster.versions import Versions, versions_here

NAME = "boneseg-train-0a1b2c3d"
LINES = [f"line {number}\n" for number in range(30)]


@dataclass
class Fake:
    """What the server answers: streams one after another, each of which sends so many lines and breaks off."""

    streams: list[int] = field(default_factory=list)
    ends_as: str = "SUCCEEDED"
    message: str = ""
    exit_code: int | None = None
    lines: list[str] = field(default_factory=lambda: list(LINES))
    status_fails: int = 0
    forgets: bool = False
    ray_version: str = field(default_factory=lambda: versions_here().ray)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    submitted: list[dict[str, Any]] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    opened: int = 0

    def details(self, name: str, status: str) -> dict[str, Any]:
        return {
            "type": "SUBMISSION", "submission_id": name, "status": status, "entrypoint": "x", "message": self.message,
            "driver_exit_code": self.exit_code, "metadata": {"command": "train"},
            "runtime_env": {"env_vars": {"A": "b"}}, "start_time": 1_700_000_000_000,
        }  # fmt: skip

    async def version(self, request: aiohttp.web.Request) -> aiohttp.web.Response:
        return aiohttp.web.json_response({"version": "4", "ray_version": self.ray_version, "ray_commit": ""})

    async def package(self, request: aiohttp.web.Request) -> aiohttp.web.Response:
        return aiohttp.web.Response()

    async def submit(self, request: aiohttp.web.Request) -> aiohttp.web.Response:
        job = await request.json()
        name = job["submission_id"]
        if name in self.jobs:
            return aiohttp.web.Response(status=500, text=f"Job with submission_id {name} already exists.")
        self.submitted.append(job)
        self.jobs[name] = self.details(name, "PENDING")
        return aiohttp.web.json_response({"job_id": name, "submission_id": name})

    async def one(self, request: aiohttp.web.Request) -> aiohttp.web.Response:
        name = request.match_info["name"]
        if self.status_fails > 0 and self.opened:
            self.status_fails -= 1
            return aiohttp.web.Response(status=502, text="bad gateway")
        if name not in self.jobs or (self.forgets and self.opened):
            return aiohttp.web.Response(status=404, text=f"Job {name} does not exist")
        over = self.opened >= len(self.streams)
        if name == NAME and self.streams:
            return aiohttp.web.json_response(self.details(name, self.ends_as if over else "RUNNING"))
        return aiohttp.web.json_response(self.jobs[name])

    async def all(self, request: aiohttp.web.Request) -> aiohttp.web.Response:
        return aiohttp.web.json_response(list(self.jobs.values()))

    async def logs(self, request: aiohttp.web.Request) -> aiohttp.web.Response:
        return aiohttp.web.json_response({"logs": "".join(self.lines)})

    async def stop(self, request: aiohttp.web.Request) -> aiohttp.web.Response:
        self.stopped.append(request.match_info["name"])
        return aiohttp.web.json_response({"stopped": True})

    async def tail(self, request: aiohttp.web.Request) -> aiohttp.web.WebSocketResponse:
        socket = aiohttp.web.WebSocketResponse()
        await socket.prepare(request)
        count = self.streams[min(self.opened, len(self.streams) - 1)]
        self.opened += 1
        for start in range(0, count, 7):  # pieces of several lines that fall otherwise each time
            await socket.send_str("".join(self.lines[start : min(count, start + 7)]))
        await socket.close(code=1000 if self.opened % 2 else 1011)
        return socket


@contextmanager
def serving(fake: Fake) -> Iterator[str]:
    """Run the server in a thread of its own; yield its address."""
    app = aiohttp.web.Application()
    app.add_routes(
        [
            aiohttp.web.get("/api/version", fake.version),
            aiohttp.web.get("/api/packages/{protocol}/{package}", fake.package),
            aiohttp.web.post("/api/jobs/", fake.submit),
            aiohttp.web.get("/api/jobs/", fake.all),
            aiohttp.web.get("/api/jobs/{name}", fake.one),
            aiohttp.web.get("/api/jobs/{name}/logs", fake.logs),
            aiohttp.web.post("/api/jobs/{name}/stop", fake.stop),
            aiohttp.web.get("/api/jobs/{name}/logs/tail", fake.tail),
        ]
    )
    loop, ports = asyncio.new_event_loop(), []
    ready = threading.Event()

    async def start() -> aiohttp.web.AppRunner:
        runner = aiohttp.web.AppRunner(app)
        await runner.setup()
        site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        ports.append(runner.addresses[0][1])
        ready.set()
        return runner

    def work() -> None:
        asyncio.set_event_loop(loop)
        runner = loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    ready.wait(30)
    try:
        yield f"http://127.0.0.1:{ports[0]}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boneseg.ray_cluster.follow.POLL_SECONDS", 0.05)
    monkeypatch.setattr("boneseg.ray_cluster.follow.LAST_SECONDS", 0.0)


def followed(fake: Fake) -> str:
    fake.jobs[NAME] = fake.details(NAME, "RUNNING")
    shown: list[str] = []
    with serving(fake) as address:
        JobServer(address).follow(NAME, shown.append)
    return "".join(shown)


@pytest.mark.parametrize("streams", [[30], [3, 11, 30], [0, 0, 30], [14, 2, 14], [29, 5]], ids=str)
def test_every_line_is_shown_once_however_often_the_stream_drops(streams: list[int]) -> None:
    assert followed(Fake(streams=streams)) == "".join(LINES)


def test_a_server_that_is_away_for_a_while_is_waited_for() -> None:
    assert followed(Fake(streams=[3, 30], status_fails=3)) == "".join(LINES)


def test_a_server_that_stays_away_is_told_and_the_job_may_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BONESEG_RAY_WAIT_SECONDS", "0")
    with pytest.raises(JobError, match=f"has not answered for 0 s; job {NAME} may go on.*jobs attach {NAME}"):
        followed(Fake(streams=[3, 30], status_fails=10**6))


def test_a_failed_job_says_why_with_its_exit_code() -> None:
    lines = [*LINES, "error: no object store runs; start one\n"]
    fake = Fake(streams=[30], ends_as="FAILED", message="exit code 3", exit_code=3, lines=lines)
    with pytest.raises(JobError, match=f"job {NAME} failed: no object store runs; start one$") as told:
        followed(fake)
    assert told.value.exit_code == 3


def test_a_job_that_failed_without_a_sentence_shows_its_last_lines() -> None:
    with pytest.raises(JobError) as told:
        followed(Fake(streams=[30], ends_as="FAILED", exit_code=1))
    assert str(told.value).endswith("".join(LINES[-10:]).rstrip())
    assert LINES[-11].strip() not in str(told.value)


def test_a_job_that_the_cluster_forgot_is_not_taken_for_finished() -> None:
    with pytest.raises(JobError, match=r"knows nothing of job .* any more"):
        followed(Fake(streams=[3, 30], forgets=True))


def test_a_stopped_job_is_no_success() -> None:
    with pytest.raises(JobError, match="was stopped") as told:
        followed(Fake(streams=[30], ends_as="STOPPED"))
    assert told.value.exit_code == 130


def handed(versions: Versions | None = None) -> HandedOver:
    return HandedOver(versions or versions_here(), {"AWS_SECRET_ACCESS_KEY": "secret-8888"}, command=("train",))


def test_the_same_command_is_one_job_while_it_runs_and_a_new_one_afterwards() -> None:
    fake = Fake()
    with serving(fake) as address:
        server = JobServer(address)
        assert server.submit(NAME, handed(), "train") == (NAME, False)
        assert server.submit(NAME, handed(), "train") == (NAME, True)
        fake.jobs[NAME]["status"] = "FAILED"
        assert server.submit(NAME, handed(), "train") == (f"{NAME}-2", False)
        assert server.submit(NAME, handed(), "train") == (f"{NAME}-2", True)
        rows = server.jobs()
    assert len(fake.submitted) == 2
    assert "secret-8888" not in json.dumps(fake.submitted)
    assert {job["entrypoint"] for job in fake.submitted} == {"python -m boneseg jobs run"}
    assert {(row.name, row.status) for row in rows} == {(NAME, "FAILED"), (f"{NAME}-2", "PENDING")}
    assert "env_vars" not in repr(rows)


def test_a_cluster_with_another_ray_is_refused_before_anything_is_sent() -> None:
    fake = Fake(ray_version="2.50.0")
    with serving(fake) as address, pytest.raises(SettingsError, match=r"the Ray cluster Ray 2\.50\.0"):
        JobServer(address).submit(NAME, handed(), "train")
    assert fake.submitted == []


def test_unknown_jobs_and_absent_servers_are_sentences() -> None:
    with serving(Fake()) as address, pytest.raises(SettingsError, match="knows no job boneseg-x"):
        JobServer(address).follow("boneseg-x", print)
    with pytest.raises(SettingsError, match=f"no Ray job server answers at {address}"):
        JobServer(address)
