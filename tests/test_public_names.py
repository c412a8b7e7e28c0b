"""The front door of the package: what is offered, documented, tested, and what it costs."""

import ast
import inspect
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import pmms

ROOT = Path(__file__).parents[1]
TESTS = [path for path in Path(__file__).parent.glob("test_*.py") if path != Path(__file__)]


def imported_for_type_checkers() -> dict[str, str]:
    """Name -> module below pmms, of the block under TYPE_CHECKING."""
    tree = ast.parse(Path(pmms.__file__).read_text(encoding="utf-8"))
    (block,) = [
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    names = {}
    for statement in block.body:
        assert isinstance(statement, ast.ImportFrom)
        assert statement.module is not None
        for alias in statement.names:
            assert alias.asname is None
            names[alias.name] = statement.module.removeprefix("pmms.")
    return names


def test_three_lists_agree() -> None:
    assert len(set(pmms.__all__)) == len(pmms.__all__)
    assert sorted(pmms.__all__) == sorted(pmms._HOME)
    assert imported_for_type_checkers() == pmms._HOME


@pytest.mark.parametrize("name", pmms.__all__)
def test_every_name_is_there_and_documented(name: str) -> None:
    value = getattr(pmms, name)
    assert value.__name__ == name
    assert value.__module__ == f"pmms.{pmms._HOME[name]}"
    assert value is getattr(pmms, name)
    text = inspect.getdoc(value)
    assert text
    assert text[0].isupper()
    assert text.partition("\n")[0].endswith((".", ":")) or "\n" in text
    assert not text.startswith(f"{name}(")  # what dataclass and NamedTuple write by themselves


@cache
def used_in(path: Path) -> frozenset[str]:
    """Names that a test file imports from the package and then uses."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pmms"
        for alias in node.names
    }
    loaded = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return frozenset(imported & loaded)


@pytest.mark.parametrize("name", pmms.__all__)
def test_every_name_is_used_by_a_test(name: str) -> None:
    assert any(name in used_in(path) for path in TESTS)


def test_functions_say_what_they_take() -> None:
    """Type hints everywhere."""
    for name in pmms.__all__:
        value = getattr(pmms, name)
        if inspect.isfunction(value):
            signature = inspect.signature(value)
            assert signature.return_annotation is not inspect.Signature.empty, name
            for parameter in signature.parameters.values():
                assert parameter.annotation is not inspect.Parameter.empty, (name, parameter)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'segment'"):
        pmms.segment  # noqa: B018
    assert not hasattr(pmms, "nothing_of_this_name")


def test_dir_lists_the_names() -> None:
    assert set(pmms.__all__) <= set(dir(pmms))


def test_star_import_gives_the_names() -> None:
    names: dict[str, object] = {}
    exec("from pmms import *", names)
    assert set(pmms.__all__) <= set(names)


def test_importing_the_package_imports_little_more_than_pytorch() -> None:
    heavy = ("torchvision", "timm", "matplotlib", "sklearn", "lightning", "lightning_fabric")
    code = (
        "import sys, pmms; sys.stdout.write(' '.join(m for m in sys.modules if '.' not in m));"
        "sys.stdout.write('\\n' + ' '.join(m for m in sys.modules if m.startswith('pmms.')))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    top, own = done.stdout.splitlines()
    assert "torch" in top.split()
    assert not set(heavy) & set(top.split())
    assert own.split() == ["pmms._torchvision"]
