"""What a step's pod gets on a cluster. A run on this machine ignores all of it."""

from typing import Any

from kfp import kubernetes
from kfp.dsl.pipeline_channel import PipelineChannel

from boneseg.pipeline_step import RUN_VARIABLE

STORE_SECRET = "boneseg-store"
"""Kubernetes Secret with the credentials; made by hand or by the chart's user, never from a values file."""
ENVIRONMENT_CONFIG = "boneseg-environment"
"""ConfigMap that the chart makes: addresses that are the same for every run."""

SECRETS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "BONESEG_PATIENT_KEY",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
)
"""All of them optional: a pod may also get its credentials from its service account or its node."""
ADDRESSES = ("BONESEG_S3_ENDPOINT", "MLFLOW_TRACKING_URI")

WORK_FOLDER = "/var/lib/boneseg"
"""``BONESEG_HOME`` in the image."""
RETRIES = 2
RUN_LABEL = "metadata.labels['pipeline/runid']"
"""Kubeflow puts the id of the run on every pod. As a parameter it would make each run's cache keys its own."""
ACCELERATOR = "nvidia.com/gpu"


def connect(task: Any, cached: bool = True) -> Any:
    """Give a step its credentials, addresses and a scratch folder; let it be tried again after a lost node.

    A step that failed by its own input ends at once when it is tried again: see ``boneseg.pipeline_step``.
    """
    kubernetes.use_secret_as_env(task, STORE_SECRET, {key: key for key in SECRETS}, optional=True)
    kubernetes.use_config_map_as_env(task, ENVIRONMENT_CONFIG, {key: key for key in ADDRESSES}, optional=True)
    kubernetes.empty_dir_mount(task, volume_name="work", mount_path=WORK_FOLDER)
    kubernetes.use_field_path_as_env(task, RUN_VARIABLE, RUN_LABEL)
    task.set_retry(RETRIES, backoff_duration="60s")
    return task.set_caching_options(cached)


def compute(task: Any, cpu: Any, memory: Any, gpus: Any = None) -> Any:
    """Give a step processors, memory and accelerators; each a string or a pipeline parameter."""
    # Without this, the compiler forgets to hand the parameters into the steps below a condition.
    task.register_pipeline_channels([value for value in (cpu, memory, gpus) if isinstance(value, PipelineChannel)])
    task.set_cpu_request(cpu).set_memory_request(memory).set_memory_limit(memory)
    if gpus is not None:
        task.set_accelerator_type(ACCELERATOR).set_accelerator_limit(gpus)
        # Worker processes hand batches to each other through shared memory; a pod has 64 MB of it by default.
        kubernetes.empty_dir_mount(task, volume_name="shared-memory", mount_path="/dev/shm", medium="Memory")
    return task
