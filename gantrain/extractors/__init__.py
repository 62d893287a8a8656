"""Networks that see images for the metrics: images -> features, one module a network."""
