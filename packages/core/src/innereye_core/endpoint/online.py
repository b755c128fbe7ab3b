"""One study per request: images come as a NIfTI body or inside JSON, and the segmentation goes back the same way."""

from __future__ import annotations

import base64
import importlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from innereye_core.endpoint.served import ServedModel, log_unexpected
from innereye_core.endpoint.uploads import MAX_UPLOAD_BYTES, DicomUploadError, TooLargeError, write_uploads
from innereye_core.errors import InnerEyeError, InputError, UsageError

_JSON = "application/json"
_NIFTI = "application/octet-stream"
_CHUNK_BYTES = 1 << 20

_STATUS_CODES = ((TooLargeError, 413), (DicomUploadError, 415), (UsageError, 400), (InputError, 422))
"""Status codes of what is wrong with a request. Everything else is wrong with the deployment: 500."""


def answer_json(model: ServedModel, body: str) -> dict[str, Any]:
    """Segment the images in a JSON request.

    Args:
        model: what to segment with.
        body: ``{"image": …}`` or ``{"images": […, …]}``, one per channel in the order of the config: .nii or .nii.gz
            files in base64.

    Returns:
        ``segmentation`` (a .nii.gz file in base64), ``model``, ``structures``, ``checks``, ``seconds``, ``runtime``.

    Raises:
        UsageError: the body is not such a request.
        InputError: an image cannot be used.
        InnerEyeError: as :func:`innereye_core.score` does.
    """
    segmentation, document = _segment(model, _images_in(body))
    return {"segmentation": base64.b64encode(segmentation).decode(), **document}


def answer_http(model: ServedModel, request: Any) -> Any:
    """Answer a request to AzureML's online server.

    A body of type application/json is a JSON request; any other is the image, a .nii or .nii.gz file, and the answer
    is the segmentation, a .nii.gz file, or JSON where the client accepts ``application/json``.

    Args:
        model: what to segment with.
        request: what the server gives to a ``run`` that wants raw requests: Flask's.

    Returns:
        What the server sends as it is. Errors are ``{"message": one line}`` with status 400 (no such request), 413,
        415, 422 (an image that cannot be used), or 500.

    Raises:
        TimeoutError: the server's own limit on the time of a request, which strikes anywhere; it says so to the client.
    """
    if request.method == "OPTIONS":  # what browsers ask before they send; the server adds the headers that answer it
        return _response(200, b"", _JSON)
    if request.method != "POST":
        return _error_response(405, "Send images with POST")
    try:
        return _answer(model, request)
    except TimeoutError:
        raise
    except InnerEyeError as error:
        if isinstance(error.__cause__, TimeoutError):
            raise error.__cause__ from None
        status = next((status for kind, status in _STATUS_CODES if isinstance(error, kind)), 500)
        return _error_response(status, str(error))
    except Exception as error:
        log_unexpected(error)
        return _error_response(500, f"Unexpected {type(error).__name__}; the log of the deployment says where")


def _answer(model: ServedModel, request: Any) -> Any:
    body = _body(request)
    is_json = request.mimetype == _JSON
    if not body:
        raise UsageError("the request is empty; send an image")
    segmentation, document = _segment(model, _images_in(body) if is_json else [body])
    if is_json or _JSON in request.headers.get("Accept", ""):
        document = {"segmentation": base64.b64encode(segmentation).decode(), **document}
        return _response(200, json.dumps(document, allow_nan=False).encode(), _JSON)
    checks = "; ".join(f"{quote(check['name'])}={check['outcome']}" for check in document["checks"])
    headers = {"X-InnerEye-Model": quote(document["model"], safe=":"), "X-InnerEye-Checks": checks}
    return _response(200, segmentation, _NIFTI, headers)


def _body(request: Any) -> bytes:
    too_large = TooLargeError(f"the request is larger than {MAX_UPLOAD_BYTES} bytes; send a smaller image")
    if (request.content_length or 0) > MAX_UPLOAD_BYTES:
        raise too_large
    chunks, received = [], 0
    while chunk := request.stream.read(_CHUNK_BYTES):  # a request that comes in pieces states no length
        chunks.append(chunk)
        received += len(chunk)
        if received > MAX_UPLOAD_BYTES:
            raise too_large
    return b"".join(chunks)


def _images_in(body: str | bytes) -> list[bytes]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise UsageError('the request is not JSON; send {"image": "…"}, a NIfTI file in base64') from None
    match document:
        case {"image": image, **others} if not others:
            images = [image]
        case {"images": [_, *_] as images, **others} if not others:
            pass
        case _:
            raise UsageError(
                'the request must be {"image": "…"} or {"images": ["…", "…"]} (one per channel) and nothing else: '
                "NIfTI files in base64"
            )
    return [_decoded(image) for image in images]


def _decoded(image: object) -> bytes:
    if not isinstance(image, str):
        raise UsageError(f"an image in the request is {type(image).__name__}, not text; send the NIfTI file in base64")
    try:
        # Line breaks are what the base64 command puts in; anything else that is no base64 is a mistake.
        return base64.b64decode(image.replace("\r", "").replace("\n", ""), validate=True)
    except ValueError:
        raise UsageError("an image in the request is not base64; send the NIfTI file in base64") from None


def _segment(model: ServedModel, images: Sequence[bytes]) -> tuple[bytes, dict[str, Any]]:
    """The segmentation, a .nii.gz file, and the document about it. Nothing is left on the disk."""
    with tempfile.TemporaryDirectory(prefix="innereye-") as name:
        folder = Path(name).resolve()
        output = folder / "segmentation.nii.gz"
        try:
            document = model.segment(write_uploads(images, folder), output)
            return output.read_bytes(), document
        except InnerEyeError as error:
            error.args = (model.public_message(error, folder),)
            raise


def _error_response(status: int, message: str) -> Any:
    # The same document as the server's own errors.
    return _response(status, json.dumps({"message": message}).encode(), _JSON)


def _response(status: int, body: bytes, content_type: str, headers: Mapping[str, str] | None = None) -> Any:
    # Imported here, and by name: it is there where requests come from, and nowhere else.
    server = importlib.import_module("azureml_inference_server_http.api.aml_response")
    response = server.AMLResponse(body, status, {"Content-Type": content_type})
    response.headers.extend(headers or {})
    return response
