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
    later={"told_share": 0.8},  # without labels that say only "bone" it changes nothing
    how=("backend", "device", "loader_threads", "weights_mirror"),
)
"""What decides the outcome of a training run; a run may go on with other values of ``how``."""

SWEEP_TRAIN = Fields(first=(*TRAIN.first, *TRAIN.how), later=TRAIN.later)
"""Training settings of a sweep: the first version counted all of them."""

TUNE = Fields(
    first=("trials", "epochs", "architectures", "encoders", "losses", "learning_rate"),
    how=("parallel",),
)
"""What a sweep searches."""

EVALUATE = Fields(first=("surface_tolerance_mm", "bootstrap", "threshold_hu"), how=("batch_size",))
"""What is measured."""

PREPARE = Fields(
    first=("label_map", "max_gap", "max_tilt_degrees"),
    how=("parallel", "splits.validation", "splits.test", "splits.override"),
)
"""How a series becomes a shard; splits decide where it is used, not what it is."""
