"""Evolutionary design of error-resilient, hardware-efficient neural networks.

A network is a pure function whose memory words are visible in its jaxpr. Faults,
costs and resilience are read off, or applied to, those words; evolution searches over
the integer vectors that describe such networks. Import what you need from the modules:
this file imports none of them, so that `jaxnas --help` answers at once.
"""

__version__ = "0.1.0"
