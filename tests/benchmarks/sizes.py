"""How large everything is: the networks, the volumes and the patches, in the full and in the quick benchmark."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, TypeAlias

SizeZYX: TypeAlias = tuple[int, int, int]
Stitching: TypeAlias = Literal["average", "gaussian", "crop"]


@dataclass(frozen=True)
class NetworkSize:
    """A UNet3D."""

    name: str
    feature_channels: int
    levels: int
    """Below full resolution; features double with each."""
    classes: int


FIVE_CLASSES = NetworkSize("five", feature_channels=16, levels=3, classes=5)
"""16-32-64-128 features, as InnerEye's."""
TEN_CLASSES = NetworkSize("ten", feature_channels=16, levels=3, classes=10)
SMALL = NetworkSize("small", feature_channels=4, levels=2, classes=10)
"""So cheap that everything around the network shows."""

THIN = NetworkSize("thin", feature_channels=4, levels=2, classes=10)
"""The same for larger patches."""

NETWORKS = (FIVE_CLASSES, TEN_CLASSES, SMALL, THIN)


@dataclass(frozen=True)
class Workload:
    """One volume, cut into patches in one way."""

    network: NetworkSize
    size_zyx: SizeZYX
    crop_size_zyx: SizeZYX
    stride_zyx: SizeZYX
    stitching: Stitching


@dataclass(frozen=True)
class Sizes:
    """All workloads of one benchmark."""

    name: str
    stride_is_patch: Workload
    gaussian: Workload
    """Patches of which every neighbour lies within the volume, so that nobody has to pad: the grid that nnU-Net makes
    for a step of half a patch, and as many patches as MONAI makes for half a patch of overlap."""
    crop: Workload
    large_study: Workload
    cold_start: Workload
    memory_average: Workload
    memory_crop: Workload

    def workloads(self) -> list[Workload]:
        """Every one of them."""
        return [value for field in fields(self) if isinstance(value := getattr(self, field.name), Workload)]


def _sizes(
    name: str, volume: SizeZYX, crop: SizeZYX, fitting_stride: SizeZYX, large: SizeZYX, ct: SizeZYX, ct_crop: SizeZYX
) -> Sizes:
    half = (crop[0] // 2, crop[1] // 2, crop[2] // 2)
    return Sizes(
        name,
        stride_is_patch=Workload(FIVE_CLASSES, volume, crop, crop, "average"),
        gaussian=Workload(FIVE_CLASSES, volume, crop, fitting_stride, "gaussian"),
        crop=Workload(FIVE_CLASSES, volume, crop, half, "crop"),
        large_study=Workload(TEN_CLASSES, large, crop, crop, "average"),
        cold_start=Workload(SMALL, (64, 160, 160), (32, 80, 80), (32, 80, 80), "average"),
        memory_average=Workload(THIN, ct, ct_crop, ct_crop, "average"),
        memory_crop=Workload(THIN, ct, ct_crop, ct_crop, "crop"),
    )


FULL = _sizes(
    "full",
    volume=(96, 256, 256),
    crop=(64, 96, 96),
    fitting_stride=(32, 40, 40),
    large=(240, 512, 512),
    ct=(300, 512, 512),
    ct_crop=(64, 224, 224),
)
QUICK = _sizes(
    "quick",
    volume=(48, 96, 96),
    crop=(32, 48, 48),
    fitting_stride=(16, 24, 24),
    large=(64, 160, 160),
    ct=(60, 160, 160),
    ct_crop=(32, 80, 80),
)
