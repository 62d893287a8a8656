"""A test for data-copying, C_T (Meehan, Chaudhuri, Dasgupta, 2004.05675).

In every cell of a partition of the training set, a Mann-Whitney test compares the distances from
generated images to the nearest training image with those from test images. C_T is the mean of the
cells' z-scores, weighted by how many test images a cell has. Far below 0 (-3, say): the generator
copies its training set; far above: it underfits.
"""

import numpy as np
from numpy.typing import NDArray

from ganinfer.errors import DataError
from gantrain.metrics._measured import Measured
from gantrain.metrics._neighbours import nearest_of_all, some_features
from gantrain.metrics._reference import Reference
from gantrain.metrics._score import Better, Score

NEEDS = ("features",)
BETTER: dict[str, Better] = {"data_copying": 0.0}
NUM_CELLS = 10
LEAST_OF_A_CELL = 20  # fewer images of a side than this give no z-score

Floats = NDArray[np.float64]


def scores(reference: Reference, fake: Measured) -> dict[str, Score]:
    """{"data_copying"}: C_T, a z-score; its standard error is 1 if nothing is copied."""
    if reference.trained_on is None:
        raise DataError(
            "data_copying: it compares with images that the generator has not seen; give a"
            " held-out set with --data (and keep the training set where it was)"
        )
    from sklearn.cluster import MiniBatchKMeans

    training, test = reference.training, reference.real
    cells = MiniBatchKMeans(NUM_CELLS, random_state=0, n_init=3).fit(training.features)
    sides = []
    for side in (fake, test):
        features = some_features(side)
        distances = nearest_of_all(features, training)[0][:, 0].cpu().numpy()
        sides.append((distances, cells.predict(features.float().cpu().numpy())))
    return {"data_copying": data_copying(*sides[0], *sides[1])}


def data_copying(
    generated: Floats,
    generated_cells: NDArray[np.int32],
    test: Floats,
    test_cells: NDArray[np.int32],
) -> Score:
    """C_T from distances to the training set (M,), (N,) and the cells that the images lie in."""
    from scipy.stats import rankdata

    found, weights = [], []
    for cell in np.unique(test_cells):
        a, b = generated[generated_cells == cell], test[test_cells == cell]
        if min(len(a), len(b)) < LEAST_OF_A_CELL:
            continue
        ranks = rankdata(np.concatenate([a, b]))
        larger = ranks[: len(a)].sum() - len(a) * (len(a) + 1) / 2  # pairs with a > b
        spread = np.sqrt(len(a) * len(b) * (len(a) + len(b) + 1) / 12)
        found.append((larger - len(a) * len(b) / 2) / spread)
        weights.append(len(b))
    if not found:
        raise DataError(
            f"data_copying: no cell has {LEAST_OF_A_CELL} generated and as many test images;"
            " generate more"
        )
    shares = np.array(weights) / sum(weights)
    return Score(float(shares @ found), float(np.sqrt((shares**2).sum())), len(generated))
