"""Every transition is somewhere."""

from distdqn.telemetry.ledger import Ledger, StreamAccount, close_stream


def test_what_nobody_recorded_of_a_dead_worker_is_lost():
    reported = Ledger(collected=100, accepted=60, refused=0, in_flight=40)
    shards = [StreamAccount(collected=110, accepted=50), StreamAccount(collected=90, accepted=30)]
    assert close_stream(reported, shards) == Ledger(110, 80, 0, 0, 30)


def test_refusals_of_the_worker_are_counted_once_and_of_shards_each():
    shards = [
        StreamAccount(collected=50, worker_refused=4, accepted=20, refused=3),
        StreamAccount(collected=40, worker_refused=2, accepted=15, refused=2),
    ]
    assert close_stream(Ledger(), shards) == Ledger(50, 35, 9, 0, 6)


def test_a_block_recorded_by_two_shards_does_not_make_lost_negative():
    shards = [StreamAccount(collected=20, accepted=20), StreamAccount(collected=20, accepted=20)]
    assert close_stream(Ledger(20, 20), shards) == Ledger(20, 20, 0, 0, 0)


def test_a_dead_worker_without_any_trace_counts_nothing():
    assert close_stream(Ledger(), []) == Ledger()


def test_totals_are_sums_field_by_field():
    both = Ledger(5, 1, 1, 1, 2).plus(Ledger(3, 3))
    assert both == Ledger(8, 4, 1, 1, 2)
    assert both.plus(Ledger(3, 3), times=-1) == Ledger(5, 1, 1, 1, 2)
