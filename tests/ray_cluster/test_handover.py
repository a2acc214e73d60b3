"""What the nodes of a cluster are given, and that Ray never sees what it holds."""

import json
from pathlib import Path

import pytest

from boneseg.errors import SettingsError
from boneseg.ray_cluster import node
from boneseg.ray_cluster.commands import handed_command, job_name, to_hand_over
from boneseg.ray_cluster.handover import handed_over, loopback_name, require_reachable, runtime_env
from boneseg.ray_cluster.job_server import ENTRYPOINT
from boneseg.ray_cluster.sealed import KEY_VARIABLE, opened
from boneseg.settings.loading import NODE_VARIABLE, load_settings, work_folder
from boneseg.storage.client import Credentials, ObjectStore

ENDPOINT = "https://s3.example.org"
SECRETS = {
    "AWS_ACCESS_KEY_ID": "access-key-7777",
    "AWS_SECRET_ACCESS_KEY": "secret-key-8888",
    "AWS_SESSION_TOKEN": "session-token-9999",
    "BONESEG_PATIENT_KEY": "patient-key-6666-long-enough",
    "MLFLOW_TRACKING_URI": "postgresql://mlflow:database-5555@db/mlflow",
    "MLFLOW_TRACKING_TOKEN": "registry-token-4444",
}


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in list(os.environ):
        if name.startswith(("AWS_", "BONESEG_", "MLFLOW_", "SSL_CERT", "MINIO_", "RAY_ADDRESS")):
            monkeypatch.delenv(name)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("BONESEG_HOME", str(tmp_path / "caller"))
    monkeypatch.setenv("BONESEG_READ_MB", "77")
    monkeypatch.setenv("UNRELATED", "nothing-of-ours")


def arrived(monkeypatch: pytest.MonkeyPatch, environment: dict[str, object], home: Path) -> None:
    """Be a process on a node: Ray set the variables, put the package where Python looks, and runs the hook."""
    import os

    for name in [*SECRETS, "BONESEG_READ_MB", "BONESEG_S3_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_REGION"]:
        monkeypatch.setenv(name, "of the node")
        monkeypatch.delenv(name)
    monkeypatch.setenv("BONESEG_HOME", str(home))
    for name in (NODE_VARIABLE, "SSL_CERT_FILE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    variables, packages = environment["env_vars"], environment["py_modules"]
    assert isinstance(variables, dict)
    assert isinstance(packages, list)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for package in packages:
        monkeypatch.syspath_prepend(str(Path(package).parent))
    node.set_up()
    assert os.environ[NODE_VARIABLE]


def test_a_node_gets_store_credentials_and_registry_and_keeps_its_own_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import os

    store = ObjectStore(ENDPOINT, "pelvis", region="eu-west-1")
    with runtime_env(handed_over(store)) as environment:
        arrived(monkeypatch, environment, tmp_path / "node")
    for name, value in SECRETS.items():
        assert os.environ[name] == value
    assert os.environ["BONESEG_S3_ENDPOINT"] == os.environ["AWS_ENDPOINT_URL"] == ENDPOINT
    assert os.environ["AWS_REGION"] == "eu-west-1"
    assert os.environ["BONESEG_READ_MB"] == "77"
    assert work_folder() == tmp_path / "node"


def test_what_ray_shows_and_logs_of_a_job_tells_nothing(tmp_path: Path) -> None:
    table = tmp_path / "patients.csv"
    table.write_text("series,patient\nraw/Miller-Anna,MILLER\n")
    settings = load_settings(overrides=(f"store.endpoint={ENDPOINT}", f"prepare.splits.override={table}"))
    handed = to_hand_over(("prepare",), settings)
    with runtime_env(handed) as environment:
        files = [path for package in environment["py_modules"] for path in Path(package).rglob("*") if path.is_file()]
        assert files
        contents = "".join(path.read_text() for path in files)
    shown = json.dumps(environment) + ENTRYPOINT + job_name(("prepare",), settings) + repr(handed)
    for secret in (*SECRETS.values(), "database-5555", "Miller", "MILLER", str(table)):
        assert secret not in shown
        assert secret not in contents
    assert not set(SECRETS) & set(environment["env_vars"])


def test_what_is_handed_over_opens_with_its_own_key_only(tmp_path: Path) -> None:
    store = ObjectStore(ENDPOINT, "pelvis")
    with runtime_env(handed_over(store)) as first, runtime_env(handed_over(store)) as second:
        place = [str(Path(first["py_modules"][0]).parent)]
        assert opened(first["env_vars"][KEY_VARIABLE], place).environment["AWS_SECRET_ACCESS_KEY"] == "secret-key-8888"
        with pytest.raises(SettingsError, match="did not reach this node"):
            opened(second["env_vars"][KEY_VARIABLE], place)
        both = [str(Path(environment["py_modules"][0]).parent) for environment in (second, first)]
        assert opened(first["env_vars"][KEY_VARIABLE], both).environment["BONESEG_READ_MB"] == "77"


def test_nothing_of_it_stays_on_the_callers_disk() -> None:
    with runtime_env(handed_over(ObjectStore(ENDPOINT, "pelvis"))) as environment:
        package = Path(environment["py_modules"][0])
        assert package.stat().st_mode & 0o077 == 0 or package.parent.stat().st_mode & 0o077 == 0
    assert not package.parent.exists()


@pytest.mark.parametrize("kept", ["profile", "role"])
def test_keys_of_a_file_are_handed_on_and_a_role_is_each_machines_own(
    kept: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    if kept == "profile":
        file.write_text("[default]\naws_access_key_id = of-profile\naws_secret_access_key = secret-of-profile\n")
    else:
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    found = handed_over(ObjectStore(ENDPOINT, "pelvis")).environment
    expected = {"AWS_ACCESS_KEY_ID": "of-profile", "AWS_SECRET_ACCESS_KEY": "secret-of-profile"}
    assert {name: found[name] for name in SECRETS if name in found and name.startswith("AWS_")} == (
        expected if kept == "profile" else {}
    )
    assert "AWS_WEB_IDENTITY_TOKEN_FILE" not in found


def test_the_embedded_stores_own_keys_are_handed_on() -> None:
    found = handed_over(ObjectStore("http://127.0.0.1:8333", "b", Credentials("own", "own-secret"))).environment
    assert (found["AWS_ACCESS_KEY_ID"], found["AWS_SECRET_ACCESS_KEY"]) == ("own", "own-secret")


def test_certificates_of_a_private_authority_arrive_as_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    import certifi

    file = tmp_path / "authority.pem"
    file.write_text(Path(certifi.where()).read_text(encoding="utf-8"), encoding="utf-8")
    store = ObjectStore(ENDPOINT, "pelvis")
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with runtime_env(handed_over(store)) as environment:
        arrived(monkeypatch, environment, tmp_path / "node")
    there = Path(os.environ["SSL_CERT_FILE"])
    assert there.is_relative_to(tmp_path / "node")
    assert there.read_text(encoding="utf-8") == file.read_text(encoding="utf-8")


def test_a_job_has_the_callers_settings_and_files_and_not_his_paths(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    table, config = tmp_path / "patients.csv", tmp_path / "run.yaml"
    table.write_text("series,split\nraw/a,test\n")
    config.write_text(
        f"store: {{endpoint: '{ENDPOINT}', bucket: pelvis}}\nrecipe: paper\nray: {{address: 'http://h:1'}}\n"
    )
    given = load_settings(config, (f"prepare.splits.override={table}", "train.epochs=3"))
    with runtime_env(to_hand_over(("train", "--tuned"), given)) as environment:
        table.unlink()
        config.unlink()
        arrived(monkeypatch, environment, tmp_path / "node")
        with handed_command() as words:
            assert words[:2] == ("train", "--tuned")
            there = load_settings(Path(words[words.index("--config") + 1]))
            override = there.prepare.splits.override
            assert override is not None
            assert override.read_text() == "series,split\nraw/a,test\n"
            assert override.is_relative_to(tmp_path / "node")
    skipped = {"ray": True, "prepare": {"splits": {"override"}}}
    assert there.model_dump(exclude=skipped) == given.model_dump(exclude=skipped)
    assert there.ray.address is None
    assert not override.exists()


def test_a_job_of_other_code_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = load_settings(overrides=(f"store.endpoint={ENDPOINT}",))
    with runtime_env(to_hand_over(("train",), settings)) as environment:
        arrived(monkeypatch, environment, tmp_path / "node")
        monkeypatch.setattr("boneseg.ray_cluster.versions.code_version", lambda: "0.1.0+other")
        with (
            pytest.raises(
                SettingsError, match=r"runs boneseg 0\.1\.0\+[0-9a-f]+, the Ray cluster boneseg 0.1.0\+other"
            ),
            handed_command(),
        ):
            pass


def test_an_override_that_cannot_be_read_is_told_before_anything_is_sent(tmp_path: Path) -> None:
    settings = load_settings(
        overrides=(f"store.endpoint={ENDPOINT}", f"prepare.splits.override={tmp_path / 'gone.csv'}")
    )
    with pytest.raises(SettingsError, match=r"prepare\.splits\.override"):
        to_hand_over(("prepare",), settings)


def test_the_same_command_has_the_same_job_and_another_has_another() -> None:
    def name(*overrides: str, words: tuple[str, ...] = ("train",)) -> str:
        return job_name(words, load_settings(overrides=(f"store.endpoint={ENDPOINT}", *overrides)))

    assert name() == name("ray.address=http://head:8265")
    others = [
        name(words=("prepare",)),
        name(words=("train", "--tuned")),
        name("train.epochs=3"),
        name("store.bucket=other"),
        name("store.endpoint=https://elsewhere.example.org"),
        name("name=hips"),
    ]
    assert len({name(), *others}) == 1 + len(others)
    assert name("name=hips").startswith("boneseg-train-hips-")


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:8333", "http://localhost:8333", "http://[::1]:8333"])
def test_a_store_on_loopback_is_refused_where_a_node_is_another_machine(endpoint: str) -> None:
    require_reachable(endpoint, "one", "one")
    require_reachable("http://10.0.0.1:8333", "one", "two")
    with pytest.raises(SettingsError, match=r"listens on this machine only.*--listen"):
        require_reachable(endpoint, "one", "two")


def test_loopback_is_the_same_for_two_processes_of_one_machine() -> None:
    import subprocess
    import sys

    code = "from boneseg.ray_cluster.handover import loopback_name; print(loopback_name())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == loopback_name()
