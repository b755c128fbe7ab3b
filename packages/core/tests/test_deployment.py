"""Register and deploy: names, tags, properties, descriptions, the run's model_id, and the choice of the registry."""

from __future__ import annotations

import importlib
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from innereye_core import PackageOptions, RegistrationOptions, SelectionOptions, deploy, package, register
from innereye_core.builtin.local_registry import LocalRegistry
from innereye_core.errors import InputError, IntegrityError, MissingPluginError, RegistryError, UsageError
from innereye_core.host import Host
from innereye_core.manifest import open_package, verify
from innereye_core.model import Package, Run
from innereye_core.registration import default_registry
from innereye_core.runs import open_run

Install = Callable[..., str]


@pytest.fixture(autouse=True)
def _own_registry(registry: Path) -> None:
    """Every test here registers in a registry of its own."""


@pytest.fixture
def made(packaged: Path) -> Package:
    """A package that lies in the run that it was made from."""
    return open_package(packaged)


def run_tags(run: Path) -> dict[str, str]:
    tags: dict[str, str] = json.loads((run / "run.json").read_text())["tags"]
    return tags


def tag_run(run: Path, **tags: str) -> None:
    document = json.loads((run / "run.json").read_text()) if (run / "run.json").is_file() else {"id": "r1"}
    (run / "run.json").write_text(json.dumps({**document, "tags": tags}))


# --- register ---------------------------------------------------------------------------------------------------------


def test_versions_count_up_per_name(made: Package, host: Host) -> None:
    names = [None, "Other", None]
    models = [register(made, RegistrationOptions(name=name), host=host) for name in names]
    assert [model.id for model in models] == ["Toy:1", "Other:1", "Toy:2"]


def test_package_may_be_given_as_a_folder(made: Package, host: Host) -> None:
    assert register(made.folder, host=host).id == "Toy:1"
    assert register(str(made.folder), host=host).id == "Toy:2"


def test_what_is_registered_is_the_package(made: Package, host: Host) -> None:
    model = register(made, host=host)
    folder = LocalRegistry().folder(model)
    assert Package(folder, made.manifest).digest == made.digest


def test_properties_say_where_the_model_came_from(made: Package, host: Host) -> None:
    assert register(made, host=host).properties == {
        "run_id": made.manifest.run.id,
        "epoch": "2",
        "package_digest": made.digest,
        "validation_dice": "0.900000",
    }


def test_description_is_innereyes_sentence_about_the_best_epoch(made: Package, host: Host) -> None:
    assert register(made, host=host).description == (
        "Epoch 2 has best validation set metrics (out of 3 epochs available). Validation set Dice: 0.9000."
    )


@pytest.mark.parametrize(
    ("options", "description"),
    [
        (SelectionOptions(policy="last"), "Epoch 3 was chosen by policy last (out of 3 epochs available), without"),
        (
            SelectionOptions((2,)),
            "Epoch 2 was chosen by policy best_validation_dice (out of 1 epochs available), without",
        ),
    ],
)
def test_description_does_not_claim_what_was_not_done(
    run_folder: Path, host: Host, options: SelectionOptions, description: str
) -> None:
    model = register(package(run_folder, options, host=host), host=host)
    assert model.description == f"{description} evaluating it."
    assert "validation_dice" not in model.properties


def test_description_names_the_policy_of_a_plugin(run_folder: Path, toy: Path, install: Install) -> None:
    install(
        "acme",
        """
        from innereye_core import hookimpl
        from innereye_core.builtin.policies import BestValidationDice

        class Ours(BestValidationDice):
            name = "ours"

        @hookimpl
        def innereye_policies():
            return [Ours]
        """,
    )
    host = Host()
    model = register(package(run_folder, SelectionOptions(policy="ours"), host=host), host=host)
    assert model.description.startswith("Epoch 2 was chosen by policy ours (out of 3 epochs available). Validation set")


def test_name_tags_properties_and_description_of_the_caller_win(made: Package, host: Host) -> None:
    options = RegistrationOptions(
        name="Mine", tags={"is_ensemble": "no", "site": "Basel"}, properties={"epoch": "two"}, description="Good."
    )
    model = register(made, options, host=host)

    assert (model.name, model.description) == ("Mine", "Good.")
    assert model.tags == {"is_ensemble": "no", "site": "Basel"}
    assert model.properties["epoch"] == "two"


def test_model_takes_all_tags_of_its_run_but_model_id(run_folder: Path, host: Host) -> None:
    tag_run(run_folder, site="Basel", model_id="Old:7")
    model = register(package(run_folder, host=host), host=host)
    assert model.tags == {"site": "Basel", "is_ensemble": "False"}


def test_run_that_the_package_lies_in_is_tagged(made: Package, host: Host) -> None:
    register(made.folder, host=host)
    assert run_tags(made.folder.parent)["model_id"] == "Toy:1"


def test_run_that_the_package_does_not_lie_in_is_left_alone(run_folder: Path, host: Host, tmp_path: Path) -> None:
    register(package(run_folder, output=tmp_path, host=host), host=host)
    assert "model_id" not in run_tags(run_folder)


def test_run_that_the_package_was_not_made_from_is_left_alone(made: Package, host: Host, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    tag_run(other, site="Bern")
    shutil.copytree(made.folder, other / "final_model")

    register(other / "final_model", host=host)

    assert run_tags(other) == {"site": "Bern"}


def test_folder_that_is_no_package(tmp_path: Path, host: Host) -> None:
    with pytest.raises(InputError, match=r"is not a package: it has no manifest\.json"):
        register(tmp_path, host=host)


def test_changed_package_is_not_registered(made: Package, host: Host) -> None:
    (made.folder / "README.md").write_text("better\n")
    with pytest.raises(IntegrityError, match=r"README\.md has changed"):
        register(made, host=host)
    assert LocalRegistry().models() == []


def test_unacceptable_name(made: Package, host: Host) -> None:
    with pytest.raises(UsageError, match=r"'My Model' cannot be the name of a model"):
        register(made, RegistrationOptions(name="My Model"), host=host)


def test_digest_of_the_package_is_not_for_callers_to_state(made: Package, host: Host) -> None:
    with pytest.raises(UsageError, match="package_digest"):
        register(made, RegistrationOptions(properties={"package_digest": "sha256:0"}), host=host)
    assert LocalRegistry().models() == []


def test_unacceptable_name_is_refused_before_the_work(run_folder: Path, host: Host) -> None:
    with pytest.raises(UsageError, match="cannot be the name"):
        deploy(run_folder, registration=RegistrationOptions(name="My Model"), host=host)
    assert not (run_folder / "final_model").exists()


@pytest.mark.parametrize("then", ["pass", "raise OSError('no mail today')"])
def test_observers_see_model_and_package_and_the_registration_stands(
    made: Package, install: Install, caplog: pytest.LogCaptureFixture, then: str
) -> None:
    module = install(
        "acme",
        f"""
        from innereye_core import hookimpl

        SEEN = []

        @hookimpl
        def innereye_after_registration(model, package):
            SEEN.append((model.id, package.folder.name))
            {then}
        """,
    )
    host = Host()

    with caplog.at_level(logging.WARNING):
        model = register(made, host=host)

    assert importlib.import_module(module).SEEN == [("Toy:1", "final_model")]
    assert LocalRegistry().get("Toy", 1) == model
    assert host.failed_observers == ([] if then == "pass" else ["acme: innereye_after_registration"])
    assert ("no mail today" in caplog.text) == (then != "pass")


def test_registration_stands_where_the_run_cannot_be_tagged(
    made: Package, host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    run = open_run(made.folder.parent, host)
    (run.folder / "run.json").write_text("{")

    with caplog.at_level(logging.WARNING):
        model = register(made, run=run, host=host)

    assert LocalRegistry().get("Toy", 1) == model
    assert host.failed_observers == [f"tag of run {run.id}"]
    assert "Toy:1 is registered, but its run does not get the tag model_id" in caplog.text


# --- deploy -----------------------------------------------------------------------------------------------------------


def test_deploy_selects_packages_registers_and_tags(run_folder: Path, host: Host) -> None:
    deployment = deploy(run_folder, host=host)

    assert deployment.model.id == "Toy:1"
    assert deployment.package.folder == run_folder / "final_model"
    assert verify(deployment.package) == ()
    assert [selection.selected.epoch for selection in deployment.selections] == [2]
    assert run_tags(run_folder) == {"model_id": "Toy:1"}
    assert deployment.children == ()


def test_deploy_takes_the_options_of_its_steps(run_folder: Path, host: Host, tmp_path: Path) -> None:
    deployment = deploy(
        run_folder,
        SelectionOptions(policy="last"),
        PackageOptions(),
        RegistrationOptions(name="Mine", tags={"site": "Basel"}),
        output=tmp_path / "out",
        host=host,
    )

    assert (deployment.model.id, deployment.model.tags["site"]) == ("Mine:1", "Basel")
    assert deployment.package.folder == tmp_path / "out" / "final_model"
    assert deployment.package.manifest.members[0].epoch == 3


def test_deploy_tags_the_run_wherever_the_package_lies(run_folder: Path, host: Host, tmp_path: Path) -> None:
    deploy(run_folder, output=tmp_path, host=host)
    assert run_tags(run_folder) == {"model_id": "Toy:1"}


def test_deploying_again_needs_replace_and_gives_a_new_version(run_folder: Path, host: Host) -> None:
    deploy(run_folder, host=host)
    with pytest.raises(RegistryError, match="--replace"):
        deploy(run_folder, host=host)

    again = deploy(run_folder, packaging=PackageOptions(replace=True), host=host)

    assert again.model.id == "Toy:2"
    assert run_tags(run_folder)["model_id"] == "Toy:2"


@pytest.mark.parametrize(
    ("registry_name", "error"), [("mlflow", UsageError), ("azureml", MissingPluginError)], ids=["unknown", "missing"]
)
def test_registry_that_is_not_there_is_refused_before_the_work(
    run_folder: Path, host: Host, registry_name: str, error: type[Exception]
) -> None:
    with pytest.raises(error, match=registry_name):
        deploy(run_folder, registration=RegistrationOptions(registry=registry_name), host=host)
    assert not (run_folder / "final_model").exists()


# --- which registry ---------------------------------------------------------------------------------------------------

SHELF = """
    from innereye_core import hookimpl
    from innereye_core.builtin.local_registry import LocalRegistry
    from innereye_core.builtin.runs import LocalRuns
    from innereye_core.model import Run
    from pathlib import Path

    class Shelf(LocalRegistry):
        name = "shelf"

    class Cluster:
        name = "cluster"
        registry = "shelf"

        def current(self):
            return CURRENT

        def open(self, reference):
            return None

        def children(self, run):
            return []

        def add_tags(self, run, tags):
            return run

    CURRENT = None

    @hookimpl
    def innereye_registries():
        return [Shelf]

    @hookimpl
    def innereye_run_sources():
        return [Cluster]
"""


@pytest.fixture
def cluster(install: Install) -> Host:
    """A host with the run source ``cluster``, whose runs register in ``shelf``, outside of a run."""
    install("acme", SHELF)
    return Host()


def test_default_registry_is_local(cluster: Host) -> None:
    assert default_registry(cluster).name == "local"


def test_named_registry_wins(cluster: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNEREYE_REGISTRY", "local")
    assert default_registry(cluster, "shelf").name == "shelf"


def test_registry_of_the_environment_variable(cluster: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNEREYE_REGISTRY", "shelf")
    assert default_registry(cluster).name == "shelf"


def test_registry_of_the_run_that_the_process_is_part_of(install: Install) -> None:
    run = "CURRENT = Run('c1', 'job', Path(), 'cluster')"
    install("acme", SHELF.replace("CURRENT = None", run))
    assert default_registry(Host()).name == "shelf"


def test_registry_of_the_process_wins_over_that_of_the_given_run(install: Install, run_folder: Path) -> None:
    install("acme", SHELF.replace("CURRENT = None", "CURRENT = Run('c1', 'job', Path(), 'cluster')"))
    host = Host()
    assert default_registry(host, run=open_run(run_folder, host)).name == "shelf"


def test_registry_of_the_given_run_where_the_process_is_part_of_none(cluster: Host) -> None:
    assert default_registry(cluster, run=Run("c1", "job", Path(), "cluster")).name == "shelf"


def test_reference_that_one_source_does_not_know_goes_to_the_next(cluster: Host, run_folder: Path) -> None:
    assert open_run(run_folder, cluster).source == "local"


# --- the package as Python API ----------------------------------------------------------------------------------------


def test_api_is_imported_from_the_top() -> None:
    import innereye_core

    for name in innereye_core.__all__:
        assert getattr(innereye_core, name) is not None


def test_unknown_attribute_of_the_package() -> None:
    import innereye_core

    with pytest.raises(AttributeError, match=r"module 'innereye_core' has no attribute 'train'"):
        innereye_core.train  # noqa: B018


def test_run_that_is_open_already(run_folder: Path, host: Host) -> None:
    run = open_run(run_folder, host)
    assert deploy(run, host=host).run == run


def test_installed_plugins_are_used_where_no_host_is_given(run_folder: Path, toy: Path) -> None:
    assert deploy(run_folder).model.id == "Toy:1"
