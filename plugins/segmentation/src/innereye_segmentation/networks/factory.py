"""Builds the network that a config names as ``module:callable``."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from innereye_core.errors import InputError
from innereye_segmentation.networks.extra_code import register_extra_code

if TYPE_CHECKING:
    from innereye_core.config import NetworkConfig


def build_network(config: NetworkConfig, extra_code: Path | None = None) -> nn.Module:
    """Call the factory of ``config`` with its arguments.

    Args:
        config: names the factory, in an installed package or in the extra code, and its keyword arguments.
        extra_code: folder whose name is the top-level import name of the network's own code.

    Returns:
        A network with the weights that its factory gave it.

    Raises:
        InputError: the extra code cannot be registered, or the factory cannot be imported, refuses its arguments,
            fails, or returns something else than a torch module.
    """
    if extra_code is not None:
        register_extra_code(extra_code)
    where = f"network.factory {config.factory}"
    module_name, _, attributes = config.factory.partition(":")
    try:
        factory: object = importlib.import_module(module_name)
        for attribute in attributes.split("."):
            factory = getattr(factory, attribute)
    except Exception as error:  # the module is anybody's code
        hint = "check the name, install its package, or name the extra code directory that holds it"
        raise InputError(f"{where}: cannot be imported: {describe(error)}; {hint}") from error
    if not callable(factory):
        raise InputError(f"{where}: is {type(factory).__name__}, not callable; name a class or function")
    try:
        network = factory(**config.arguments)
    except Exception as error:
        arguments = ", ".join(f"{name}={value!r}" for name, value in config.arguments.items())
        raise InputError(f"{where}: fails with ({arguments}): {describe(error)}; check network.arguments") from error
    if not isinstance(network, nn.Module):
        raise InputError(f"{where}: returned {type(network).__name__}; it must return a torch.nn.Module")
    return network


def describe(error: BaseException) -> str:
    """An exception in one line: its type, and what it says."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
