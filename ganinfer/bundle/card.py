"""The model card of a bundle: README.md of its repository on the Hub."""

import json
import re
from collections.abc import Iterable, Sequence

from ganinfer.bundle.manifest import Manifest
from ganinfer.files import sha256_bytes

_MARK = b"<!-- Written by gan push, which leaves it alone once it was edited. "
_MAX_CLASSES = 20  # named one by one


def model_card(manifest: Manifest, name: str) -> bytes:
    """Markdown under a YAML header, for people and for the Hub's search.

    Args:
        manifest: of the bundle.
        name: as `Sampler` takes it, hf://owner/name.
    """
    model, seen = manifest.model, manifest.source.images_seen
    images = ", ".join(map(str, model.shape))
    tags = ["gan", "image-generation", "onnx", model.family]
    rows = {
        "family": model.family,
        "images": f"{model.size} (height, width, channels), uint8",
        "classes": _classes(model.classes),
        "latent": f"{model.z_dim}, {model.z_distribution}",
        "truncation": ", ".join(model.truncation_modes) or "none",
        "precisions": ", ".join(graph.precision for graph in manifest.graphs),
        "engines": ", ".join(f"{e.product} {e.target} {e.precision}" for e in manifest.engines),
        "trained on": f"{seen:,} images" if seen else "",
        "checkpoint": manifest.source.checkpoint_sha256,
        "license": manifest.license or "",
        "verified": "yes" if manifest.verified else "no: exported without its parity gates",
    }
    body = f"""---
library_name: ganpipe
tags: {json.dumps(tags)}
---

# {plain(name.removeprefix("hf://"))}

![Images of this generator](preview.png)

```python
from ganinfer import Sampler  # pip install "ganpipe[cpu,hub]"

with Sampler({name!r}) as sampler:
    images = sampler.sample(64, seed=0)  # uint8 (64, {images})
```

{_table(("", ""), [row for row in rows.items() if row[1]])}
{_parity(manifest)}
"""
    return _marked(body.encode())


def is_untouched(card: bytes) -> bool:
    """Is this a card as `model_card` gave it, that nobody has edited since?"""
    return card == _marked(card.rpartition(_MARK)[0])


def _marked(body: bytes) -> bytes:
    return body + _MARK + f"sha256 {sha256_bytes(body)} -->\n".encode()


def _parity(manifest: Manifest) -> str:
    if not manifest.parity:
        return ""
    rows = [
        (g.artifact, g.gate, f"{g.value:.4g}", g.limit, "pass" if g.passed else "FAIL")
        for g in manifest.parity
    ]
    return f"""
## Parity

What ships here, against the network that was trained:

{_table(("artifact", "gate", "value", "limit", ""), rows)}
"""


def _classes(names: list[str]) -> str:
    if not names:
        return "none (unconditional)"
    more = ", ..." if len(names) > _MAX_CLASSES else ""
    return f"{len(names)}: {', '.join(names[:_MAX_CLASSES])}{more}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(plain, line))} |" for line in lines)


def plain(text: str) -> str:
    """Names in a manifest are data: one line, and nothing in it is Markdown or HTML."""
    return re.sub(r"([\\`*_\[\]<|])", r"\\\1", " ".join(text.split()))
