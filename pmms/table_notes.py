"""What stands below a table: unit, images, protocol, runs, intervals, what is missing."""

from collections.abc import Sequence

from pmms.comparison import Comparison
from pmms.config import RunConfig

EPISODES_MARK = "†"
SEEDS = {
    "seed": ("one training seed", "training seeds"),
    "em_seed": ("one start of EM", "starts of EM"),
}
IMAGES = {"parts": "PartsVOC", "pascal": "Pascal-5i", "coco": "COCO-20i"}


def notes(comparison: Comparison) -> tuple[str, ...]:
    """Paragraphs for a table whose rows are run, to be read without another table.

    The first says how to read it, the second, if there is one, which runs there are.
    """
    how = [
        *_setting(comparison, _any_run(comparison)),
        *_intervals(comparison),
        *_paper(comparison),
        *comparison.table.notes,
    ]
    which = [*_made(comparison), *_missing(comparison)]
    return tuple(" ".join(sentences) for sentences in (how, which) if sentences)


def _any_run(comparison: Comparison) -> RunConfig:
    table = comparison.table
    row = next(row for row in table.rows if row.parameters is not None)
    return table.config(comparison.profile, row, *table.cells(row)[0])


def _setting(comparison: Comparison, config: RunConfig) -> list[str]:
    table = comparison.table
    protocol = comparison.protocol or config.protocol
    seeds = 1 if table.first_episodes else len(protocol.seeds)
    images = "COCO128" if table.folder == "coco128" else IMAGES[config.data.dataset]
    times = f"{seeds} x " if seeds > 1 else ""
    classes = "validation" if config.data.validation else "novel"
    sentences = [
        f"mIoU in percent on the {classes} classes of {images}; protocol `{protocol.label}`, "
        f"{protocol.shots}-shot, {times}{protocol.episodes:,} episodes a run, the same for all "
        "rows."
    ]
    own_length = ["iterations" in (row.parameters or {}) for row in table.rows]
    if table.seed_name == "seed" and not all(own_length):
        otherwise = " where the row says nothing else" if any(own_length) else ""
        sentences.append(f"{config.train.iterations:,} training steps{otherwise}.")
    one, several = SEEDS[table.seed_name]
    many = len(table.seeds)
    folds = f"{len(table.folds)} folds" if len(table.folds) > 1 else f"Fold {table.folds[0]}"
    planned = " planned" if any(result.missing for result in comparison.rows) else ""
    sentences.append(f"{folds}, {f'{many} {several}{planned}' if many > 1 else one}.")
    return sentences


def _intervals(comparison: Comparison) -> list[str]:
    table = comparison.table
    sentences = []
    if len(table.seeds) > 1 and any(result.missing for result in comparison.rows):
        sentences.append("A seed counts when it has all folds; while none has, each run does.")
    kinds = {result.interval.over for result in comparison.rows if result.interval}
    if "seeds" in kinds:
        sentences.append("± at a mean: 95 % t interval over the seeds' means over folds.")
    if "episodes" in kinds:
        sentences.append(
            f"{EPISODES_MARK} No seeds to compare: 95 % interval over the draw of episodes alone."
        )
    if any(r.mean is not None and r.interval is None for r in comparison.rows) and kinds:
        sentences.append("A mean without ±: two seeds.")
    differences = [result.difference for result in comparison.rows if result.difference]
    if differences:
        same = "the same fold, seed and episodes"
        sentences.append(f"Differences are of pairs of runs with {same}.")
        if table.seed_name == "em_seed" and len(table.seeds) > 1:
            sentences.append("Those of one fold are averaged first and count as one pair.")
    if any(difference.interval for difference in differences):
        sentences.append("± at a difference: 95 % t interval over the pairs.")
    return sentences


def _paper(comparison: Comparison) -> list[str]:
    table = comparison.table
    if not any(row.paper for row in table.rows if row.parameters is not None):
        return []
    return [
        f"Paper: {table.paper_setting}, its own protocol, its difference in brackets; compare the "
        "differences, not the levels."
    ]


def _made(comparison: Comparison) -> list[str]:
    records = list(comparison.records.values())
    if not records:
        return []
    hours = sum(sum(record.seconds.values()) for record in records) / 3600
    machines = sorted({record.environment["device"] for record in records})
    torch = sorted({record.environment["versions"]["torch"] for record in records})
    runs = "1 run" if len(records) == 1 else f"{len(records)} runs"
    commits = len({record.environment["commit"] for record in records})
    code = f", {commits} commits of the code" if commits > 1 else ""
    return [
        f"{runs}, {hours:.1f} hours in all on {_listed(machines)}, PyTorch {_listed(torch)}{code}."
    ]


def _missing(comparison: Comparison) -> list[str]:
    missing = list(dict.fromkeys(name for result in comparison.rows for name in result.missing))
    if not missing:
        return []
    wanted = len(missing) + len(comparison.records)
    profile = "" if comparison.profile == "mini" else f" PROFILE={comparison.profile}"
    option = "" if comparison.profile == "mini" else " --profile paper --device cuda --workers 4"
    sentences = [f"Not run: {len(missing)} of {wanted}."]
    if not comparison.table.folder:
        sentences.append(
            f"`make tables TABLES={comparison.table.name}{profile}` runs what is missing, "
            f"`python workflow/run_record.py {missing[0]}{option}` the first of them."
        )
    failed = {name: status for result in comparison.rows for name, status in result.failed.items()}
    sentences += [f"`{name}` {status}." for name, status in failed.items()]
    return sentences


def _listed(values: Sequence[str]) -> str:
    return ", ".join(values)
