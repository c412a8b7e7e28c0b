"""``python -m pmms``: train, evaluate, predict, run, tables, folds, and data on the disk."""

import argparse
import ast
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from pmms.data_commands import add_command, add_data_commands


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parse(arguments)
    try:
        if getattr(options, "devices", 1) * getattr(options, "nodes", 1) > 1:
            from pmms.together import together

            words = sys.argv[1:] if arguments is None else list(arguments)
            return together(options, words)
        return options.command(options) or 0
    except (ValueError, TypeError, OSError, RuntimeError, FloatingPointError) as error:
        print(f"pmms: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("pmms: stopped", file=sys.stderr)
        return 130
    except Exception as error:  # TrainingInterrupted is the one that is part of normal use
        if type(error).__name__ != "TrainingInterrupted":
            raise
        print(f"pmms: {error}", file=sys.stderr)
        return 130


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The words of a command line, read."""
    return _parser().parse_args(arguments)


def train_command(options: argparse.Namespace) -> None:
    """Train one model and write it to a file."""
    from pmms.checkpoints import check_ending, save_model
    from pmms.data import load_data
    from pmms.distributed import Team
    from pmms.experiment import new_model, prepare_images, train_model
    from pmms.files import check_writable
    from pmms.together import say

    config = _config(options)
    where = _where(options)
    folder = Path(options.runs) / config.training_name
    out = check_ending(options.out or folder / "model.safetensors")
    check_writable(out.parent)
    data = load_data(config.data, cache=options.cache)
    model = new_model(config)
    images = prepare_images(config, data, model.backbone, cache=options.cache, **where)
    history = train_model(
        config, model, data, images, folder=folder, tensorboard=options.tensorboard, **where
    )
    if Team(options.fabric).chief:
        save_model(model, out, size=config.data.test_size, parameters=config.flat())
    say(
        options,
        f"loss {history[0].loss:.3f} -> {history[-1].loss:.3f}; log and checkpoint in {folder}",
    )
    say(options, f"model written to {out}")


def evaluate_command(options: argparse.Namespace) -> None:
    """Test a model that ``train`` has written, on the data it was trained for."""
    from pmms.checkpoints import load_model, load_notes
    from pmms.config import changed_run
    from pmms.data import load_data
    from pmms.experiment import evaluate_model, prepare_images
    from pmms.together import say

    model, _ = load_model(options.model)
    parameters = load_notes(options.model).get("parameters")
    if parameters is None:
        raise ValueError(
            f"{options.model} does not say what it was trained on; `evaluate` tests models that "
            "`train` has written"
        )
    config = changed_run(parameters, **_changes(options))
    where = _where(options)
    data = load_data(config.data, cache=options.cache)
    images = prepare_images(
        config, data, model.backbone, cache=options.cache, training=False, **where
    )
    result = evaluate_model(config, model, data, images, **where)
    say(options, result.table())
    say(options, f"\nprotocol {config.protocol.label}, {config.protocol.shots}-shot")


def run_command(options: argparse.Namespace) -> None:
    """Train, evaluate with controls, and write the run record."""
    from pmms.experiment import run
    from pmms.together import say

    config = _config(options)
    path = Path(options.results) / f"{config.name}.json"
    if path.is_file() and not options.again:
        say(options, f"{path} exists; nothing to do (--again runs it anew)")
        return
    record = run(
        config,
        results=options.results,
        runs=options.runs,
        cache=options.cache,
        tensorboard=options.tensorboard,
        **_where(options),
    )
    for name, values in record.scores.items():
        low, high = values["interval"]
        say(options, f"{name:>14}  mIoU {values['miou']:6.2f}  ({low:.2f} to {high:.2f})")
    say(options, f"record written to {path}")


def predict_command(options: argparse.Namespace) -> None:
    """Segment a picture of your own."""
    from PIL import Image

    from pmms.checkpoints import load_model
    from pmms.files import write_atomically
    from pmms.predict import (
        DEFAULT_SIZE,
        overlay,
        png_bytes,
        read_mask,
        read_picture,
        segment_image,
        training_free_model,
    )

    support = [
        (read_picture(image), read_mask(mask, label=options.label))
        for image, mask in options.support
    ]
    query = read_picture(options.query)
    out, stem = Path(options.out), Path(options.query).stem
    found, shown = out / f"{stem}_found.png", out / f"{stem}_overlay.png"
    given = [Path(path) for path in (options.query, *chain.from_iterable(options.support))]
    for path in (found, shown):
        if any(path.exists() and path.samefile(one) for one in given):
            raise ValueError(f"the answer would replace {path}; name another folder with --out")
    if options.model:
        model, size = load_model(options.model)
    else:
        model, size = training_free_model(k=options.k, kappa=options.kappa), DEFAULT_SIZE
    result = segment_image(support, query, model=model, size=options.size or size)
    mask = Image.fromarray((result.mask * 255).astype("uint8"))
    write_atomically(found, png_bytes(mask))
    write_atomically(shown, png_bytes(overlay(query, result.mask)))
    print(f"{100 * result.mask.mean():.1f} % of {options.query} is foreground")
    print(f"written: {found} and {shown}")


def tables_command(options: argparse.Namespace) -> None:
    """Write all tables from the run records, and fill those of the README and the book."""
    from pmms.tables import PAGES, fill_files, write_tables

    # The tables of another protocol do not take the place of these.
    folder = options.profile + f"-{options.protocol}" * (options.protocol != "ours")
    output = options.output or Path(options.results) / "tables" / folder
    changed = write_tables(options.results, output, options.profile, protocol=options.protocol)
    files = options.files or [page for page in PAGES if Path(page).is_file()]
    changed += fill_files(options.results, files)
    for path in changed:
        print(f"changed {path}")
    if not changed:
        print("all tables are up to date")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pmms",
        description="Prototype mixture models for few-shot segmentation. Without options everything"
        " runs on data drawn by code, on the CPU, without a download.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: Any, help: str) -> argparse.ArgumentParser:
        return add_command(commands, name, function, help)

    def compute(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--device", default="cpu", help="for example cpu or cuda")
        sub.add_argument("--workers", type=int, default=2, help="processes that load images")
        sub.add_argument("--cache", default=".cache/pmms", help="folder for kept features")
        sub.add_argument("--devices", type=int, default=1, help="processes, each with its own GPU")
        sub.add_argument("--nodes", type=int, default=1, help="machines with as many each")
        sub.add_argument(
            "--precision", choices=("float32", "bfloat16"), help="as --set precision=..."
        )
        sub.set_defaults(fabric=None)

    def settings(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--profile", default="mini", choices=("mini", "paper"),
            help="mini: minutes on a CPU, nothing to download; paper: the paper's settings",
        )  # fmt: skip
        _add_set(sub)
        compute(sub)
        sub.add_argument("--runs", default="runs", help="folder for checkpoints and logs")
        sub.add_argument("--tensorboard", action="store_true", help="also log to TensorBoard")

    sub = command("train", train_command, "train a model")
    settings(sub)
    sub.add_argument("--out", default="", help="model file to write; default: in the run's folder")

    sub = command("evaluate", evaluate_command, "test a model that was trained")
    sub.add_argument("model", help="a .safetensors file written by train")
    _add_set(sub)
    compute(sub)

    sub = command("run", run_command, "train, evaluate and write the run record")
    settings(sub)
    sub.add_argument("--results", default="results", help="folder for run records")
    sub.add_argument("--again", action="store_true", help="run even if the record exists")

    sub = command("predict", predict_command, "segment a picture of your own")
    sub.add_argument(
        "--support", nargs=2, action="append", required=True, metavar=("IMAGE", "MASK"),
        help="a picture and the mask of the object in it; repeat it for several shots",
    )  # fmt: skip
    sub.add_argument("--query", required=True, metavar="IMAGE", help="the picture to segment")
    sub.add_argument("--label", type=int, default=None, help="value of the object in the masks")
    sub.add_argument("--model", default="", help="a trained model; default: no training at all")
    sub.add_argument("--k", type=int, default=3, help="prototypes, without a trained model")
    sub.add_argument("--kappa", type=float, default=20.0, help="concentration, likewise")
    sub.add_argument("--size", type=int, default=0, help="side in pixels; default: the model's")
    sub.add_argument("--out", default=".", help="folder for mask and overlay")

    sub = command("tables", tables_command, "write all tables of the book from run records")
    sub.add_argument("files", nargs="*", help="files to fill; default: README and the book's pages")
    sub.add_argument("--profile", default="mini", choices=("mini", "paper"), help="whose tables")
    sub.add_argument("--protocol", default="ours", help="of the paper profile's runs")
    sub.add_argument("--results", default="results", help="folder of run records")
    sub.add_argument("--output", default="", help="folder for the tables; default: in results")

    add_data_commands(commands)
    return parser


def _add_set(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE",
        help="parameters of the run, for example fold=1 model=rpmms k=5 iterations=2000; a wrong "
        "name is answered with the list of all",
    )  # fmt: skip


def _config(options: argparse.Namespace) -> Any:
    from pmms.config import run_config

    return run_config(options.profile, **_changes(options))


def _changes(options: argparse.Namespace) -> dict[str, Any]:
    """Parameters of the run from the command line."""
    parameters = _parameters(options.set)
    if options.precision is not None:
        parameters["precision"] = options.precision
    return parameters


def _where(options: argparse.Namespace) -> dict[str, Any]:
    """Where a command computes."""
    return {"device": options.device, "workers": options.workers, "fabric": options.fabric}


def _parameters(settings: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE words to a dict; values are Python literals, or else plain text."""
    parameters = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name:
            raise ValueError(f"a parameter is given as NAME=VALUE, got {setting!r}")
        try:
            parameters[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            parameters[name] = text
    return parameters


if __name__ == "__main__":
    sys.exit(main())
