"""Layer anchoring: what is aligned, how the alignment is counted, and what it is for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers.support import mean_losses

from mmembed.batch import Batch, Padded
from mmembed.losses import coral
from mmembed.methods.layer_anchor import LayerAnchor, LayerAnchorConfig


def make(**settings: object) -> LayerAnchor:
    torch.manual_seed(0)
    sizes = {"layers": 3, "width": 4, "hidden": 5, "dropout": 0.0}
    return LayerAnchor(LayerAnchorConfig(**{**sizes, **settings}))  # type: ignore[arg-type]


def batch_of(vectors: torch.Tensor, language: list[int], emotion: list[int]) -> Batch:
    lengths = torch.full((len(vectors),), vectors.shape[1])
    return Batch(
        tuple(str(row) for row in range(len(vectors))),
        {"embedding": Padded(vectors, lengths)},
        {"emotion": torch.tensor(emotion)},
        {"language": torch.tensor(language)},
    )


def random_batch(language: list[int], seed: int = 1) -> Batch:
    """Source items (0) are labelled, others are not."""
    vectors = torch.randn(len(language), 3, 4, generator=torch.Generator().manual_seed(seed))
    emotion = [row % 4 if lang == 0 else -1 for row, lang in enumerate(language)]
    return batch_of(vectors, language, emotion)


def gradients(method: LayerAnchor, batches: list[Batch]) -> tuple[dict[str, float], torch.Tensor]:
    method.zero_grad()
    found = mean_losses(method, batches)
    parts = [p.grad.flatten() for p in method.parameters() if p.grad is not None]
    return found, torch.cat(parts)


def test_forward_equals_loops_over_layers() -> None:
    """Standardise, project, weigh, classify and align, one layer and one item at a time."""
    method = make(reads=(0, 2), anchors=(0, -1))
    method.standardise_by(torch.randn(20, 3, 4) * 3 + 1)
    with torch.no_grad():
        method.layers.logits.copy_(torch.tensor([0.3, -0.5]))
        method.bias.normal_()
    batch = random_batch([0, 0, 1, 1, 0, 1, -1])
    vectors = batch.inputs["embedding"].values
    weights = torch.tensor([0.3, -0.5]).exp() / torch.tensor([0.3, -0.5]).exp().sum()
    z = [
        F.gelu(((vectors[:, layer] - method.mean[layer]) / method.scale[layer]) @ p + b)
        for layer, p, b in zip((0, 2), method.project, method.bias, strict=True)
    ]
    logits = (weights[0] * z[0] + weights[1] * z[1]) @ method.classes.weight.T
    logits = logits + method.classes.bias
    torch.testing.assert_close(method.predict(batch)["emotion"], logits)
    labelled = [(row, row % 4) for row in (0, 1, 4)]
    entropy = -sum(logits[row].log_softmax(0)[emotion] for row, emotion in labelled)
    gap = sum(coral(x[[0, 1, 4]], x[[2, 3, 5]]) for x in z) / 2
    found = method(batch)
    torch.testing.assert_close(found["emotion"], entropy)
    torch.testing.assert_close(found["coral"], 6 * gap)  # six items of known language


def test_coral_is_the_mean_over_micro_batches_weighted_by_items() -> None:
    method = make()
    first, second = random_batch([0, 1, 0, 1]), random_batch([0, 0, 1, 0, 1, 1, 1, -1], seed=2)
    alone = [mean_losses(method, [part])["coral"] for part in (first, second)]
    both, _ = gradients(method, [first, second])
    assert both["coral"] == pytest.approx((4 * alone[0] + 7 * alone[1]) / 11, rel=1e-5)
    assert alone[0] != pytest.approx(alone[1], rel=0.1)


def test_equal_micro_batches_change_nothing() -> None:
    """The size of the term does not depend on how often a batch is accumulated."""
    method, batch = make(), random_batch([0, 1, 0, 1, 0, 1])
    once, gradient_once = gradients(method, [batch])
    thrice, gradient_thrice = gradients(method, [batch] * 3)
    assert thrice == pytest.approx(once, rel=1e-5)
    torch.testing.assert_close(gradient_thrice, gradient_once, rtol=1e-5, atol=1e-7)


def test_items_of_unknown_language_are_not_aligned() -> None:
    method = make()
    known, more = random_batch([0, 1, 0, 1]), random_batch([0, 1, 0, 1, -1, -1], seed=1)
    values = more.inputs["embedding"].values
    values[:4] = known.inputs["embedding"].values
    torch.testing.assert_close(method(more)["coral"], method(known)["coral"])


@pytest.mark.parametrize("language", [[0, 0, 0, 0], [1, 1], [0, 1, 1, 1], [0], [0, -1, -1]])
def test_too_few_items_of_a_language_align_nothing_and_stay_finite(language: list[int]) -> None:
    method = make()
    found, gradient = gradients(method, [random_batch(language)])
    assert found["coral"] == 0
    assert gradient.isfinite().all()
    assert bool(gradient.any()) == (0 in language)  # the labelled source still teaches


def test_equal_items_of_a_language_stay_finite() -> None:
    """Their covariance is 0, up to the rounding of products: some processors round the rows of one
    product differently, by 1e-7, and CORAL has the fourth power of that.
    """
    method = make()
    found, gradient = gradients(
        method, [batch_of(torch.ones(4, 3, 4), [0, 0, 1, 1], [0, 1, -1, -1])]
    )
    assert found["coral"] < 1e-20 and gradient.isfinite().all()


def test_gradient_reaches_both_languages_through_anchors_alone() -> None:
    method = make(anchors=(1,))
    vectors = torch.randn(6, 3, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
    method(batch_of(vectors, [0, 0, 0, 1, 1, 1], [-1] * 6))["coral"].backward()
    assert vectors.grad is not None
    assert bool((vectors.grad[:, 1] != 0).any(1).all())
    assert not vectors.grad[:, [0, 2]].any()


def test_without_anchors_the_target_language_changes_no_gradient() -> None:
    method = make(anchors=())
    whole = random_batch([0, 0, 0, 1, 1])
    source = batch_of(whole.inputs["embedding"].values[:3], [0, 0, 0], [0, 1, 2])
    found, gradient = gradients(method, [whole])
    assert set(found) == {"emotion"}
    torch.testing.assert_close(gradient, gradients(method, [source])[1])


def test_layers_are_named_from_either_end() -> None:
    assert make(anchors=(-1, 1)).anchors == [1, 2]
    assert make(reads=(-1,), anchors=(2,)).anchors == [0]
    with pytest.raises(ValueError, match="layers \\[3\\]: there are 3"):
        make(anchors=(3,))
    with pytest.raises(ValueError, match="must reach the classifier"):
        make(reads=(0, 1), anchors=(2,))


def test_alignment_carries_emotion_across_where_the_source_alone_is_misled() -> None:
    """Two features tell the emotion in the source; in the target one is loud noise.

    CORAL sees that their covariances differ and leaves the one that does not. The target's
    emotions are never shown; the best that the first feature can do is 0.92.
    """

    def clips(count: int, language: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        emotion = torch.arange(count) % 2
        sign = (2.0 * emotion - 1)[:, None]
        x = 0.7 * torch.randn(count, 2, generator=generator) + sign
        if language:
            x[:, 1] = 6 * torch.randn(count, generator=generator)
        return x[:, None], emotion

    def accuracy(weight: float) -> float:
        torch.manual_seed(0)
        config = LayerAnchorConfig(1, 2, 2, hidden=8, dropout=0.0, coral_weight=weight)
        method = LayerAnchor(config)
        (source, emotion), (target, truth) = clips(128, 0, 1), clips(128, 1, 2)
        unseen = torch.full((128,), -1)
        both = batch_of(
            torch.cat((source, target)),
            [0] * 128 + [1] * 128,
            [*emotion.tolist(), *unseen.tolist()],
        )
        optimizer = torch.optim.Adam(method.parameters(), 2e-2)
        for _ in range(100):
            gradients(method, [both])
            optimizer.step()
        predicted = method.predict(batch_of(target, [1] * 128, [-1] * 128))["emotion"].argmax(1)
        return float((predicted == truth).float().mean())

    assert accuracy(0.0) < 0.55
    assert accuracy(100.0) > 0.75
