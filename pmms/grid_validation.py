"""Tables on validation classes, those of the next fold: what may be tried and chosen there."""

from typing import Any

from pmms.grid_rows import Row, Table


def on_validation_classes(steps: int) -> list[Table]:
    """How long to train, and what might keep K = 3 in P-Match from gaining.

    Args:
        steps: of training in all other tables of the profile.
    """
    return [_length(steps), _reasons(steps)]


def _length(steps: int) -> Table:
    rows = [
        Row(label=f"{label}, {n:,} steps", parameters={"model": model, "iterations": n})
        for model, label in (("baseline", "baseline"), ("pmms", "PMMs"))
        for n in (steps * 2 // 5, steps, steps * 2)
    ]
    return Table(
        name="length",
        title="Length of the training, on validation classes",
        header="model",
        rows=tuple(rows),
        shared={"validation": True},
        against=rows[1].label,
        folds=(0,),
        notes=(
            "The classes of fold 1, held out of this training beside those of fold 0. Trained on "
            "ten classes of the twenty, where the other tables have fifteen.",
        ),
    )


def _reasons(steps: int) -> Table:
    """One change for each suspicion."""
    twice, longer = f"{steps * 2:,} steps", {"iterations": steps * 2}
    changes: dict[str, dict[str, Any]] = {
        "PMMs+": {},
        "PMMs+, sum over K": {"fusion": "sum"},
        "PMMs+, maximum over K": {"fusion": "max"},
        "PMMs+, κ = 5": {"kappa": 5.0},
        "PMMs+, start by k-means++": {"init": "kmeans++"},
        "PMMs+, gradient through all of EM": {"gradient": "em"},
        f"PMMs+, {twice}": longer,
    }
    baseline, pmms_plus = {"model": "baseline"}, {"model": "pmms_plus"}
    return Table(
        name="reasons",
        title="What might keep K = 3 in P-Match from gaining: suspicions, on validation classes",
        header="model",
        rows=(
            Row(label="baseline", parameters=baseline),
            Row(label=f"baseline, {twice}", parameters=baseline | longer),
            *(Row(label=label, parameters=pmms_plus | more) for label, more in changes.items()),
        ),
        shared={"validation": True, "iterations": steps},
        against="baseline",
        notes=(
            "PMMs+ with K = 3. The classes of the next fold, held out of this training beside "
            "those of the fold itself. All folds together are all twenty classes: only a choice "
            "made fold by fold has seen none of that fold's test classes.",
        ),
    )
