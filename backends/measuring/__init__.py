"""What a store is like over hours: how long until it shows a change, what comes back, how often it refuses, how fast it is.

    measurement.py   the run: how fast it asks (pace.py), lives of single keys (life.py), throughput, and tidying up (folders.py)
    tally.py         what was counted, by hour of the day; quantiles.py
    report.py        the tally as plain data for people and programs, and the delays that it suggests for a lock

The short look at what a store can do is `findings.py`.
"""
from __future__ import annotations

from s3cfs.backends.measuring.measurement import Measurement
from s3cfs.backends.measuring.plan import Plan
from s3cfs.backends.measuring.report import report
from s3cfs.backends.measuring.tally import Tally

__all__ = ["Measurement", "Plan", "Tally", "report"]
