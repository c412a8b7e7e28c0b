"""The grid: names of records, runs that tables share, and what the profiles have."""

from dataclasses import replace
from pathlib import Path

import pytest

from pmms import paper
from pmms.authors import AUTHORS_OPTIONS
from pmms.checkpoints import load_model, load_notes
from pmms.config import PROFILES, run_config
from pmms.grid import MINI_ITERATIONS, Row, Table, runs, tables, weights_of
from pmms.grid_beyond import MINI_DEVIATIONS, PAPER_DEVIATIONS
from pmms.results import load_record

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"


@pytest.mark.parametrize("profile", PROFILES)
def test_names_are_those_of_the_runs_and_no_run_stands_twice(profile: str) -> None:
    found = runs(profile, root="data")
    names = [run_config(profile, **parameters).name for parameters in found.values()]
    assert list(found) == names
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_cell_of_every_table_is_among_the_runs(profile: str) -> None:
    found = runs(profile)
    for table in tables(profile).values():
        for row in table.rows:
            for seed, fold in table.cells(row):
                if not table.folder:
                    assert table.config(profile, row, seed, fold).name in found


def test_committed_records_of_photographs_are_in_the_grid() -> None:
    for name in ("photos-1-shot", "photos-5-shot"):
        table = tables("mini")[name]
        for row in table.rows:
            for cell in table.cells(row):
                path = RESULTS / table.folder / f"{table.config('mini', row, *cell).name}.json"
                assert path.is_file(), path


def test_table_1_has_four_models_with_five_seeds_on_four_folds() -> None:
    table = tables("mini")["table-1"]
    assert [row.label for row in table.rows] == ["baseline", "PMMs+", "PMMs", "RPMMs"]
    assert [row.paper["mean"] for row in table.rows] == [51.93, 54.63, 55.27, 56.34]
    assert len(table.cells(table.rows[0])) == 20
    assert len(runs("mini", ["table-1"])) == 80


def test_first_runs_are_those_of_table_1_and_a_seed_ends_before_the_next_begins() -> None:
    every = list(runs("mini").values())
    first = every[:16]
    assert {p["seed"] for p in first} == {0}
    assert [p["model"] for p in first[:4]] == ["baseline", "pmms_plus", "pmms", "rpmms"]
    assert [p["fold"] for p in first[::4]] == [0, 1, 2, 3]
    seeds = [max(p.get("seed", 0), p.get("em_seed", 0)) for p in every]
    assert seeds == sorted(seeds)


def test_a_seed_is_also_the_start_of_em_where_there_is_a_mixture() -> None:
    table = tables("mini")["table-1"]
    starts = {
        row.label: {seed: table.parameters(row, seed, 0)["em_seed"] for seed in table.seeds}
        for row in table.rows
    }
    assert set(starts.pop("baseline").values()) == {0}
    assert all(of_row == {seed: seed for seed in table.seeds} for of_row in starts.values())
    one, two = tables("mini")["table-2"].rows[:2]
    assert tables("mini")["table-2"].parameters(one, 2, 0)["em_seed"] == 0
    assert tables("mini")["table-2"].parameters(two, 2, 0)["em_seed"] == 2


def test_kappa_without_training_is_that_of_em_alone() -> None:
    for profile in PROFILES:
        table = tables(profile)["free-kappa"]
        found = [table.config(profile, row, 0, 0).model for row in table.rows]
        assert [one.kappa for one in found] == [5, 10, 20, 40, 80]
        assert {one.p_conv_kappa for one in found} == {20}


def test_records_of_one_training_have_one_loss_curve() -> None:
    """Tables 4 and 5 test the same weights: the second record did not train anew."""
    curves: dict[str, set[tuple[tuple[int, float], ...]]] = {}
    for name, parameters in runs("mini").items():
        path = RESULTS / f"{name}.json"
        config = run_config("mini", **parameters)
        if config.model.learns and path.is_file():
            curve = tuple((step, loss) for step, loss in load_record(path).loss)
            curves.setdefault(config.training_name, set()).add(curve)
    assert curves
    assert {name for name, found in curves.items() if len(found) > 1} == set()


def test_tables_share_runs() -> None:
    alone = [set(runs("mini", [name])) for name in ("table-1", "table-2", "table-4")]
    assert len(alone[0] & alone[1]) == 12  # PMMs+ with K = 3
    assert alone[2] < alone[0]
    assert len(runs("mini", ["table-1", "table-2", "table-4"])) == len(set.union(*alone))


def test_trained_mini_runs_have_the_same_length() -> None:
    """Other lengths are looked at on validation classes alone."""
    lengths: dict[bool, set[int]] = {True: set(), False: set()}
    for parameters in runs("mini").values():
        config = run_config("mini", **parameters)
        if config.model.learns:
            lengths[config.data.validation].add(config.train.iterations)
    assert lengths == {False: {MINI_ITERATIONS}, True: {600, MINI_ITERATIONS, 3000}}


def test_parameters_are_the_ones_that_differ_from_the_profile() -> None:
    for profile in PROFILES:
        for parameters in runs(profile).values():
            for name in parameters.keys() - {"model", "fold", "seed"}:
                assert name not in PROFILES[profile] or PROFILES[profile][name] != parameters[name]


def test_without_training_the_seed_is_the_start_of_em() -> None:
    table = tables("mini")["free-k"]
    one, three = table.row("K = 1"), table.row("K = 3")
    assert table.config("mini", three, 4, 1).model.seed == 4
    assert table.config("mini", three, 4, 1).train.seed == 0
    # One prototype has no start.
    assert {table.config("mini", one, seed, 1).name for seed in range(5)} == {
        table.config("mini", one, 0, 1).name
    }
    assert len(runs("mini", ["free-k"])) == 4 + 4 * 20


def test_deviations_are_all_of_the_authors_options() -> None:
    for deviations in (MINI_DEVIATIONS, PAPER_DEVIATIONS):
        every = {name: value for change in deviations.values() for name, value in change.items()}
        assert AUTHORS_OPTIONS.items() <= every.items()
    for profile in PROFILES:
        table = tables(profile)["deviations"]
        base = table.config(profile, table.row("as in this book"), 0, 0)
        names = {table.config(profile, row, 0, 0).name for row in table.rows}
        assert len(names) == len(table.rows), "a row that changes nothing"
        for row in table.rows[1:-1]:
            config = table.config(profile, row, 0, 0)
            changed = {k for k, v in config.flat().items() if v != base.flat()[k]}
            assert changed == set(row.parameters)


def test_paper_profile_has_both_data_sets_and_backbones() -> None:
    configs = [run_config("paper", **p) for p in runs("paper", root="data").values()]
    assert {c.data.dataset for c in configs} == {"pascal", "coco"}
    assert {c.model.backbone for c in configs} == {"resnet50", "vgg16"}
    assert {c.protocol.shots for c in configs} == {1, 5}
    assert {c.data.root for c in configs} == {"data/pascal", "data/coco"}
    assert {p["root"] for p in runs("paper", ["table-1"], root="elsewhere").values()} == {
        "elsewhere/pascal"
    }
    without = runs("paper", ["table-1", "table-6-1-shot"])
    assert list(without) == list(runs("paper", ["table-1", "table-6-1-shot"], root="b"))
    assert not any("root" in parameters for parameters in without.values())


@pytest.mark.parametrize("protocol", ["authors", "hsnet", "pfenet"])
def test_paper_profile_under_another_protocol(protocol: str) -> None:
    found = runs("paper", ["table-1", "controls", "table-6-1-shot"], protocol=protocol, root="d")
    configs = [run_config("paper", **parameters) for parameters in found.values()]
    assert {c.protocol.name for c in configs} == {protocol}
    lists = {c.data.train_lists for c in configs if c.data.dataset == "pascal"}
    assert lists == {"authors" if protocol == "authors" else "split"}
    masks = {c.data.masks for c in configs if c.data.dataset == "coco"}
    assert masks == {"first_polygon" if protocol == "authors" else "all"}
    entries = [row.entry for row in tables("paper", protocol=protocol)["controls"].rows]
    assert ("seen_classes" in entries) == (protocol != "authors")


def test_table_6_of_the_mini_profile_has_the_paper_alone() -> None:
    table = tables("mini")["table-6-5-shot"]
    assert runs("mini", [table.name]) == {}
    assert {row.label: row.paper["mean"] for row in table.rows}["RPMMs"] == 35.52
    assert "PROFILE=paper" in table.notes[0]


def test_rows_carry_the_papers_numbers() -> None:
    for profile in PROFILES:
        of_profile = tables(profile)
        for number, name in ((2, "table-2"), (3, "table-3")):
            for row, label in zip(of_profile[name].rows, paper.TABLES[number].rows, strict=True):
                assert row.paper == paper.TABLES[number].values(label)
    of_coco = tables("paper")["table-6-1-shot"]
    assert of_coco.row("baseline").paper["3"] == 24.67
    assert tables("paper")["table-4-vgg16"].row("RPMMs").paper["mean"] == 53.02
    assert tables("paper")["table-5-resnet50"].row("baseline").paper == {}


def test_what_is_wrong_is_refused() -> None:
    with pytest.raises(ValueError, match="profile must be one of"):
        tables("large")
    with pytest.raises(ValueError, match="protocol must be"):
        tables("mini", protocol="hsnet")
    with pytest.raises(ValueError, match=r"table must be one of .*table-1"):
        runs("mini", ["table-9"])
    row = Row(label="a")
    with pytest.raises(ValueError, match="different labels"):
        Table(name="t", title="t", header="h", rows=(row, row), against="a")
    with pytest.raises(ValueError, match="against must be"):
        Table(name="t", title="t", header="h", rows=(row,), against="b")


def test_a_table_can_grow_by_seeds() -> None:
    table = tables("mini")["kappa"]
    grown = replace(table, seeds=(0, 1, 2))
    assert len(grown.cells(grown.rows[0])) == 3 * len(table.cells(table.rows[0]))


def test_the_weights_that_come_with_the_book_are_those_of_table_1() -> None:
    folder = ROOT / "models"
    for model in ("baseline", "pmms_plus", "pmms", "rpmms"):
        path = folder / weights_of(model)
        loaded, size = load_model(path)
        assert (loaded.config.name, size) == (model, 160)
        record = load_record(ROOT / "results" / f"{load_notes(path)['record']}.json")
        assert record.parameters["model"] == model
        assert f"{record.scores['model']['miou']:.2f}" in path.with_suffix(".md").read_text()
    with pytest.raises(ValueError, match="model must be one of"):
        weights_of("no_support")
