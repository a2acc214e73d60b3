"""Which MLflow server is set, told without loading MLflow."""

from __future__ import annotations

import os

from boneseg.redaction import split_user
from boneseg.settings.schema import PublishSettings


def tracking_server(settings: PublishSettings) -> str | None:
    """Return the tracking URI; none = the registry is the bucket's own file.

    User and password of a web address go where MLflow puts them into no message.
    """
    uri = settings.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or None
    if uri is None or not uri.lower().startswith("http"):
        return uri
    plain, user, password = split_user(uri)
    if user:
        os.environ.setdefault("MLFLOW_TRACKING_USERNAME", user)
        os.environ.setdefault("MLFLOW_TRACKING_PASSWORD", password)
    return plain
