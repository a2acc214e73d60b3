"""Which form of an address leads which way onto a cluster, and what is refused."""

import socket

import pytest

from boneseg.errors import SettingsError
from boneseg.ray_address import Way, way_of
from boneseg.ray_cluster.connect import cluster
from boneseg.settings.loading import load_settings


@pytest.mark.parametrize(
    ("address", "way"),
    [
        (None, Way.OWN),
        ("", Way.OWN),
        ("local", Way.OWN),
        ("auto", Way.INSIDE),
        ("10.0.0.1:6379", Way.INSIDE),
        ("ray-head.ns.svc.cluster.local:6379", Way.INSIDE),
        ("[fd00::1]:6379", Way.INSIDE),
        ("ray://head:10001", Way.INSIDE),
        ("http://head:8265", Way.JOB),
        ("https://ray.example.org", Way.JOB),
        ("https://ray.example.org/cluster/", Way.JOB),
    ],
)
def test_an_address_says_how_a_command_gets_onto_the_cluster(address: str | None, way: Way) -> None:
    assert way_of(address) is way


@pytest.mark.parametrize(
    "address",
    ["head", "ray://head", "ray://", "http://", "ftp://head:8265", "head:port", "http://head:99999", "a b:6379"],
)
def test_another_form_is_refused_with_those_that_are_known(address: str) -> None:
    with pytest.raises(SettingsError, match=r"host:6379 .* ray://host:10001 .* http://host:8265"):
        way_of(address)


@pytest.mark.parametrize("address", ["http://ann:s3cret-word@head:8265", "ray://s3cret-word@head:10001"])
def test_a_password_in_an_address_is_refused_and_not_shown(address: str) -> None:
    for refuse in (lambda: way_of(address), lambda: load_settings(overrides=(f"ray.address={address}",))):
        with pytest.raises(SettingsError) as told:
            refuse()
        assert "s3cret-word" not in str(told.value)


def test_an_address_where_nothing_listens_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        for form in ("127.0.0.1:{}", "ray://127.0.0.1:{}"):
            monkeypatch.setenv("RAY_ADDRESS", form.format(taken.getsockname()[1]))
            with pytest.raises(SettingsError, match="no Ray cluster answers there"), cluster():
                pass
