"""InnerEye Deploy's core: from a training run to a registered model, every step a hook.

The Python API is ``select``, ``package``, ``register``, ``deploy``, ``score`` and ``load_model``; plugins also need
``hookimpl``. Everything is imported on first use, so that ``import innereye_core`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from innereye_core.contract.marker import hookimpl
    from innereye_core.deployment import SelectionOptions, deploy, package, select
    from innereye_core.packaging.plan import PackageOptions
    from innereye_core.registered_models import load_model
    from innereye_core.registration import RegistrationOptions, register
    from innereye_core.scoring import score

__version__ = "0.1.0"

__all__ = [
    "PackageOptions",
    "RegistrationOptions",
    "SelectionOptions",
    "__version__",
    "deploy",
    "hookimpl",
    "load_model",
    "package",
    "register",
    "score",
    "select",
]

_HOMES = {
    "PackageOptions": "packaging.plan",
    "RegistrationOptions": "registration",
    "SelectionOptions": "deployment",
    "deploy": "deployment",
    "hookimpl": "contract.marker",
    "load_model": "registered_models",
    "package": "deployment",
    "register": "registration",
    "score": "scoring",
    "select": "deployment",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
