"""A sampler's statistics in Prometheus' text format."""

from ganinfer.sampler import Sampler

# Of `Sampler.stats`: its name, the metric's, and what it says.
_COUNTERS = (
    ("requests", "requests", "Requests that were answered."),
    ("images", "images", "Images that were drawn."),
    ("batches", "batches", "Batches that were run."),
    ("padded", "padding_images", "Images that were run for nobody, to fill a batch."),
    ("failed", "failed_batches", "Batches that failed."),
    ("latents_s", "latents_seconds", "Time of drawing latents, of all threads."),
    ("device_s", "device_seconds", "Time of the backend, of all threads."),
)
_SUMMARIES = (
    ("queue_ms", "queue_seconds", "Time that a request waited for its last batch."),
    ("request_ms", "request_seconds", "Time from a request to its answer."),
    ("device_ms", "batch_seconds", "Time of a batch in the backend."),
)


def prometheus(*samplers: Sampler) -> str:
    """What a /metrics page says of samplers.

    Metrics are labelled with the first twelve digits of the bundle's sha256. Quantiles are those of
    the last thousands, see `Sampler.stats`.
    """
    found = [(f'bundle="{sampler.sha256[:12]}"', sampler.stats) for sampler in samplers]
    lines: list[str] = []
    for key, name, said in _COUNTERS:
        metric = f"ganinfer_{name}_total"
        lines += [f"# HELP {metric} {said}", f"# TYPE {metric} counter"]
        lines += [f"{metric}{{{bundle}}} {stats[key]}" for bundle, stats in found]
    for key, name, said in _SUMMARIES:
        metric = f"ganinfer_{name}"
        lines += [f"# HELP {metric} {said}", f"# TYPE {metric} summary"]
        for bundle, stats in found:
            for percentile, milliseconds in stats[key].items():
                quantile = int(percentile.removeprefix("p")) / 100
                lines.append(f'{metric}{{{bundle},quantile="{quantile:g}"}} {milliseconds / 1000}')
    return "\n".join(lines) + "\n"
