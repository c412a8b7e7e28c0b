"""Checks of settings, with one wording for what they refuse."""

from collections.abc import Sequence


def expect(name: str, value: object, expected: str, holds: bool) -> None:
    """Raise ValueError, with name, expectation and value, unless it holds."""
    if not holds:
        raise ValueError(f"{name} must be {expected}; got {value!r}")


def whole(value: object, *, least: int | None = None) -> bool:
    """Whether a value is a whole number, True and False not among them, and at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int):
        return False
    return least is None or value >= least


def choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise ValueError unless the value is one of the choices."""
    expect(name, value, f"one of {', '.join(choices)}", value in choices)
