"""What clients are told when something is wrong."""

import logging

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from ganinfer.errors import GanError, http_status

log = logging.getLogger(__name__)

CLIENT_GONE = 499  # in logs and counts; nobody is there to be told
_RETRY_AFTER_S = "1"
_LONGEST = 500  # characters
_OPENAI_PATHS = ("/v1/images/", "/v1/models")
# What is behind these is for the log: it may name paths of this machine.
_TOLD_OF_SERVER = {
    500: "something is wrong here; whoever runs this server finds it as request {id}",
    503: "cannot serve now; try again later",
}


def error_answer(path: str, status: int, message: str) -> JSONResponse:
    """`{"error": message}` as the Open Inference Protocol has it; OpenAI's paths have more."""
    headers = {"Cache-Control": "no-store"}
    if status in (429, 503):
        headers["Retry-After"] = _RETRY_AFTER_S
    error: str | dict[str, str | None] = message
    if path.startswith(_OPENAI_PATHS):
        kind = "invalid_request_error" if status < 500 else "server_error"
        error = {"message": message, "type": kind, "param": None, "code": None}
    return JSONResponse({"error": error}, status, headers)


def answer_of(request: Request, error: Exception) -> Response:
    """The answer to any error of an endpoint; those of the server are logged."""
    if isinstance(error, ClientDisconnect):
        return Response(status_code=CLIENT_GONE)
    status = error.status_code if isinstance(error, HTTPException) else http_status(error)
    answer = error_answer(request.scope["path"], status, told(error, request.state.request_id))
    if isinstance(error, HTTPException):
        answer.headers.update(error.headers or {})
    return answer


def told(error: Exception, identity: str) -> str:
    """What the client of a request is told of its error; those of the server are logged.

    It is one line, of bounded length, whatever the client has sent.
    """
    if isinstance(error, HTTPException):
        return _one_line(error.detail)
    status = http_status(error)
    if status not in _TOLD_OF_SERVER:
        return _one_line(str(error))
    if status == 500 and not isinstance(error, GanError):
        log.error("request %s", identity, exc_info=error)
    else:
        log.error("request %s: %s", identity, error)
    return _TOLD_OF_SERVER[status].format(id=identity)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_LONGEST]


def malformed(message: str) -> HTTPException:
    """400: what was sent is no such request at all."""
    return HTTPException(400, message)


def too_large(message: str) -> HTTPException:
    """413."""
    return HTTPException(413, message)
