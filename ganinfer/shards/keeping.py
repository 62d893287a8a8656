"""The filter that a request names: "rejection", "classifier>=0.9", "package.module>=3"."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ganinfer.errors import RequestError
from ganinfer.files import sha256_file
from ganinfer.filters import Filter
from ganinfer.lookup import Kind, check_options, find_part, held_function, identity
from ganinfer.sampler import Sampler

FILTER = Kind("ganinfer.filters", {"open": held_function("sampler", options=True)})


@dataclass(frozen=True)
class Keeping:
    """A filter that is ready; a process that gets it pickled opens it for itself.

    Attributes:
        name: what a request calls it: its name and number, of one's own its sources too.
        filter: looks at images.
        classifier_sha256: of its file, if it has one.
        asked: the arguments of `kept_by`.
    """

    name: str
    filter: Filter
    classifier_sha256: str | None
    asked: tuple[str, Sampler, Path | None]

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened_again, (self.name, self.classifier_sha256, *self.asked)


def kept_by(text: str, sampler: Sampler, classifier: Path | None) -> Keeping:
    """The filter of a text, ready to look at a sampler's images.

    Raises:
        RequestError: another text, or what the filter says of the bundle and its options.
        ConfigError: there is no such filter, or it does not take this.
    """
    told = re.fullmatch(r"\s*([\w.:]+)\s*(?:>=\s*(-?\d*\.?\d+)\s*)?", text)
    if not told:
        raise RequestError(
            f"keep {text!r}: expected a filter, or filter>=number, as in 'classifier>=0.9'"
        )
    if told[1] == "truncation":
        raise RequestError(
            "keep truncation: that is no filter, for latents are drawn truncated, none in vain; say"
            " truncation alone, as in --truncation 0.7"
        )
    options: dict[str, Any] = {}
    if told[2] is not None:
        options["least"] = float(told[2])
    if classifier is not None:
        options["classifier"] = classifier
    part = find_part(FILTER, told[1], where="keep")
    options = check_options(part.open, options, where="keep", name=told[1])
    name = identity(told[1])
    if (least := options.get("least")) is not None:
        name += f">={least!r}".removesuffix(".0")
    if classifier is not None:
        classifier = classifier.absolute()
    opened = part.open(sampler, **options)
    sha256 = None if classifier is None else sha256_file(classifier)
    return Keeping(name, opened, sha256, (text, sampler, classifier))


def _opened_again(
    name: str, sha256: str | None, text: str, sampler: Sampler, classifier: Path | None
) -> Keeping:
    again = kept_by(text, sampler, classifier)
    if (again.name, again.classifier_sha256) != (name, sha256):
        raise RequestError(
            f"keep {text}: the filter or its classifier is another here than where the work was"
            " planned; let all machines have the same"
        )
    return again
