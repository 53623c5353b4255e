"""Checks of kvplan, benchmarks, the calibration of a machine, and a real server to lay beside the simulator; a room each.

May import everything of kvplan; nothing imports it. `__main__.py` has the table of what users can call.
"""
