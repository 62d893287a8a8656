"""Backends: one module each, with open(bundle, device, precision) -> Backend.

`precisions(bundle)` names those of a bundle's variants that the backend takes.
`open` raises BackendUnavailable, with the reason and the remedy, when this host, this device or
this bundle cannot do it. It never settles for another device than the one asked for.

One of the user's own is asked for as "package.module"; see `ganinfer.lookup`.
"""
