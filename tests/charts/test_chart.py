"""The Helm chart beside the pipelines that need it."""

import json
import re
from pathlib import Path

import pytest
import yaml

from boneseg import __version__
from pipelines.cluster import ADDRESSES, ENVIRONMENT_CONFIG, SECRETS, STORE_SECRET

CHART = Path(__file__).parents[2] / "charts" / "boneseg"


def test_the_chart_makes_what_the_pipelines_look_for() -> None:
    template = (CHART / "templates" / "configmap.yaml").read_text()
    assert f"name: {ENVIRONMENT_CONFIG}\n" in template
    assert set(re.findall(r"^  ([A-Z0-9_]+): ", template, flags=re.MULTILINE)) == set(ADDRESSES)


def test_the_notes_name_the_secret_and_all_its_keys() -> None:
    notes = (CHART / "templates" / "NOTES.txt").read_text()
    for name in (STORE_SECRET, *SECRETS):
        assert name in notes


def test_no_secret_value_has_a_place_in_the_values() -> None:
    values = (CHART / "values.yaml").read_text()
    assert not re.search(r"(?i)^\s*\w*(password|secret|token|access.?key)\w*\s*:", values, flags=re.MULTILINE)


def test_every_default_is_allowed_by_the_schema_and_an_unknown_value_is_refused() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    jsonschema.validate(values, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**values, "enviroment": {}}, schema)


def test_the_chart_is_of_this_version() -> None:
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == __version__


def test_the_chart_renders() -> None:
    helm = pytest.importorskip("helm_python", reason="install helm-python-sdk to render the chart")
    assert helm.lint(str(CHART), strict=True)["errors"] == []
    values = {"serviceAccount": {"create": True}, "rayJobs": {"enabled": True}}
    rendered = helm.Chart.load(str(CHART)).render(values, name="boneseg", namespace="kubeflow")
    kinds = [part["kind"] for text in rendered.values() for part in yaml.safe_load_all(text) if isinstance(part, dict)]
    assert sorted(kinds) == ["ConfigMap", "Role", "RoleBinding", "ServiceAccount"]
