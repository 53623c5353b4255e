"""The server by arithmetic, without a clock: what `explain` says before a run. `kvplan validate explain` lays it beside the simulator."""
