"""The network that a config names is built, or refused with one line that says why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from innereye_core.config import NetworkConfig
from innereye_core.errors import InputError
from innereye_segmentation.networks import UNet3D
from innereye_segmentation.networks.factory import build_network

WriteCode = Callable[..., Path]


def test_a_network_of_the_plugin_is_built_with_its_arguments() -> None:
    arguments: dict[str, Any] = {"input_channels": 2, "feature_channels": 1, "classes": 3, "downsampling_paths": 1}
    network = build_network(NetworkConfig("innereye_segmentation.networks:UNet3D", arguments))
    assert isinstance(network, UNet3D)
    assert network(torch.zeros(2, 2, 2, 2, 2)).shape == (2, 3, 2, 2, 2)


def test_a_network_is_built_by_a_function_of_the_extra_code(extra_code: WriteCode) -> None:
    folder = extra_code({"nets.py": "import torch\ndef build_net(n):\n    return torch.nn.Conv3d(n, n, 1)\n"})
    network = build_network(NetworkConfig(f"{folder.name}.nets:build_net", {"n": 3}), folder)
    assert isinstance(network, torch.nn.Conv3d)


def test_a_factory_may_be_an_attribute_of_an_attribute(extra_code: WriteCode) -> None:
    code = "import torch\nclass Zoo:\n    @staticmethod\n    def unit():\n        return torch.nn.Identity()\n"
    folder = extra_code({"nets.py": code})
    assert isinstance(build_network(NetworkConfig(f"{folder.name}.nets:Zoo.unit"), folder), torch.nn.Identity)


@pytest.mark.parametrize(
    ("factory", "arguments", "message"),
    [
        ("no_such_package:net", {}, "cannot be imported: ModuleNotFoundError: No module named 'no_such_package'"),
        ("{code}.absent:net", {}, "cannot be imported: ModuleNotFoundError"),
        ("{code}.nets:absent", {}, "cannot be imported: AttributeError: .* has no attribute 'absent'"),
        ("{code}.broken:net", {}, "cannot be imported: ZeroDivisionError: division by zero"),
        ("{code}.syntax:net", {}, "cannot be imported: SyntaxError"),
        ("{code}.nets:constant", {}, "is int, not callable; name a class or function"),
        ("{code}.nets:text", {}, "returned str; it must return a torch.nn.Module"),
        ("{code}.nets:text", {"depth": 3}, r"fails with \(depth=3\): TypeError: .*'depth'; check network.arguments"),
        ("{code}.nets:fails", {}, r"fails with \(\): ValueError: two lines; check"),
        (
            "innereye_segmentation.networks:UNet3D",
            {"input_channels": 1, "feature_channels": 1, "classes": 2, "kernel_size": 2},
            "fails with .*an even kernel",
        ),
    ],
)
def test_a_factory_that_gives_no_network_is_refused_with_its_cause(
    extra_code: WriteCode, factory: str, arguments: dict[str, Any], message: str
) -> None:
    folder = extra_code(
        {
            "nets.py": "constant = 3\ndef text():\n    return ''\ndef fails():\n    raise ValueError('two\\nlines')\n",
            "broken.py": "1 / 0",
            "syntax.py": "def",
        }
    )
    with pytest.raises(InputError, match=f"^network.factory .*{message}") as error:
        build_network(NetworkConfig(factory.format(code=folder.name), arguments), folder)
    assert "\n" not in str(error.value)
