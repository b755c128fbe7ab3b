"""Artifacts: files under an origin, a container and a path, whose bytes lie in a blob."""

from __future__ import annotations

from dataclasses import dataclass, field

from azureml_server.blobs import READ, WRITE, BlobStore
from azureml_server.messages import Json, Refusal, timestamp, utc_now


@dataclass(frozen=True)
class Artifact:
    """One artifact's name. Its content may not have been uploaded yet."""

    origin: str
    container: str
    path: str
    created: str = field(default_factory=lambda: timestamp(utc_now()) or "", compare=False)

    @property
    def artifact_id(self) -> str:
        """Where it is, in one string; also the name of its blob."""
        return f"{self.origin}/{self.container}/{self.path}"

    def to_json(self) -> Json:
        """As the artifact service writes it."""
        return {
            "artifactId": self.artifact_id,
            "origin": self.origin,
            "container": self.container,
            "path": self.path,
            "etag": f'"{abs(hash(self.artifact_id)):x}"',
            "createdTime": self.created,
            "dataPath": None,
        }


class ArtifactStore:
    """All artifacts of a workspace, in the order in which they were made."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._artifacts: dict[str, Artifact] = {}

    def create(self, origin: str, container: str, path: str) -> Artifact:
        """Make an artifact without content.

        Raises:
            Refusal: It exists already, with or without content (409).
        """
        artifact = Artifact(origin, container, path)
        if artifact.artifact_id in self._artifacts:
            raise Refusal(409, "UserError", f"Resource Conflict: ArtifactId {artifact.artifact_id} already exists.")
        self._artifacts[artifact.artifact_id] = artifact
        return artifact

    def get(self, origin: str, container: str, path: str) -> Artifact:
        """The artifact.

        Raises:
            Refusal: There is none (404).
        """
        artifact_id = Artifact(origin, container, path).artifact_id
        if artifact_id not in self._artifacts:
            raise Refusal(404, "UserError", f"Resource not found: ArtifactId {artifact_id}.")
        return self._artifacts[artifact_id]

    def delete(self, origin: str, container: str, path: str, with_content: bool) -> None:
        """Delete the artifact, and its blob if asked.

        Raises:
            Refusal: There is none (404).
        """
        artifact = self.get(origin, container, path)
        del self._artifacts[artifact.artifact_id]
        if with_content:
            self._blobs.delete(artifact.artifact_id)

    def listing(self, origin: str, container: str, prefix: str = "") -> list[Artifact]:
        """The artifacts of a container whose path starts with `prefix`, in the order of their paths.

        A prefix is a string, not a folder: ``final_model`` is also a prefix of ``final_model_2/score.py``. One that
        ends in slashes (the SDK adds two) means the folder.
        """
        if prefix.endswith("/"):
            prefix = prefix.rstrip("/") + "/"
        found = (
            artifact
            for artifact in self._artifacts.values()
            if (artifact.origin, artifact.container) == (origin, container) and artifact.path.startswith(prefix)
        )
        return sorted(found, key=lambda artifact: artifact.path)

    def content_uri(self, artifact: Artifact, writable: bool = False) -> str:
        """A URI that opens the artifact's blob."""
        return self._blobs.uri(artifact.artifact_id, WRITE if writable else READ)

    def content(self, artifact: Artifact) -> bytes | None:
        """The artifact's bytes; None where they were never uploaded."""
        blob = self._blobs.find(artifact.artifact_id)
        return None if blob is None else blob.content

    def write(self, artifact: Artifact, content: bytes) -> None:
        """Set the artifact's bytes, without a client."""
        self._blobs.write(artifact.artifact_id, content)
