"""Which settings count where something is named by them. A new setting goes into ``later`` or ``how`` of its list."""

from boneseg.identity import Fields

MODEL = Fields(
    first=(
        "architecture",
        "encoder",
        "weights",
        "preprocess.window",
        "preprocess.spacing_mm",
        "preprocess.size",
        "preprocess.slices",
        "preprocess.slice_distance_mm",
    ),
)
"""The network and what it sees: part of a model's hash, of a run and of a sweep."""

_FIRST_HOW = ("backend", "device", "loader_threads", "weights_mirror")

TRAIN = Fields(
    first=(
        "epochs",
        "steps_per_epoch",
        "batch_size",
        "crop",
        "optimizer",
        "learning_rate",
        "schedule",
        "weight_decay",
        "gradient_norm",
        "loss",
        "augmentation",
        "bone_share",
        "workers",
        "precision",
        "seed",
    ),
    later={
        "told_share": 0.8,  # without labels that say only "bone" it changes nothing
        "plateau_patience": 5,
        "plateau_factor": 0.5,
        "early_stopping": None,
        "early_stopping_gain": 0.0,
        "ema": None,
    },
    how=(*_FIRST_HOW, "micro_batch", "compile", "save_every_steps", "keep_last", "keep_final", "pictures_every"),
)
"""What decides the outcome of a training run; a run may go on with other values of ``how``. ``workers`` counts for the
names of runs from when ``batch_size`` was that of each worker; every run since has 1 (see ``runs.RunRecord.of``)."""

SWEEP_TRAIN = Fields(
    first=(*TRAIN.first, *_FIRST_HOW),
    later=TRAIN.later,
    same={"loader_threads": {"auto": 1}},
    how=tuple(name for name in TRAIN.how if name not in _FIRST_HOW),
)
"""Training settings of a sweep: the first version counted all of those that it had."""

TUNE = Fields(
    first=("trials", "epochs", "architectures", "encoders", "losses", "learning_rate"),
    later={"space": None, "scheduler": "asha", "searcher": "optuna", "metrics": ["mean_iou"]},
    how=("parallel", "hours", "gpu_hours"),  # with a larger budget the same sweep goes on
)
"""What a sweep searches."""

EVALUATE = Fields(first=("surface_tolerance_mm", "bootstrap", "threshold_hu"), how=("batch_size",))
"""What is measured."""

PREPARE = Fields(
    first=("label_map", "max_gap", "max_tilt_degrees"),
    how=("parallel", "splits.validation", "splits.test", "splits.override"),
)
"""How a series becomes a shard; splits decide where it is used, not what it is."""
