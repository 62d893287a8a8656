"""Requests over HTTP, counted."""

from collections import Counter

_METHODS = frozenset({"GET", "HEAD", "POST", "OPTIONS"})  # others are counted as one


class Counts:
    """How many requests there were, by method, path as the routes have it, and status."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, int]] = Counter()

    def add(self, method: str, path: str, status: int) -> None:
        """One more; called on the event loop alone."""
        self._counts[method if method in _METHODS else "other", path, status] += 1

    def prometheus(self) -> str:
        """In Prometheus' text format."""
        name = "ganinfer_http_requests_total"
        lines = [f"# HELP {name} Requests over HTTP.", f"# TYPE {name} counter"]
        for (method, path, status), count in sorted(self._counts.items()):
            lines.append(f'{name}{{method="{method}",path="{path}",status="{status}"}} {count}')
        return "".join(f"{line}\n" for line in lines)
