"""What all replicas of one run share."""

from dataclasses import dataclass, field
from typing import Any

from kvplan.sim.engine.arrivals import Source
from kvplan.sim.engine.clock import Clock
from kvplan.sim.knowledge import ServerKnowledge
from kvplan.sim.metrics.output import RunInput
from kvplan.sim.metrics.recorder import Recorder


@dataclass
class Run:
    """See the module."""

    given: RunInput
    clock: Clock
    recorder: Recorder
    knowledge: ServerKnowledge
    observer: Any
    context: list[int]
    """Kept history tokens per session."""
    source: Source = field(init=False)
    """Brings the turns; set once there are replicas that they can come to."""
