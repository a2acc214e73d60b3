"""MLflow's model registry behind the few verbs that boneseg needs (the only place that imports mlflow).

Bytes do not go through MLflow: boneseg keeps models, tables and plots in the bucket, and the registry points there.
"""

from __future__ import annotations

import logging
import math
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    RESOURCE_ALREADY_EXISTS,
    ErrorCode,
)

from boneseg.errors import ModelError
from boneseg.storage.records import Record

CHAMPION, CHALLENGER = "champion", "challenger"
EXPERIMENT = "boneseg"
TAG_LIMIT = 4500
"""Characters; MLflow refuses tags of more than 5000."""
BATCH = 500
"""Metrics a request; MLflow refuses more than 1000."""


class Version(Record):
    """A registered model version."""

    name: str
    version: str
    source: str
    """URI of the model's folder in the bucket."""
    run_id: str
    aliases: tuple[str, ...]
    tags: dict[str, str]

    @property
    def reference(self) -> str:
        """Return what a person writes to mean it, such as ``bone:3``."""
        return f"{self.name}:{self.version}"


class MetricPoint(Record):
    """One value of a metric; ``step`` counts epochs, 0 for what is measured once."""

    key: str
    value: float
    step: int = 0


class Registry:
    """A model registry at a tracking URI.

    Every method raises ModelError, with the tracking URI and the fix, where the registry does not answer or refuses.
    """

    def __init__(self, tracking_uri: str) -> None:
        self.tracking_uri = tracking_uri
        with self._translated(), _quiet():
            self._client = MlflowClient(tracking_uri, tracking_uri)
            # The first request creates or migrates the tables of an embedded registry.
            self._client.search_registered_models(max_results=1)

    @property
    def address(self) -> str:
        """The tracking URI as it may be shown: without user and password."""
        return _without_password(self.tracking_uri)

    def names(self) -> tuple[str, ...]:
        """Return the names of all models."""
        with self._translated():
            return tuple(model.name for model in self._client.search_registered_models())

    def versions(self, name: str) -> tuple[Version, ...]:
        """Return all versions of a model, the newest first."""
        with self._translated():
            found = self._client.search_model_versions(f"name = '{_safe(name)}'")
            newest_first = sorted(found, key=lambda item: int(item.version), reverse=True)
            # A search leaves aliases out; the model has them.
            aliases = self._client.get_registered_model(name).aliases if newest_first else {}
        return tuple(_version(item, aliases) for item in newest_first)

    def at_alias(self, name: str, alias: str) -> Version | None:
        """Return the version an alias points at; none where there is none."""
        return next((version for version in self.versions(name) if alias in version.aliases), None)

    def create_version(self, name: str, source: str, run_id: str, tags: Mapping[str, str]) -> Version:
        """Register a pointer to a model's folder in the bucket; the model's name is made at first use."""
        with self._translated(), _quiet():
            try:
                self._client.create_registered_model(_safe(name))
            except MlflowException as error:
                if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                    raise
            made = self._client.create_model_version(name, source, run_id, tags=dict(tags))
        return _version(made, {})

    def set_alias(self, version: Version, alias: str) -> None:
        """Point an alias at a version, away from the one it pointed at."""
        with self._translated():
            self._client.set_registered_model_alias(version.name, alias, version.version)

    def tag(self, version: Version, key: str, value: str) -> None:
        """Set a tag of a version."""
        with self._translated():
            self._client.set_model_version_tag(version.name, version.version, key, value[:TAG_LIMIT])

    def describe(self, version: Version, description: str) -> None:
        """Set the description of a version, Markdown; MLflow's databases hold 5000 characters of it."""
        with self._translated():
            self._client.update_model_version(version.name, version.version, description[:TAG_LIMIT])

    def log_run(
        self, name: str, params: Mapping[str, str], metrics: Sequence[MetricPoint], tags: Mapping[str, str], place: str
    ) -> str:
        """Record a finished run.

        Args:
            name: shown in the list of runs.
            params: settings by name.
            metrics: values that are not finite are left out.
            tags: lineage: hashes and URIs.
            place: ``s3://`` URI under which MLflow's own artifacts of the experiment would go.

        Returns:
            The run's id.
        """
        now = int(time.time() * 1000)
        points = [Metric(point.key, point.value, now, point.step) for point in metrics if math.isfinite(point.value)]
        with self._translated(), _quiet():
            run = self._client.create_run(self._experiment(place), run_name=name)
            run_id = str(run.info.run_id)
            settings = [Param(key, value[:TAG_LIMIT]) for key, value in params.items()]
            self._client.log_batch(
                run_id, params=settings, tags=[RunTag(key, value[:TAG_LIMIT]) for key, value in tags.items()]
            )
            for start in range(0, len(points), BATCH):
                self._client.log_batch(run_id, metrics=points[start : start + BATCH])
            self._client.set_terminated(run_id)
        return run_id

    def _experiment(self, place: str) -> str:
        found = self._client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return str(found.experiment_id)
        return str(self._client.create_experiment(EXPERIMENT, artifact_location=place))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except MlflowException as error:
            reason = _without_password(str(error).splitlines()[0].rstrip("."))
            said = "does not answer" if "failed with exception" in reason else f"answered: {reason}"
            raise ModelError(
                f"the model registry at {self.address} {said}; check publish.tracking_uri or MLFLOW_TRACKING_URI"
            ) from error


def _version(item: ModelVersion, aliases: Mapping[str, str]) -> Version:
    pointing = sorted(alias for alias, version in aliases.items() if str(version) == str(item.version))
    return Version(
        name=item.name,
        version=str(item.version),
        source=item.source or "",
        run_id=item.run_id or "",
        aliases=tuple(pointing),
        tags={key: str(value) for key, value in item.tags.items()},
    )


def _safe(name: str) -> str:
    if not name or any(mark in name for mark in "/:'\"%@ "):
        raise ModelError(f"model name {name!r} must not be empty nor hold spaces, quotes or any of / : @ %")
    return name


def _without_password(text: str) -> str:
    return re.sub(r"://[^/@\s]*@", "://", text)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the notes of MLflow and of its database migrations out of the user's log."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic", "mlflow.store.db.utils")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
