"""The plain forms: each as one writes it first from the paper, before any thought of speed."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pmms.episodes import EpisodeDataset, EpisodeSampler, class_mask
from pmms.heads import PMatch
from pmms.metrics import Scores, episode_counts, scores
from pmms.models import FewShotSegmenter
from pmms.transforms import EvalTransform


def p_match(module: PMatch, query: Tensor, prototypes: Tensor) -> Tensor:
    """Eq. 6: for each prototype concatenate it with the query everywhere, and convolve.

    Args:
        module: whose weights.
        query: (B, C, h, w).
        prototypes: (B, K, C).
    """
    total = torch.zeros_like(query)
    for k in range(prototypes.shape[1]):
        prototype_map = prototypes[:, k, :, None, None].expand_as(query)
        response = module.block.conv(torch.cat([query, prototype_map], dim=1))
        total = total + F.relu(module.block.norm(response))
    return total / prototypes.shape[1] if module.fusion == "mean" else total


def em(
    samples: Tensor, mask: Tensor, start: Tensor, *, kappa: float = 20.0, n_iter: int = 10
) -> Tensor:
    """Eqs. 4 and 5 in the layout that a network's features have: channels first.

    Args:
        samples: (B, C, N), one unit-norm sample in each column.
        mask: (B, N), 1 on the foreground.
        start: (B, K, C) starting means.
        kappa: concentration.
        n_iter: iterations.

    Returns:
        (B, K, C) means.
    """
    means = start.transpose(1, 2)  # (B, C, K)
    for _ in range(n_iter):
        directions = means / means.norm(dim=1, keepdim=True)
        cosines = samples.transpose(1, 2) @ directions  # (B, N, K)
        responsibilities = (kappa * cosines).softmax(dim=2) * mask[:, :, None]
        shares = responsibilities / responsibilities.sum(dim=1, keepdim=True)
        means = samples @ shares
    return means.transpose(1, 2)


@torch.inference_mode()
def evaluate(model: FewShotSegmenter, sampler: EpisodeSampler, size: int) -> tuple[Scores, Tensor]:
    """Every episode by itself: load its images, run the whole network, count.

    Returns:
        The scores, and the counts (episodes, 4).
    """
    model.eval()
    episodes = EpisodeDataset(sampler, EvalTransform(size))
    ids, counts = [], []
    for i in range(len(sampler)):
        episode = episodes[i]
        prediction = model(episode.support[None], episode.support_mask[None], episode.query[None])
        labels = sampler.dataset.label_map(sampler[i].query)[None]
        height, width = labels.shape[1:]
        mask = prediction.masks((height, width))
        ids.append(episode.class_id)
        counts.append(episode_counts(mask, class_mask(labels, episode.class_id)))
    class_ids, table = torch.tensor(ids), torch.cat(counts)
    return scores(class_ids, table), table
