"""Evolutionary design of error-resilient, hardware-efficient neural networks.

A network is a pure function whose memory words are visible in its jaxpr. Faults,
costs and resilience are read off, or applied to, those words; evolution searches over
the integer vectors that describe such networks. Import what you need from the modules:
this file imports none of them, so that `jaxnas --help` answers at once.
"""

import os

__version__ = "0.1.0"

# XLA's CPU threads share out the terms of long sums of products, and there are as many
# threads as cores or devices, whichever are more. As many on small machines, and for
# few devices, keep the last bits of a network the same on one device and on eight. XLA
# reads this when it is first used; who chose a number keeps it.
if not {"PJRT_NPROC", "NPROC"} & os.environ.keys():
    os.environ["PJRT_NPROC"] = str(max(8, os.cpu_count() or 1))
