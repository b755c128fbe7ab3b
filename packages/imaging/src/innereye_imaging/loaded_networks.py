"""Keeps the networks of the model that was scored with last, so that a loop over patients loads them once."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from innereye_core.contract.providers import PrecisionRuntime
from innereye_core.errors import IntegrityError
from innereye_core.exported_networks import FLOAT32

if TYPE_CHECKING:
    from innereye_core.contract.providers import Device, Network, Runtime
    from innereye_core.model import ModelFiles


@dataclass(frozen=True, eq=False)
class _Loaded:
    model: weakref.ref[ModelFiles]
    runtime: Runtime
    device: Device
    precision: str
    networks: Sequence[Network]


class LoadedNetworks:
    """The networks of one model, on one device.

    They are kept for as long as somebody holds the :class:`ModelFiles` that they were loaded for, and no other model
    takes their place. Not for use by several threads at once.
    """

    def __init__(self) -> None:
        self._kept: _Loaded | None = None

    def of(self, model: ModelFiles, runtime: Runtime, device: Device, precision: str = FLOAT32) -> Sequence[Network]:
        """The networks of this very object; those of any other are let go before they are loaded.

        Raises:
            InputError, IntegrityError, MissingPluginError: see :class:`innereye_core.contract.providers.Runtime`.
            IntegrityError: a member of an ensemble was not loaded.
        """
        kept = self._kept
        wanted = (runtime, device, precision)
        if kept is not None and kept.model() is model and (kept.runtime, kept.device, kept.precision) == wanted:
            return kept.networks
        self._kept = kept = None
        if isinstance(runtime, PrecisionRuntime):
            networks = runtime.load(model, device, precision)
        else:
            networks = runtime.load(model, device)
        if len(networks) != len(model.checkpoints):
            raise IntegrityError(
                f"Runtime {runtime.name} loaded {len(networks)} of {len(model.checkpoints)} checkpoints; "
                "no member of an ensemble may be left out, package the model again"
            )
        self._kept = _Loaded(weakref.ref(model, self._let_go), runtime, device, precision, networks)
        return networks

    def _let_go(self, model: weakref.ref[ModelFiles]) -> None:
        """Free the networks of a model that nobody holds any more. Any thread may get here, at any moment."""
        kept = self._kept
        if kept is not None and kept.model is model:
            self._kept = None
