from boneseg.tune.console import table_lines
from boneseg.tune.records import TrialRow

LONG = "tu-tf_efficientnet_lite0.in1k_with_a_long_name"


def row(encoder: str, **more: object) -> TrialRow:
    values = {
        "architecture": "unet",
        "encoder": encoder,
        "learning_rate": 0.001,
        "loss": "dice",
        "epochs": 2,
        "best_mean_iou": 0.5,
        "bone_dice": 0.5,
        "run": "r",
        "error": None,
    }
    return TrialRow.model_validate({**values, **more})


def test_columns_are_as_wide_as_what_stands_in_them() -> None:
    lines = list(table_lines([row(LONG), row("resnet18", epochs=12)]))
    assert f" {LONG}  dice" in lines[1]
    assert lines[1].index("dice") == lines[2].index("dice") == lines[0].index("loss")
    assert lines[1].index("validation") == lines[2].index("validation")


def test_a_setting_that_a_trial_did_not_choose_is_a_dash_and_ends_have_their_reason() -> None:
    rows = [
        row("a", choice={"model.encoder": "a", "train.crop": 64}, stopped="it was among the poorer ones"),
        row("b", choice={"model.encoder": "b"}, error="memory ran out", best_mean_iou=None),
    ]
    first, second = list(table_lines(rows))[1:]
    assert first.split()[:2] == ["a", "64"]
    assert first.endswith("50.00%, stopped: it was among the poorer ones")
    assert second.split()[:2] == ["b", "-"]
    assert second.endswith("failed: memory ran out")
