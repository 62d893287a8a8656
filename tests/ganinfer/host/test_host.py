from ganinfer.host.limits import at_most, usable_cpus
from ganinfer.host.machine import this_host


def test_a_host_is_named_by_what_speed_depends_on() -> None:
    host = this_host()
    assert host.cpu
    assert host.cpus == usable_cpus()
    assert f"numpy {host.versions['numpy']}" in str(host)
    assert str(host) == str(this_host())
    with at_most(1):
        assert this_host().cpus == 1
