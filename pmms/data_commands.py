"""The commands about data: ``prepare`` gets a data set, ``folds`` prints its classes."""

import argparse
from pathlib import Path
from typing import Any


def add_command(commands: Any, name: str, function: Any, help: str) -> argparse.ArgumentParser:
    """A parser for one command, which calls ``function`` with the options; its docstring tells."""
    sub: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help,
        description=function.__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    sub.set_defaults(command=function)
    return sub


def add_data_commands(commands: Any) -> None:
    """Add ``folds`` and ``prepare`` to the commands of the command line."""
    sub = add_command(commands, "folds", folds_command, "print the classes of each fold")
    sub.add_argument("data", nargs="?", choices=("parts", "pascal", "coco"), help="which data")
    sub.add_argument(
        "--layout", choices=("contiguous", "strided"), default=None,
        help="how folds take their classes; without it the usual way: strided for coco, else "
        "contiguous",
    )  # fmt: skip
    sub.add_argument("--classes", default="", metavar="FILE", help="a class file of your own data")
    _add_prepare(commands)


def prepare_parts_command(options: argparse.Namespace) -> None:
    """Write images drawn by code as a VOC folder tree; nothing is downloaded."""
    from pmms.datasets.parts import PartsVOC

    for split, length in (("train", options.train_images), ("val", options.test_images)):
        PartsVOC(split, length=length).write_voc(options.root)
    print(f"PartsVOC written to {options.root}")


def prepare_pascal_command(options: argparse.Namespace) -> None:
    """Make Pascal-5i: VOC 2012 and SBD, merged, with the lists of the paper's authors."""
    from pmms.datasets.prepare_pascal import prepare_pascal

    prepare_pascal(options.root, **_sources(options))


def prepare_coco_command(options: argparse.Namespace) -> None:
    """Make COCO-20i: photos and instance annotations of COCO."""
    from pmms.datasets.prepare_coco import prepare_coco

    prepare_coco(options.root, year=options.year, splits=options.splits, **_sources(options))


def folds_command(options: argparse.Namespace) -> None:
    """Print which classes each fold holds out, of a known data set or of a class file."""
    from pmms.folds import class_names, fold_classes, fold_count, read_classes

    if bool(options.data) == bool(options.classes):
        raise ValueError("give either a data set (parts, pascal, coco) or --classes FILE")
    data = read_classes(options.classes) if options.classes else options.data
    names = class_names(data)
    for fold in range(fold_count(data)):
        ids = fold_classes(data, fold, layout=options.layout)
        print(f"fold {fold}: " + ", ".join(f"{names[i - 1]} ({i})" for i in ids))


def _add_prepare(commands: Any) -> None:
    text = "get a data set ready on the disk"
    prepare = commands.add_parser("prepare", help=text, description=f"{text.capitalize()}.")
    kinds = prepare.add_subparsers(required=True, metavar="DATA", help="which data set")

    def kind(name: str, function: Any, help: str) -> argparse.ArgumentParser:
        sub = add_command(kinds, name, function, help)
        sub.add_argument("--root", default=f"data/{name}", help="folder to write to")
        return sub

    def fetched(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--from", dest="given", default=None, metavar="DIR",
            help="folder of archives that you have; what is not in it is downloaded",
        )  # fmt: skip
        sub.add_argument("--mirror", default=None, metavar="URL", help="folder that has all files")
        sub.add_argument("--keep-archives", action="store_true", help="keep what was downloaded")
        sub.add_argument("--dry-run", action="store_true", help="say what would be done, then stop")

    sub = kind("parts", prepare_parts_command, "images drawn by code, without a download")
    sub.add_argument("--train-images", type=int, default=1000, help="images of the list train")
    sub.add_argument("--test-images", type=int, default=400, help="images of the list val")
    fetched(kind("pascal", prepare_pascal_command, "VOC 2012 and SBD, for Pascal-5i: 3.4 GB"))
    sub = kind("coco", prepare_coco_command, "COCO, for COCO-20i: 20.4 GB")
    sub.add_argument("--year", type=int, default=2017, choices=(2017, 2014), help="which COCO")
    sub.add_argument(
        "--splits", nargs="+", default=["train", "val"], choices=("train", "val"),
        help="which photos; val alone is 1.1 GB",
    )  # fmt: skip
    fetched(sub)


def _sources(options: argparse.Namespace) -> dict[str, Any]:
    """What pascal and coco have in common."""
    return {
        "given": Path(options.given) if options.given else None,
        "mirror": options.mirror,
        "keep_archives": options.keep_archives,
        "dry_run": options.dry_run,
    }
