"""What is known of a bundle that is not open."""

from dataclasses import dataclass
from typing import Any

from ganinfer.bundle.archive import Bundle
from ganinfer.bundle.places import Place, local_path
from ganinfer.drawing.model import Model
from ganinfer.sampler import Sampler
from ganinfer.scheduler.opening import Opening
from ganinfer.scheduler.runner import whole


@dataclass(frozen=True)
class Unopened:
    """A bundle's facts, under the names that a Sampler has for them."""

    sha256: str
    model: Model

    @classmethod
    def of(cls, sampler: Sampler) -> "Unopened":
        """Of a bundle that is open yet."""
        bundle = sampler.bundle
        return cls(bundle.sha256, bundle.manifest.model)

    @classmethod
    def at(cls, place: Place, opening: Opening) -> "Unopened":
        """Of a bundle that lies there, rightly signed.

        Raises:
            BundleError: it is missing, cannot be had, is damaged or not signed by that key.
            ConfigError: the key cannot be used.
        """
        path = local_path(place)

        def read() -> "Unopened":
            with Bundle(path, public_key=opening.public_key) as bundle:
                return cls(bundle.sha256, bundle.manifest.model)

        return whole(path, read)

    @property
    def classes(self) -> list[str]:
        """The K class names; empty for an unconditional model."""
        return list(self.model.classes)

    @property
    def info(self) -> dict[str, Any]:
        """The model, and shape: of an image, (H, W, C)."""
        return {**self.model.model_dump(), "shape": self.model.shape}
