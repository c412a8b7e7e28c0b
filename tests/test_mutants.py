"""The script of mutation testing: what it counts, and that its reasons can be read."""

import json

import mutants
from mutants import MODULES, ROOT, duration, is_wording, judged, outcomes, read_reasons

SAME = "heads.f: return sorted(a, key=size) => return sorted(a)"


def test_wording_is_letters_in_a_sentence_and_nothing_else() -> None:
    assert is_wording('metrics.f: "no class here" => "XXno class hereXX"')
    assert is_wording('metrics.f: raise ValueError("no class") => raise ValueError("NO CLASS")')
    assert not is_wording('metrics.f: raise ValueError("no class") => raise ValueError(None)')
    assert not is_wording('heads.f: einsum("bkc,bchw->bkhw", a) => einsum("BKC,BCHW->BKHW", a)')
    assert not is_wording("metrics.f: a + b => a - b")
    assert not is_wording('metrics.f: if a > 1: say("no class") => if a > 2: say("no class")')


def test_outcomes_are_read_from_what_mutmut_prints() -> None:
    first, second = "pmms.heads.x_f__mutmut_1", "pmms.metrics.xǁAǁf__mutmut_12"
    found = outcomes(f"    {first}: killed\n    {second}: no tests\n")
    assert found == {
        "heads": {first: "killed"}, "metrics": {second: "no tests"}, "episodes": {}, "mixture": {}
    }  # fmt: skip


def test_time_is_that_of_the_mutants_there_are(tmp_path) -> None:
    known, unmeasured, gone = (f"pmms.heads.x_f__mutmut_{i}" for i in (1, 2, 3))
    kept = {"durations_by_key": {known: 1.5, unmeasured: None, gone: 9.0}}
    (tmp_path / "heads.py.meta").write_text(json.dumps(kept), "utf-8")
    assert duration({"heads": {known: "killed", unmeasured: "no tests"}}, tmp_path) == 1.5


def test_every_mutant_is_counted_once() -> None:
    wording = 'heads.f: "no class here" => "no CLASS here"'
    gap = "heads.g: a + b => a - b"
    found = {
        "heads": [
            ("pmms.heads.x_f__mutmut_1", "killed"), ("pmms.heads.x_f__mutmut_2", "timeout"),
            (SAME, "survived"), (SAME, "survived"), (wording, "survived"), (gap, "no tests"),
        ],
        "mixture": [],
    }  # fmt: skip
    counts, gaps, used = judged(found, {SAME: "the order does not matter"})
    assert counts["heads"] == {
        "mutants": 6, "found": 2, "wording": 1, "the same": 2, "not found": 1
    }  # fmt: skip
    assert not any(counts["mixture"].values())
    assert (gaps, used) == ([gap], {"the order does not matter": 2})


def test_reasons_are_of_mutants_in_the_modules() -> None:
    assert set(MODULES) >= {mutant.partition(".")[0] for mutant in read_reasons()}
    for mutant in read_reasons():
        module, _, rest = mutant.partition(".")
        removed = rest.partition(": ")[2].partition(" => ")[0]
        code = " ".join((ROOT / "pmms" / f"{module}.py").read_text("utf-8").split())
        assert removed in code, f"no longer in {module}.py: {removed}"


def test_a_mutant_is_described_by_what_changed(monkeypatch) -> None:
    shown = (
        "# survived\n--- pmms/heads.py\n+++ pmms/heads.py\n@@ -1 +1 @@\n a\n-  b  = 1\n+  b = 2\n"
    )
    monkeypatch.setattr(mutants, "mutmut", lambda *_, **__: shown)
    for name, function in (
        ("xǁPConvǁlogits__mutmut_7", "PConv.logits"),
        ("x__bands__mutmut_13", "_bands"),
        ("x_scores__mutmut_2", "scores"),
        ("xǁBlockǁ__init____mutmut_40", "Block.__init__"),
    ):
        said = mutants.described("heads", f"pmms.heads.{name}")
        assert said == f"heads.{function}: b = 1 => b = 2"
