"""Measuring generated images: features -> statistics -> scores, one module a metric.

A metric module has a class `Metric` with Metric(reference), update(features) for every batch, and
scores() -> {name: value}; see `gantrain.evaluate` for what passes through it.
"""
