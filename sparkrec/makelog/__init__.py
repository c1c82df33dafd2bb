"""Makes raw logs to try, test and measure the system with: seeded, streamed to disk, and learnable.

``options`` what to make · ``world`` items, users and their tastes · ``simulate`` sessions of events ·
``names`` titles · ``render`` events in the notation of a format · ``write`` files · ``generate`` all of it.
"""

from sparkrec.makelog.generate import LogSummary, make_log
from sparkrec.makelog.options import LogOptions

__all__ = ["LogOptions", "LogSummary", "make_log"]
