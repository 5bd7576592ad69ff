"""A server measured: `python -m benchmarks.serving` (`__main__.py`)."""
