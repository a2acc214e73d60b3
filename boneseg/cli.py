"""The command line: commands only. Heavy libraries load inside the command that needs them."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from boneseg import __version__
from boneseg.cli_errors import print_traceback, sentence_of, usage_of
from boneseg.cli_options import with_settings
from boneseg.cli_ray import here_only, jobs, note_ray, on_cluster, with_ray
from boneseg.cli_schemes import schemes
from boneseg.cli_store import store
from boneseg.cli_study import study
from boneseg.cli_sweep import sweep_report
from boneseg.redaction import RedactingFormatter, redacted

if TYPE_CHECKING:
    from boneseg.settings.schema import RunSettings
    from boneseg.stages import Stages
    from boneseg.storage.catalogue import Problem
    from boneseg.storage.workspace import Workspace

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
PROBLEMS_SHOWN = 20
_opened: list[Workspace] = []
"""The bucket of the command that runs: its errors are told with the names of its series."""


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}, epilog="Example: boneseg demo"
)
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show the traceback of an error and more of the log.")
@with_ray
def cli(debug: bool, ray: str | None, detach: bool) -> None:
    """Turn a bucket of CT series into a published bone segmentation model."""
    note_ray(ray, detach)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(RedactingFormatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("boneseg").setLevel(logging.DEBUG if debug else logging.INFO)


@cli.command(epilog="Example: boneseg demo, or boneseg demo --data series/ --set train.epochs=10")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of CT series; none = phantoms made here.")
@click.option("--keep", is_flag=True, help="Leave the embedded object store running.")
@with_settings
def demo(data: Path | None, keep: bool, config: Path | None, overrides: tuple[str, ...]) -> None:
    """Run everything on this machine: store, data, all stages, report."""
    from boneseg.demo import run_demo

    run_demo(data, keep, config, overrides, click.echo)


cli.add_command(jobs)
cli.add_command(schemes)
cli.add_command(store)
cli.add_command(study)
cli.add_command(sweep_report)


@cli.command(epilog="Example: boneseg upload series/")
@click.argument("folder", type=click.Path(path_type=Path))
@with_settings
def upload(folder: Path, config: Path | None, overrides: tuple[str, ...]) -> None:
    """Put a FOLDER of CT series and labels into the bucket."""
    from boneseg.storage.open import open_workspace
    from boneseg.storage.upload import upload_folder

    settings = _settings(config, overrides)
    bucket = open_workspace(settings, create=True).store
    sent = upload_folder(bucket, folder, settings.store.raw_prefix, settings.pull.parallel)
    click.echo(f"{sent} files sent to {bucket.uri(settings.store.raw_prefix)}")


@cli.command(epilog="Example: boneseg pull --set store.bucket=pelvis")
@with_settings
@on_cluster
def pull(config: Path | None, overrides: tuple[str, ...]) -> None:
    """Find out what the bucket holds and write a catalogue of its series."""
    stages = _stages(config, overrides)
    result = stages.pull()
    _show_problems(result.problems, stages)
    click.echo(
        f"{result.patients}\n"
        f"{result.series} series, {result.labelled} with a label; {result.downloaded} objects read, "
        f"{result.reused} unchanged; {'changed' if result.changed else 'unchanged'} since the last published run\n"
        f"catalogue {result.catalogue_uri}"
    )


@cli.command(epilog="Example: boneseg prepare --set prepare.splits.test=0.3")
@click.option("--catalogue", help="URI of a catalogue; none = of the last pull.")
@with_settings
@on_cluster
def prepare(catalogue: str | None, config: Path | None, overrides: tuple[str, ...]) -> None:
    """Read, check and split the series and write them as shards."""
    stages = _stages(config, overrides)
    result = stages.prepare(catalogue)
    _show_problems(result.problems, stages)
    parts = ", ".join(f"{split}: {count} series" for split, count in result.series.items())
    click.echo(f"{parts}; {result.made} prepared, {result.reused} reused\n{result.patients}")
    click.echo(f"dataset {result.dataset_uri}")


@cli.command(epilog="Example: boneseg tune --space space.yaml --set tune.trials=24, or boneseg tune --resume")
@click.option("--dataset", help="URI of a dataset; none = the last one prepared.")
@click.option("--space", type=click.Path(path_type=Path), help="YAML file of what to choose from: see docs/sweeps.md.")
@click.option(
    "--resume",
    is_flag=False,
    flag_value="",
    metavar="[NAME]",
    help="Go on with a sweep of this bucket as it was started; without a name with the unfinished one.",
)
@with_settings
@on_cluster
def tune(
    dataset: str | None, space: Path | None, resume: str | None, config: Path | None, overrides: tuple[str, ...]
) -> None:
    """Search for the best architecture, encoder and training settings with Ray Tune."""
    from boneseg.tune.console import table_lines
    from boneseg.tune.space_file import with_space

    if resume is not None and (space is not None or dataset is not None):
        raise click.UsageError("--resume takes the space and the dataset that the sweep was started with")
    if resume is None:
        settings = with_space(_settings(config, overrides), space)
        stages = _open_stages(settings)
    else:
        stages = _stages(config, overrides)
    result = stages.tune(dataset, resume)
    for line in table_lines(result.rows):
        click.echo(line)
    if result.ended:
        click.echo(f"{result.ended}; with a larger one it goes on")
    click.echo(f"sweep {result.name}\ntable {result.table_uri}\nreport {stages.sweep_report().report_uri}")
    click.echo("train with the best settings: boneseg train --tuned; measure the best: boneseg sweep-report --best 3")


@cli.command(epilog="Example: boneseg train --set train.epochs=30 --set model.encoder=resnet34")
@click.option("--dataset", help="URI of a dataset; none = the last one prepared.")
@click.option("--tuned", is_flag=True, help="Apply the best settings of the last sweep.")
@with_settings
@on_cluster
def train(dataset: str | None, tuned: bool, config: Path | None, overrides: tuple[str, ...]) -> None:
    """Train a network and keep the epoch with the best validation mean IoU."""
    stages = _stages(config, overrides)
    result = stages.train(dataset, tuned)
    click.echo(
        f"run {result.run}{' (already finished, reused)' if result.reused else ''}: best epoch {result.best_epoch}, "
        f"validation mean IoU {result.best_mean_iou:.2%}\nmodel {result.model_uri}"
    )
    if stages.settings.train.keep_final:
        more = 2 * stages.settings.train.epochs
        click.echo(f"more epochs: the same command with --set name={result.run} --set train.epochs={more}")


@cli.command(
    epilog="Example: boneseg evaluate, or boneseg evaluate --model bone@champion --data series/ --out evaluation/"
)
@click.option("--model", help="Folder, s3:// URI or registry reference such as bone@champion; none = the last trained.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of labelled series; none = the test split.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("evaluation"), help="Folder for --data's report.")
@click.option("--ensemble", multiple=True, metavar="MODEL", help="Repeat: models measured together, beside --model.")
@with_settings
@on_cluster
def evaluate(
    model: str | None,
    data: Path | None,
    out: Path,
    ensemble: tuple[str, ...],
    config: Path | None,
    overrides: tuple[str, ...],
) -> None:
    """Measure a model: class-wise tables, surface distances, plots, report."""
    from boneseg.evaluate.console import console_table
    from boneseg.evaluate.evaluate import evaluate_folder
    from boneseg.models.checkpoint import upload_model
    from boneseg.settings.loading import work_folder

    stages, model = None, model or (ensemble[0] if ensemble else None)
    if data is not None:
        settings = _settings(config, overrides)
        folder, *members = (_model_folder(name, settings) for name in (model, *ensemble))
        result = evaluate_folder(folder, data, out, settings.evaluate, settings.prepare, work_folder(), members)
    else:
        stages = _stages(config, overrides)
        given = (name for name in (model, *ensemble) if name)
        uris = [upload_model(stages.workspace, _model_folder(name, stages.settings)) for name in given]
        result = stages.evaluate(uris[0] if uris else None, ensemble=uris[1:])
    _show_problems(result.problems, stages)
    click.echo(console_table(result))
    click.echo(f"report {result.report_uri}")


@cli.command(epilog="Example: boneseg publish --set publish.model_name=bone")
@click.option("--promote", is_flag=True, help="Make it champion by your own decision, whatever was measured.")
@with_settings
@on_cluster
def publish(promote: bool, config: Path | None, overrides: tuple[str, ...]) -> None:
    """Register the last model; promote it if it surely beats the champion on the same test set."""
    result = _stages(config, overrides).publish(promote)
    click.echo(f"{result.name} version {result.version}: {result.reason}")


@cli.command(epilog="Example: boneseg predict --model bone@champion series/ --out masks/")
@click.argument("series", type=click.Path(path_type=Path))
@click.option("--model", default="bone@champion", show_default=True, help="Folder, s3:// URI or registry reference.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the masks.")
@click.option(
    "--format",
    "formats",
    type=click.Choice(["nifti", "seg", "seg.nrrd"]),
    multiple=True,
    default=("nifti", "seg"),
    show_default=True,
    help="Of the masks: NIfTI, DICOM SEG, 3D Slicer's segmentation; repeat for several.",
)
@with_settings
def predict(
    series: Path,
    model: str,
    out: Path,
    formats: tuple[str, ...],
    config: Path | None,
    overrides: tuple[str, ...],
) -> None:
    """Segment every CT SERIES in a folder; masks in the series' own geometry."""
    from boneseg.predict.predict import predict_series

    settings = _settings(config, overrides)
    folder = _model_folder(model, settings)
    predict_series(folder, series, out, settings.prepare, on_written=click.echo, formats=formats)


@cli.command(epilog="Example: boneseg phantom --out phantoms/ --count 3")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the series.")
@click.option("--count", type=click.IntRange(1), default=1, show_default=True, help="How many patients.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the first one.")
@click.option("--slices", type=click.IntRange(2), default=48, show_default=True, help="Slices a series.")
@click.option("--size", type=click.IntRange(64, 1024), default=512, show_default=True, help="Pixels a side.")
def phantom(out: Path, count: int, seed: int, slices: int, size: int) -> None:
    """Write synthetic pelvic CT series as DICOM, with DICOM SEG labels."""
    from boneseg.phantom.series import write_phantom

    for number in range(seed, seed + count):
        click.echo(write_phantom(out / f"phantom-{number:04d}", number, slices=slices, size=size))


@cli.command(epilog="Example: boneseg models, or boneseg models --architecture fpn --timm 'convnext*'")
@click.option("--architecture", help="Show every encoder it works with; none = all architectures on one encoder.")
@click.option("--encoder", help="The one encoder for all architectures; none = resnet18 where it works.")
@click.option("--timm", "pattern", metavar="PATTERN", help="With --architecture: timm's models of this name.")
@click.option("--size", type=click.IntRange(32, 4096), default=512, show_default=True, help="Pixels a side.")
@click.option("--slices", type=click.Choice(["1", "3", "5", "7"]), default="1", show_default=True, help="Channels.")
def models(architecture: str | None, encoder: str | None, pattern: str | None, size: int, slices: str) -> None:
    """List architectures and encoders with their parameters and their cost."""
    from boneseg.models import listing

    if pattern is not None and architecture is None:
        raise click.UsageError("--timm needs --architecture")
    for line in listing.lines(listing.chosen(architecture, encoder, pattern), size, int(slices)):
        click.echo(line)
    click.echo(listing.hint(architecture, encoder, pattern))


@cli.group(epilog="Example: boneseg weights mirror --encoder resnet18")
def weights() -> None:
    """Keep weights learned on ImageNet where training finds them without internet."""


@weights.command("mirror", epilog="Example: boneseg weights mirror --encoder resnet18 --out mirror/")
@click.option("--encoder", "encoders", multiple=True, help="Encoder; repeat for several. None = model.encoder.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder to fill; none = weights/ in the bucket.")
@click.option("--from", "source", type=click.Path(path_type=Path), help="Folder filled so elsewhere, for the bucket.")
@with_settings
def weights_mirror(
    encoders: tuple[str, ...], out: Path | None, source: Path | None, config: Path | None, overrides: tuple[str, ...]
) -> None:
    """Fetch ImageNet weights into the bucket or a folder, or carry a folder into the bucket."""
    from boneseg.models.weights import mirror_weights, upload_mirror
    from boneseg.storage.open import open_workspace

    if out is not None and source is not None:
        raise click.UsageError("--from goes to the bucket; leave out --out")
    settings = _settings(config, overrides)
    if source is not None:
        places = upload_mirror(open_workspace(settings), source, encoders)
    else:
        places = mirror_weights(encoders or (settings.model.encoder,), out or open_workspace(settings))
    for place in places:
        click.echo(place)


@cli.group(epilog="Example: boneseg pipeline run")
def pipeline() -> None:
    """Compile the Kubeflow pipelines, or run one on this machine."""


@pipeline.command("compile", epilog="Example: boneseg pipeline compile --out build/pipelines")
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/pipelines"), show_default=True)
def pipeline_compile(out: Path) -> None:
    """Write every pipeline as IR YAML for upload to Kubeflow."""
    from pipelines.local import compile_all  # type: ignore[import-not-found,unused-ignore]

    for path in compile_all(out):
        click.echo(path)


@pipeline.command("run", epilog="Example: boneseg pipeline run --set train.epochs=3, or boneseg pipeline run sweep")
@click.argument("name", type=click.Choice(["training", "retraining", "sweep"]), default="training")
@with_settings
def pipeline_run(name: str, config: Path | None, overrides: tuple[str, ...]) -> None:
    """Run a pipeline (NAME, else training) on this machine with kfp.local, every step a process of its own."""
    from pipelines.local import run_pipeline

    click.echo(run_pipeline(name, _stages(config, overrides).settings))


def _settings(config: Path | None, overrides: Sequence[str]) -> RunSettings:
    from boneseg.settings.loading import load_settings

    settings = load_settings(config, tuple(overrides))
    here_only(settings)  # a stage that is sent as a job does not come here
    return settings


def _stages(config: Path | None, overrides: Sequence[str]) -> Stages:
    return _open_stages(_settings(config, overrides))


def _open_stages(settings: RunSettings) -> Stages:
    from boneseg.stages import Stages
    from boneseg.storage.open import open_workspace

    stages = Stages(open_workspace(settings), settings)
    _opened.append(stages.workspace)
    return stages


def _model_folder(model: str | None, settings: RunSettings) -> Path:
    """Find a model: a folder as it is, so that it needs no store; anything else through the store or the registry."""
    if model is not None and Path(model).is_dir():
        return Path(model)
    from boneseg.models.checkpoint import fetch_model
    from boneseg.registry.publish import resolve
    from boneseg.stages import Stages
    from boneseg.storage.open import open_workspace

    workspace = open_workspace(settings)
    if model is None:
        return fetch_model(workspace, Stages(workspace, settings).model_uri())
    return resolve(workspace, model, settings)


def _show_problems(problems: Sequence[Problem], stages: Stages | None) -> None:
    from boneseg.terminal_names import reader_of

    readable = reader_of(stages.workspace if stages is not None else None)
    for problem in problems[:PROBLEMS_SHOWN]:
        told = readable(f"{problem.source}: {problem.reason}")
        click.echo(f"{'left out' if problem.fatal else 'note'}: {told}", err=True)
    if len(problems) > PROBLEMS_SHOWN:
        click.echo(f"... and {len(problems) - PROBLEMS_SHOWN} more, in the quality table", err=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line: one clear sentence for a fault of the input, the traceback only with ``--debug``."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # On a busy machine, threads that spin while they wait for each other make a training step several times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # Ended by a scheduler or a time limit: as Ctrl-C, so that what was started here is stopped again.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.excepthook = print_traceback
    threading.excepthook = lambda failed: print_traceback(failed.exc_type, failed.exc_value, failed.exc_traceback)
    debug = "--debug" in given
    try:
        cli.main(args=given, prog_name="boneseg", standalone_mode=False)
    except click.ClickException as error:
        click.echo(redacted(usage_of(error)), err=True)
        sys.exit(EXIT_USAGE)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted; the same command goes on where it was stopped", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:
        if debug:
            print_traceback(type(error), error, error.__traceback__)
        else:
            click.echo(redacted(f"error: {_readable(sentence_of(error))}"), err=True)
        sys.exit(EXIT_FAILED)


def _readable(sentence: str) -> str:
    """Put names of series back into an error of the command that just ran."""
    from boneseg.terminal_names import reader_of

    return reader_of(_opened[-1] if _opened else None)(sentence)
