"""What this distribution offers to InnerEye Deploy: image formats, the scorer, and itself for model packages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from innereye_core.contract import hookimpl

if TYPE_CHECKING:
    from innereye_core.contract.providers import Commands
    from innereye_core.model import ToolboxSource
    from innereye_imaging.itk_formats import MetaImage, Nrrd
    from innereye_imaging.nifti import Nifti
    from innereye_imaging.scorer import ImageScorer


@hookimpl
def innereye_image_formats() -> list[type[Nifti | Nrrd | MetaImage]]:
    """NIfTI, NRRD and MetaImage."""
    from innereye_imaging.itk_formats import MetaImage, Nrrd
    from innereye_imaging.nifti import Nifti

    return [Nifti, Nrrd, MetaImage]


@hookimpl
def innereye_scorers() -> list[type[ImageScorer]]:
    """The pipeline behind ``innereye score``."""
    from innereye_imaging.scorer import ImageScorer

    return [ImageScorer]


@hookimpl
def innereye_commands(commands: Commands) -> None:
    """Add ``innereye evaluate``."""
    commands.add("evaluate", "innereye_imaging.cli:evaluate", "Measure a model on subjects whose masks are known.")


@hookimpl
def innereye_toolbox_sources() -> list[ToolboxSource]:
    """This import package, which every model package carries."""
    from pathlib import Path

    import innereye_imaging
    from innereye_core.model import ToolboxSource

    return [
        ToolboxSource(
            section="ML",
            import_name="innereye_imaging",
            folder=Path(__file__).parent,
            distribution="innereye-imaging",
            version=innereye_imaging.__version__,
            plugin_name="imaging",
            plugin_module="innereye_imaging.plugin",
        )
    ]
