"""Whether the code of a network goes where the package goes: listed, carried along, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from innereye_core import PackageOptions, package
from innereye_core.errors import InputError
from innereye_core.host import Host
from innereye_core.manifest import verify
from innereye_core.model import MergedEnvironment, ToolboxSource
from innereye_core.packaging.network_origin import carried_source

NETS = """\
class Net:
    weight_names = ("threshold",)
    size_multiple_zyx = minimum_size_zyx = (1, 1, 1)
    channels = 1
"""

EMPTY = MergedEnvironment("name: toy\n")


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed distribution ``Acme.Nets`` with the import package ``acmenets``, and the module ``acmesingle``."""
    site = tmp_path / "site"
    (site / "acmenets").mkdir(parents=True)
    (site / "acmenets" / "__init__.py").write_text("")
    (site / "acmenets" / "nets.py").write_text(NETS)
    (site / "acmesingle.py").write_text(NETS)
    info = site / "acme_nets-2.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: Acme.Nets\nVersion: 2.1\nRequires-Dist: click>=8\n")
    (info / "RECORD").write_text("acmenets/__init__.py,,\nacmenets/nets.py,,\nacmesingle.py,,\n")
    monkeypatch.syspath_prepend(site)
    return site


def carried(factory: str, environment: MergedEnvironment = EMPTY, **given: object) -> ToolboxSource | None:
    extra_code = given.get("extra_code")
    assert extra_code is None or isinstance(extra_code, Path)
    return carried_source(factory, extra_code, (), environment)


def test_distribution_that_the_environment_does_not_list_is_carried(distribution: Path) -> None:
    assert carried("acmenets.nets:Net") == ToolboxSource(
        "Plugins", "acmenets", distribution / "acmenets", "Acme.Nets", "2.1"
    )


def test_plugin_that_is_installed_editable_is_carried_too(distribution: Path) -> None:
    info = distribution / "acme_nets-2.1.dist-info"
    (info / "RECORD").write_text("_acme_nets.pth,,\n")
    (info / "entry_points.txt").write_text("[innereye]\nacme = acmenets.plugin\n")

    source = carried("acmenets.nets:Net")

    assert source == ToolboxSource("Plugins", "acmenets", distribution / "acmenets", "Acme.Nets", "2.1")


@pytest.mark.parametrize(
    "entry",
    ["acme-nets=2.1", "conda-forge::acme_nets", "Acme-Nets >=2", {"pip": ["ACME.nets==2.1"]}],
    ids=["conda", "with channel", "other case", "pip"],
)
def test_distribution_that_the_environment_lists_stays_behind(distribution: Path, entry: object) -> None:
    import json

    text = f"name: toy\ndependencies: {json.dumps(['python', entry])}\n"
    assert carried("acmenets.nets:Net", MergedEnvironment(text)) is None


def test_factory_of_the_toolbox_is_there_anyway() -> None:
    toolbox = [ToolboxSource("ML", "acmenets", Path("acmenets"), "acme-nets", "2.1")]
    assert carried_source("acmenets.nets:Net", None, toolbox, EMPTY) is None


def test_factory_of_the_extra_code_is_there_anyway(tmp_path: Path) -> None:
    assert carried("YourCode.nets:Net", extra_code=tmp_path / "YourCode") is None


@pytest.mark.parametrize("factory", ["no_such_module:Net", "collections:OrderedDict"])
def test_code_of_no_distribution_is_refused(factory: str) -> None:
    with pytest.raises(InputError, match=r"is in no installed distribution .* extra_code_directory$"):
        carried(factory)


def test_compiled_code_is_not_copied(distribution: Path) -> None:
    (distribution / "acmenets" / "fast.so").write_bytes(b"")
    with pytest.raises(InputError, match=r"'Acme\.Nets' is no single folder of Python files.* environment\.yml$"):
        carried("acmenets.nets:Net")


def test_single_module_is_not_copied(distribution: Path) -> None:
    with pytest.raises(InputError, match=r"'Acme\.Nets' is no single folder of Python files"):
        carried("acmesingle:Net")


@pytest.fixture
def acme_run(run_folder: Path, distribution: Path) -> Path:
    """A run whose network comes from the distribution."""
    text = (run_folder / "model.yaml").read_text().replace("toy_innereye.networks:Threshold", "acmenets.nets:Net")
    (run_folder / "model.yaml").write_text(text)
    return run_folder


def test_carried_code_is_in_the_package_and_its_needs_in_the_environment(acme_run: Path, host: Host) -> None:
    made = package(acme_run, host=host)

    folder = made.folder / "InnerEye" / "Plugins" / "acmenets"
    assert (folder / "nets.py").read_text() == NETS
    assert made.manifest.versions["Acme.Nets"] == "2.1"
    assert "click" in (made.folder / "environment.yml").read_text()
    assert verify(made) == ()


def test_listed_code_is_not_in_the_package(acme_run: Path, host: Host, tmp_path: Path) -> None:
    environment = tmp_path / "more.yml"
    environment.write_text("dependencies:\n  - pip\n  - pip: [acme-nets==2.1]\n")

    made = package(acme_run, packaging=PackageOptions(environments=(environment,)), host=host)

    assert not (made.folder / "InnerEye" / "Plugins" / "acmenets").exists()


def test_plugin_that_brings_its_own_network_is_copied_once(
    run_folder: Path, toy: Path, install: Callable[..., str]
) -> None:
    made = package(run_folder, host=Host())
    sections = [path.parent.name for path in (made.folder / "InnerEye").rglob("toy_innereye")]
    assert sections == ["Plugins"]
