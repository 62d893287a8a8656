from statistics import NormalDist

from ganexport.proof.confidence import Share
from ganexport.proof.sequential import ALPHA, Answer, Look, looks


def test_every_look_has_twice_the_images_and_all_of_them_spend_alpha() -> None:
    taken = looks(64, 1000)
    assert [look.num_images for look in taken] == [64, 128, 256, 512, 1000]
    spent = sum(2 * (1 - NormalDist().cdf(look.z)) for look in taken)
    assert abs(spent - ALPHA) < 1e-9
    assert [look.num_images for look in looks(1000, 1000)] == [1000]


def test_a_share_of_few_images_passes_only_if_it_would_of_all() -> None:
    look = Look(100, 1000, z=2.5)
    assert look.of_share(Share(0.001, (0.0009, 0.0011)), 0.1) is Answer.PASSES
    assert look.of_share(Share(0.02, (0.018, 0.022)), 0.1) is Answer.OPEN  # 0.2 of all
    assert look.of_share(Share(0.02, (0.018, 0.022), lasting=0.1, spread=0.01), 0.1) is (
        Answer.PASSES
    )
    assert look.of_share(Share(0.2, (0.18, 0.22)), 0.1) is Answer.FAILS
    assert look.of_share(Share(0.0), 0.1) is Answer.PASSES


def test_a_change_is_open_while_its_interval_holds_the_limit() -> None:
    look = Look(1000, 1000, z=1.96)
    assert look.of_change(0.01, (0.0, 0.02), 0.05) is Answer.PASSES
    assert look.of_change(0.04, (0.02, 0.06), 0.05) is Answer.OPEN
    assert look.of_change(0.09, (0.07, 0.11), 0.05) is Answer.FAILS
    assert "--num" in look.remark(Answer.OPEN)
    assert "--minutes" in Look(500, 1000, z=3.0).remark(Answer.OPEN)
    # The surer a look has to be, the longer it stays open.
    assert Look(64, 1000, z=9.0).of_change(0.01, (0.0, 0.02), 0.05) is Answer.OPEN
