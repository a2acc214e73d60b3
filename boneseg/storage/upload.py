"""A local folder into the bucket, for those who have no S3 client at hand."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from boneseg.errors import DataError
from boneseg.progress import track
from boneseg.storage.client import ObjectStore, etag_of


def upload_folder(store: ObjectStore, folder: Path, prefix: str, parallel: int = 8) -> int:
    """Put every file below a folder into the bucket, leaving out hidden files and what is there already.

    Args:
        store: where to.
        folder: what; its own name is not part of the keys.
        prefix: start of the keys, ending with a slash.
        parallel: files at the same time.

    Returns:
        How many files were sent.

    Raises:
        DataError: the folder does not exist or holds no file, or a file cannot be read or has a name that no object
            can have.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; name the folder that holds the CT series")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    _check_names(files)
    if not files:
        raise DataError(f"{folder} holds no file; name the folder that holds the CT series")
    there = {item.key: item for item in store.list(prefix)}

    def send(path: Path) -> bool:
        key = prefix + path.relative_to(folder).as_posix()
        known = there.get(key) or there.get(_as_path(key))
        try:
            if known is not None and known.size == path.stat().st_size and known.etag == etag_of(path):
                return False
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror or error}); mend it, or move it away") from error
        store.upload(path, key)
        return True

    with ThreadPoolExecutor(parallel) as pool:
        return sum(track(pool.map(send, files), "upload", total=len(files), unit="files"))


def _as_path(key: str) -> str:
    return key.replace("\\", "/")  # as some stores, the embedded one among them, write a key


def _check_names(paths: list[Path]) -> None:
    seen: dict[str, Path] = {}
    for path in paths:
        try:
            str(path).encode()
        except UnicodeEncodeError as error:  # bytes that are not UTF-8
            raise DataError(f"{str(path)!r} has a name that is not UTF-8; rename it") from error
        other = seen.setdefault(_as_path(path.as_posix()), path)
        if other != path:
            raise DataError(f"{path} and {other} become one object, for '\\' in a name is taken for '/'; rename one")
