"""What people are told when the SDK raises, and that it holds no secret."""

from __future__ import annotations

import logging
import traceback

import pytest

from innereye_azureml import sdk
from innereye_azureml.failures import Failure, ServiceError, detail, service_error
from innereye_azureml.scrubbing import scrub
from innereye_core.errors import InnerEyeError, IntegrityError, StorageError

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJ0aWQiOiJiYmJiIn0.c2lnbmF0dXJl"
SAS = "https://account.blob.core.windows.net/azureml/a.pth?sv=2019-07-07&sr=b&sig=c2Vj%2FcmV0%3D&se=2099-01-01&sp=r"


# --- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        (SAS, SAS.replace("c2Vj%2FcmV0%3D", "***")),
        ("next=https%3A%2F%2Fa%3Fsv%3D1%26sig%3DcmV0&x=1", "next=https%3A%2F%2Fa%3Fsv%3D1%26sig%3D***&x=1"),
        (f"{{'Authorization': 'Bearer {JWT}'}}", "{'Authorization': 'Bearer ***'}"),
        (f"token={JWT}, and more", "token=***, and more"),
        ("bearer abc.def", "bearer ***"),
        ('{"client_secret": "s3cr~t"}', '{"client_secret": "***"}'),
        ("client_id=1&client_secret=s3cr~t&scope=x", "client_id=1&client_secret=***&scope=x"),
        ("design=blue signal=5 Prüfung", "design=blue signal=5 Prüfung"),
    ],
)
def test_what_looks_like_a_secret_is_hidden(text: str, scrubbed: str) -> None:
    assert scrub(text) == scrubbed


@pytest.mark.parametrize("name", ["INNEREYE_AZUREML_TOKEN", "AZURE_CLIENT_SECRET", "AZUREML_RUN_TOKEN"])
def test_what_is_known_to_be_a_secret_is_hidden(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "plain words")

    assert scrub("said plain words twice: plain words") == "said *** twice: ***"


# --- kinds ------------------------------------------------------------------------------------------------------------


class Response:
    def __init__(self, status_code: int, text: str = "") -> None:
        self.status_code = status_code
        self.text = text


class HttpOperationError(Exception):
    """As msrest has it."""

    def __init__(self, status: int, text: str = "") -> None:
        super().__init__(f"Operation returned an invalid status code {status}")
        self.response = Response(status, text)


class UserErrorException(Exception):
    """As azureml has it: with something inside, and a text of many lines."""

    def __init__(self, message: str, inner_exception: Exception | None = None) -> None:
        super().__init__(f"UserErrorException:\n\tMessage: {message}\n\tErrorResponse {{}}")
        self.message = message
        self.inner_exception = inner_exception


class ServiceException(Exception):
    """As azureml has it: not even its text can be had."""

    status_code = 404

    def __str__(self) -> str:
        raise AttributeError("error")


class ServiceRequestError(Exception):
    """As azure.core has it, for connections."""


class DecodeError(Exception):
    """As PyJWT has it."""


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (HttpOperationError(401), Failure.LOGIN),
        (HttpOperationError(403), Failure.FORBIDDEN),
        (HttpOperationError(404), Failure.NOT_FOUND),
        (HttpOperationError(409), Failure.CONFLICT),
        (HttpOperationError(429), Failure.THROTTLED),
        (HttpOperationError(500), Failure.BROKEN),
        (HttpOperationError(530), Failure.BROKEN),
        (HttpOperationError(400), Failure.REFUSED),
        (UserErrorException("not authorized", HttpOperationError(403)), Failure.FORBIDDEN),
        (UserErrorException("Received bad response:\nResponse Code: 403\nContent: None"), Failure.FORBIDDEN),
        (UserErrorException("ModelNotFound: Model with name x not found"), Failure.NOT_FOUND),
        (UserErrorException("UserError: Resource Conflict: ArtifactId a already exists."), Failure.CONFLICT),
        (UserErrorException("AADSTS7000215: Invalid client secret provided."), Failure.LOGIN),
        (ServiceException(), Failure.NOT_FOUND),
        (ServiceRequestError("<urllib3.connection.HTTPSConnection>: Failed to resolve"), Failure.UNREACHABLE),
        (ConnectionResetError(104, "Connection reset by peer"), Failure.UNREACHABLE),
        (TimeoutError("timed out"), Failure.UNREACHABLE),
        (DecodeError("Not enough segments"), Failure.LOGIN),
        (KeyError("x"), Failure.REFUSED),
    ],
)
def test_failures_are_told_apart(error: Exception, failure: Failure) -> None:
    assert service_error(error, "list the models", "Reader", None).failure is failure


def test_a_cause_tells_where_the_error_does_not() -> None:
    error = UserErrorException("something went wrong")
    error.__cause__ = HttpOperationError(403)

    assert service_error(error, "list the models", "Reader", None).failure is Failure.FORBIDDEN


def test_a_message_is_one_line_with_what_the_service_said_and_a_remedy() -> None:
    error = HttpOperationError(403, '{"error": {"message": "The principal\\n may not write."}}')

    assert str(service_error(error, "register Prostate", "AzureML Data Scientist", None)) == (
        "cannot register Prostate: not permitted (403): The principal may not write; ask for the role 'AzureML Data "
        "Scientist' on the workspace, and check that the network rules of workspace and storage account let you in"
    )


def test_long_answers_are_cut() -> None:
    error = HttpOperationError(400, f'{{"message": "{"very " * 100}long"}}')

    assert len(str(service_error(error, "register Prostate", "Reader", None))) < 350


def test_what_is_missing_has_its_own_message() -> None:
    assert str(service_error(HttpOperationError(404), "x", "Reader", "there is no run 7")) == "there is no run 7"


# --- around calls -----------------------------------------------------------------------------------------------------


def test_our_own_errors_pass() -> None:
    for error in (IntegrityError("changed"), StorageError("full")):
        with pytest.raises(InnerEyeError) as raised, sdk.calling("upload"):
            raise error
        assert raised.value is error


def test_interrupting_passes() -> None:
    with pytest.raises(KeyboardInterrupt), sdk.calling("upload"):
        raise KeyboardInterrupt


def test_no_secret_reaches_message_log_or_traceback(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="innereye_azureml")
    with pytest.raises(ServiceError) as raised, sdk.calling("upload a.pth"):
        raise UserErrorException(f"GET {SAS} with {JWT}", HttpOperationError(400, f'{{"message": "{SAS}"}}'))

    printed = "".join(traceback.format_exception(raised.value)) + caplog.text + str(raised.value)
    assert "c2Vj" not in printed
    assert JWT not in printed
    assert "sig=***" in caplog.text


def test_the_detail_has_the_whole_chain_in_one_line() -> None:
    error = UserErrorException("outer\nlines", HttpOperationError(400))

    assert detail(error) == (
        "UserErrorException: outer lines < HttpOperationError: Operation returned an invalid status code 400"
    )
