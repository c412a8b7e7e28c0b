"""The benchmarks measure what they say: plain forms equal the fast ones, statistics are right."""

import gc
import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fakes import fake_dataset, tiny_model

from pmms.episodes import EpisodeSampler
from pmms.evaluation import Result, evaluate
from pmms.feature_computing import feature_bank
from pmms.heads import BlockStyle, PMatch
from pmms.metrics import scores
from pmms.mixture import fit_mixture
from pmms.model_config import MODELS
from pmms.protocols import Protocol
from pmms.results import load_record
from pmms.tables import fill
from pmms.training import TrainConfig, segmentation_loss, train
from pmms.transforms import TrainTransform

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks"
SCRIPTS = {path.stem.removeprefix("bench_") for path in FOLDER.glob("bench_*.py")}
RECORDS = sorted((ROOT / "results").glob("bench-*.json"))


@pytest.fixture(autouse=True)
def _benchmarks_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    torch.manual_seed(0)


def module(name: str) -> ModuleType:
    return importlib.import_module(name)


# plain forms


@pytest.mark.parametrize("norm", ["batch", "none", "group"])
@pytest.mark.parametrize("k", [1, 3, 10])
@torch.inference_mode()
def test_plain_p_match(norm: str, k: int) -> None:
    p_match = PMatch(64, style=BlockStyle(norm=norm)).eval()
    query, prototypes = torch.randn(1, 64, 21, 17), torch.randn(1, k, 64)
    plain = module("plain").p_match(p_match, query, prototypes)
    error = (p_match(query, prototypes) - plain).abs().max() / plain.abs().max()
    assert error < 2e-6


def test_plain_em() -> None:
    samples = F.normalize(torch.randn(2, 90, 16), dim=2)
    mask = (torch.rand(2, 90) < 0.4).float()
    start = samples[:, :3]
    plain = module("plain").em(samples.transpose(1, 2), mask, start)
    ours = fit_mixture(samples, mask, k=3, init=start).means
    torch.testing.assert_close(plain, ours, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shots", [1, 3])
def test_plain_evaluation_gives_the_same_counts(shots: int) -> None:
    dataset, model = fake_dataset(20), tiny_model()
    protocol = Protocol(shots=shots, episodes=12, seeds=(3,))
    sampler = EpisodeSampler(dataset, [1, 2], shots=shots, length=12, seed=3)
    ours = evaluate(model, dataset, [1, 2], protocol=protocol, size=32)
    plain, counts = module("plain").evaluate(model, sampler, 32)
    assert torch.equal(counts, ours.counts)
    assert plain.miou == ours.scores.miou


# statistics


def test_sides_run_in_turn_and_the_first_round_does_not_count() -> None:
    harness, calls = module("harness"), []
    result = harness.compare({name: lambda n=name: calls.append(n) for name in "ab"}, rounds=4)
    assert calls == ["a", "b"] * 5
    assert set(result["seconds"]) == {"a", "b"}
    assert set(result["ratio"]) == {"b"}


def test_ratio_is_that_of_the_times(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = module("harness")
    times = {"fast": iter([9.0, 1, 2, 1]), "slow": iter([9.0, 4, 8, 5])}
    monkeypatch.setattr(harness, "timed", lambda side: next(times[side()]))
    result = harness.compare({"fast": lambda: "fast", "slow": lambda: "slow"}, rounds=3)
    assert result["ratio"] == {"slow": 4.0}
    assert result["interval"] == {"slow": [4.0, 5.0]}
    assert result["seconds"] == {"fast": 1.0, "slow": 5.0}


def test_interval_holds_the_median_as_often_as_it_says() -> None:
    harness = module("harness")
    generator = torch.Generator().manual_seed(0)
    inside = 0
    for _ in range(2000):
        low, high = harness.interval(torch.randn(25, generator=generator).tolist())
        inside += low <= 0 <= high
    assert 0.93 < inside / 2000 < 0.99


def test_exponent_of_a_power() -> None:
    exponent = module("harness").exponent
    assert exponent([1, 10, 100], [5.0, 500, 50_000]) == pytest.approx(2)
    assert exponent([1, 2, 4], [3.0, 3, 3]) == pytest.approx(0, abs=1e-12)


def test_peak_memory_counts_what_is_freed_again() -> None:
    def side() -> None:
        first = torch.zeros(1_000_000)  # 4 MB
        second = first + 1
        del first
        second.add_(1)

    assert module("harness").peak_megabytes(side) == pytest.approx(8, rel=0.01)


def test_arithmetic_of_a_convolution() -> None:
    conv = torch.nn.Conv2d(3, 5, 3, padding=1, device="meta")
    image = torch.empty(2, 3, 8, 9, device="meta")
    counted = module("harness").gigaflops(lambda: conv(image))
    assert counted == pytest.approx(2 * 2 * 8 * 9 * 5 * 3 * 9 / 1e9)


def test_roofline_is_positive() -> None:
    assert all(v >= 0 for v in module("harness").roofline(quick=True).values())


@pytest.mark.parametrize(
    "row, expected",
    [
        ({"goal": ["plain", ">=", 4], "ratio": {"plain": 4.1}, "seconds": {}}, True),
        ({"goal": ["plain", ">=", 4], "ratio": {"plain": 3.9}, "seconds": {}}, False),
        ({"goal": ["ours", "<=", 1.5], "ratio": {"ours": 1.6}, "seconds": {}}, False),
        ({"goal": ["update", "<=", 0.3], "seconds": {"update": 0.1}}, True),
        (
            {"goal": ["plain", ">=", 4], "ratio": {"plain": 9}, "error": 1, "error_goal": 2e-6},
            False,
        ),
    ],
)
def test_a_goal_is_met_by_the_number_and_the_error(row: dict, expected: bool) -> None:
    assert module("report").met(row) is expected


# runs, records, page


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_committed_records_are_of_full_runs(path: Path) -> None:
    record = load_record(path)
    assert record.name == path.stem
    assert record.parameters["quick"] is False
    assert record.seconds["benchmark"] > 0


def test_every_benchmark_leaves_a_record_that_the_page_shows() -> None:
    shown = {name.replace("-", "_") for name in (*module("report").ORDER, "growth")}
    assert shown >= SCRIPTS - {"paper"}  # shown by another page
    assert shown - SCRIPTS == {"evaluation_full"}


def test_the_page_shows_the_records() -> None:
    report = module("report")
    text = (ROOT / report.PAGE).read_text(encoding="utf-8")
    found = report.records(ROOT / "results")
    assert fill(text, report.blocks(found)) == text, "run `python benchmarks/report.py`"


def test_figures_of_the_page_are_there() -> None:
    report = module("report")
    for label in report.figures(report.records(ROOT / "results")):
        assert (ROOT / "figures" / f"{label}.svg").is_file()
        assert f"{{figure}} figures/{label}.svg" in (ROOT / report.PAGE).read_text(encoding="utf-8")


def test_nothing_grows_faster_than_expected() -> None:
    for record in module("report").records(ROOT / "results").values():
        for name, row in record.scores.items():
            if "exponent" in row:
                # Half a power for caches: what fits into one is faster than what does not.
                assert row["exponent"]["time"] < row["expected"] + 0.5, name
                assert row["exponent"]["memory"] < row["expected"] + 0.05, name


def test_change_of_miou_is_paired() -> None:
    change = module("bench_options").change
    ids = torch.tensor([1, 2] * 30)
    counts = torch.randint(1, 1000, (60, 4)).sort(dim=1).values
    default = Result(ids, counts, scores(ids, counts), (), {}, Protocol())
    same = change(default, default)
    assert same["change"] == 0
    assert same["interval"]["change"] == [0, 0]
    assert same["episodes_changed"] == 0
    worse = counts.clone()
    worse[:, 0] //= 2
    other = change(default, Result(ids, worse, scores(ids, worse), (), {}, Protocol()))
    low, high = other["interval"]["change"]
    assert low < other["change"] < high < 0
    assert other["episodes_changed"] >= 59


# memory


def peak(side: Callable[[], object]) -> float:
    """Bytes of tensors, largest, in a call; the first call of a process may keep things."""
    side()
    return 1e6 * module("harness").peak_megabytes(side)


def trained(steps: int, *, kept: bool) -> Callable[[], object]:
    """A short training, from kept features or from images."""
    dataset, model = fake_dataset(20), tiny_model()
    sampler = EpisodeSampler(dataset, (1, 2, 3), length=2 * steps)
    source = feature_bank(dataset, model.backbone, size=32) if kept else TrainTransform(32)
    config = TrainConfig(iterations=steps, batch_size=2, learning_rate=0.01, log_every=5)
    return lambda: train(model, source, sampler, config)


@pytest.mark.parametrize("kept", [True, False])
def test_no_training_step_takes_more_memory_than_those_before(kept: bool) -> None:
    few, many = trained(6, kept=kept), trained(18, kept=kept)
    few()  # what is made once in a process
    assert peak(many) - peak(few) < 12 * 100


def test_no_training_step_leaves_python_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []

    def loss(*arguments: Any, **options: Any) -> torch.Tensor:
        gc.collect()
        left.append(len(gc.get_objects()))
        return segmentation_loss(*arguments, **options)

    monkeypatch.setattr("pmms.training.segmentation_loss", loss)
    trained(30, kept=True)()
    assert len(left) == 30
    # A point of the loss curve every fifth step, and nothing more.
    assert left[-1] - left[10] < 10


def evaluated(episodes: int) -> Callable[[], object]:
    dataset, model = fake_dataset(20), tiny_model()
    protocol = Protocol(episodes=episodes, seeds=(0,))
    return lambda: evaluate(model, dataset, (1, 2, 3), protocol=protocol, size=32)


def test_an_evaluated_episode_leaves_its_counts_and_no_more() -> None:
    few, many = peak(evaluated(20)), peak(evaluated(40))
    assert many - few < 20 * 100  # four counts and a class are 40 bytes


def test_the_measure_of_memory_sees_what_grows() -> None:
    def side(steps: int) -> Callable[[], object]:
        return lambda: [torch.zeros(256) for _ in range(steps)]

    assert peak(side(40)) - peak(side(10)) >= 30 * 1024


@pytest.mark.parametrize("init", ["random", "kmeans++"])
@pytest.mark.parametrize("kernel", ["vmf", "gaussian"])
def test_em_holds_nothing_for_pairs_of_samples(kernel: str, init: str) -> None:
    samples, weights = torch.rand(1, 4000, 4), torch.rand(1, 4000)
    taken = peak(lambda: fit_mixture(samples, weights, k=3, kernel=kernel, init=init, n_iter=3))
    assert taken < samples.shape[1] ** 2 * 4 / 50


@pytest.mark.parametrize("name", MODELS)
def test_no_model_holds_anything_for_pairs_of_positions(name: str) -> None:
    model, side = tiny_model(name).eval(), 64
    channels = 12 if name == "training_free" else 8
    support, query = torch.rand(1, 2, channels, side, side), torch.rand(1, channels, side, side)
    mask = torch.zeros(1, 2, 1, side, side)
    mask[..., 10:30, 10:30] = 1
    with torch.inference_mode():
        taken = peak(lambda: model.compare(support, mask, query))
    assert taken < side**4 * 4 / 5


# import


def test_import_loads_nothing_heavy_beyond_torch() -> None:
    code = (
        "import sys, torch; before = set(sys.modules); "
        "import pmms; print(*(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = done.stdout.split()
    tops = {name.partition(".")[0] for name in loaded}
    assert "pmms" in tops
    heavy = {"torchvision", "timm", "sklearn", "matplotlib", "tensorboard", "pycocotools", "PIL"}
    assert not tops & heavy
    assert not any(name.startswith("torch._dynamo") for name in loaded)
