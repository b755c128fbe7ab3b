"""Routes of the storage account: block blobs, written whole or in blocks, read whole or in ranges."""

from __future__ import annotations

import base64
import hashlib
import re
from email.utils import format_datetime
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from azureml_server.blobs import Blob
from azureml_server.messages import Refusal, Response
from azureml_server.router import Call, Router


def _storage_error(refusal: Refusal) -> Response:
    body = (
        f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{escape(refusal.code)}</Code>'
        f"<Message>{escape(refusal.message)}</Message></Error>"
    )
    return Response(refusal.status, body.encode(), {"Content-Type": "application/xml", "x-ms-error-code": refusal.code})


blobs = Router(tokens=(), write_error=_storage_error)


def _head(blob: Blob) -> dict[str, str]:
    return {
        "ETag": blob.etag,
        "Last-Modified": format_datetime(blob.modified, usegmt=True),
        "x-ms-version": "2019-07-07",
    }


@blobs.route("PUT", "/azureml/{name*}")
def put(call: Call) -> Response:
    """Write a blob, one of its blocks, or its block list."""
    request = call.request
    name = call.workspace.blobs.name_of(request.path, request.query, "w")
    _check_digest(request.headers.get("content-md5"), request.body)
    match request.query.get("comp"):
        case None:
            _check_absent(call, name)
            content_type = request.headers.get("x-ms-blob-content-type", "application/octet-stream")
            blob = call.workspace.blobs.write(name, request.body, content_type)
        case "block":
            blob = call.workspace.blobs.reserve(name)
            blob.blocks[request.query["blockid"]] = request.body
            return Response(201, headers={"x-ms-version": "2019-07-07"})
        case "blocklist":
            _check_absent(call, name)
            blob = _commit(call, name)
        case other:
            raise Refusal(501, "NotImplemented", f"comp={other}")
    digest = base64.b64encode(hashlib.md5(request.body, usedforsecurity=False).digest()).decode()
    return Response(201, headers={**_head(blob), "Content-MD5": digest})


def _check_digest(stated: str | None, body: bytes) -> None:
    if stated is not None and base64.b64decode(stated) != hashlib.md5(body, usedforsecurity=False).digest():
        raise Refusal(400, "Md5Mismatch", "The MD5 value in the request does not match the content.")


def _check_absent(call: Call, name: str) -> None:
    if call.request.headers.get("if-none-match") == "*" and call.workspace.blobs.find(name) is not None:
        raise Refusal(409, "BlobAlreadyExists", "The specified blob already exists.")


def _commit(call: Call, name: str) -> Blob:
    blocks = call.workspace.blobs.reserve(name).blocks
    identifiers = [element.text or "" for element in ElementTree.fromstring(call.request.body)]
    if any(identifier not in blocks for identifier in identifiers):
        raise Refusal(400, "InvalidBlockList", "The specified block list is invalid.")
    content = b"".join(blocks[identifier] for identifier in identifiers)
    content_type = call.request.headers.get("x-ms-blob-content-type", "application/octet-stream")
    return call.workspace.blobs.write(name, content, content_type)


@blobs.route("HEAD", "/azureml/{name*}")
@blobs.route("GET", "/azureml/{name*}")
def get(call: Call) -> Response:
    """Read a blob, or a range of it."""
    request = call.request
    name = call.workspace.blobs.name_of(request.path, request.query, "r")
    blob = call.workspace.blobs.find(name)
    if blob is None or blob.content is None:
        raise Refusal(404, "BlobNotFound", "The specified blob does not exist.")
    head = {**_head(blob), "Content-Type": blob.content_type, "x-ms-blob-type": "BlockBlob", "Accept-Ranges": "bytes"}
    asked = request.headers.get("x-ms-range") or request.headers.get("range")
    if asked is None or request.method == "HEAD":
        return Response(200, blob.content, head)
    size = len(blob.content)
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", asked)
    if match is None or int(match[1]) >= size:
        raise Refusal(416, "InvalidRange", "The range specified is invalid for the current size of the resource.")
    start, end = int(match[1]), min(int(match[2] or size - 1), size - 1)
    part = blob.content[start : end + 1]
    head["Content-Range"] = f"bytes {start}-{end}/{size}"
    if request.headers.get("x-ms-range-get-content-md5") == "true":
        head["Content-MD5"] = base64.b64encode(hashlib.md5(part, usedforsecurity=False).digest()).decode()
    return Response(206, part, head)
