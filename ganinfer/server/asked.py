"""What the URL of a picture asks for."""

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from starlette.exceptions import HTTPException
from starlette.requests import Request

from ganinfer.errors import missing_extra
from ganinfer.film import KINDS, encodes
from ganinfer.sampler import Sampler
from ganinfer.server.answers import malformed
from ganinfer.server.pictures import FORMATS, check_format, label_of

Kind = Literal["image", "grid", "film"]

_OF_ALL = ("seed", "label", "truncation", "truncation_mode", "bundle")
_PARAMETERS: dict[Kind, tuple[str, ...]] = {
    "image": (*_OF_ALL, "to", "t", "space"),
    "grid": (*_OF_ALL, "n", "columns"),
    "film": (*_OF_ALL, "to", "frames", "fps", "space"),
}


@dataclass(frozen=True)
class Picture:
    """All that its bytes depend on, beside the bundle.

    Attributes:
        n: images that are drawn.
        label: a class, or the weights of several; None lets the seed draw its own.
        to: the seed at the end of a way; None if there is no way.
        t: where on it the image lies, 0 to 1; None if all of it is shown.
        space: of the way, z or w.
    """

    kind: Kind
    format: str
    seed: int
    n: int
    label: int | dict[int, float] | None
    truncation: float | None
    truncation_mode: str | None
    columns: int | None
    to: int | None
    t: float | None
    space: str
    fps: int


def read_query(request: Request, kind: Kind) -> dict[str, str]:
    """The parameters of a URL.

    Raises:
        HTTPException: 400, one is unknown, or there twice.
    """
    known = _PARAMETERS[kind]
    given = request.query_params.multi_items()
    names = [name for name, _ in given]
    for name in names:
        if name not in known:
            raise malformed(f"{name!r:.40}: there is no such parameter; {', '.join(known)} are")
        if names.count(name) > 1:
            raise malformed(f"{name}: is there twice")
    return dict(given)


def read_picture(sampler: Sampler, kind: Kind, form: str, given: Mapping[str, str]) -> Picture:
    """What the parameters mean to a model.

    Raises:
        HTTPException: 404, no such format; 400, no such value.
        RequestError: the model has no such class, or no such picture can be.
        MissingExtra: what makes such a film is not installed.
    """
    _check_form(sampler, kind, form)
    to, t, space = _way(kind, given)
    n = 1
    if kind == "grid":
        n = _whole(given, "n", 16, least=1)
    elif kind == "film":
        n = _whole(given, "frames", 60, least=2)
    label = given.get("label")
    return Picture(
        kind=kind,
        format=form,
        seed=_whole(given, "seed", 0),
        n=n,
        label=None if label is None else label_of(sampler, label),
        truncation=_decimal(given, "truncation"),
        truncation_mode=given.get("truncation_mode"),
        columns=min(_whole(given, "columns", n, least=1), n) if "columns" in given else None,
        to=to,
        t=t,
        space=space,
        fps=_whole(given, "fps", 30, least=1, most=100),
    )


def _way(kind: Kind, given: Mapping[str, str]) -> tuple[int | None, float | None, str]:
    """The seed at its end, where on it the image lies, its space."""
    if kind == "film" and "to" not in given:
        raise malformed("to: expected the seed at the end of the way")
    if kind == "image" and ("to" in given) != ("t" in given):
        raise malformed("to, t: found one of them; give the last seed, and where on the way to it")
    if "space" in given and "to" not in given:
        raise malformed("space: expected to and t beside it")
    t = _decimal(given, "t")
    if t is not None and not 0 <= t <= 1:
        raise malformed(f"t: found {t:g}; expected 0, at seed, to 1, at to")
    return _whole(given, "to", 0) if "to" in given else None, t, given.get("space", "z")


def _check_form(sampler: Sampler, kind: Kind, form: str) -> None:
    known = KINDS if kind == "film" else tuple(FORMATS)
    if form not in known:
        raise HTTPException(404, f"{form!r:.40}: found no such format; {', '.join(known)} are")
    if kind == "image":
        check_format(sampler, form)
    if kind == "film" and not encodes(form):
        raise missing_extra("av")


def _whole(
    given: Mapping[str, str], name: str, default: int, *, least: int = 0, most: int | None = None
) -> int:
    text = given.get(name, str(default))
    is_number = re.fullmatch(r"[0-9]{1,20}", text)
    if not is_number or int(text) < least or (most is not None and int(text) > most):
        expected = f"{least} or more" if most is None else f"{least} to {most}"
        raise malformed(f"{name}: found {text!r:.40}; expected a number, {expected}")
    return int(text)


def _decimal(given: Mapping[str, str], name: str) -> float | None:
    if name not in given:
        return None
    text = given[name]
    if re.fullmatch(r"[0-9.eE+-]{1,40}", text):
        with contextlib.suppress(ValueError):
            return float(text)
    raise malformed(f"{name}: found {text!r:.40}; expected a number, as in 0.7")
