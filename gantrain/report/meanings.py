"""What a score is called, what it is measured in, and what it means; scores in groups."""

from collections.abc import Iterable
from dataclasses import dataclass

from gantrain.metrics._score import Better

DISTANCE = "Distance to the data: quality and variety in one figure"
APART = "Quality and variety apart"
CLASSES = "Classes, as a classifier sees them"
COPIES = "Copies and near-duplicates"
OTHERS = "Others"


@dataclass(frozen=True)
class Meaning:
    """Of one score. unit: what stands behind the figure; features: whether its name says whose."""

    group: str
    unit: str
    words: str
    features: bool = False


_SHARE, _FEATURES = "from 0 to 1", "squared feature units"
MEANINGS = {
    "fid": Meaning(DISTANCE, _FEATURES, "How far means and spreads of features are apart.", True),
    "fid_infinity": Meaning(DISTANCE, _FEATURES, "FID as of endless images.", True),
    "sfid": Meaning(DISTANCE, _FEATURES, "FID of features that know where things are.", True),
    "intra_fid": Meaning(DISTANCE, _FEATURES, "FID within a class, mean of all.", True),
    "intra_fid_worst_class": Meaning(DISTANCE, _FEATURES, "FID of the worst class.", True),
    "kid": Meaning(DISTANCE, "no unit", "Like FID, without its bias; about 0 at best.", True),
    "mmd": Meaning(DISTANCE, "no unit", "Like KID, by another kernel; about 0 at best.", True),
    "mifid": Meaning(DISTANCE, _FEATURES, "FID, made worse where images are copies.", True),
    "parzen_nats": Meaning(DISTANCE, "nats", "Likelihood of the data near generated images."),
    "parzen_sigma": Meaning(DISTANCE, "pixels from 0 to 1", "The width that fits best."),
    "cross_lid": Meaning(DISTANCE, "dimensions", "Of generated images around real ones."),
    "lid_real": Meaning(DISTANCE, "dimensions", "Of real images around real ones."),
    "spectral_distance": Meaning(DISTANCE, "dB", "How far fine and coarse detail differ."),
    "nn_accuracy": Meaning(DISTANCE, _SHARE, "How often a neighbour tells real from made."),
    "nn_accuracy_real": Meaning(DISTANCE, _SHARE, "The same of real images."),
    "nn_accuracy_fake": Meaning(DISTANCE, _SHARE, "The same of generated images."),
    "precision": Meaning(APART, _SHARE, "Quality: share of images that look like the data's."),
    "recall": Meaning(APART, _SHARE, "Variety: share of the data that G could have made."),
    "density": Meaning(APART, "1 is the data's", "Quality, counted where the data are dense."),
    "coverage": Meaning(APART, _SHARE, "Variety: share of the data with an image near by."),
    "alpha_precision": Meaning(APART, _SHARE, "Quality, judged at every level."),
    "beta_recall": Meaning(APART, _SHARE, "Variety, judged at every level."),
    "inception_score": Meaning(CLASSES, "classes", "Images are of sure and of various classes."),
    "inception_score_infinity": Meaning(CLASSES, "classes", "The same as of endless images."),
    "modified_inception_score": Meaning(CLASSES, "no unit", "How various a class is."),
    "mode_score": Meaning(CLASSES, "classes", "The same, by the data's shares of classes."),
    "am_score": Meaning(CLASSES, "nats", "Shares of classes against the data's."),
    "label_accuracy": Meaning(CLASSES, _SHARE, "Images that show the class they were asked for."),
    "label_accuracy_worst_class": Meaning(CLASSES, _SHARE, "The same of the worst class."),
    "modes": Meaning(CLASSES, "classes", "Classes that are met at all."),
    "num_modes": Meaning(CLASSES, "classes", "Classes that the data have."),
    "modes_kl": Meaning(CLASSES, "nats", "Shares of classes against the data's."),
    "high_quality": Meaning(CLASSES, _SHARE, "Points that lie near a class."),
    "cas": Meaning(CLASSES, _SHARE, "What a classifier learns from generated images alone."),
    "cas_of_real": Meaning(CLASSES, _SHARE, "The same of real images."),
    "cas_reverse": Meaning(CLASSES, _SHARE, "Generated images that one of real images knows."),
    "classification_error": Meaning(CLASSES, _SHARE, "Of a D that classifies, too."),
    "memorisation_distance": Meaning(COPIES, "1 is far", "How far the nearest training image is."),
    "authenticity": Meaning(COPIES, _SHARE, "Images that are no copies."),
    "data_copying": Meaning(COPIES, "standard deviations", "Below 0: nearer than it should be."),
    "ppl_features": Meaning(APART, "no unit", "How smoothly images change with the latent."),
    "support_size": Meaning(COPIES, "images", "How many different images G makes, about."),
    "support_size_real": Meaning(COPIES, "images", "The same of as many real images."),
}


def meaning_of(score: str) -> Meaning:
    """What a score means; of one of the user's own, nothing."""
    return MEANINGS.get(score, Meaning(OTHERS, "", ""))


def title_of(score: str, features: str) -> str:
    """What a score is called, and by whose features: "classifier-FID"; see `features_word`."""
    words = score.replace("_", " ").replace("nn ", "nearest-neighbour ")
    words = words.replace("inception score", f"{features} score")
    for short in ("fid", "kid", "mmd"):
        words = words.replace(short, short.upper())
    return f"{features}-{words}" if meaning_of(score).features else words


def in_groups(scores: Iterable[str]) -> dict[str, list[str]]:
    """Scores by their group, groups in the order of the page."""
    groups: dict[str, list[str]] = {g: [] for g in (DISTANCE, APART, CLASSES, COPIES, OTHERS)}
    for score in scores:
        groups[meaning_of(score).group].append(score)
    return {group: names for group, names in groups.items() if names}


def features_word(extractor: str) -> str:
    """A word for whose features they are, of an extractor's name."""
    known = {"the points themselves": "points", "classifier of rotations": "rotation-classifier"}
    return known.get(extractor, extractor.replace(" ", "-"))


def comparable_words(extractor: str, num_images: int) -> str:
    """Whether distances may stand beside those of papers."""
    if extractor != "inception":
        return f"Features of: {extractor}, not Inception. Not comparable with papers."
    if num_images < 50_000:
        return "Features of Inception. Papers take 50,000 images; fewer give a larger FID."
    return "Features of Inception, as in papers."


def trend(before: float, now: float, better: Better) -> str:
    """Whether a score got "better" or "worse"; "" where it is as it was, or nothing is better."""
    if better is None or before == now:
        return ""
    if isinstance(better, float):
        nearer = abs(now - better) < abs(before - better)
    else:
        nearer = (now < before) is (better == "lower")
    return "better" if nearer else "worse"
