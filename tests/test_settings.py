import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from boneseg.errors import SettingsError
from boneseg.identity import stable_hash
from boneseg.settings.loading import check_headline, load_settings, parse_settings, work_folder
from boneseg.settings.schema import RunSettings


def test_file_then_overrides(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("train: {epochs: 3, learning_rate: 0.01}\nmodel: {encoder: resnet34}\n")
    settings = load_settings(path, ("train.epochs=5", "prepare.label_map={1: 2}", "store.endpoint=null"))
    assert (settings.train.epochs, settings.train.learning_rate) == (5, 0.01)
    assert settings.model.encoder == "resnet34"
    assert settings.prepare.label_map == {1: 2}
    assert settings.store.endpoint is None


def test_no_file_and_an_empty_file_give_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("")
    assert load_settings(tmp_path / "empty.yaml") == load_settings() == RunSettings()


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("train.epoch=3",), r"train.epoch = 3: unknown key; known are epochs, "),
        (("trains.epochs=3",), r"trains = .*unknown key; known are name, scheme, store"),
        (("train.epochs=0",), r"train.epochs = 0: .*greater than or equal to 1"),
        (("store.bucket=Hospital-A",), r"store.bucket = 'Hospital-A': .*small letters"),
        (("publish.model_name=a/b",), r"publish.model_name = 'a/b': .*no spaces"),
        (("publish.min_gain=.nan",), r"publish.min_gain = nan: .*finite"),
        (("train.learning_rate=.inf",), r"train.learning_rate = inf: .*finite"),
        (("train.epochs=many",), r"train.epochs = 'many': .*integer"),
        (("train.crop=100",), r"train.crop = 100: .*multiple of 32"),
        (("train.loss=focal",), r"train.loss = 'focal': .*cross_entropy"),
        (("store.endpoint=s3.example.org",), r"must start with http"),
        (("store.raw_prefix=raw",), r"must end with a slash"),
        (("prepare.splits.test=0.9",), r"must stay below 1"),
        (("model.preprocess.window=[300, 300]",), r"must be \(low, high\)"),
        (("tune.losses=[]",), r"at least one choice"),
        (("model.architecture=paper-fcn8",), r"model = .*paper-fcn8.*plain"),
        (("tune.architectures=[unet, paper-unet]",), r"tune = .*every architecture must work with every encoder"),
        (("model.preprocess.size=512", "model.preprocess.spacing_mm=1"), r"exclude each other"),
        (("recipe=paper", "model.preprocess.size=100"), r"train.crop 512 is larger .*: set it to 96"),
        (("recipe=mine",), r"recipe = 'mine': .*'boneseg', 'paper' or 'paper-tf-keras'"),
        (("train.epochs",), r"must look like train.epochs=3"),
        (("=3",), r"must look like train.epochs=3"),
        (("train=3", "train.epochs=3"), r"train holds a value, not a section"),
        (("train.epochs=[1",), r"not valid YAML"),
    ],
)
def test_wrong_settings_are_named(overrides: tuple[str, ...], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        load_settings(overrides=overrides)


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "just words", "train: [unclosed"])
def test_file_that_is_no_mapping_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(SettingsError, match=r"run\.yaml"):
        load_settings(tmp_path / "run.yaml")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.yaml: cannot read"):
        load_settings(tmp_path / "nowhere.yaml")


def test_settings_survive_json() -> None:
    settings = load_settings(overrides=("prepare.label_map={1: 2}", "model.preprocess.spacing_mm=1.5"))
    assert parse_settings(settings.model_dump_json()) == settings
    assert parse_settings("") == RunSettings()


def test_settings_never_change() -> None:
    with pytest.raises(ValidationError):
        RunSettings().train.epochs = 3  # type: ignore[misc]


def test_hash_depends_on_values_not_on_order_or_process() -> None:
    assert stable_hash({"a": 1, "b": [1, 2]}) == stable_hash({"b": [1, 2], "a": 1})
    assert stable_hash({"a": 1}) != stable_hash({"a": 2})
    first = load_settings(overrides=("train.epochs=3", "train.seed=1"))
    assert first.stable_hash() == load_settings(overrides=("train.seed=1", "train.epochs=3")).stable_hash()
    assert first.stable_hash() != RunSettings().stable_hash()
    code = "from boneseg.settings.schema import RunSettings; print(RunSettings().stable_hash())"
    other = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert other.stdout.strip() == RunSettings().stable_hash()


def test_work_folder_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BONESEG_HOME", str(tmp_path / "home"))
    assert work_folder() == tmp_path / "home"
    monkeypatch.delenv("BONESEG_HOME")
    monkeypatch.chdir(tmp_path)
    assert work_folder() == tmp_path / ".boneseg"


def test_package_is_light_to_import() -> None:
    code = (
        "import sys, boneseg, boneseg.settings.loading, boneseg.cli\n"
        "heavy = {'torch', 'ray', 'kfp', 'mlflow', 'matplotlib', 'segmentation_models_pytorch', 'albumentations', "
        "'highdicom', 'minio'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_scheme_is_given_by_name_or_as_a_file_and_goes_along_whole(tmp_path: Path) -> None:
    assert load_settings().scheme.names == ("background", "patient outline", "bone")
    pelvis = load_settings(overrides=("scheme=pelvis",))
    assert pelvis.model_dump(mode="json")["scheme"] == "pelvis"
    assert parse_settings(pelvis.model_dump_json()) == pelvis
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\nclasses: [{name: air, role: background}, {name: ulna, role: bone, values: [3]}]\n")
    mine = load_settings(overrides=(f"scheme={file}",))
    assert mine.scheme.names == ("air", "ulna")
    file.unlink()
    assert parse_settings(mine.model_dump_json()) == mine


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("scheme=pelvi",), r"scheme = 'pelvi': .*no scheme of this name; known are bone, pelvis, skeleton"),
        (("scheme=no/such.yaml",), r"no/such.yaml: cannot read the file"),
        (("prepare.label_map={3: 7}",), r"leads to class 7; classes of scheme bone are 0 background"),
        (
            ("scheme=pelvis", "prepare.label_map={3: femur}"),
            r"leads to class femur; classes of scheme pelvis are .* 4 femur left",
        ),
    ],
)
def test_a_scheme_or_class_that_is_not_there_is_named(overrides: tuple[str, ...], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        load_settings(overrides=overrides)


def test_classes_of_a_label_map_go_by_name_or_value() -> None:
    settings = load_settings(overrides=("scheme=pelvis", "prepare.label_map={10: Femur L, 20: 5, others: background}"))
    assert settings.prepare.class_of(settings.scheme) == {10: 4, 20: 5, "others": 0}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"name: x\nclasses: [", r"mine.yaml: not valid YAML: .* in line 2, column \d+$"),
        (b"", r"mine.yaml: holds no scheme; give it a name and classes"),
        (b"- a\n- b\n", r"mine.yaml: holds no scheme"),
        (b"\x89\xff\x00", r"mine.yaml: not a text file"),
        (
            b"name: x\nclasses:\n- {name: a, role: background, color: [1, 2, 3]}\n",
            r"color = .*unknown key; known are name",
        ),
    ],
)
def test_a_wrong_file_with_a_scheme_is_told_in_one_sentence(tmp_path: Path, text: bytes, told: str) -> None:
    (tmp_path / "mine.yaml").write_bytes(text)
    with pytest.raises(SettingsError, match=told) as caught:
        load_settings(overrides=(f"scheme={tmp_path / 'mine.yaml'}",))
    assert "\n" not in str(caught.value)


def test_a_partner_that_is_not_there_is_told_without_the_whole_scheme(tmp_path: Path) -> None:
    bones = "".join(f"- {{name: bone {number}, role: bone, partner: none}}\n" for number in range(40))
    (tmp_path / "mine.yaml").write_text(f"name: x\nclasses:\n- {{name: air, role: background}}\n{bones}")
    with pytest.raises(SettingsError, match=r"bone 0 and its partner none must name each other") as caught:
        load_settings(overrides=(f"scheme={tmp_path / 'mine.yaml'}",))
    assert len(str(caught.value)) < 250


def test_a_settings_file_that_is_no_yaml_is_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("train: {epochs: 3\nmodel: [")
    with pytest.raises(SettingsError, match=r"run.yaml: not valid YAML: .* in line \d+, column \d+$"):
        load_settings(tmp_path / "run.yaml")


@pytest.mark.parametrize(
    ("scheme", "headline", "known"),
    [("bone", "bone", True), ("pelvis", "Hip left", True), ("skeleton", "ribs", True), ("bone", "tibia", False)],
)
def test_a_headline_is_checked_before_a_whole_run(scheme: str, headline: str, known: bool) -> None:
    settings = load_settings(overrides=(f"scheme={scheme}", f"publish.headline={headline}"))
    if known:
        check_headline(settings)
        return
    with pytest.raises(SettingsError, match=r"'tibia': not in scheme bone; known are bone, patient outline"):
        check_headline(settings)
