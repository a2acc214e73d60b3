"""Names of everything boneseg keeps in a bucket. Raw data aside, a name holds the hash of its content."""

PREFIXES = (
    "catalogues/",
    "shards/",
    "datasets/",
    "runs/",
    "sweeps/",
    "models/",
    "weights/",
    "evaluations/",
    "state/",
)
"""Where in a bucket lies what boneseg makes; beside the raw data there is also ``storage.private``'s folder."""
PRIVATE_STATE = "state/private.json"
"""Where beside the raw data the bucket keeps what leads back to people: see ``storage.private``."""
SPLITS_STATE = "state/splits.json"
"""Key of patient, study or pixels -> split, frozen at first sight."""
EARLIER_PATIENT_KEY, EARLIER_OBJECTS = "state/patient-key", "state/objects.json"
"""Where earlier versions kept them: outside the raw data."""
PUBLISHED_STATE = "state/published.json"
"""What ``published`` holds, of before there was one a model name."""
REGISTRY_STATE = "state/registry.db"
"""The embedded model registry: MLflow's SQLite file."""
REGISTRY_COPY = "state/registry-copy.db"
"""Its last good version, used where the registry itself is damaged."""


def published(name: str) -> str:
    """Key of the data fingerprint last published under a model name: what a scheduled run compares with."""
    return f"state/published/{name}.json"


def publishing(name: str) -> str:
    """Key of the lock for publishing under a model name on an MLflow server."""
    return f"state/publishing/{name}"


def catalogue(fingerprint: str) -> str:
    """Key of a catalogue: one row a series."""
    return f"catalogues/{fingerprint}.json"


def shard(shard_hash: str, file: str = "") -> str:
    """Key of a file of a shard: ``image.npy``, ``label.npy`` or ``shard.json`` (written last)."""
    return f"shards/{shard_hash}/{file}"


def dataset(dataset_hash: str, file: str = "dataset.json") -> str:
    """Key of a file of a dataset: ``dataset.json``, ``index.csv``, ``qc.csv``."""
    return f"datasets/{dataset_hash}/{file}"


def run(name: str, file: str = "") -> str:
    """Key of a file of a training run."""
    return f"runs/{name}/{file}"


def sweep(name: str, file: str = "") -> str:
    """Key of a file of a sweep."""
    return f"sweeps/{name}/{file}"


def model(model_hash: str, file: str = "") -> str:
    """Key of a file of a model: ``model.safetensors`` or ``card.json`` (written last)."""
    return f"models/{model_hash}/{file}"


def failure(name: str) -> str:
    """Key of the note that a step of a pipeline run failed in a way that a retry cannot mend."""
    return f"state/failures/{name}.json"


def weights(encoder: str, file: str = "") -> str:
    """Key of a file of an encoder's pretrained weights: ``model.safetensors`` or ``weights.json`` (written last)."""
    return f"weights/{encoder}/{file}"


def evaluation(evaluation_hash: str, file: str = "") -> str:
    """Key of a file of an evaluation: ``report.html``, tables, plots, ``evaluation.json`` (written last)."""
    return f"evaluations/{evaluation_hash}/{file}"
