"""endwise: raw data in, final answers out — one network, one objective, one loop."""

__version__ = "0.1.0"
