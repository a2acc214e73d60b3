"""One folder a step: a thin shim between Kubeflow Pipelines and one call of boneseg."""
