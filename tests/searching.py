"""How much the tests that search try: little by default, as much as one likes by command.

    PMMS_SEARCH=25 python -m pytest tests/test_properties_*.py

tries 25 times as many examples, other ones in every run.
"""

import os

from hypothesis import settings

TIMES = int(os.environ.get("PMMS_SEARCH", "1"))


def examples(count: int) -> settings:
    """Decorator: this many examples of a property, times ``PMMS_SEARCH``."""
    return settings(max_examples=count * TIMES, deadline=None, derandomize=TIMES == 1)
