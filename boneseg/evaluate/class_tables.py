"""The tables of a model that tells bones apart: each bone and group, left beside right, and every class pooled."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from boneseg.evaluate.forms import MOST_ROWS
from boneseg.evaluate.records import BONE_GROUP, PAPER, PATIENT, Cell, Column, RegionMeasure, Table, known
from boneseg.evaluate.tables import Series, has_own_grid, percent
from boneseg.metrics import counts
from boneseg.metrics.statistics import DISTANCES, FEWEST_PATIENTS, SHARES, Summary, summarise, too_few
from boneseg.scheme import LabelScheme, Role
from boneseg.settings.schema import EvaluateSettings

Value = Callable[[RegionMeasure], float | None]
Rows = list[tuple[Cell, ...]]
_SPREAD = (("sd", "SD"), ("low", "95 % from"), ("high", "to"))


def class_tables(series: Series, scheme: LabelScheme, settings: EvaluateSettings) -> tuple[Table, ...]:
    """Make the tables of bones; none for a model that has bone as one class."""
    if len(scheme.bones) < 2 or not any(row.network.regions for row in series):
        return ()
    tables = bones(series, scheme, settings), sides(series, scheme), classes(series, scheme)
    return tuple(table for table in tables if table.rows)


def in_pairs(scheme: LabelScheme, values: Sequence[int]) -> list[int]:
    """Return values of classes in their order, each partner right behind the one that comes first."""
    ordered = dict.fromkeys(found for value in values for found in (value, scheme.mirrored[value]))
    return [value for value in ordered if value in values]


def folds_of(scheme: LabelScheme, names: Sequence[str]) -> tuple[str, ...]:
    """Say under which group the row of each name is folded away; nothing where the rows are few."""
    if len(names) <= MOST_ROWS:
        return ()
    groups = {item.name: item.group for item in scheme.classes if item.group and item.group != "bone"}
    alone = [name for name in names if name in scheme.names and name not in groups]
    rest = "" if len(alone) <= MOST_ROWS else "bone"
    return tuple(groups.get(name, rest if name in alone else "") or "" for name in names)


def bones(series: Series, scheme: LabelScheme, settings: EvaluateSettings) -> Table:
    """Dice and surface distances of every group and bone over series, and how much of each was not labelled."""
    members = in_pairs(scheme, scheme.bones)
    wanted = [
        *(name for name in scheme.groups if name not in scheme.names),
        *(scheme.names[value] for value in members),
    ]
    found = {name: _found(series, name) for name in wanted}
    names = [name for name in wanted if any(_voxels(region) for _, region in found[name])]
    absent = [name for name in wanted if name not in names]
    dice, hd95 = "Dice (%)", "HD95 (mm)"
    patients = len({row.patient for row in series})
    bony = sum(region.hits + region.missed + region.untold for _, region in _found(series, BONE_GROUP))
    few = f"{too_few(patients)}. " if patients < FEWEST_PATIENTS else ""
    return Table(
        name="bones",
        title="Bone by bone",
        protocol=PATIENT,
        note="One value a series, then mean, standard deviation and the 95 % interval of the mean over patients (the "
        f"wider of t and bootstrap-t). {few}n: series with a value; a series counts where the reference or the network "
        "has the bone, unless the label is silent of it. Pooled: the voxels of these series together. Not labelled: "
        "voxels of which the label does not say whether they belong to the bone, as a share of all voxels that are or "
        "may be bone; they are left out, and so is the surface of a bone of which a part is not labelled. HD95, ASD "
        "and NSD as in the table of series."
        + (f" Nowhere in the test set, neither labelled nor predicted: {', '.join(absent)}." if absent else ""),
        columns=(
            Column(key="bone", label="Bone"),
            percent("dice", "mean", dice),
            *(percent(f"dice_{key}", label, dice) for key, label in _SPREAD),
            percent("dice_pooled", "pooled", dice),
            Column(key="series", label="n", group=dice),
            Column(key="hd95_mm", label="mean", group=hd95, digits=2),
            *(Column(key=f"hd95_{key}_mm", label=label, group=hd95, digits=2) for key, label in _SPREAD),
            Column(key="hd95_series", label="n", group=hd95),
            Column(key="average_surface_mm", label="ASD (mm)", digits=2),
            percent("nsd", f"NSD at {settings.surface_tolerance_mm:g} mm (%)", ""),
            percent("untold", "Not labelled (%)", ""),
        ),
        rows=tuple(_bone_row(name, found[name], bony, settings) for name in names),
        folds=folds_of(scheme, names),
        rank="dice_percent",
    )


def _found(series: Series, name: str) -> list[tuple[str, RegionMeasure]]:
    """Return patient and measure of every series that has a region."""
    return [(row.patient, region) for row in series if (region := row.network.region(name)) is not None]


def _voxels(region: RegionMeasure) -> int:
    return region.hits + region.missed + region.extra + region.untold


def _bone_row(
    name: str, found: list[tuple[str, RegionMeasure]], bony: int, settings: EvaluateSettings
) -> tuple[Cell, ...]:
    """Return the cells of a bone or group; ``bony``: voxels of all series that are or may be bone."""
    patients = [patient for patient, _ in found]

    def over(value: Value, bounds: tuple[float, float]) -> Summary:
        values = [np.nan if (number := value(region)) is None else number for _, region in found]
        return summarise(values, patients, settings.bootstrap, bounds=bounds)

    dice, hd95 = over(RegionMeasure.dice, SHARES), over(lambda region: region.hd95_mm, DISTANCES)
    average = over(lambda region: region.average_surface_mm, DISTANCES)
    normalised = over(lambda region: region.normalised_surface, SHARES)
    known_of = [region for _, region in found if not region.silent]
    hits, missed, extra = (sum(getattr(region, part) for region in known_of) for part in ("hits", "missed", "extra"))
    return (
        name,
        *(known(value * 100) for value in (dice.mean, dice.sd, dice.low, dice.high)),
        _share(2 * hits, 2 * hits + missed + extra),
        dice.series,
        *(known(value) for value in (hd95.mean, hd95.sd, hd95.low, hd95.high)),
        hd95.series,
        known(average.mean),
        known(normalised.mean * 100),
        _share(sum(region.untold for _, region in found), bony),
    )


def sides(series: Series, scheme: LabelScheme) -> Table:
    """Left beside right of every pair, and how many voxels of each were given to the other."""
    total = told_confusion(series, scheme)
    pairs = [pair for value in scheme.bones if (pair := pair_of(scheme, value)) and pair[0] == value]
    groups = ("Dice (%)", "HD95 (mm)", "left as right", "right as left")
    rows: Rows = []
    shown = []
    for pair in pairs:
        dice, hd95 = zip(*(_means(series, scheme.names[value]) for value in pair), strict=True)
        if dice != (None, None):
            shown.append(pair)
            rows.append((pair_name(scheme, pair), *dice, *hd95, *_swapped(total, [pair])))
    folds = folds_of(scheme, [scheme.names[left] for left, _ in shown])
    if rows:
        rows.append(("combined", *[None] * 4, *_swapped(total, shown)))
    return Table(
        name="sides",
        title="Left and right",
        protocol=PATIENT,
        note="Dice and HD95: means over series. Left as right: labelled voxels of the left bone that the network gives "
        "to its partner on the right, and their share of the left bone, voxels of all series pooled at full "
        "resolution; right as left likewise.",
        columns=(
            Column(key="pair", label="Bone"),
            *(percent(f"dice_{side}", side, groups[0]) for side in ("left", "right")),
            *(Column(key=f"hd95_{side}_mm", label=side, group=groups[1], digits=2) for side in ("left", "right")),
            *(
                column
                for key, group in zip(("left_as_right", "right_as_left"), groups[2:], strict=True)
                for column in (Column(key=key, label="voxels", group=group), percent(key, "share (%)", group))
            ),
        ),
        rows=tuple(rows),
        folds=(*folds, "") if any(folds) else (),
        rank="dice_left_percent",
    )


def pair_of(scheme: LabelScheme, value: int) -> tuple[int, int] | None:
    """Return a class and its partner, the left one first; none without a partner."""
    other = scheme.mirrored[value]
    if other == value:
        return None
    left = [found for found in (value, other) if scheme.classes[found].side == "left"]
    right = [found for found in (value, other) if scheme.classes[found].side == "right"]
    first = left[0] if left else scheme.mirrored[right[0]] if right else min(value, other)
    return first, scheme.mirrored[first]


def pair_name(scheme: LabelScheme, pair: tuple[int, int]) -> str:
    """Return the name of a pair: what its names share, or both."""
    left, right = (scheme.names[value] for value in pair)
    words = [one for one, other in zip(left.split(), right.split(), strict=False) if one == other]
    alike = len(left.split()) == len(right.split()) == len(words) + 1
    return " ".join(words) if words and alike else f"{left} / {right}"


def _means(series: Series, name: str) -> tuple[float | None, float | None]:
    """Return the mean Dice in percent and HD95 in mm of a region over series."""
    regions = [region for _, region in _found(series, name)]
    dice, hd95 = (
        [value for value in values if value is not None]
        for values in ((region.dice() for region in regions), (region.hd95_mm for region in regions))
    )
    return 100 * float(np.mean(dice)) if dice else None, float(np.mean(hd95)) if hd95 else None


def _swapped(total: counts.Counts | None, pairs: Sequence[tuple[int, int]]) -> list[Cell]:
    """Return voxels and percent of left bones given to their partners, then of right ones."""
    if total is None:
        return [None] * 4
    cells: list[Cell] = []
    for from_left in (True, False):
        ways = [pair if from_left else pair[::-1] for pair in pairs]
        given = sum(int(total[one, other]) for one, other in ways)
        cells += [given, _share(given, sum(int(total[one].sum()) for one, _ in ways))]
    return cells


def classes(series: Series, scheme: LabelScheme) -> Table:
    """Tables 1 and 3 of the paper for the classes of the scheme: one row a class, all test pixels pooled."""
    own = has_own_grid(series)
    grids = {True: "output size", False: "full resolution"} if own else {False: ""}
    figures = (
        ("iou", "IoU (%)", counts.iou),
        ("dice", "Dice (%)", counts.dice),
        ("accuracy", "Accuracy (%)", counts.accuracy),
    )
    columns = [Column(key="class", label="Class"), Column(key="series", label="Series")]
    for on_output, grid in grids.items():
        prefix = "output_" if on_output else ""
        columns += [percent(f"{prefix}{key}", label, grid) for key, label, _ in figures]
    others = [value for value, item in enumerate(scheme.classes) if item.role != Role.BONE]
    cells: dict[int, tuple[int, list[float]]] = {}
    for value in (*others, *in_pairs(scheme, scheme.bones)):
        tables = [_against_rest(series, scheme, value, on_output) for on_output in grids]
        numbers = [float(figure(table)[1]) for table, _ in tables for _, _, figure in figures]
        if tables[0][1] and not np.isnan(numbers[0]):
            cells[value] = tables[0][1], numbers
    rows: Rows = [
        (scheme.names[value], used, *(known(100 * number) for number in numbers))
        for value, (used, numbers) in cells.items()
    ]
    names = [scheme.names[value] for value in cells]
    folds = folds_of(scheme, names)
    if rows:
        means = counts.mean_over_classes(np.array([numbers for _, numbers in cells.values()]).T)
        rows.insert(0, ("mean of the classes", None, *(known(100 * value) for value in means)))
    return Table(
        name="classes",
        title="Every class of the scheme",
        protocol=PAPER,
        note="Pixels of all test images are pooled for each class, of the series whose label tells of every pixel "
        "whether it belongs to the class. Accuracy is (TP + TN) / all. The mean is over the classes that occur.",
        columns=tuple(columns),
        rows=tuple(rows),
        folds=("", *folds) if folds else (),
        rank="dice_percent",
    )


def _against_rest(series: Series, scheme: LabelScheme, value: int, on_output: bool) -> tuple[counts.Counts, int]:
    """Add up one class against the rest, over the series whose labels tell of every voxel whether it belongs to it.

    Returns:
        (2, 2): no and yes by reference, by prediction; and of how many series.
    """
    total, used = np.zeros((2, 2), dtype=np.int64), 0
    for row in series:
        kept = row.network.classes
        if kept is None:
            continue
        table = kept.table(scheme.size, on_output)
        if any(value in found and table[number].any() for number, found in enumerate(kept.sets, start=scheme.size)):
            continue
        hits, missed, extra = table[value, value], table[value].sum(), table[:, value].sum()
        missed, extra = missed - hits, extra - hits
        total += np.array([[table.sum() - hits - missed - extra, extra], [missed, hits]])
        used += 1
    return total, used


def told_confusion(series: Series, scheme: LabelScheme) -> counts.Counts | None:
    """Add up the voxels of known class, (classes, classes); none where no series has them."""
    kept = [row.network.classes for row in series if row.network.classes is not None]
    if not kept:
        return None
    total: counts.Counts = np.sum([found.table(scheme.size)[: scheme.size] for found in kept], axis=0)
    return total


def _share(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None
