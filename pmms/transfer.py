"""A model that was trained on one set of images, tested on another."""

from pathlib import Path

from pmms.config import RunConfig
from pmms.data import load_data
from pmms.evaluation import Control, evaluate
from pmms.experiment import prepare_images
from pmms.models import FewShotSegmenter
from pmms.results import RunRecord, environment, peak_memory_mb
from pmms.run_record import Stopwatch


def transfer_record(
    model: FewShotSegmenter,
    trained: RunConfig,
    tested: RunConfig,
    *,
    cache: Path | str | None = None,
) -> RunRecord:
    """Test a model on the novel classes of other images than it was trained on.

    Args:
        model: with a frozen backbone.
        trained: the run that the model comes from.
        tested: whose test images, classes and protocol are used; nothing is trained by it. Its
            classes are new to the model only if ``trained`` did not see them under another name.
        cache: folder for kept features and index files.

    Returns:
        A record with the parameters of ``tested``, those of ``trained`` under "trained_on", and two
        scores, "model" and "wrong_support".

    Raises:
        ValueError: ``trained`` and ``tested`` differ in the model, so that the record's parameters
            would tell of a network that was not tested; or impossible episodes.
    """
    if trained.model != tested.model:
        raise ValueError(
            "both runs must have the same model settings, since the record names those of tested: "
            f"{trained.model} and {tested.model} differ"
        )
    watch = Stopwatch()
    data = load_data(tested.data, cache=cache)
    images = prepare_images(tested, data, model.backbone, cache=cache, training=False)
    watch.lap("images")
    controls: tuple[tuple[str, Control | None], ...] = (
        ("model", None),
        ("wrong_support", "wrong_support"),
    )
    scores = {
        name: evaluate(
            model,
            images.test,
            data.test_classes,
            protocol=tested.protocol,
            size=tested.data.test_size,
            control=control,
            description=name,
        ).summary()
        for name, control in controls
    }
    watch.lap("evaluate")
    protocol = tested.protocol.record()
    if data.left_out:
        protocol["left_out"] = dict(data.left_out)
    return RunRecord(
        # Hashes of both runs: other settings of either make another record.
        name=f"{tested.name}-from-{trained.data.dataset}-{trained.name.rpartition('-')[2]}",
        parameters={**tested.portable(), "trained_on": trained.portable()},
        protocol=protocol,
        scores=scores,
        seconds=watch.seconds,
        peak_memory_mb=peak_memory_mb(),
        environment=environment(),
    )
