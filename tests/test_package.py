"""What is given away: the source distribution is the whole book, the wheel works anywhere."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _run(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | environment, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the wheel and the source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "hatchling", "build", "-d", str(folder), cwd=ROOT)
    return folder


def test_the_source_distribution_is_the_whole_book(built: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no clone, so nobody says which files belong to it")
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    committed = set(_run("git", "ls-files", cwd=ROOT).split())
    assert committed - names == set()
    assert "notebooks/00_few_shot_segmentation.ipynb" in names


def test_the_wheel_works_in_a_folder_of_its_own(built: Path, tmp_path: Path) -> None:
    (path,) = built.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(path) as archive:
        archive.extractall(site)
    assert not (site / "tests").exists()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def python(*arguments: str) -> str:
        return _run(sys.executable, *arguments, cwd=elsewhere, PYTHONPATH=str(site))

    assert python("-c", "import pmms; print(pmms.__file__)").strip() == str(
        site / "pmms" / "__init__.py"
    )
    python("-c", "from pmms.explorer import Explorer; Explorer('drawn (PartsVOC)')")
    small = ["train_images=24", "test_images=50", "extra_classes=4", "iterations=2", "width=8"]
    said = python("-m", "pmms", "train", "--set", *small, "--out", "model.safetensors")
    assert "model written to model.safetensors" in said
    assert (elsewhere / "model.safetensors").is_file()
