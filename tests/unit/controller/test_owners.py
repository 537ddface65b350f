"""How long nobody has followed a run: measured by this machine's clock, from changes of the Lease alone."""

from ehrmind_k8s.controller.owners import Owners

KEY = ("team-a", "demo")


class Leases:
    """What the Leases say, and the time."""

    def __init__(self) -> None:
        self.text, self.now = "", 1000.0
        self.owners = Owners(lambda key: self.text, lambda: self.now)

    def after(self, seconds: float) -> float:
        self.now += seconds
        return self.owners.silent_s(KEY)


def test_silence_is_counted_from_the_first_look_where_there_is_no_lease() -> None:
    leases = Leases()
    assert [leases.after(0), leases.after(50), leases.after(70)] == [0, 50, 120]


def test_a_renewal_ends_the_silence_whatever_time_it_names() -> None:
    leases = Leases()
    leases.after(50)
    leases.text = "1999-01-01T00:00:00Z"  # the clock of whoever follows may be wrong
    assert [leases.after(0), leases.after(10), leases.after(5)] == [0, 10, 15]


def test_a_renewal_counts_from_when_it_was_heard() -> None:
    leases = Leases()
    leases.after(0)
    leases.text = "a"
    leases.now += 30
    leases.owners.heard([KEY, "a uid"])
    assert leases.after(40) == 40


def test_a_run_that_is_gone_is_forgotten() -> None:
    leases = Leases()
    leases.after(100)
    leases.owners.forget(KEY)
    assert leases.after(10) == 0
