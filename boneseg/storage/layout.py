"""Names of everything boneseg keeps in a bucket. Raw data aside, a name holds the hash of its content."""

OBJECTS_STATE = "state/objects.json"
"""What pull knows of each raw object, so that the next pull reads only what changed."""
SPLITS_STATE = "state/splits.json"
"""Key of patient, study or pixels -> split, frozen at first sight."""
PATIENT_KEY_STATE = "state/patient-key"
"""Secret of the keyed hash that stands for a patient; beside the raw data it protects, used if none is given."""
PUBLISHED_STATE = "state/published.json"
"""Data fingerprint of the last published run: what a scheduled run compares with."""
REGISTRY_STATE = "state/registry.db"
"""The embedded model registry: MLflow's SQLite file."""


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
