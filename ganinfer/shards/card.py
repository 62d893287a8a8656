"""The data card of a folder of shards: README.md, as the Hub and people read it."""

import json

from ganinfer.filters import Filter
from ganinfer.shards.records import Index, Request


def data_card(index: Index, kept_by: Filter | None) -> bytes:
    """Markdown under a YAML header: what the images are, and how they are made again."""
    request, images = index.request, f"{index.request.n:,} images"
    suffix = index.shards[0].name.rpartition(".")[2] if index.shards else "*"
    tags = ["synthetic", "gan", *(["webdataset"] if request.format == "tar" else [])]
    labels = "each seed draws its own" if request.labels is None else _short(request.labels)
    rows = {
        "generator": f"bundle sha256 `{request.bundle_sha256}`",
        "seeds": _seeds(request),
        "classes": _short(index.classes) if index.classes else "none",
        "labels": labels if index.classes else "none",
        "truncation": _truncation(request.truncation, request.truncation_mode),
        **(
            {"kept": f"{_cell(kept_by.words)}: {images} of {index.drawn:,} drawn"}
            if kept_by
            else {}
        ),
        **({"duplicates": found.words} if (found := index.duplicates) else {}),
        "files": f"{len(index.shards):,} of {sum(s.size for s in index.shards):,} bytes in all",
        "format": " ".join(filter(None, (request.format, request.encoding))),
        **{f"computed by {n:,}": f"{made_by}" for made_by, n in index.made_by},
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"""---
pretty_name: {json.dumps(f"{images} of a GAN")}
tags: {json.dumps(tags)}
configs:
- config_name: default
  data_files: shard-*.{suffix}
---

# {images} of a GAN

Nobody took these pictures: a generator drew them. Each is a function of its seed, its class and the
truncation; `shards.json` has the sha256 of every file. Their licence is the generator's.

| | |
|---|---|
{table}
""".encode()


def _seeds(request: Request) -> str:
    if request.tries:
        return f"from {request.seed} on, {request.shard_size * request.tries} a file to choose from"
    return f"{request.seed} to {request.seed + request.n - 1}" if request.n else "none"


def _truncation(value: float | None, mode: str | None) -> str:
    return "none" if value is None else f"{value:g}{f', {mode}' if mode else ''}"


def _short(values: list[int] | list[str]) -> str:
    shown = ", ".join(map(str, values[:20]))
    return _cell(shown) + (f", ... ({len(values):,} in all)" if values[20:] else "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
