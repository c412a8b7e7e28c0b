"""Index, episodes, decoding, augmentation, and whether the loader keeps up with the model."""

import os
import statistics
import tarfile
import tempfile
import warnings
from pathlib import Path

import torch
from harness import ROOT, Run, interval, timed
from torch.utils.data import DataLoader

from pmms.datasets.base import images_of_class
from pmms.datasets.coco import CocoInstances
from pmms.datasets.pascal import PascalVOC
from pmms.episodes import EpisodeDataset, EpisodeSampler, collate
from pmms.models import build_model
from pmms.training import segmentation_loss
from pmms.transforms import TrainTransform

DATA = ROOT.parent / "shared" / "data"
LABEL_MAPS = DATA / "voc2012_SegmentationClassAug.tar"
COCO = DATA / "coco128"
SIZE = 321


def label_maps(run: Run) -> None:
    """Label maps of VOC 2012 with the additional annotations, as they are distributed."""
    if not LABEL_MAPS.is_file():
        print("label maps of VOC 2012 are not there: index and sampling are not measured")
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with tarfile.open(LABEL_MAPS) as archive:
            archive.extractall(root, filter="data")
        names = sorted(path.stem for path in (root / "SegmentationClassAug").glob("*.png"))
        names = names[:300] if run.quick else names
        (root / "JPEGImages").mkdir()
        for name in names:  # an index reads no photograph, but wants to know that it is there
            (root / "JPEGImages" / f"{name}.jpg").touch()
        lists = root / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True)
        (lists / "all.txt").write_text("\n".join(names) + "\n")
        made: list = []

        def index() -> None:
            made[:] = [PascalVOC(root, "all", labels="SegmentationClassAug", cache=root / "cache")]
            images_of_class(made[0])

        first, again = timed(index), timed(index)
        dataset = made[0]
        classes = [c for c, images in images_of_class(dataset).items() if len(images) > 5]
        sampler = EpisodeSampler(dataset, classes, shots=5, length=10_000)
        drawn = timed(lambda: [sampler[i] for i in range(10_000)])
        few = range(0, len(names), max(1, len(names) // 200))
        decoded = timed(lambda: [dataset.label_map(i) for i in few])
        run.add(
            f"{len(names)} label maps",
            {
                "index_seconds": first,
                "index_again_seconds": again,
                "five_shot_episodes_per_second": 10_000 / drawn,
                "label_maps_decoded_per_second": len(few) / decoded,
            },
        )


def photographs(run: Run) -> None:
    """Photographs of COCO: decoding, augmentation, and the loader beside a training step."""
    if not COCO.is_dir():
        print("coco128 is not there: decoding, augmentation and loader are not measured")
        return
    dataset = CocoInstances(COCO, "train2017", cache=Path(tempfile.mkdtemp()))
    transform = TrainTransform(SIZE)
    few = range(16 if run.quick else 100)
    samples = [dataset[i] for i in few]
    decoded = timed(lambda: [dataset[i] for i in few])
    augmented = timed(lambda: [transform(*s, seed=i) for i, s in enumerate(samples)])
    run.add(
        "photographs of coco128",
        {
            "decoded_per_second": len(few) / decoded,
            f"augmented_to_{SIZE}_per_second": len(few) / augmented,
        },
    )

    batch_size, steps = 2, 2 if run.quick else 5
    classes = [c for c, images in images_of_class(dataset).items() if len(images) > 4]
    sampler = EpisodeSampler(dataset, classes, length=batch_size * (steps + 1))
    episodes = EpisodeDataset(sampler, transform)
    model = build_model("pmms", weights=None).train()
    model.backbone.eval().requires_grad_(False)

    def learn(batch) -> None:
        prediction = model(batch.support, batch.support_mask, batch.query)
        segmentation_loss(prediction, batch.query_mask).backward()
        model.zero_grad(set_to_none=True)

    loader = DataLoader(episodes, batch_size, collate_fn=collate, num_workers=1)
    waits, works = [], []
    batches = iter(loader)
    learn(next(batches))
    for _ in range(steps):
        got: list = []
        waits.append(timed(lambda got=got: got.append(next(batches))))
        works.append(timed(lambda got=got: learn(got[0])))
    shares = [wait / (wait + work) for wait, work in zip(waits, works, strict=True)]
    run.add(
        f"loader, 1 process, beside training with ResNet-50 at {SIZE}",
        {
            "seconds": {"wait": statistics.median(waits), "step": statistics.median(works),
                        "share of waiting": statistics.median(shares)},
            "interval": {"share of waiting": interval(shares)},
            "goal": ["share of waiting", "<=", 0.02],
            "images_per_step": 2 * batch_size,
        },
    )  # fmt: skip


def main() -> None:
    run = Run("data", __doc__)
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    label_maps(run)
    photographs(run)
    run.finish(size=SIZE, cores=os.cpu_count(), threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
