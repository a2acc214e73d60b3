"""The tables of a sweep's report."""

from __future__ import annotations

from collections.abc import Sequence

from boneseg.evaluate.records import PATIENT, Cell, Column, Table, known
from boneseg.metrics.statistics import Difference, Summary, too_few
from boneseg.sweep_report.best import Measured
from boneseg.sweep_report.front import pareto_front
from boneseg.sweep_report.importance import Importance, advantages, importances, shown
from boneseg.sweep_report.plots import Front
from boneseg.sweep_report.trials import Trial, varying
from boneseg.tune.records import FAILED, FINISHED, STOPPED

ALWAYS_SHOWN = 20
"""Trials beyond this rank are folded away."""
OF_THE_NAME = ("model.architecture", "model.encoder")
"""Settings that a network's name says already."""


def leaderboard(trials: Sequence[Trial], measured: Measured | None, label: str) -> Table:
    """Every trial, the best first: what it chose, what it reached, what it cost.

    Args:
        trials: of the sweep.
        measured: the best of them on the test split; none = nobody measured that.
        label: what trials are ranked by.
    """
    chosen = [name for name in varying(trials) if name not in OF_THE_NAME]
    columns = [Column(key="rank", label="Rank"), Column(key="network", label="Network")]
    columns += [Column(key=name, label=name.rpartition(".")[2], group="Settings") for name in chosen]
    columns += [Column(key="epochs", label="Epochs")]
    columns += [
        Column(key=key, label=label, group="Validation, pooled (%)", digits=2)
        for key, label in (("mean_iou_percent", "mean IoU"), ("bone_dice_percent", "bone Dice"))
    ]
    if measured is not None:
        columns += [
            Column(key=f"test_bone_dice_{key}", label=label, group="Test bone Dice (%)", digits=2)
            for key, label in (("mean", "mean"), ("low", "95 % from"), ("high", "to"))
        ]
    extra = [
        (Column(key="parameters_million", label="Parameters (M)", digits=2), [_million(row) for row in trials]),
        (Column(key="ms_per_slice", label="ms a slice", digits=1), [row.ms_per_slice for row in trials]),
        (Column(key="device_hours", label="Device hours", digits=3), [row.device_hours for row in trials]),
    ]
    there = [(column, cells) for column, cells in extra if any(cell is not None for cell in cells)]
    columns += [*(column for column, _ in there), Column(key="state", label="Ended")]
    rows: list[tuple[Cell, ...]] = []
    for place, trial in enumerate(trials):
        settings = [shown(trial.settings[name]) if name in trial.settings else None for name in chosen]
        cells: list[Cell] = [trial.rank, trial.network, *settings, trial.epochs]
        cells += [_percent(trial.mean_iou), _percent(trial.bone_dice)]
        cells += _interval_cells(measured.of(trial)) if measured is not None else []
        rows.append((*cells, *(values[place] for _, values in there), trial.state))
    folded = f"all others, from rank {ALWAYS_SHOWN + 1} on"
    return Table(
        name="leaderboard",
        title="Leaderboard",
        protocol="",
        note=_leaderboard_note(trials, measured, label),
        columns=tuple(columns),
        rows=tuple(rows),
        folds=tuple("" if trial.rank <= ALWAYS_SHOWN else folded for trial in trials)
        if len(trials) > ALWAYS_SHOWN
        else (),
    )


def _leaderboard_note(trials: Sequence[Trial], measured: Measured | None, label: str) -> str:
    text = (
        f"Trials are ranked by the highest {label} of validation among their epochs. During training validation pools "
        "the pixels of its slices over all series, so that these figures have no interval: small differences between "
        "neighbours of the list may be chance, and the highest of many is higher than it would be measured again. "
    )
    if not by_epochs(trials):
        text += "Bone Dice is that of the last epoch where the epochs before it were not kept. "
    if measured is None:
        return text + "No trial was measured on the test split yet: boneseg sweep-report --best 3 does so."
    patients = max(len(set(found.patients().values())) for _, found in measured.networks)
    first = measured.of(measured.networks[0][0])
    few = f" {too_few(patients)}." if first is not None and known(first.low) is None else ""
    return text + (
        f"Of the trials that have a model the best ({len(measured.networks)}) were measured on the test split, "
        f"{patients} {'patient' if patients == 1 else 'patients'}: mean over series with its 95 % interval over "
        "patients (the "
        f"wider of t and bootstrap-t).{few} Choosing by these figures would make the test split a validation split."
    )


def best_table(measured: Measured) -> Table:
    """The best trials and their ensemble on the test split."""
    rows: list[tuple[Cell, ...]] = []
    for trial, _ in measured.networks:
        rows.append((f"{trial.rank}: {trial.network}", *_summary_cells(measured.of(trial))))
    together, gain = measured.together(), measured.gain()
    if together is not None:
        count = len(measured.networks)
        rows.append((f"ensemble of these {count}", *_summary_cells(together)))
    return Table(
        name="best",
        title="The best trials on the test split, alone and together",
        protocol=PATIENT,
        note="Bone Dice, one value a series, then the mean, the standard deviation and the 95 % interval of the mean "
        "over patients. The ensemble takes in each voxel the class of the highest mean probability (softmax) of its "
        f"networks, each brought to the series' own grid. {_gain_text(gain)}",
        columns=(
            Column(key="network", label="Network"),
            *(
                Column(key=key, label=label, group="Bone Dice (%)", digits=2)
                for key, label in (("mean", "mean"), ("sd", "SD"), ("low", "95 % from"), ("high", "to"))
            ),
            Column(key="test_series", label="Series"),
            Column(key="test_patients", label="Patients"),
        ),
        rows=tuple(rows),
    )


def _gain_text(gain: Difference | None) -> str:
    if gain is None:
        return "There is no ensemble: fewer than two different trials have a model."
    mean, low, high = (known(100 * value) for value in (gain.mean, gain.low, gain.high))
    if mean is None:
        return "No test series holds bone: there is nothing to compare."
    text = f"Ensemble minus the first network, series by series: {mean:+.2f} percentage points"
    if low is None or high is None:
        return f"{text}. {too_few(gain.patients)}."
    return f"{text} (95 % interval {low:+.2f} to {high:+.2f}, p = {gain.p_value:.3f}, {gain.patients} patients)."


def fronts(trials: Sequence[Trial]) -> list[Front]:
    """Return bone Dice against milliseconds a slice and against parameters, as far as they are known."""
    found = []
    for label, cost in (
        ("Inference, ms a slice", lambda trial: trial.ms_per_slice),
        ("Parameters, millions", _million),
    ):
        costs = [
            (trial, float(value))
            for trial in trials
            if trial.bone_dice is not None and trial.state != FAILED and (value := cost(trial)) is not None
        ]
        if costs:
            points = [(trial.bone_dice or 0.0, value) for trial, value in costs]
            found.append(Front(label, costs, pareto_front(points)))
    return found


def front_table(found: Sequence[Front]) -> Table:
    """The trials of every Pareto front."""
    rows: list[tuple[Cell, ...]] = [
        (front.label, front.costs[place][0].rank, front.costs[place][0].network, value, _percent(dice))
        for front in found
        for place in front.front
        for value, dice in [(front.costs[place][1], front.costs[place][0].bone_dice)]
    ]
    return Table(
        name="front",
        title="Pareto fronts",
        protocol="",
        note="No trial of the sweep has a higher bone Dice of validation at the same or lower cost than one of these. "
        "Trials that were stopped early count with what they had reached.",
        columns=(
            Column(key="measure", label="Cost"),
            Column(key="rank", label="Rank"),
            Column(key="network", label="Network"),
            Column(key="cost", label="Value", digits=2),
            Column(key="bone_dice_percent", label="Bone Dice (%)", digits=2),
        ),
        rows=tuple(rows),
    )


def scored_importances(trials: Sequence[Trial]) -> tuple[Importance, ...]:
    """Judge the settings by the trials that have a score: by their epochs where these were kept."""
    scored = [trial for trial in trials if trial.score is not None]
    if by_epochs(trials):
        values = advantages([trial.curve for trial in scored])
    else:
        values = [trial.score or 0.0 for trial in scored]
    return importances([trial.settings for trial in scored], values)


def by_epochs(trials: Sequence[Trial]) -> bool:
    """Say whether the epochs of every trial that has a score are known."""
    return all(trial.curve for trial in trials if trial.score is not None)


def importance_table(found: Sequence[Importance], by_epochs: bool, label: str) -> Table:
    """What each setting explains, and which of its values were best.

    Args:
        found: the settings.
        by_epochs: whether trials were compared epoch by epoch.
        label: what trials are ranked by.
    """
    sign, unit = ("+", "points") if by_epochs else ("", "%")
    score = (
        f"how far its {label} of validation lay above that of the trials with the same epochs, the mean over its epochs"
        if by_epochs
        else f"its best {label} of validation, also where it was stopped early"
    )
    rows: list[tuple[Cell, ...]] = [
        (
            row.setting,
            _percent(row.share),
            row.p_value,
            row.trials,
            "; ".join(f"{level.label}: {100 * level.mean:{sign}.2f} {unit} ({level.trials})" for level in row.levels),
        )
        for row in found
    ]
    return Table(
        name="importance",
        title="What each setting explains",
        protocol="",
        note=f"A trial's score is {score}. Share of the variance of the scores that the setting explains by itself, "
        "corrected for chance (Kelley's epsilon squared), with the p-value of a permutation test. Numbers of many "
        "values are put into four groups of equal size. What settings do only together is not seen, and where a "
        "searcher chose the trials, their settings are not independent of each other. A dash: too few trials to tell.",
        columns=(
            Column(key="setting", label="Setting"),
            Column(key="share_percent", label="Explains (%)", digits=1),
            Column(key="p_value", label="p", digits=3),
            Column(key="trials", label="Trials"),
            Column(key="levels", label="Mean score of each value, the best first (trials)"),
        ),
        rows=tuple(rows),
    )


def ended_table(trials: Sequence[Trial]) -> Table:
    """Which trials did not have all their epochs, and why."""
    ended = [trial for trial in trials if trial.state != FINISHED]
    folded = f"all others, after the first {ALWAYS_SHOWN}"
    return Table(
        name="ended",
        title="Stopped and failed trials",
        protocol="",
        note="Stopping the poor ones early is what a scheduler is for; a failed trial did not end the sweep.",
        columns=(
            Column(key="rank", label="Rank"),
            Column(key="network", label="Network"),
            Column(key="state", label="Ended"),
            Column(key="epochs", label="Epochs"),
            Column(key="mean_iou_percent", label="Mean IoU (%)", digits=2),
            Column(key="reason", label="Why"),
        ),
        rows=tuple(
            (trial.rank, trial.network, trial.state, trial.epochs, _percent(trial.mean_iou), trial.why)
            for trial in ended
        ),
        folds=tuple("" if place < ALWAYS_SHOWN else folded for place in range(len(ended)))
        if len(ended) > ALWAYS_SHOWN
        else (),
    )


def cost_table(trials: Sequence[Trial]) -> Table:
    """Device hours by how trials ended."""
    rows: list[tuple[Cell, ...]] = []
    total = sum(trial.device_hours or 0.0 for trial in trials)
    groups = [(state, [trial for trial in trials if trial.state == state]) for state in (FINISHED, STOPPED, FAILED)]
    for name, part in (*groups, ("combined", list(trials))):
        hours = sum(trial.device_hours or 0.0 for trial in part)
        epochs = sum(trial.epochs for trial in part)
        if part:
            rows.append((name, len(part), epochs, hours, 100 * hours / total if total else None))
    return Table(
        name="cost",
        title="What the sweep cost",
        protocol="",
        note="Device hours: GPUs that a trial held, or CPU processes where there is no GPU, times the hours it held "
        "them. Of sweeps that did not note it, the time of the epochs that were kept; start-up is not in it.",
        columns=(
            Column(key="state", label="Trials that"),
            Column(key="trials", label="Trials"),
            Column(key="epochs", label="Epochs"),
            Column(key="device_hours", label="Device hours", digits=3),
            Column(key="share_percent", label="Share (%)", digits=1),
        ),
        rows=tuple(rows),
    )


def _summary_cells(summary: Summary | None) -> list[Cell]:
    if summary is None:
        return [None] * 6
    figures = (summary.mean, summary.sd, summary.low, summary.high)
    return [*(known(100 * value) for value in figures), summary.series, summary.patients]


def _interval_cells(summary: Summary | None) -> list[Cell]:
    if summary is None:
        return [None] * 3
    return [known(100 * value) for value in (summary.mean, summary.low, summary.high)]


def _million(trial: Trial) -> float | None:
    return trial.parameters / 1e6 if trial.parameters is not None else None


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value
