"""How long nobody has followed a run: measured by this machine's clock, from changes of the Lease alone."""

from ehrmind_k8s.controller.owners import Owners

KEY = ("team-a", "demo")


class Leases:
    """What the Leases say, and the time."""

    def __init__(self) -> None:
        self.text, self.now, self.deaf = "", 1000.0, False
        self.owners = Owners(lambda key: self.text, lambda key: self.deaf, lambda: self.now)

    def after(self, seconds: float, uid: str = "1") -> float:
        self.now += seconds
        return self.owners.silent_s(KEY, uid)


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


def test_a_run_made_again_under_the_name_has_its_whole_time() -> None:
    leases = Leases()
    leases.after(500)
    assert leases.after(100) == 100
    assert [leases.after(0, "2"), leases.after(30, "2")] == [0, 30]


def test_an_operator_that_sees_no_leases_does_not_blame_the_follower() -> None:
    leases = Leases()
    leases.after(100)
    leases.deaf = True
    assert [leases.after(100), leases.after(300)] == [0, 0]
    leases.deaf = False
    assert leases.after(50) == 50
