"""The workspace's storage account: block blobs, and the SAS queries that open them."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from azureml_server.messages import Refusal, utc_now

ACCOUNT_HOST = "innereyetests.blob.core.windows.net"
CONTAINER = "azureml"
READ, WRITE = "r", "rcw"


@dataclass
class Blob:
    """A block blob: what is committed, and the blocks that wait for a block list."""

    content: bytes | None = None
    content_type: str = "application/octet-stream"
    modified: dt.datetime = field(default_factory=utc_now)
    blocks: dict[str, bytes] = field(default_factory=dict)

    @property
    def etag(self) -> str:
        """Changes with every write."""
        return f'"0x{int(self.modified.timestamp() * 1_000_000):X}"'


class BlobStore:
    """Blobs by name. A blob that was never written has a name and SAS queries, but no content.

    The SDK percent-encodes the path of a content URI once more before it asks for it, where other clients do not: both
    spellings find the blob, as long as the URI came from `uri()`.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(16)
        self._blobs: dict[str, Blob] = {}

    def uri(self, name: str, permissions: str = READ) -> str:
        """A URI with a SAS query that opens blob `name`, and only that."""
        return (
            f"https://{ACCOUNT_HOST}/{CONTAINER}/{quote(name, safe='/~')}"
            f"?sv=2019-07-07&sr=b&sig={quote(self._signature(name, permissions), safe='')}"
            f"&se=2099-01-01T00%3A00%3A00Z&sp={permissions}"
        )

    def _signature(self, name: str, permissions: str) -> str:
        return hmac.new(self._key, f"{permissions}\n{name}".encode(), hashlib.sha256).hexdigest()

    def name_of(self, path: str, query: dict[str, str], permission: str) -> str:
        """The name of the blob that a request is about, once its SAS query has been checked.

        Raises:
            Refusal: No SAS query, or one that does not allow `permission` on this blob (403).
        """
        name = unquote(path.removeprefix(f"/{CONTAINER}/"))
        granted = query.get("sp", "")
        for candidate in (name, unquote(name)):
            expected = self._signature(candidate, granted)
            if hmac.compare_digest(query.get("sig", "").encode(), expected.encode()) and permission in granted:
                return candidate
        raise Refusal(
            403, "AuthenticationFailed", "Server failed to authenticate the request. The SAS query does not open it."
        )

    def name_of_uri(self, uri: str) -> str:
        """The name of the blob that `uri()` made a URI of."""
        return unquote(urlsplit(uri).path.removeprefix(f"/{CONTAINER}/"))

    def find(self, name: str) -> Blob | None:
        """The blob, if it has been written."""
        blob = self._blobs.get(name)
        return None if blob is None or blob.content is None else blob

    def reserve(self, name: str) -> Blob:
        """The blob, written or not."""
        return self._blobs.setdefault(name, Blob())

    def write(self, name: str, content: bytes, content_type: str = "application/octet-stream") -> Blob:
        """Set all of a blob's content."""
        blob = self.reserve(name)
        blob.content, blob.content_type, blob.modified = content, content_type, utc_now()
        blob.blocks = {}
        return blob

    def delete(self, name: str) -> None:
        """Forget a blob, if there is one."""
        self._blobs.pop(name, None)

    def contents(self) -> dict[str, bytes]:
        """What is committed, by name."""
        return {name: blob.content for name, blob in self._blobs.items() if blob.content is not None}
