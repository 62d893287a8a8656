"""Statistics of samplers in Prometheus' text format."""

from collections.abc import Iterable
from typing import Any

from ganinfer.sampler import Sampler

# Of `Sampler.stats`: its name, the metric's, and what it says.
_COUNTERS = (
    ("requests", "requests", "Requests that were answered."),
    ("late", "late_requests", "Requests that were not answered at their deadline."),
    ("cancelled", "cancelled_requests", "Requests that their callers took back."),
    ("failed", "failed_requests", "Requests that failed in the backend."),
    ("closed", "closed_requests", "Requests whose sampler was closed before their turn."),
    ("refused", "refused_requests", "Requests that found the queue full."),
    ("invalid", "invalid_requests", "Requests for what the model cannot serve."),
    ("images", "images", "Images that were drawn."),
    ("padded", "padding_images", "Images that were run for nobody, to fill a batch."),
    ("batches", "batches", "Batches that were run."),
    ("failed_batches", "failed_batches", "Batches that failed."),
    ("latents_s", "latents_seconds", "Time of drawing latents, of all threads."),
    ("device_s", "device_seconds", "Time of the backend, of all threads."),
)
_GAUGES = (
    ("queue_requests", "queue_requests", "Requests in the queue."),
    ("queue_images", "queue_images", "Images of the requests in the queue."),
    ("in_flight", "in_flight_requests", "Requests that have left the queue and are not yet told."),
)
_HISTOGRAMS = (
    ("queue_seconds", "queue_seconds", "Time from a request to its first batch."),
    ("request_seconds", "request_seconds", "Time from a request to its answer."),
    ("batch_seconds", "batch_seconds", "Time of a batch in the backend."),
)


def prometheus(*samplers: Sampler) -> str:
    """What a /metrics page says of all samplers of this process; nothing if there are none.

    Metrics are labelled with the first twelve digits of the bundle's sha256. Samplers of one bundle
    are summed, which is right for counters, histograms and lengths of queues alike.
    """
    unique = dict.fromkeys(samplers)
    return page((labelled(bundle=one.sha256[:12]), one.stats) for one in unique)


def labelled(**labels: object) -> str:
    """Labels as they stand between braces; those that are None are left out."""
    return ",".join(f'{name}="{value}"' for name, value in labels.items() if value is not None)


def page(found: Iterable[tuple[str, dict[str, Any]]]) -> str:
    """What it says of statistics with their labels; those of the same labels are summed."""
    series: dict[str, list[dict[str, Any]]] = {}
    for labels, stats in found:
        series.setdefault(labels, []).append(stats)
    lines: list[str] = []
    for kind, metrics in (("counter", _COUNTERS), ("gauge", _GAUGES), ("histogram", _HISTOGRAMS)):
        for key, name, said in metrics if series else ():
            metric = f"ganinfer_{name}" + ("_total" if kind == "counter" else "")
            lines += [f"# HELP {metric} {said}", f"# TYPE {metric} {kind}"]
            for labels, all_stats in series.items():
                values = [stats[key] for stats in all_stats]
                if kind == "histogram":
                    lines += _histogram(metric, labels, values)
                else:
                    lines.append(f"{metric}{{{labels}}} {sum(values)}")
    return "".join(f"{line}\n" for line in lines)


def _histogram(metric: str, labels: str, histograms: list[dict[str, Any]]) -> list[str]:
    """The lines of one series, the sum of some histograms."""
    lines = []
    for bound in histograms[0]["buckets"]:
        count = sum(one["buckets"][bound] for one in histograms)
        lines.append(f'{metric}_bucket{{{labels},le="{bound}"}} {count}')
    for part in ("sum", "count"):
        lines.append(f"{metric}_{part}{{{labels}}} {sum(one[part] for one in histograms)}")
    return lines
