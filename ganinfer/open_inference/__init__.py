"""The Open Inference Protocol, version 2: its messages over gRPC, and a client for images.

from ganinfer.open_inference import served_model
served_model("grpc://localhost:8001", "digits", (16, 16, 1)).images([7, 8])
"""

from ganinfer.errors import missing_extra
from ganinfer.open_inference.over_http import ServedModel

__all__ = ["ServedModel", "served_model"]


def served_model(
    url: str, name: str, shape: tuple[int, int, int], *, api_key: str | None = None
) -> ServedModel:
    """A model of a server, which is asked what it takes.

    Args:
        url: of the server, http://host:port, or grpc://host:port for gRPC.
        name: of the model.
        shape: (H, W, C) of its images.
        api_key: that the server asks for, if it does.

    Raises:
        RequestError: that is no such address.
        BackendUnavailable: nobody answers there, or the model is another one.
        MissingExtra: a package for gRPC is not installed.
    """
    if not url.startswith("grpc://"):
        return ServedModel(url, name, shape, api_key=api_key)
    try:
        from ganinfer.open_inference.over_grpc import RpcModel
    except ModuleNotFoundError as error:
        raise missing_extra("grpc", error) from None
    return RpcModel(url, name, shape, api_key=api_key)
