"""The pipelines as Kubeflow reads them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from boneseg.errors import SettingsError
from boneseg.pipeline_step import RUN_VARIABLE
from boneseg.settings.loading import as_overrides, load_settings
from boneseg.settings.schema import RunSettings
from components.base import IMAGE
from pipelines.cluster import ADDRESSES, ENVIRONMENT_CONFIG, SECRETS, STORE_SECRET
from pipelines.local import PIPELINES, compile_all, compile_pipeline

NEVER_CACHED = {"pull", "publish"}
OF_STANDARD_LIBRARY = {"json", "pathlib", "typing"}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Specification and platform part of each pipeline."""
    out = tmp_path_factory.mktemp("ir")
    paths = compile_all(out)
    assert [path.name for path in paths] == ["training.yaml", "retraining.yaml", "sweep.yaml"]
    return {path.stem: tuple(yaml.safe_load_all(path.read_text())) for path in paths}  # type: ignore[misc]


@pytest.fixture(params=list(PIPELINES))
def parts(request: pytest.FixtureRequest, compiled: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    return compiled[request.param]


def executors(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = spec["deploymentSpec"]["executors"]
    return {name: value["container"] for name, value in found.items()}


def tasks(spec: dict[str, Any]) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Return name, task and the inputs of the graph it stands in, for every step at every depth."""
    graphs = [spec["root"], *(part for part in spec["components"].values() if "dag" in part)]
    return [
        (name, task, graph.get("inputDefinitions", {}).get("parameters", {}))
        for graph in graphs
        for name, task in graph["dag"]["tasks"].items()
    ]


def test_every_parameter_of_the_form_is_typed_and_described(parts: tuple[dict[str, Any], dict[str, Any]]) -> None:
    parameters = parts[0]["root"]["inputDefinitions"]["parameters"]
    assert parameters
    for name, parameter in parameters.items():
        assert parameter["parameterType"] in {"STRING", "NUMBER_INTEGER", "NUMBER_DOUBLE", "LIST"}, name
        assert parameter.get("description"), f"{name} has no description"
        assert "defaultValue" in parameter, name


def test_the_forms_defaults_are_those_of_the_settings(compiled: dict[str, Any]) -> None:
    settings = RunSettings()
    shown = compiled["training"][0]["root"]["inputDefinitions"]["parameters"]
    assert shown["bucket"]["defaultValue"] == settings.store.bucket
    assert shown["recipe"]["defaultValue"] == settings.recipe
    assert shown["model_name"]["defaultValue"] == settings.publish.model_name
    assert shown["min_gain"]["defaultValue"] == settings.publish.min_gain
    usual = {name: getattr(settings.model, name) for name in ("weights", "architecture", "encoder")}
    for name in ("epochs", "batch_size", "loss", "learning_rate", "augmentation", "workers"):
        usual[name] = getattr(settings.train, name)
    for name, value in usual.items():
        assert not shown[name]["defaultValue"], f"{name}: what is not typed follows the recipe"
        assert f"as the recipe (boneseg: {value})" in shown[name]["description"]
    swept = compiled["sweep"][0]["root"]["inputDefinitions"]["parameters"]
    of_the_sweep = {"trial_epochs": settings.tune.epochs}
    of_the_sweep |= {name: getattr(settings.tune, name) for name in ("trials", "parallel", "scheduler", "searcher")}
    of_the_sweep |= {name: usual[name] for name in ("weights", "epochs", "workers")}
    for name, value in of_the_sweep.items():
        assert not swept[name]["defaultValue"], name
        assert f"as the recipe (boneseg: {value})" in swept[name]["description"]


def test_one_image_runs_every_step_and_nothing_is_installed(parts: tuple[dict[str, Any], dict[str, Any]]) -> None:
    for name, container in executors(parts[0]).items():
        assert container["image"] == IMAGE
        assert not re.search(r"\bpip\b", " ".join(container["command"])), name


def test_a_step_imports_nothing_but_boneseg(parts: tuple[dict[str, Any], dict[str, Any]]) -> None:
    for name, container in executors(parts[0]).items():
        source = container["command"][-1]
        body = source.split('"""')[-1]  # after the docstring
        imported = set(re.findall(r"^\s+(?:from|import) (\w+)", body, flags=re.MULTILINE))
        assert imported - OF_STANDARD_LIBRARY == {"boneseg"}, name
        assert body.count("\n") < 30, f"{name} does more than call boneseg"


def test_caching_is_by_content(parts: tuple[dict[str, Any], dict[str, Any]]) -> None:
    steps = [(re.sub(r"-\d+$", "", name), task) for name, task, _ in tasks(parts[0])]
    for step, task in steps:
        if step.startswith("condition"):
            continue
        cached = task["cachingOptions"].get("enableCache", False)
        assert cached == (step not in NEVER_CACHED), step
        assert not task.get("inputs", {}).get("artifacts"), (
            f"{step} takes an artifact: its cache key would not be content"
        )
        if step not in ("configure", "pull"):
            assert "pull-code_version" in json.dumps(task["inputs"]["parameters"]["code_version"]) or (
                task["inputs"]["parameters"]["code_version"]["taskOutputParameter"]["producerTask"] == "pull"
            )


def test_every_parameter_reaches_the_step_that_uses_it(parts: tuple[dict[str, Any], dict[str, Any]]) -> None:
    for name, task, known in tasks(parts[0]):
        parameters = task.get("inputs", {}).get("parameters", {})
        for value in parameters.values():
            if "componentInputParameter" in value:
                assert value["componentInputParameter"] in known, name
            for used in re.findall(r"inputs\.parameters\['([^']+)'\]", json.dumps(value)):
                assert used in parameters, f"{name} uses {used} but does not get it"


def test_credentials_come_from_the_secret_alone(parts: tuple[dict[str, Any], dict[str, Any]]) -> None:
    platform = parts[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for name in executors(parts[0]):
        if name.startswith("exec-configure"):
            continue
        secrets = {
            entry["envVar"]: (secret["secretName"], secret["optional"])
            for secret in platform[name]["secretAsEnv"]
            for entry in secret["keyToEnv"]
        }
        assert secrets == dict.fromkeys(SECRETS, (STORE_SECRET, True))
        (addresses,) = platform[name]["configMapAsEnv"]
        assert addresses["configMapName"] == ENVIRONMENT_CONFIG
        assert {entry["envVar"] for entry in addresses["keyToEnv"]} == set(ADDRESSES)


def test_training_gets_processors_memory_accelerators_and_shared_memory(
    parts: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    resources = executors(parts[0])["exec-train"]["resources"]
    assert "--cpu'" in resources["resourceCpuRequest"]
    assert "--memory'" in resources["resourceMemoryLimit"]
    assert "--gpus'" in resources["accelerator"]["resourceCount"]
    assert resources["accelerator"]["resourceType"] == "nvidia.com/gpu"
    mounts = parts[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-train"]["emptyDirMounts"]
    assert {"mountPath": "/dev/shm", "medium": "Memory", "volumeName": "shared-memory"} in mounts


def test_a_step_is_tried_again(parts: tuple[dict[str, Any], dict[str, Any]]) -> None:
    for name, task, _ in tasks(parts[0]):
        if not name.startswith(("condition", "configure")):
            assert task["retryPolicy"]["maxRetryCount"] > 0, name


def test_a_sweep_is_reported_and_its_best_settings_are_trained_and_published(compiled: dict[str, Any]) -> None:
    steps = compiled["sweep"][0]["root"]["dag"]["tasks"]
    assert set(steps) == {"configure", "pull", "prepare", "tune", "sweep-report", "train", "evaluate", "publish"}

    def producer(step: str, parameter: str) -> str:
        given: str = steps[step]["inputs"]["parameters"][parameter]["taskOutputParameter"]["producerTask"]
        return given

    assert producer("sweep-report", "sweep_name") == "tune"
    assert producer("sweep-report", "settings") == "configure"
    assert {step: producer(step, "settings") for step in ("train", "evaluate", "publish")} == dict.fromkeys(
        ("train", "evaluate", "publish"), "tune"
    )
    assert (producer("evaluate", "model_uri"), producer("publish", "evaluation_uri")) == ("train", "evaluate")
    shown = compiled["sweep"][0]["components"]
    for step in ("comp-tune", "comp-sweep-report"):
        kinds = {
            name: artifact["artifactType"]["schemaTitle"]
            for name, artifact in shown[step]["outputDefinitions"]["artifacts"].items()
        }
        assert (kinds["leaderboard"], kinds["report"]) == ("system.Markdown", "system.HTML")


def test_retraining_stops_where_nothing_changed(compiled: dict[str, Any]) -> None:
    root = compiled["retraining"][0]["root"]["dag"]["tasks"]
    assert set(root) == {"configure", "pull", "condition-1"}
    assert "pull-changed" in root["condition-1"]["triggerPolicy"]["condition"]


def test_the_image_is_chosen_when_the_pipeline_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    import components.base

    monkeypatch.setenv("BONESEG_IMAGE", "registry.example.org/boneseg:mine")
    assert importlib.reload(components.base).IMAGE == "registry.example.org/boneseg:mine"
    monkeypatch.delenv("BONESEG_IMAGE")
    importlib.reload(components.base)


def test_an_unknown_pipeline_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no pipeline 'trainning'; there are training, retraining, sweep"):
        compile_pipeline("trainning", tmp_path)


def test_settings_survive_the_way_through_overrides() -> None:
    given = (
        "name=2020",
        "train.learning_rate=1e-05",
        "prepare.label_map={7: 2}",
        "tune.architectures=[fpn]",
        "store.endpoint=http://127.0.0.1:9",
        "model.preprocess.window=[-100, 900.5]",
    )
    settings = load_settings(overrides=('name="2020"', *given[1:]))
    assert load_settings(overrides=tuple(as_overrides(settings))) == settings
    assert as_overrides(RunSettings()) == []


@pytest.mark.parametrize("recipe", ["paper", "paper-tf-keras"])
def test_settings_above_a_recipe_survive_even_where_they_are_usual_values(recipe: str) -> None:
    usual = RunSettings().train
    above = (f"train.epochs={usual.epochs}", f"train.batch_size={usual.batch_size}", "train.gradient_norm=1.0")
    settings = load_settings(overrides=(f"recipe={recipe}", *above, "model.preprocess.size=256", "train.crop=192"))
    assert (settings.train.epochs, settings.train.crop, settings.train.optimizer) == (20, 192, "adadelta")
    assert load_settings(overrides=tuple(as_overrides(settings))) == settings


def test_the_id_of_the_run_reaches_every_step_and_no_cache_key(parts: tuple[dict[str, Any], dict[str, Any]]) -> None:
    platform = parts[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for name in executors(parts[0]):
        if not name.startswith("exec-configure"):
            (field,) = platform[name]["fieldPathAsEnv"]
            assert field == {"name": RUN_VARIABLE, "fieldPath": "metadata.labels['pipeline/runid']"}
    assert "runid" not in json.dumps(parts[0])


def test_publishing_may_measure_and_gets_what_that_needs(parts: tuple[dict[str, Any], dict[str, Any]]) -> None:
    wanted = executors(parts[0])["exec-evaluate"]["resources"].keys()
    assert executors(parts[0])["exec-publish"]["resources"].keys() == wanted
