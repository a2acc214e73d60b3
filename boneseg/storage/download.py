"""An object into a file, whatever becomes of the connection."""

from __future__ import annotations

import io
from contextlib import closing
from http import HTTPStatus
from typing import Any

import urllib3
from minio import Minio
from minio.error import S3Error

CHUNK_BYTES = 2**20
_CHANGED = (HTTPStatus.PRECONDITION_FAILED, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)


class Download:
    """One object on its way into a file, over as many requests as it takes."""

    def __init__(self, client: Minio, bucket: str, key: str, file: io.BufferedWriter) -> None:
        self._client, self._bucket, self._key, self._file = client, bucket, key, file
        self.etag = ""

    def go_on(self) -> None:
        """Fetch what is missing. Called again after a failure it asks for the rest of the same version only."""
        start = self._file.tell()
        headers: dict[str, Any] = (
            {"If-Match": f'"{self.etag}"', "Range": f"bytes={start}-"} if start and self.etag else {}
        )
        try:
            response = self._client.get_object(self._bucket, self._key, request_headers=headers)
        except S3Error as error:
            if headers and int(error.response.status) in _CHANGED:  # another version by now, or not even that long
                self._restart()
                return self.go_on()
            raise
        with closing(response):
            if not headers or int(response.status) != HTTPStatus.PARTIAL_CONTENT or etag_in(response) != self.etag:
                self._restart()
                self.etag = etag_in(response)
                if headers and int(response.status) == HTTPStatus.PARTIAL_CONTENT:
                    return self.go_on()
            for chunk in response.stream(CHUNK_BYTES):
                self._file.write(chunk)
            response.release_conn()
        return None

    def _restart(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self.etag = ""


def etag_in(response: urllib3.BaseHTTPResponse) -> str:
    """Return the ETag of the content that an answer carries."""
    return str(response.headers.get("etag", "")).strip('"')
