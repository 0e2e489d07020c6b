"""Emotion queries: words are an input, frames of any stream are what they are asked of."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from mmembed.batch import Batch, Padded
from mmembed.errors import UsageError
from mmembed.methods.emotion_queries import EmotionQueries
from mmembed.settings.methods import EmotionQueriesConfig
from mmembed.training.distributed import World
from mmembed.training.step import accumulate_gradients

ALONE = World(0, 1, torch.device("cpu"))
QUERIES = torch.randn(4, 6, generator=torch.Generator().manual_seed(9))


def make() -> EmotionQueries:
    torch.manual_seed(0)
    config = EmotionQueriesConfig(
        ("audio", "video"), (5, 3), 4, 6, width=16, num_heads=2, dropout=0.0
    )
    method = EmotionQueries(config)
    method.ask_by(QUERIES)
    return method


def clips(rows: list[int]) -> Batch:
    """Both streams, one, or none; row 3 has no labels, row 4 lacks one of them."""
    generator = torch.Generator().manual_seed(1)
    audio = [torch.randn(2 + row if row not in (1, 6) else 0, 5, generator=generator)
             for row in range(8)]  # fmt: skip
    video = [torch.randn(9 - row if row not in (2, 6) else 0, 3, generator=generator)
             for row in range(8)]  # fmt: skip
    emotions = torch.randint(0, 2, (8, 4), generator=generator).float() * 2.5
    emotions[3], emotions[4, 1] = math.nan, math.nan
    return Batch(
        tuple(f"item-{row}" for row in rows),
        {
            "audio": Padded.stack([audio[row] for row in rows]),
            "video": Padded.stack([video[row] for row in rows]),
        },
        {"emotions": emotions[rows]},
    )


def test_logits_equal_attention_written_out() -> None:
    """One clip, one emotion, one head at a time, with the method's weights."""
    method, batch = make(), clips([0, 1, 6])
    block, found = method.blocks[0], method.predict(clips([0, 1, 6]))["emotions"]
    for row in range(3):
        frames = [method.always]
        for stream in ("audio", "video"):
            norm, linear = method.project[stream]
            for step in batch.inputs[stream].item(row):
                frames.append(linear(norm(step)) + method.marks[stream])
        source = block.source_norm(torch.stack(frames))
        key, value = block.attention.key_value(source).chunk(2, 1)
        for e, word in enumerate(QUERIES):
            x = method.project_query(word / word.norm())
            query = block.attention.query(block.norm(x))
            heads = []
            for head in (slice(0, 8), slice(8, 16)):
                scores = key[:, head] @ query[head] / math.sqrt(8)
                heads.append(scores.softmax(0) @ value[:, head])
            x = x + block.attention.out(torch.cat(heads))
            x = x + block.feed_forward(x)
            torch.testing.assert_close(found[row, e], method.head(x)[0], rtol=1e-4, atol=1e-5)


def test_each_layer_is_standardised_by_itself() -> None:
    torch.manual_seed(0)
    config = EmotionQueriesConfig(("embedding",), (5,), 4, 6, width=16, num_heads=2, steps=(3,))
    method = EmotionQueries(config).eval()
    train, some = 4 + 3 * torch.randn(20, 3, 5), 4 + 3 * torch.randn(2, 3, 5)
    train[..., 0] = some[..., 0] = 7.0  # does not vary
    lengths = torch.tensor([3, 3])

    def answers(values: torch.Tensor) -> torch.Tensor:
        return method.score(Batch(("a", "b"), {"embedding": Padded(values, lengths)}), QUERIES)

    scale = train.std(0, unbiased=False).clamp(min=1e-3)
    expected = answers((some - train.mean(0)) / scale)
    method.standardise_by("embedding", train)
    torch.testing.assert_close(answers(some), expected)
    with pytest.raises(UsageError, match="steps"):
        EmotionQueriesConfig(("audio", "video"), (5, 3), 4, 6, steps=(3,))


def test_loss_by_hand() -> None:
    """Items 3 and 4 do not count; an intensity above 0 means present."""
    method, batch = make(), clips(list(range(8)))
    logits = method.predict(batch)["emotions"].tolist()
    truth = batch.targets["emotions"].tolist()
    total = 0.0
    for row in (0, 1, 2, 5, 6, 7):
        for z, y in zip(logits[row], truth[row], strict=True):
            p = 1 / (1 + math.exp(-z))
            total -= math.log(p if y > 0 else 1 - p) / 4
    assert method(batch)["emotions"].item() == pytest.approx(total, rel=1e-5)
    assert batch.count("emotions") == 6


def test_emotions_that_were_not_asked_for_do_not_count() -> None:
    """Each item's loss is the mean over its own emotions; what stands for the others is ignored."""
    method, batch = make(), clips([0, 1, 2])
    asked = torch.tensor([[True, True, False, False], [False, True, False, False], [True] * 4])
    logits, truth = method.predict(batch)["emotions"].tolist(), batch.targets["emotions"].tolist()
    total = 0.0
    for row, columns in enumerate(((0, 1), (1,), (0, 1, 2, 3))):
        for e in columns:
            p = 1 / (1 + math.exp(-logits[row][e]))
            total -= math.log(p if truth[row][e] > 0 else 1 - p) / len(columns)
    some = Batch(batch.keys, batch.inputs, batch.targets, {"label_mask": asked})
    assert method(some)["emotions"].item() == pytest.approx(total, rel=1e-5)
    other = batch.targets["emotions"].masked_fill(~asked, 3.0)
    changed = Batch(batch.keys, batch.inputs, {"emotions": other}, {"label_mask": asked})
    assert torch.equal(method(changed)["emotions"], method(some)["emotions"])


def test_permuting_the_queries_permutes_the_logits() -> None:
    method, batch = make(), clips(list(range(8)))
    order = torch.tensor([2, 0, 3, 1])
    logits = method.score(batch, QUERIES)
    permuted = method.score(batch, QUERIES[order])  # a row of a product may round by its place
    torch.testing.assert_close(permuted, logits[:, order], rtol=0, atol=1e-5)
    assert logits.std(1).min().item() > 1e-3  # the emotions differ


def test_other_words_do_not_change_an_answer_and_any_number_may_be_asked() -> None:
    method, batch = make(), clips(list(range(8)))
    logits = method.score(batch, QUERIES)
    new = torch.cat((torch.randn(3, 6), QUERIES[1:2] * 7))  # and length does not matter
    torch.testing.assert_close(method.score(batch, new)[:, 3], logits[:, 1], rtol=0, atol=1e-5)
    assert method.score(batch, new).shape == (8, 4)
    with pytest.raises(ValueError, match="ask for other emotions with `score`"):
        method.ask_by(new[:3])


def test_a_missing_stream_is_as_one_that_was_never_given() -> None:
    method, batch = make(), clips([0, 3, 5])
    video = batch.inputs["video"]
    gone = Padded(torch.full_like(video.values, math.nan), torch.zeros_like(video.lengths))
    without = Batch(batch.keys, {"audio": batch.inputs["audio"]})
    silent = Batch(batch.keys, {"audio": batch.inputs["audio"], "video": gone})
    found = method.predict(silent)["emotions"]
    assert torch.equal(found, method.predict(without)["emotions"])
    assert not torch.allclose(found, method.predict(batch)["emotions"], atol=1e-4)


def test_clips_without_any_stream_stay_finite_and_alike() -> None:
    method = make()
    empty = Padded(torch.zeros(2, 1, 5), torch.zeros(2, dtype=torch.int64))
    batch = Batch(("a", "b"), {"audio": empty}, {"emotions": torch.tensor([[1.0, 0, 0, 1]] * 2)})
    logits = method.predict(batch)["emotions"]
    assert logits.isfinite().all()
    torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=1e-5)
    accumulate_gradients(method, [batch], ALONE)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())


def test_frames_of_the_encoder_are_a_stream() -> None:
    torch.manual_seed(0)
    config = EmotionQueriesConfig(widths=(5,), num_emotions=4, query_width=6, width=16)
    frames = Padded.stack([torch.randn(7, 5), torch.randn(3, 5)])
    method = EmotionQueries(config).eval()
    assert method.score(Batch(("a", "b"), {"embedding": frames}), QUERIES).shape == (2, 4)


@pytest.mark.slow
def test_an_emotion_that_was_never_trained_is_answered_by_its_neighbours() -> None:
    """Words are directions, clips hold directions; the twelfth word is left out of training."""
    torch.manual_seed(0)
    words = F.normalize(torch.randn(12, 6))
    config = EmotionQueriesConfig(("audio",), (6,), 11, 6, width=32, num_heads=2, dropout=0.0)
    method = EmotionQueries(config)
    method.ask_by(words[:11])

    def batch(shown: torch.Tensor, asked: torch.Tensor) -> Batch:
        frames = shown[:, None] + 0.1 * torch.randn(len(shown), 3, 6)
        truth = (shown @ asked.T > 0.4).float()
        lengths = torch.full((len(shown),), 3)
        keys = tuple(map(str, range(len(shown))))
        return Batch(keys, {"audio": Padded(frames, lengths)}, {"emotions": truth})

    optimizer = torch.optim.Adam(method.parameters(), 3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        accumulate_gradients(method, [batch(F.normalize(torch.randn(64, 6)), words[:11])], ALONE)
        optimizer.step()
    test = batch(F.normalize(torch.randn(300, 6)), words[11:])
    truth = test.targets["emotions"][:, 0] > 0
    scores = method.score(test, words[11:])[:, 0]
    above = (scores[truth][:, None] > scores[~truth]).float().mean()  # area under the ROC
    assert float(above) > 0.8
