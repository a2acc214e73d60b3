"""The paper's study on a folder of CT series: every network trained and measured, one report."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from boneseg.dataset.manifest import Dataset
from boneseg.dataset.shards import load_dataset
from boneseg.errors import DataError, ModelError, SettingsError
from boneseg.identity import stable_hash
from boneseg.local_dataset import bucket_of, make_dataset, store_here, upload
from boneseg.models.checkpoint import fetch_model
from boneseg.models.weights import pretrained
from boneseg.progress import track
from boneseg.settings.loading import work_folder
from boneseg.settings.schema import Split
from boneseg.stages import Stages
from boneseg.storage.workspace import Workspace
from boneseg.study import paper_numbers as printed
from boneseg.study.differences import differences
from boneseg.study.pictures import make_pictures
from boneseg.study.plan import Budget, Plan, make_plan
from boneseg.study.report import HTML_FILE, MARKDOWN_FILE, Report, console_table, write_report
from boneseg.study.tables import Results
from boneseg.study.timing import OurCost, device_name, measure_cost
from boneseg.study.trial import Failed, Finished, Shared, run_plan

log = logging.getLogger(__name__)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What the user asks for."""

    data: Path
    out: Path
    networks: tuple[str, ...] = ()
    """``architecture/encoder`` each; none = the seven of the paper."""
    budget: Budget = field(default_factory=Budget)
    recipe: str | None = None
    weights: str | None = None
    parallel: int = 1
    """Networks at the same time."""
    note: str = ""
    """What the user says of the data; stands in the report."""
    config: Path | None = None
    overrides: tuple[str, ...] = ()


def run_study(options: Options, say: Say) -> None:
    """Train and measure every network and write the report. Started again, it goes on where it was stopped.

    Args:
        options: what is asked for.
        say: prints a line for the user.

    Raises:
        SettingsError: a network or a setting does not work.
        DataError: the folder cannot be used, or has too few patients for training, validation and test.
        ModelError: pretrained weights are nowhere; or networks failed: the report is written then, and says why.
    """
    plan = make_plan(
        options.networks, options.budget, options.recipe, options.weights, options.config, options.overrides
    )
    plan = _on_bucket(plan, bucket_of(options.data))
    _check_out(options.out)
    started = time.monotonic()
    with store_here(plan.settings.store, keep=False, say=say) as store:
        workspace = Workspace(store, work_folder(), plan.settings.store.raw_prefix)
        upload(store, options.data, plan.settings, say)
        dataset_uri = make_dataset(Stages(workspace, plan.settings), say).dataset_uri
        shared = Shared(workspace, load_dataset(workspace, dataset_uri), dataset_uri)
        _check_data(shared.dataset)
        _check_weights(plan, workspace)
        say(f"study: {len(plan.trials)} networks, recipe {plan.recipe}")
        name = f"study-{stable_hash([shared.dataset.dataset_hash, [trial.key for trial in plan.trials]])}"
        networks = run_plan(plan, shared, name, options.parallel)
        results = _results(networks, workspace)
        pictures = make_pictures(results.finished, shared) if results.finished else None
    matters = differences(plan, shared.dataset, options.note, results.device)
    write_report(options.out, Report(results, shared.dataset, matters, pictures))
    say(f"\n{console_table(results)}\n")
    say(f"report  {options.out / HTML_FILE}\n        {options.out / MARKDOWN_FILE}")
    say(f"finished in {time.monotonic() - started:.0f} s")
    _raise_failures(networks)


def _on_bucket(plan: Plan, bucket: str) -> Plan:
    """Use the folder's own bucket, unless the settings name one."""
    if "bucket" in plan.settings.store.model_fields_set:
        return plan
    store = plan.settings.store.model_copy(update={"bucket": bucket})
    return replace(plan, settings=plan.settings.model_copy(update={"store": store}))


def _check_out(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"--out {out}: cannot be written ({error.strerror}); choose another folder") from error


def _check_data(dataset: Dataset) -> None:
    for split in Split:
        if not dataset.of(split):
            raise DataError(
                f"the {split} part of the data is empty; add patients, or assign them with prepare.splits.override"
            )


def _check_weights(plan: Plan, workspace: Workspace) -> None:
    """Find pretrained weights before hours of training, not after."""
    for trial in plan.trials:
        try:
            pretrained(workspace, trial.settings.model, trial.settings.train.weights_mirror)
        except ModelError as error:
            raise ModelError(
                f"{error}. A study with --weights none starts {trial.title} from random numbers"
            ) from error


def _results(networks: list[Finished | Failed], workspace: Workspace) -> Results:
    """Time the networks one after another, now that nothing else runs."""
    costs: dict[str, OurCost] = {}
    for network in track(networks, "time", unit="networks"):
        if isinstance(network, Finished) and network.trial.network not in costs:
            costs[network.trial.network] = measure_cost(fetch_model(workspace, network.model_uri), printed.SIZE)
    return Results(tuple(networks), costs, device_name())


def _raise_failures(networks: list[Finished | Failed]) -> None:
    failed = [network for network in networks if isinstance(network, Failed)]
    if failed:
        raise ModelError(
            f"{len(failed)} of {len(networks)} networks have no result, and the report says why; the first one, "
            f"{failed[0].trial.title}: {failed[0].reason}"
        )
