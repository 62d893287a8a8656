import sys
from types import ModuleType, SimpleNamespace

import pytest

from ganexport.subjects.outside import IMPORTER
from ganinfer.backends._open import BACKEND
from ganinfer.errors import ConfigError
from ganinfer.lookup import Kind, check_options, find_module, find_part, module_names
from ganinfer.shards import FILTER, FORMAT
from gantrain.evaluation.scores import METRIC
from gantrain.game.kinds import MODEL, OBJECTIVE, REGULARIZER
from gantrain.game.parts import Hooks, Objective
from gantrain.metrics._score import Score

KINDS = [BACKEND, FILTER, FORMAT, IMPORTER, METRIC, MODEL, OBJECTIVE, REGULARIZER]


class Hinge(Objective):
    def __init__(self, *, margin=1.0):
        super().__init__()

    def discriminator_loss(self, real_logits, fake_logits):
        return real_logits.mean()

    def generator_loss(self, fake_logits):
        return fake_logits.mean()


class Positional(Hinge):
    def __init__(self, margin=1.0):
        super().__init__()


class Half(Objective):
    def generator_loss(self, fake_logits):
        return fake_logits.mean()


def scores(reference, fake):
    return {"mine": Score(1.0)}


class Metric:
    NEEDS, BETTER = ("features",), {"mine": "lower"}
    scores = staticmethod(scores)


class Swapped(Metric):
    scores = staticmethod(lambda fake, reference: {})


class Unbound(Metric):
    def scores(self, reference, fake):
        return {}


def read(state, *, z_dim: int = 4):
    return None


@pytest.fixture(autouse=True)
def mylab(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of the user's that has been imported."""
    module = ModuleType("mylab")
    module.__file__ = "/home/me/mylab.py"
    for value in (Hinge, Positional, Half, Metric, Swapped, Unbound, read):
        setattr(module, value.__name__, value)
        monkeypatch.setattr(value, "__module__", "mylab")
    module.Lists = SimpleNamespace(scores=Metric.scores, NEEDS=["features"], BETTER={})
    module.Column = SimpleNamespace(scores=Metric.scores, NEEDS=("feature",), BETTER={})
    monkeypatch.setitem(sys.modules, "mylab", module)
    monkeypatch.setitem(sys.modules, "mylab.losses", module)
    return module


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.package)
def test_every_part_of_ours_keeps_the_contract_of_its_kind(kind: Kind) -> None:
    for name in module_names(kind.package):
        assert find_part(kind, f"{kind.package}.{name}", where="x") is find_module(
            kind.package, name, where="x"
        )


def test_a_name_stands_for_the_one_thing_that_a_part_is() -> None:
    assert find_part(OBJECTIVE, "mylab:Hinge", where="x").Objective is Hinge
    assert find_part(REGULARIZER, "mylab:Hinge", where="x").Regularizer is Hinge
    assert find_part(IMPORTER, "mylab:read", where="x").read is read


def test_what_a_module_imports_from_elsewhere_is_not_its_part(mylab: ModuleType) -> None:
    """Or `class Mine(Objective)` below an import of ours would train ours."""
    mylab.Objective = find_module("gantrain.objectives", "hinge", where="x").Objective
    with pytest.raises(ConfigError, match="no Objective of its own; .*: mylab.losses:Hinge$"):
        find_part(OBJECTIVE, "mylab.losses", where="x")


def test_a_name_stands_for_something_that_holds_several() -> None:
    assert find_part(METRIC, "mylab:Metric", where="x") is Metric


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        (OBJECTIVE, "mylab.losses", "has no Objective of its own; .*: mylab.losses:Hinge$"),
        (OBJECTIVE, "mylab:Positional", r"Positional\(margin=1.0\) .*a class \(\*, options"),
        (OBJECTIVE, "mylab:Half", "expected .* and has discriminator_loss and generator_loss"),
        (OBJECTIVE, "mylab:Metric", "class Metric.* inherits object; expected .*parts.Objective"),
        (OBJECTIVE, "mylab:read", r"Objective is read\(state, \*, z_dim: int = 4\)"),
        (REGULARIZER, "mylab.losses", "say which: mylab.losses:Hinge or mylab.losses:Half"),
        (MODEL, "mylab.losses", "no Generator .*; add it to /home/me/mylab.py; .*, Discriminator"),
        (METRIC, "mylab.losses", "has no scores .* holds scores, NEEDS, BETTER"),
        (METRIC, "mylab:Swapped", r"\(fake, reference\); .* a function \(reference, fake\)"),
        (METRIC, "mylab:Unbound", r"scores\(self, reference, fake\)"),
        (METRIC, "mylab:Lists", r"NEEDS is \['features'\]; expected a tuple of images, features"),
        (METRIC, "mylab:Column", r"NEEDS is \('feature',\)"),
        (IMPORTER, "os:system", r"system\(command\); expected a function \(state, \*, options\)"),
        (IMPORTER, "builtins:eval", "read is eval"),
        (IMPORTER, "shutil:rmtree", r"read is rmtree\(path"),
        (BACKEND, "os:path", "has no precisions"),
        (FORMAT, "tarfile:open", "has no pack"),
    ],
)  # fmt: skip
def test_what_does_not_hold_what_it_should_is_refused(kind: Kind, name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=f"^x: {name}.*{words}"):
        find_part(kind, name, where="x")


def test_an_unknown_name_lists_ours_and_tells_of_own_ones() -> None:
    with pytest.raises(ConfigError, match="no 'tarr'.*npz, parquet, tar, or package.module of"):
        find_part(FORMAT, "tarr", where="x")


def test_a_file_names_ours_alone() -> None:
    with pytest.raises(ConfigError, match="there is no 'mylab.losses'"):
        find_module("gantrain.objectives", "mylab.losses", where="x")


def test_options_need_no_annotations() -> None:
    found = check_options(Hinge, {"margin": [1]}, where="x", name="mylab:Hinge")
    assert found == {"margin": [1]}


def test_annotations_may_be_of_any_class() -> None:
    def make(*, hooks: Hooks | None = None, model_width: int = 3) -> None: ...

    assert check_options(make, {}, where="x", name="m") == {"hooks": None, "model_width": 3}
    with pytest.raises(ConfigError, match="hooks: found 3"):
        check_options(make, {"hooks": 3}, where="x", name="m")


def test_annotations_that_cannot_be_read_are_a_message() -> None:
    def make(*, width: "Nowhere" = 3) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(ConfigError, match="annotations of 'm' cannot be read .*'Nowhere'"):
        check_options(make, {}, where="x", name="m")
