"""Who we are to an S3 endpoint: given, or looked up where machine or pod keep it, and again when it expires."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from configparser import Error as ConfigurationError
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

import urllib3
from minio.credentials.providers import (
    AWSConfigProvider,
    EnvAWSProvider,
    IamAwsProvider,
    MinioClientConfigProvider,
    Provider,
    StaticProvider,
)
from urllib3.exceptions import HTTPError

from boneseg.errors import StoreError

CONNECT_SECONDS, READ_SECONDS = 2.0, 10.0
_CONTAINER = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI")


class CredentialsAwayError(StoreError):
    """Who hands out credentials does not answer now; it may later."""


@dataclass(frozen=True)
class Credentials:
    """Access to an S3 endpoint; the secret stays out of every repr and log."""

    access_key: str
    secret_key: str
    session_token: str | None = None

    def __repr__(self) -> str:
        return "Credentials(...)"


class Source:
    """Where credentials come from. It can be asked at any time: those that have expired are fetched again."""

    def __init__(self, provider: Provider, name: str, fix: str) -> None:
        self.provider = Asked(provider, name, fix)

    def now(self) -> Credentials:
        """Return the credentials that hold now.

        Raises:
            StoreError: they cannot be had.
        """
        found = self.provider.retrieve()
        return Credentials(found.access_key, found.secret_key, found.session_token or None)


class Asked(Provider):
    """A provider of minio's whose failures are sentences without secrets: minio names the token in them."""

    def __init__(self, provider: Provider, name: str, fix: str) -> None:
        self._provider, self._name, self._fix = provider, name, fix

    def retrieve(self) -> Any:
        """Return minio's form of credentials."""
        try:
            return self._provider.retrieve()
        except HTTPError as error:
            raise CredentialsAwayError(f"{self._name}: no answer ({type(error).__name__}); {self._fix}") from None
        except (ValueError, KeyError, OSError, ParseError, ConfigurationError) as error:
            status = re.search(r"HTTP status code (\d+)", str(error))
            if status is not None and int(status[1]) >= 500:
                raise CredentialsAwayError(f"{self._name}: HTTP status {status[1]}; {self._fix}") from None
            why = f"refused with HTTP status {status[1]}" if status else "nothing usable there"
            raise StoreError(f"{self._name}: {why}; {self._fix}") from None


def given(credentials: Credentials) -> Source:
    """Return a source of credentials that are known."""
    known = StaticProvider(credentials.access_key, credentials.secret_key, credentials.session_token)
    return Source(known, "the credentials given", "give others")


def look_up() -> Source:
    """Return the source that this process' surroundings name, as an AWS client does.

    In this order: ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY`` and ``AWS_SESSION_TOKEN``; a web identity
    (``AWS_WEB_IDENTITY_TOKEN_FILE``, as Kubernetes gives service accounts); the profile of the shared credentials
    file; an alias of MinIO's client (``MINIO_ALIAS``); the role of the container or of the machine.

    Raises:
        StoreError: one of the two variables for keys is set without the other.
    """
    for configured, make in _SOURCES:
        if configured():
            return make()
    fix = (
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use a profile of ~/.aws/credentials, a web identity or an "
        "instance role"
    )
    if os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        raise StoreError(f"AWS_ACCESS_KEY_ID is not set: an S3 endpoint needs credentials; {fix}")
    return Source(_iam(), "AWS_ACCESS_KEY_ID is not set, and this machine has no role either", fix)


def to_hand_on() -> dict[str, str]:
    """Return the variables by which processes on other machines are who we are.

    Keys are handed on, wherever this machine keeps them. A web identity or a role is each machine's own, which it
    looks up itself.

    Raises:
        StoreError: the keys cannot be had.
    """
    make = next((make for configured, make in _SOURCES if configured()), None)
    return as_variables(make().now()) if make in (_variables, _profile, _alias) else {}


def as_variables(credentials: Credentials) -> dict[str, str]:
    """Return credentials as the variables in which AWS clients look for them."""
    found = {"AWS_ACCESS_KEY_ID": credentials.access_key, "AWS_SECRET_ACCESS_KEY": credentials.secret_key}
    return found if credentials.session_token is None else {**found, "AWS_SESSION_TOKEN": credentials.session_token}


def _variables() -> Source:
    for name, short in (("AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY"), ("AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY")):
        if not (os.environ.get(name) or os.environ.get(short)):
            raise StoreError(
                f"{name} is not set: an S3 endpoint needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the "
                "environment"
            )
    return Source(EnvAWSProvider(), "credentials of the environment", "check AWS_ACCESS_KEY_ID")


def _web_identity() -> Source:
    file = os.environ["AWS_WEB_IDENTITY_TOKEN_FILE"]
    where = os.environ.get("AWS_ENDPOINT_URL_STS")
    fix = "check AWS_ROLE_ARN, that role's trust in this service account, and AWS_ENDPOINT_URL_STS"
    return Source(_iam(where), f"credentials for the web identity in {file}", fix)


def _profile() -> Source:
    name = os.environ.get("AWS_PROFILE") or "default"
    fix = "write aws_access_key_id and aws_secret_access_key there, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    return Source(AWSConfigProvider(), f"profile {name} of {_shared_file()}", fix)


def _alias() -> Source:
    name = f"alias {os.environ['MINIO_ALIAS']} of MinIO's client"
    return Source(MinioClientConfigProvider(), name, "check MINIO_ALIAS")


def _container() -> Source:
    named = next(name for name in _CONTAINER if os.environ.get(name))
    return Source(_iam(), "credentials of the container's role", f"check {named}")


def _shared_file() -> Path:
    return Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or Path.home() / ".aws" / "credentials")


def _iam(endpoint: str | None = None) -> IamAwsProvider:
    # Without retries, which urllib3 would log with the token in the address.
    timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS)
    pool = urllib3.PoolManager(timeout=timeout, retries=urllib3.Retry(total=0))
    return IamAwsProvider(custom_endpoint=endpoint, http_client=pool)


def _any_set(*names: str) -> Callable[[], bool]:
    return lambda: any(os.environ.get(name) for name in names)


_SOURCES: tuple[tuple[Callable[[], bool], Callable[[], Source]], ...] = (
    (_any_set("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY", "AWS_SECRET_KEY"), _variables),
    (_any_set("AWS_WEB_IDENTITY_TOKEN_FILE"), _web_identity),
    (lambda: bool(os.environ.get("AWS_PROFILE")) or _shared_file().exists(), _profile),
    (_any_set("MINIO_ALIAS"), _alias),
    (_any_set(*_CONTAINER), _container),
)
