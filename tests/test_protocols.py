"""Protocols by name: what is promised, what may be changed and how that shows, the book's page."""

from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from typing import Any

import pytest

from pmms.grid import tables
from pmms.protocols import FIXED, FREE, PRESETS, PROTOCOLS, Protocol
from pmms.results import RunRecord, load_record
from pmms.table_records import one_protocol
from pmms.tables import SETTINGS, blocks, fill, protocol_table

ROOT = Path(__file__).parents[1]
PROTOCOL_BLOCKS = ("protocols-pascal", "protocols-coco", "protocol-notes")


def test_the_presets_are_as_they_were_read() -> None:
    """The settings of each in one line, so that a change is seen."""

    def line(name: str, form: Any = "pascal") -> tuple[Any, ...]:
        p = Protocol(name=name, form=form)
        return (
            p.episodes, p.seeds, p.lists, p.sampler, p.size, p.aspect, p.void, p.resolution,
            p.query_mask, p.fusion, p.fb_iou, p.checkpoint,
        )  # fmt: skip

    assert line("ours") == line("ours", "coco") == (
        1000, (0, 1, 2, 3, 4), "split", "ours", None, "squash", "ignore", "original", "exact",
        "joint", True, "last",
    )  # fmt: skip
    authors = (1000, (1385,), "authors", "authors", 481, "squash", "background", "original",
               "resized", "joint", False, "last")  # fmt: skip
    assert line("authors") == authors
    assert line("authors", "coco") == (*authors[:2], "split", *authors[3:])
    hsnet = (1000, (0,), "authors", "hsnet", 400, "squash", "ignore", "network", "resized",
             "vote", True, "last")  # fmt: skip
    assert line("hsnet") == hsnet
    assert line("hsnet", "coco") == (*hsnet[:2], "split", *hsnet[3:6], "background", *hsnet[7:])
    pfenet = (5000, (321,), "area", "pfenet", 473, "pad", "ignore", "original", "exact", "joint",
              True, "last")  # fmt: skip
    assert line("pfenet") == pfenet
    assert line("pfenet", "coco") == (20_000, *pfenet[1:4], 641, *pfenet[5:])


def test_every_setting_is_free_or_fixed_and_set_by_every_preset() -> None:
    settings = {field.name for field in fields(Protocol)} - {"name", "form", "shots"}
    assert settings == {*FREE, *FIXED}
    assert not set(FREE) & set(FIXED)
    for preset in PRESETS.values():
        assert set(preset.settings) == settings
        assert set(preset.coco) <= settings
        assert len(preset.traps) >= 2
        assert preset.source
        assert preset.meaning
    assert settings == set(SETTINGS)
    assert list(PROTOCOLS) == list(PRESETS)


@pytest.mark.parametrize("form", ["pascal", "coco"])
@pytest.mark.parametrize("name", list(PRESETS))
def test_a_bare_name_is_kept_with_any_shots_and_lost_with_any_change(name: str, form: Any) -> None:
    preset = Protocol(name=name, form=form)
    assert preset.label == name
    assert replace(preset, shots=5).label == name
    assert replace(preset, episodes=preset.episodes).label == name
    changed = {
        "episodes": (7, "episodes=7"), "seeds": ((3, 9), "seeds=3+9"), "size": (97, "size=97"),
    }  # fmt: skip
    for setting, (value, shown) in changed.items():
        assert replace(preset, **{setting: value}).label == f"{name} ({shown})"
    every = replace(preset, size=97, seeds=8, episodes=7)
    assert every.label == f"{name} (episodes=7, seeds=8, size=97)"


@pytest.mark.parametrize("name", list(PRESETS))
@pytest.mark.parametrize("setting", FIXED)
def test_what_a_preset_fixes_cannot_be_changed_under_its_name(name: str, setting: str) -> None:
    others: dict[str, Any] = {
        "lists": ("split", "authors"), "sampler": ("ours", "hsnet"), "aspect": ("squash", "pad"),
        "void": ("ignore", "background"), "resolution": ("original", "network"),
        "query_mask": ("exact", "resized"), "fusion": ("joint", "vote"), "fb_iou": (True, False),
        "checkpoint": ("last", "best"),
    }  # fmt: skip
    preset = PROTOCOLS[name]
    other = next(value for value in others[setting] if value != getattr(preset, setting))
    with pytest.raises(ValueError, match=f"^{setting} must be") as error:
        replace(preset, **{setting: other})
    if setting != "checkpoint":  # there is no other
        assert "give another protocol its own name" in str(error.value)
        own: dict[str, Any] = {"query_mask": "resized"} if setting == "resolution" else {}
        own |= {"resolution": "original"} if setting == "query_mask" else {}
        assert replace(preset, name="mine", **own | {setting: other}).label == "mine"


@pytest.mark.parametrize(
    "name", ["HSNet", " ours", "Authors", "ours ", "", "  ", "ours (5)", "a=b"]
)
def test_a_name_of_ones_own_is_unlike_a_preset_s(name: str) -> None:
    with pytest.raises(ValueError, match=r"^name must be"):
        Protocol(name=name)


def test_settings_of_ones_own_protocol_are_ours_where_not_given() -> None:
    mine = Protocol(name="mine", void="background", fusion="vote")
    ours = PROTOCOLS["ours"]
    assert mine == replace(ours, name="mine", void="background", fusion="vote")
    assert mine.changes == {}


@pytest.mark.parametrize(
    "name, value",
    [
        ("form", "voc"), ("size", 0), ("size", 1.5), ("size", True), ("fb_iou", 1),
        ("lists", "mine"), ("sampler", "random"), ("aspect", "keep"), ("fusion", "mean"),
        ("query_mask", "near"), ("seeds", 1.5), ("episodes", True), ("shots", -1),
    ],
)  # fmt: skip
def test_values_that_do_not_fit(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be"):
        Protocol(name="mine", **{name: value})


def test_scoring_at_the_network_s_size_needs_a_resized_mask() -> None:
    with pytest.raises(ValueError, match="query_mask must be 'resized' at resolution 'network'"):
        Protocol(name="mine", resolution="network")


def test_protocols_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        PROTOCOLS["ours"].episodes = 3  # type: ignore[misc]


@pytest.mark.parametrize("form", ["pascal", "coco"])
@pytest.mark.parametrize("name", [*PRESETS, "mine"])
def test_a_record_gives_the_protocol_back(name: str, form: Any) -> None:
    for protocol in (
        Protocol(name=name, form=form, shots=5),
        Protocol(name=name, form=form, episodes=9, seeds=(4, 5), size=33),
    ):
        record = RunRecord(
            name="x",
            parameters={},
            protocol=protocol.record() | {"left_out": {"cat": 1}},
            scores={},
        )
        assert record.protocol["name"] == protocol.label
        assert Protocol.from_record(record.protocol) == protocol


def test_the_first_records_are_of_ours() -> None:
    """They hold seven settings; the others did not exist, and were what ``ours`` has now."""
    paths = sorted((ROOT / "results").glob("parts-fold*-pmms-*.json"))
    assert paths
    for path in paths:
        protocol = Protocol.from_record(load_record(path).protocol)
        assert protocol.label == "ours"
        assert protocol == replace(PROTOCOLS["ours"], shots=protocol.shots)


def test_a_changed_protocol_has_no_place_in_the_column_of_the_bare_name() -> None:
    def record(protocol: Protocol) -> RunRecord:
        return RunRecord(
            name="x", parameters={"model": "pmms", "fold": 0}, protocol=protocol.record(),
            scores={"model": {"miou": 50.0}},
        )  # fmt: skip

    ours = PROTOCOLS["ours"]
    table = tables("mini")["table-1"]
    assert one_protocol(table, [record(ours), record(ours)]) == ours
    for other in (replace(ours, episodes=60), replace(ours, shots=5), PROTOCOLS["hsnet"]):
        with pytest.raises(ValueError, match="protocol"):
            one_protocol(table, [record(ours), record(other)])


def test_the_page_of_the_book_is_generated_from_the_settings() -> None:
    text = (ROOT / "book" / "protocols.md").read_text(encoding="utf-8")
    assert fill(text, blocks(ROOT / "results", PROTOCOL_BLOCKS)) == (text), (
        "run `python -m pmms tables book/protocols.md`"
    )
    table = protocol_table("pascal").splitlines()
    assert table[0] == "| | `authors` | `hsnet` | `pfenet` | `ours` |"
    assert "| episodes for each seed (`episodes`) | 1,000 | 1,000 | 5,000 | 1,000 |" in table
    assert "| image side in pixels (`size`) | 481 | 400 | 473 | the run's |" in table
    assert all(line.count("|") == 6 for line in table)


def test_examples_of_the_page_are_true() -> None:
    text = (ROOT / "book" / "protocols.md").read_text(encoding="utf-8")
    examples = [line for line in text.splitlines() if line.startswith("pmms.Protocol(")]
    assert len(examples) == 3
    for line in examples:
        code, _, label = line.partition("#")
        assert eval(code, {"pmms": __import__("pmms")}) == label.strip()
