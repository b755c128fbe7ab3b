"""What the distribution offers to core, and what loading it costs."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import innereye_core.contract.providers as contract
import innereye_imaging
from innereye_core.host import Host
from innereye_core.plugins import PluginModule
from innereye_imaging.plugin import innereye_toolbox_sources

PLUGIN = PluginModule("imaging", "innereye_imaging.plugin")


def run(program: str) -> str:
    completed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert completed.returncode == 0, completed.stderr
    return completed.stdout.strip()


def test_core_finds_formats_and_scorer() -> None:
    host = Host([PLUGIN])
    assert [known.name for known in host.image_formats()] == ["nifti", "nrrd", "metaimage"]
    scorer = host.scorer()
    assert scorer.name == "images"
    assert isinstance(scorer, contract.Scorer)


def test_packages_carry_this_import_package() -> None:
    (source,) = innereye_toolbox_sources()
    assert (source.section, source.import_name, source.distribution) == ("ML", "innereye_imaging", "innereye-imaging")
    assert (source.plugin_name, source.plugin_module) == (PLUGIN.name, PLUGIN.module)
    assert (source.folder / "plugin.py").is_file()
    assert source.folder == Path(innereye_imaging.__file__).parent


def test_the_version_is_that_of_the_distribution() -> None:
    """A packaged copy has no metadata, so the version stands in the code too."""
    assert innereye_imaging.__version__ == version("innereye-imaging")
    assert innereye_toolbox_sources()[0].version == innereye_imaging.__version__


def test_loading_the_plugin_loads_nothing_heavy() -> None:
    heavy = "{'numpy', 'scipy', 'nibabel', 'SimpleITK', 'matplotlib', 'torch', 'pydantic'}"
    assert run(f"import sys, innereye_imaging.plugin; print(sorted({heavy} & set(sys.modules)))") == "[]"


def test_everything_works_without_torch() -> None:
    """All modules are imported, and an image is segmented, where importing torch fails."""
    program = """
import pkgutil, importlib, sys
sys.modules["torch"] = None
import numpy as np
import innereye_imaging
for module in pkgutil.iter_modules(innereye_imaging.__path__):
    importlib.import_module(f"innereye_imaging.{module.name}")
from innereye_core.config import InferenceConfig, ModelConfig, NetworkConfig, Structure
from innereye_core.model import NetworkGeometry
from innereye_imaging.geometry import Grid
from innereye_imaging.normalization import IntensityMap
from innereye_imaging.pipeline import segment
from innereye_imaging.study import Study

class Network:
    geometry = NetworkGeometry((1, 1, 1), (1, 1, 1), (4, 4, 4))
    def evaluate(self, patches, keep=None):
        scores = np.concatenate([-patches, patches], axis=1)
        return scores if keep is None else scores[:, :, keep[0], keep[1], keep[2]]

grid = Grid((5, 6, 7), np.eye(4))
voxels = np.random.default_rng(0).normal(size=grid.size_zyx)
config = ModelConfig(1, "M", (Structure("organ"),), ("mr",), NetworkConfig("a:b"), InferenceConfig((4, 4, 4)))
study = Study((voxels,), (IntensityMap(),), grid, grid, grid, True, ())
print((segment(study, [Network()], config).labels == (voxels > 0)).all())
"""
    assert run(program) == "True"
