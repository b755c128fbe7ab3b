"""``innereye`` with the registry ``azureml``, as a person runs it; and that no secret gets out on the way."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from azureml_clients import contents
from azureml_server import AzureMLServer, Fault, Outcome

from innereye_azureml.plugin import innereye_toolbox_sources
from innereye_core.model import Package

SIGNATURE = re.compile(r"sig=[0-9a-f]{16}|sig%3D[0-9a-f]{16}")


def innereye(service: AzureMLServer, folder: Path, *arguments: object, **variables: str) -> Outcome:
    """Run a command in a folder with a config.json, logged in with a token."""
    service.write_config(folder)
    return service.innereye(*arguments, cwd=folder, variables={"INNEREYE_AZUREML_TOKEN": service.token, **variables})


def test_the_life_of_a_model(service: AzureMLServer, package: Package, tmp_path: Path) -> None:
    """One JSON document on stdout where asked for, and nothing on stderr, whatever the SDK has to say."""
    chosen = {"INNEREYE_REGISTRY": "azureml"}

    registered = innereye(service, tmp_path, "register", package.folder, "--tag", "site=Basel", "--json", **chosen)
    target = tmp_path / "got"
    downloaded = innereye(service, tmp_path, "models", "download", "Prostate:latest", "--output", target, **chosen)
    shown = innereye(service, tmp_path, "models", "show", "Prostate:2", **chosen)

    assert json.loads(registered.stdout)["id"] == "Prostate:1"
    assert downloaded.stdout == f"{target / 'final_model'}\n"
    assert contents(target / "final_model") == contents(package.folder)
    for outcome in (registered, downloaded):
        assert (outcome.exit_code, outcome.stderr) == (0, "")
    assert shown.exit_code == 5
    assert shown.stderr == "error: Prostate:2 is not in AzureML; see 'innereye models list --registry azureml'\n"


def test_without_a_workspace_or_a_login_it_is_wrong_usage(service: AzureMLServer, tmp_path: Path) -> None:
    nowhere = service.innereye("models", "list", "--registry", "azureml", cwd=tmp_path)
    nobody = innereye(service, tmp_path, "models", "list", "--registry", "azureml", INNEREYE_AZUREML_TOKEN="")

    assert nowhere.exit_code == 2
    assert nowhere.stderr.startswith("error: which AzureML workspace? Give --registry azureml:PLACE")
    assert nobody.exit_code == 2
    assert nobody.stderr.startswith("error: cannot log in to AzureML: there is no terminal")


IMPORTED = """
import sys
from innereye_core.cli.group import innereye
from innereye_core.cli.main import run
for arguments in (["--help"], ["plugins"], ["models", "list", "--registry", "local"]):
    assert run(innereye, arguments, "innereye") == 0
assert "innereye_azureml.plugin" in sys.modules
print(sorted({name.partition(".")[0] for name in sys.modules} & {"azureml", "azure", "msrest", "requests"}))
"""


def test_what_needs_no_azureml_imports_none(tmp_path: Path) -> None:
    outcome = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=True, cwd=tmp_path)

    assert outcome.stdout.splitlines()[-1] == "[]"


def test_packages_carry_the_plugin_as_a_record() -> None:
    """Scoring neither loads it nor needs what it requires."""
    (source,) = innereye_toolbox_sources()

    assert (source.section, source.import_name) == ("Azure", "innereye_azureml")
    assert (source.folder / "registry.py").is_file()
    assert not source.needed_to_score
    assert source.plugin_name is None


BLOCKED = """
import sys
sys.modules["azureml.core"] = None
from innereye_core.cli.main import main
main(["models", "list", "--registry", "azureml:1111/group/workspace"])
"""


def test_without_azureml_core_the_package_to_install_is_named(service: AzureMLServer) -> None:
    outcome = service.python(BLOCKED, variables={"INNEREYE_AZUREML_TOKEN": "x"})

    assert outcome.exit_code == 6
    assert re.fullmatch(
        r"error: azureml-core cannot be imported \(.*\): pip install innereye-azureml\n", outcome.stderr
    )


# --- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Fault(path=r"blob\.core", method="PUT", status=403, times=None),
        Fault(path="/models$", method="POST", status=400, message="no sig=0123456789abcdef0123 please", times=None),
    ],
    ids=["403", "quoted"],
)
def test_a_failure_shows_no_secret(service: AzureMLServer, package: Package, tmp_path: Path, fault: Fault) -> None:
    service.faults.add(fault)

    outcome = innereye(service, tmp_path, "register", package.folder, "--registry", "azureml", "--debug")

    assert outcome.exit_code == 5
    assert "Traceback" in outcome.stderr
    assert "debug: cannot " in outcome.stderr
    assert_no_secret(service, outcome, service.token)


def test_a_service_principal_shows_no_secret(service: AzureMLServer, package: Package, tmp_path: Path) -> None:
    principal = service.workspace.identity.service_principal
    variables = {
        "INNEREYE_AZUREML_TOKEN": "",
        "AZURE_TENANT_ID": principal.tenant_id,
        "AZURE_CLIENT_ID": principal.client_id,
        "AZURE_CLIENT_SECRET": principal.secret,
    }

    outcome = innereye(
        service,
        tmp_path,
        "register",
        package.folder,
        "--name",
        "OfPrincipal",
        "--registry",
        "azureml",
        "--debug",
        **variables,
    )

    assert outcome.exit_code == 0
    assert_no_secret(service, outcome, principal.secret)


LOG_EVERYTHING = """
import logging, sys
logging.basicConfig(level=logging.DEBUG)
from innereye_core.cli.main import main
main(sys.argv[1:])
"""


def test_a_program_that_logs_everything_logs_no_secret(
    service: AzureMLServer, package: Package, tmp_path: Path
) -> None:
    """As a training script may have it that calls the Python API."""
    run = service.workspace.add_run("logging_run")
    service.faults.add(Fault(path=r"blob\.core.*score", method="PUT", status=403, times=None))

    outcome = service.python(
        LOG_EVERYTHING, "register", package.folder, "--name", "Logged", "--debug", run=run, cwd=tmp_path
    )

    assert outcome.exit_code == 5
    assert "DEBUG:innereye_azureml.sdk:cannot upload score.py: " in outcome.stderr
    assert_no_secret(service, outcome, service.run_token(run))


def assert_no_secret(service: AzureMLServer, outcome: Outcome, secret: str) -> None:
    """Neither printed nor kept by the service: in tags, properties, descriptions or files."""
    printed = outcome.stdout + outcome.stderr
    assert secret not in printed
    assert not SIGNATURE.search(printed)
    assert service.where_sent(secret) == []
