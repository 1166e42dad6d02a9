"""Hooks of schemathesis.sh: facts about Octopus that its OpenAPI document cannot express."""

import os

import schemathesis
from schemathesis.core.failures import AcceptedNegativeData
from schemathesis.openapi.checks import EnsureResourceAvailability

OWN_KEY = int(os.environ["OCTOPUS_OWN_KEY_ID"])
SPARE_KEY = int(os.environ["OCTOPUS_SPARE_KEY_ID"])
UNKNOWN_ID = 2**53
# Fields and parameters with a time.
TIMES = ("since", "until", "expires_at")


@schemathesis.hook
def before_call(context, case, kwargs):
    """Change requests that would disable the key of the run, or never finish.

    The server rejects deactivating or deleting the key in use. But that key may rotate itself, remove its own scopes or
    exclude its own address, and every later request would get a 401. Such requests get the id of the spare key instead.

    An event stream never ends, so requests for one get the id of a conversation that does not exist.
    """
    path, method = case.operation.path, case.method.upper()
    if is_stream(path) and is_id((case.path_parameters or {}).get("conversation_id")):
        case.path_parameters["conversation_id"] = UNKNOWN_ID
    if not path.startswith("/api/v1/api-keys/{"):
        return
    if path.endswith("/rotate") or method in ("PATCH", "PUT"):
        for name, value in (case.path_parameters or {}).items():
            if is_own_key(value):
                case.path_parameters[name] = SPARE_KEY


def is_stream(path):
    return path.endswith("/events")


def is_number(value):
    try:
        float(str(value))
        return True
    except ValueError:
        return False


def has_numeric_time(case):
    """Whether a time is a number, which is accepted as Unix time although the document has a string."""
    parts = [part for part in (case.query, case.body) if isinstance(part, dict)]
    return any(is_number(part[name]) for part in parts for name in TIMES if name in part)


def requires_session(path):
    return path.startswith("/api/v1/users/me") or path == "/api/v1/users/logout"


@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    """Send any text as the body of an import."""
    return value if isinstance(value, bytes) else str(value).encode()


def is_id(value):
    try:
        return int(str(value)) > 0
    except ValueError:
        return False


def is_own_key(value):
    try:
        return int(str(value)) == OWN_KEY
    except ValueError:
        return False


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """Accept a 404 for adding an unknown user to a conversation and for the streams changed above.

    EnsureResourceAvailability looks only at the path, so it attributes this 404 to the conversation, which was just
    created.

    Accept times that are numbers.

    Also accept a 403 from operations that require a session, as every request of the run has an API key.
    """
    if requires_session(case.operation.path) and response is not None and response.status_code == 403:
        return False
    if isinstance(failure, AcceptedNegativeData) and has_numeric_time(case):
        return False
    adds_a_participant = case.method.upper() == "POST" and case.operation.path.endswith("/participants")
    expected = adds_a_participant or is_stream(case.operation.path)
    return not (expected and isinstance(failure, EnsureResourceAvailability))
