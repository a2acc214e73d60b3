"""What the bucket holds now, by content."""

from typing import NamedTuple

from components.base import component


@component
def pull(
    settings: str,
) -> NamedTuple(  # type: ignore[valid-type]
    "Pulled",
    [("fingerprint", str), ("catalogue_uri", str), ("splits_hash", str), ("changed", bool), ("code_version", str)],
):
    """List the bucket, fetch what is new and write a catalogue of the CT series.

    Never cached: what it returns are the cache keys of all later steps.

    Args:
        settings: Settings of the run as JSON.

    Returns:
        fingerprint: Hash of all series and labels.
        catalogue_uri: Where the catalogue is; named by the data, the table of patients included.
        splits_hash: Hash of the splits decided so far.
        changed: Whether the data differs from that of the last published run.
        code_version: Which code runs in the image.
    """
    from boneseg.ingest.pull import pull
    from boneseg.pipeline_step import step
    from boneseg.settings.loading import parse_settings
    from boneseg.version import code_version

    run = parse_settings(settings)
    with step("pull", run) as workspace:
        table = run.prepare.splits.override
        result = pull(workspace, run.store, run.pull, run.publish.model_name, table, run.scheme)
    return (result.fingerprint, result.catalogue_uri, result.splits_hash, result.changed, code_version())
