"""Does a test notice when a formula is wrong? `python -m tests.mutations`; see `run.py`."""
