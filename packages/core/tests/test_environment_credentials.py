"""Credentials never reach the merged environment, nor a message."""

from __future__ import annotations

from pathlib import Path

import pytest

from innereye_core.builtin.environments import CondaMerge
from innereye_core.environments.credentials import has_credentials, redacted
from innereye_core.environments.located import shown
from innereye_core.errors import InputError
from innereye_core.model import EnvironmentFile, MergedEnvironment

SECRET = "s3cr3t"

WITH_CREDENTIALS = [
    f"https://user:{SECRET}@host.example/channel",
    f"https://{SECRET}@host.example/channel",
    f"https://user:{SECRET}@{SECRET}@host.example/channel",
    f"https://user:a/{SECRET}@host.example/channel",
    f"https://user:a {SECRET}@host.example/channel",
    f"https://${{NAME}}:{SECRET}@host.example/channel",
    f"HTTPS://user:{SECRET}@host.example",
    f"user:{SECRET}@host.example/channel",
    f"https://conda.example/t/{SECRET}/channel",
    f"conda.example/t/{SECRET}/channel",
    f"t/tk-{SECRET}/channel",
    f"https://host.example/channel?token={SECRET}",
    f"https://host.example/channel?v=1&X-Amz-Signature={SECRET}",
]

WITHOUT = [
    "conda-forge",
    "https://host.example/channel",
    "https://host.example:8080/channel",
    "https://[::1]:8080/channel",
    "https://${USER}:${TOKEN}@host.example/channel",
    "https://$TOKEN@host.example/channel",
    "https://conda.example/t/${TOKEN}/channel",
    "https://host.example/channel?token=${TOKEN}",
    "https://host.example:${PORT}/channel",
    "git+ssh://git@host.example/t/project.git",
    "git+https://git@host.example/t/project.git@main#egg=x",
    "name @ https://host.example/x.zip#sha256=00",
    "conda-forge::numpy=1.21",
    "./t/requirements.txt",
    "a.zip; python_version<'3'",
    "mailto:someone@host.example",
]


@pytest.mark.parametrize("text", WITH_CREDENTIALS)
def test_credentials_are_found_and_hidden(text: str) -> None:
    assert has_credentials(text)
    assert SECRET not in redacted(text)
    assert redacted(redacted(text)) == redacted(text)


@pytest.mark.parametrize("text", WITHOUT)
def test_what_is_no_credential_stays_as_it_is(text: str) -> None:
    assert not has_credentials(text)
    assert redacted(text) == text


def merge(folder: Path, text: str) -> MergedEnvironment:
    path = folder / "environment.yml"
    path.write_text(text)
    return CondaMerge().merge([EnvironmentFile(path, 200, "environment.yml")])


@pytest.mark.parametrize("url", [text for text in WITH_CREDENTIALS if "//" in text])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("channels:\n  - '", "'\n"),
        ("dependencies:\n  - '", "::numpy'\n"),
        ("dependencies: [pip: [\n    '--extra-index-url ", "']]\n"),
        ("dependencies: [pip: [\n    'numpy @ ", "']]\n"),
        ("variables:\n  INDEX: '", "'\n"),
    ],
)
def test_credentials_are_refused_everywhere_and_never_shown(tmp_path: Path, url: str, before: str, after: str) -> None:
    with pytest.raises(InputError) as refused:
        merge(tmp_path, before + url + after)
    message = str(refused.value)
    assert message.startswith("environment.yml:2: ")
    assert "holds a credential, and the environment travels inside the model package; remove it" in message
    assert SECRET not in message


def test_credentials_in_a_requirement_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "base.txt").write_text(f"attrs\n-i \\\n  https://user:{SECRET}@host.example/simple\n")
    with pytest.raises(InputError, match=r"^base\.txt:2: .* holds a credential") as refused:
        merge(tmp_path, "dependencies: [pip: [-r base.txt]]")
    assert SECRET not in str(refused.value)


def test_errors_about_something_else_hide_credentials_too(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is there twice") as refused:
        merge(tmp_path, f"'https://user:{SECRET}@host.example': 1\n'https://user:{SECRET}@host.example': 2\n")
    assert SECRET not in str(refused.value)


def test_environment_variables_in_addresses_are_kept(tmp_path: Path) -> None:
    merged = merge(tmp_path, "channels: ['https://conda.example/t/${TOKEN}/channel']")
    assert "https://conda.example/t/${TOKEN}/channel" in merged.text


@pytest.mark.parametrize("name", ["HF_TOKEN", "wandb_api_key", "DB_PASSWORD", "AZURE_CLIENT_SECRET"])
def test_variables_that_look_like_secrets_are_a_warning(tmp_path: Path, name: str) -> None:
    (warning,) = merge(tmp_path, f"variables:\n  {name}: {SECRET}\n").warnings
    assert warning.startswith(f"environment.yml:2: the variable {name} looks like a secret")
    assert SECRET not in warning


@pytest.mark.parametrize("line", ["TOKENIZERS_PARALLELISM: 'false'", "HF_TOKEN: $HF_TOKEN", "HF_TOKEN: ''"])
def test_other_variables_give_no_warning(tmp_path: Path, line: str) -> None:
    assert merge(tmp_path, f"variables:\n  {line}\n").warnings == ()


def test_what_is_shown_is_one_line_of_bearable_length() -> None:
    assert shown("a\n b\x1b[31m\u0085c") == "a b [31m c"
    assert len(shown("x" * 1000)) == 160
