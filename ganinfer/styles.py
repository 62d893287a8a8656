"""A StyleGAN's styles, mixed: W+, in which some places have one image's and the others another's.

N images, L styles of length D. The first places are coarse (pose, shape), the last fine (colours).
"""

from collections.abc import Sequence

import numpy as np

from ganinfer.drawing.arguments import Labels, check_takes_styles
from ganinfer.drawing.images import Images
from ganinfer.drawing.reading import AnyArray, read
from ganinfer.errors import RequestError
from ganinfer.sampler import Sampler, Styles


def mix_styles(w: AnyArray, other: AnyArray, places: Sequence[int]) -> Styles:
    """Styles of some places from one array, all others from another.

    With `mapped(8)` and `mapped(8, truncation=0.7)` the places that come from the latter are drawn
    to the mean, and no others.

    Args:
        w: float32 (N, L, D), left as it is; an array, or what NumPy or DLPack can read.
        other: float32 (N, L, D), or (1, L, D) for all N.
        places: numbers in [0, L), those that come from `other`.

    Returns:
        float32 (N, L, D).

    Raises:
        RequestError: the shapes do not fit, or there is no such place.
    """
    base, added = read("w", w), read("other", other)
    fits = base.ndim == 3 and added.shape[1:] == base.shape[1:] and len(added) in (1, len(base))
    if not fits:
        raise RequestError(
            f"styles: found {base.shape} and {added.shape}; expected (N, L, D) twice, or (1, L, D)"
            " second"
        )
    if wrong := [place for place in places if not 0 <= place < base.shape[1]]:
        raise RequestError(f"places: found {wrong[0]}; expected 0 to {base.shape[1] - 1}")
    mixed, chosen = base.copy(), list(places)
    mixed[:, chosen] = added[:, chosen]
    return mixed


def style_grid(
    sampler: Sampler,
    rows: Sequence[int],
    columns: Sequence[int],
    *,
    places: Sequence[int] | None = None,
    labels: Labels = None,
    truncation: float | None = None,
) -> Images:
    """Each of some seeds with the styles of some others, as papers show it.

    Args:
        sampler: of a StyleGAN's bundle.
        rows: R seeds, whose styles are kept in all other places.
        columns: C seeds, whose styles come in.
        places: where they do; the first half, the coarse ones, by default.
        labels: a class for all images; each seed's own by default.
        truncation: as in `Sampler.sample`.

    Returns:
        uint8 ((R + 1) (C + 1), H, W, C), row by row: a white one and the columns' own images; then
        of each row its own and the mixed ones.

    Raises:
        RequestError: something that this model cannot serve.
    """
    taken = check_takes_styles(sampler.bundle.manifest.model)
    chosen = range(taken.num_styles // 2) if places is None else places
    w, other = (
        sampler.mapped(seeds=seeds, labels=labels, truncation=truncation)
        for seeds in (rows, columns)
    )
    own, theirs = sampler.synthesize(w), sampler.synthesize(other)
    lines = [np.concatenate([np.full_like(own[:1], 255), theirs])]
    for image, row in zip(own, w, strict=True):
        mixed = mix_styles(np.repeat(row[None], len(other), axis=0), other, chosen)
        lines.append(np.concatenate([image[None], sampler.synthesize(mixed)]))
    grid: Images = np.concatenate(lines)
    return grid
