"""The study as a user meets it: one command, started again, and with a network that fails."""

from pathlib import Path

import pytest

from boneseg.cli import main
from boneseg.errors import DataError
from boneseg.phantom.series import write_phantom
from boneseg.study.study import Options, run_study


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere is not a folder"):
        run_study(Options(data=tmp_path / "nowhere", out=tmp_path / "out"), print)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_tiny_study_goes_on_after_a_failure_and_uses_again_what_is_finished(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("BONESEG_HOME", str(tmp_path / "home"))
    for seed in range(6):
        write_phantom(tmp_path / "data" / f"p{seed}", seed, slices=4, size=64)
    splits = tmp_path / "splits.csv"
    parts = ("train", "train", "train", "validation", "test", "test")
    splits.write_text("series,split\n" + "".join(f"p{seed},{part}\n" for seed, part in enumerate(parts)))
    # PSPNet pools a feature to one value, which batch normalisation refuses for a batch of one image.
    words = ["--epochs", "1", "--steps", "2", "--size", "64", "--weights", "none", "--out", str(tmp_path / "out")]
    words += ["--set", "train.batch_size=1", "--set", f"prepare.splits.override={splits}"]
    command = ["study", "paper", "--data", str(tmp_path / "data"), *words]

    with pytest.raises(SystemExit) as failure:
        main([*command, "--networks", "paper-segnet/plain,paper-pspnet/plain"])
    assert failure.value.code == 1
    assert "1 of 2 networks have no result" in capsys.readouterr().err
    html = (tmp_path / "out" / "report.html").read_text()
    assert "train.batch_size" in html
    assert html.count("data:image/png;base64,") == 5

    caplog.clear()
    main([*command, "--networks", "paper-segnet/plain"])
    assert "SegNet" in capsys.readouterr().out
    assert "found trained" in caplog.text
    assert "Networks without a result" not in (tmp_path / "out" / "report.html").read_text()
