"""Turn the text of a parameter, as typed on a command line, into a value of its declared type.

A notebook declares a type as papermill reads it, by annotation or by comment:

    k: int = 3                                       # number of prototypes
    model = "pmms"  # type: Literal['pmms','rpmms']  which network
    seed = None     # type: int|None                 drawn anew where None

Papermill reads an annotation only if it is made of names, brackets and commas: a choice or an
optional type has to be a comment, without spaces.
"""

import ast
import json
from collections.abc import Callable
from typing import Any

TRUE, FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}


def cast(text: str, declared: str) -> Any:
    """The value that `text` spells, of the type that `declared` spells.

    Known are int, float, str, bool, None, Literal[...], list[X], tuple[X, ...], dict (typed as in
    Python or JSON) and unions written with |. Without a declared type ("None" in papermill's words)
    a Python literal is read as such and everything else stays a string. Raises ValueError that says
    what was expected.
    """
    if declared.strip() in {"", "None"}:
        return _literal_or_text(text)
    try:
        tree = ast.parse(declared, mode="eval").body
    except SyntaxError:
        raise ValueError(f"its declared type {declared!r} cannot be read") from None
    return _cast(text, tree)


def _cast(text: str, tree: ast.expr) -> Any:
    match tree:
        case ast.Name(id=name) if name in _SCALARS:
            return _SCALARS[name](text)
        case ast.Constant(value=None):
            if text.strip().lower() == "none":
                return None
            raise ValueError(f"expected None, got {text!r}")
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _first_that_fits(text, tree, [left, right])
        case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
            return _first_that_fits(text, tree, [ast.Constant(value=None), inner])
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choices):
            return _choice(text, ast.literal_eval(choices))
        case ast.Subscript(value=ast.Name(id="list" | "List"), slice=item):
            return _sequence(text, item)
        case ast.Subscript(value=ast.Name(id="tuple" | "Tuple"), slice=ast.Tuple(elts=[item, *_])):
            return tuple(_sequence(text, item))
        case ast.Name(id="list" | "tuple"):
            return _sequence(text, None)
        case ast.Name(id="dict"):
            return _mapping(text)
    raise ValueError(f"its declared type {ast.unparse(tree)!r} cannot be given on a command line")


def _first_that_fits(text: str, tree: ast.expr, options: list[ast.expr]) -> Any:
    # None first: 'none' for `str|None` means no string.
    for option in sorted(options, key=lambda o: not isinstance(o, ast.Constant)):
        try:
            return _cast(text, option)
        except ValueError:
            continue
    raise ValueError(f"expected {ast.unparse(tree)}, got {text!r}")


def _choice(text: str, choices: Any) -> Any:
    choices = choices if isinstance(choices, tuple) else (choices,)
    for choice in choices:
        if str(choice) == text:
            return choice
    raise ValueError(f"expected one of {', '.join(map(str, choices))}; got {text!r}")


def _sequence(text: str, item: ast.expr | None) -> list[Any]:
    """Items as in '1,2,3' or '[1, 2, 3]'."""
    bare = text.strip()
    if (bare[:1], bare[-1:]) in {("[", "]"), ("(", ")")}:
        bare = bare[1:-1]
    parts = [part.strip().strip("'\"") for part in bare.split(",") if part.strip()]
    return [_literal_or_text(p) if item is None else _cast(p, item) for p in parts]


def _mapping(text: str) -> dict[str, Any]:
    """Names and values as in '{"kappa": 10, "k": null}' or "{'kappa': 10, 'k': None}"."""
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(text)
        except (ValueError, SyntaxError):
            continue
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            return value
    raise ValueError(f"expected names and values such as {{'kappa': 10}}, got {text!r}")


def _integer(text: str) -> int:
    try:
        return int(text.replace("_", ""))
    except ValueError:
        raise ValueError(f"expected an integer, got {text!r}") from None


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"expected a number, got {text!r}") from None


def _bool(text: str) -> bool:
    if text.lower() in TRUE | FALSE:
        return text.lower() in TRUE
    raise ValueError(f"expected true or false, got {text!r}")


def _literal_or_text(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


_SCALARS: dict[str, Callable[[str], Any]] = {
    "int": _integer,
    "float": _float,
    "bool": _bool,
    "str": str,
}
