"""Measuring generated images: features -> moments, neighbours, predictions -> scores.

A metric is one module, with scores(reference, fake) -> {name: Score}; NEEDS names the columns of
`Measured` that it looks at, BETTER says of each score which values are better. README.md says what
each metric sees.
"""
