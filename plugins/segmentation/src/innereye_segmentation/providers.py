"""What this plugin offers, as light classes: torch is imported when one of their methods needs it, not before."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from innereye_segmentation.checkpoints.names import FormatName, format_of

if TYPE_CHECKING:
    from innereye_core.config import ModelConfig
    from innereye_core.contract.providers import Device, Network, Progress, Providers
    from innereye_core.model import Candidate, ModelFiles, PackagedCheckpoint, Run, SubjectScore


@dataclass(frozen=True)
class TorchCheckpointFormat:
    """One kind of checkpoint file, recognised by its name."""

    name: FormatName
    stitching_must_be_named: bool = False

    def recognises(self, path: Path) -> bool:
        """Whether the file name is one of this format."""
        return format_of(path) == self.name

    def epoch(self, path: Path) -> int:
        """The epoch: Lightning's as stored, others' from the file name, else as stored.

        Raises:
            InputError: there is none, or the file had to be opened for it and cannot be used.
        """
        from innereye_segmentation.checkpoints.reading import epoch_of

        return epoch_of(path)

    def write_packaged(self, source: Path, target: Path) -> PackagedCheckpoint:
        """Write the weights alone, in the same kind of file and with the same keys.

        Raises:
            InputError: the file is corrupt, no checkpoint, or holds a class that is not plain data.
            IntegrityError: a weight is NaN or infinite.
            StorageError: the target cannot be written.
        """
        from innereye_segmentation.checkpoints.packaging import write_packaged

        return write_packaged(source, target)


CHECKPOINT_FORMATS = (
    TorchCheckpointFormat("innereye"),
    TorchCheckpointFormat("lightning", stitching_must_be_named=True),
    TorchCheckpointFormat("state-dict"),
    TorchCheckpointFormat("safetensors"),
)


class TorchRuntime:
    """Evaluates networks with PyTorch, on the CPU and on CUDA GPUs."""

    name = "torch"

    _SPEED = 150
    """In percent of eager PyTorch on a CPU: what folding and the memory layout of the weights give."""

    def rank(self, model: ModelFiles, device: Device) -> int | None:
        """Speed in percent of eager PyTorch; None without PyTorch or such a GPU, and for unknown checkpoints."""
        if importlib.util.find_spec("torch") is None or any(format_of(path) is None for path in model.checkpoints):
            return None
        if device == "cuda":
            import torch

            if not torch.cuda.is_available():
                return None
        return self._SPEED

    def load(self, model: ModelFiles, device: Device) -> Sequence[Network]:
        """Load one network per checkpoint.

        Raises:
            InputError: checkpoint, network and config do not fit each other, or the factory cannot be imported.
            IntegrityError: a weight is NaN or infinite.
            MissingPluginError: there is no such device.
        """
        from innereye_segmentation.runtime import load_network

        return [load_network(model.config, path, model.extra_code, device) for path in model.checkpoints]


class NetworkEvaluator:
    """Scores candidates by segmenting the validation images of their run."""

    name = "network"
    priority = 0

    def evaluate(
        self,
        run: Run,
        config: ModelConfig,
        candidates: Sequence[Candidate],
        extra_code: Path | None,
        providers: Providers,
        progress: Progress,
    ) -> Mapping[int, Sequence[SubjectScore]]:
        """Dice per epoch, subject and structure; candidates whose format is another plugin's are left out.

        Raises:
            InputError: dataset.csv, one of its files, a checkpoint, or the network's factory cannot be used.
            IntegrityError: a weight is NaN or infinite.
        """
        readable = [candidate for candidate in candidates if format_of(candidate.checkpoint) == candidate.format]
        if not readable:
            return {}
        from innereye_segmentation.evaluation import evaluate_candidates

        return evaluate_candidates(run, config, readable, extra_code, providers, progress)
