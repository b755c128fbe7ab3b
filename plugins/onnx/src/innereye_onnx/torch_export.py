"""Writes a PyTorch network as an ONNX file, by way of torch.export."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx_ir
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from innereye_core.errors import InputError
from innereye_core.exported_networks import IMAGE, SCORES
from innereye_core.model import NetworkGeometry, SizeZYX

_log = logging.getLogger(__name__)

OPSET = 20
"""Version of the ONNX operators: the first with 3-D grid sampling, and read by every ONNX Runtime from 1.17 on."""

LARGEST_FILE = 1_900_000_000
"""Bytes of weights up to which they are kept inside the file, which protobuf limits to 2 GiB."""

_AXES = ("batch", "z", "y", "x")

_HINT = re.compile(r"For more information, run with TORCH_LOGS\S*")
_LONGEST_CAUSE = 300


class HalfPrecision(nn.Module):
    """A network whose weights and features are float16, while patches and scores stay float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).half()

    def forward(self, x: Tensor) -> Tensor:
        """Scores, float32, for patches, float32."""
        scores: Tensor = self.network(x.half())
        return scores.float()


def any_size(geometry: NetworkGeometry, crop_zyx: SizeZYX, smallest_zyx: SizeZYX) -> dict[int, Any]:
    """Dynamic batch and spatial axes, the latter constrained to the network's size multiple.

    torch.export tells sizes of 1 from all others, so that an output of one voxel, from a network that returns less than
    its patch, is left out of what it is promised.

    Args:
        geometry: what the network asks of its patches.
        crop_zyx: the patch size that ``geometry.output_size_zyx`` belongs to.
        smallest_zyx: the smallest patch that is promised.
    """
    axes: dict[int, Any] = {0: Dim("batch", min=1)}
    sizes = zip(geometry.size_multiple_zyx, smallest_zyx, crop_zyx, geometry.output_size_zyx, strict=True)
    for axis, (multiple, smallest, crop, output) in enumerate(sizes, start=2):
        bound = max(smallest, crop - output + 2 if crop > output else 1)
        dimension = Dim(_AXES[axis - 1], min=-(-bound // multiple))
        axes[axis] = multiple * dimension if multiple > 1 else dimension
    return axes


def one_size() -> dict[int, Any]:
    """A dynamic batch axis alone."""
    return {0: Dim("batch", min=1)}


def trace(network: nn.Module, patches: Tensor, dynamic_axes: Mapping[int, Any]) -> ExportedProgram:
    """The network as a graph.

    Args:
        network: in evaluation mode.
        patches: an example (batch, channel, z, y, x), with at least 2 along each dynamic axis.
        dynamic_axes: see :func:`any_size` and :func:`one_size`.

    Raises:
        InputError: torch.export cannot follow the network's code; the cause is named in one line.
    """
    try:
        with _quiet(), torch.no_grad():
            return torch.export.export(network, (patches,), dynamic_shapes=(dict(dynamic_axes),), strict=False)
    except Exception as error:  # the forward method is anybody's code
        raise InputError(f"torch.export cannot follow its code: {_cause(error)}") from error


def write_onnx(program: ExportedProgram, path: Path, properties: Mapping[str, str]) -> None:
    """Write a traced network as an ONNX file, with its weights inside unless they are too large for that.

    Args:
        program: from :func:`trace`.
        path: the file; weights that are too large go to ``<name>.data`` beside it.
        properties: metadata of the file.

    Raises:
        InputError: the network has an operation that ONNX does not have; it is named.
    """
    try:
        with _quiet(), torch.no_grad():
            written = torch.onnx.export(
                program, dynamo=True, opset_version=OPSET, input_names=[IMAGE], output_names=[SCORES], verbose=False
            )
    except Exception as error:  # PyTorch's exporter has many ways to fail
        raise InputError(f"PyTorch cannot write it as ONNX: {_cause(error)}") from error
    if written is None:
        raise InputError("PyTorch cannot write it as ONNX: its exporter returned nothing")
    model: onnx_ir.Model = written.model
    _tidy(model)
    model.metadata_props.update(properties)
    path.parent.mkdir(parents=True, exist_ok=True)
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
    external = f"{path.name}.data" if size > LARGEST_FILE else None
    onnx_ir.save(model, path, external_data=external)


def _tidy(model: onnx_ir.Model) -> None:
    """Name the axes, and take out what the exporter notes for developers: paths of this machine, lines of code."""
    (image,), (scores,) = model.graph.inputs, model.graph.outputs
    names = {}
    for name, size in zip((_AXES[0], "channel", *_AXES[1:]), image.shape or (), strict=True):
        if not isinstance(size, int):
            names[str(size)] = name
    for value in (image, scores):
        value.shape = onnx_ir.Shape(
            [size if isinstance(size, int) else names.get(str(size)) for size in value.shape or ()]
        )
    for graph_or_function in (model.graph, *model.functions.values()):
        graph_or_function.metadata_props.clear()
        for node in graph_or_function:
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                if value is not scores:
                    value.shape = None
                value.metadata_props.clear()
    for value in (image, *model.graph.initializers.values()):
        value.metadata_props.clear()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep PyTorch's notes for developers, logged, warned and printed, from the user's screen."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        if printed.getvalue():
            _log.debug("%s", printed.getvalue())


def _cause(error: BaseException) -> str:
    """The exception at the bottom, in one line: its first two, without PyTorch's hints for its developers."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in _HINT.sub("", str(error)).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])[:_LONGEST_CAUSE]}"
