"""Simulated time: what is to come comes in order, however far ahead it was scheduled."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan.sim.engine.agenda import Ending
from kvplan.sim.engine.clock import ARRIVAL, STEP, Clock, Timer

AHEAD = st.sampled_from([0.0, 0.25, 0.999999, 1.0, 1.0000001, 2.0, 2.5, 60.0, 3600.5, 1e9])
"""Seconds: within the second under way, at its end, and far behind it."""
EVENTS = st.lists(st.tuples(AHEAD, st.sampled_from([ARRIVAL, STEP])), max_size=5)


class _End(Ending):
    def __init__(self, ends):
        self.ends = ends

    def settle(self, at_s):
        assert at_s == min(self.ends)
        self.ends.remove(at_s)


@given(EVENTS, st.lists(EVENTS, max_size=20), st.lists(AHEAD, max_size=5))
def test_events_come_by_time_then_kind_then_as_they_were_scheduled(first, more, ends):
    clock, to_come, more = Clock(), [], iter(more)
    for end_s in ends:
        clock.agenda.before(end_s, _End(ends))

    def schedule(events):
        for ahead, priority in events:
            event = clock.now + ahead, priority, clock.agenda.scheduled
            to_come.append(event)
            clock.agenda.set(Timer(happens, event), event[0], priority)

    def happens(timer):
        assert timer.payload == min(to_come)
        assert clock.now == clock.agenda.now_s == timer.payload[0]
        assert all(end_s > clock.now for end_s in ends), "what ends by now has been settled"
        to_come.remove(timer.payload)
        schedule(next(more, []))

    schedule(first)
    clock.run()

    assert not to_come


def test_nothing_happens_in_the_past():
    clock = Clock()
    clock.agenda.set(Timer(lambda timer: clock.agenda.set(timer, 2.4, STEP)), 2.5, STEP)
    with pytest.raises(ValueError, match="scheduled in the past"):
        clock.run()
