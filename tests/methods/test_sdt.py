"""SDT against nine encoders written out in the layout of the released model, and by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from helpers.dialogues import WIDTHS, dialogues, random_dialogues, small_sdt
from torch import nn

from mmembed.batch import UNLABELLED, Batch, Padded
from mmembed.errors import UsageError
from mmembed.losses import divergence
from mmembed.methods.sdt import SDT, balanced_weights
from mmembed.settings.methods import SDTConfig
from mmembed.streams import STREAMS

close = torch.testing.assert_close


class Layer(nn.Module):
    """A pair's encoder around torch's own attention, over padded dialogues, with copied weights."""

    def __init__(self, ours):
        super().__init__()
        width = ours.query.in_features
        self.attention = nn.MultiheadAttention(width, ours.num_heads, batch_first=True)
        self.attention.in_proj_weight.data = torch.cat([ours.query.weight, ours.key_value.weight])
        self.attention.in_proj_bias.data = torch.cat([ours.query.bias, ours.key_value.bias])
        self.attention.out_proj.load_state_dict(ours.out.state_dict())
        self.norm, self.inner, self.outer = (ours.feed_forward[i] for i in (0, 1, 4))
        is_linear = isinstance(ours.gate, nn.Linear)
        self.gate = ours.gate.weight if is_linear else torch.eye(width)

    def forward(self, source, query, absent):
        context, weights = self.attention(
            query, source, source, key_padding_mask=absent, average_attn_weights=False
        )
        x = query + context
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, correction=0, keepdim=True)
        normed = (x - mean) / (variance + 1e-6).sqrt() * self.norm.weight + self.norm.bias
        x = x + self.outer(F.gelu(self.inner(normed), approximate="tanh"))
        gate = 1 / (1 + torch.exp(-x @ self.gate.T))
        return gate * x, gate, weights


class Nine(nn.Module):
    """Three streams by name, no loop over them; returns what the paper's figure shows."""

    def __init__(self, ours):
        super().__init__()
        self.ours = ours
        width = ours.config.width
        for stream in STREAMS:
            conv = nn.Conv1d(WIDTHS[stream], width, 1, bias=False)
            conv.weight.data = ours.project[stream].weight.data[:, :, None]
            setattr(self, stream, conv)
        pair = ours.encoders
        self.t_t = Layer(pair["text_to_text"])
        self.a_t = Layer(pair["audio_to_text"])
        self.v_t = Layer(pair["video_to_text"])
        self.a_a = Layer(pair["audio_to_audio"])
        self.t_a = Layer(pair["text_to_audio"])
        self.v_a = Layer(pair["video_to_audio"])
        self.v_v = Layer(pair["video_to_video"])
        self.t_v = Layer(pair["text_to_video"])
        self.a_v = Layer(pair["audio_to_video"])
        # The released model puts the stream itself first; ours keeps the config's order.
        columns = {s: torch.arange(width) + width * i for i, s in enumerate(ours.config.streams)}
        t, a, v = columns["text"], columns["audio"], columns["video"]
        self.order = {
            "text": torch.cat((t, a, v)),
            "audio": torch.cat((a, t, v)),
            "video": torch.cat((v, t, a)),
        }
        self.place = torch.zeros(50, width)
        for position in range(50):
            for i in range(0, width, 2):
                angle = position / 10_000 ** (i / width)
                self.place[position, i] = math.sin(angle)
                self.place[position, i + 1] = math.cos(angle)

    def reduce(self, stream, *parts):
        linear = self.ours.reduce[stream]
        weight = linear.weight[:, self.order[stream]]
        return torch.cat(parts, -1) @ weight.T + linear.bias

    def forward(self, batch):
        speaker = batch.context["turn_speaker"].values
        extra = self.place[: speaker.shape[1]] + self.ours.speaker.weight[speaker]

        def read(stream):
            vectors = batch.inputs[stream]
            x = getattr(self, stream)(vectors.values.transpose(1, 2)).transpose(1, 2) + extra
            return x, ~vectors.mask | (vectors.values == 0).all(-1)

        (t, no_t), (a, no_a), (v, no_v) = read("text"), read("audio"), read("video")
        seen = {
            "text_to_text": self.t_t(t, t, no_t),
            "audio_to_text": self.a_t(a, t, no_a),
            "video_to_text": self.v_t(v, t, no_v),
            "audio_to_audio": self.a_a(a, a, no_a),
            "text_to_audio": self.t_a(t, a, no_t),
            "video_to_audio": self.v_a(v, a, no_v),
            "video_to_video": self.v_v(v, v, no_v),
            "text_to_video": self.t_v(t, v, no_t),
            "audio_to_video": self.a_v(a, v, no_a),
        }
        out = {name: gated for name, (gated, _, _) in seen.items()}
        h_t = self.reduce("text", out["text_to_text"], out["audio_to_text"], out["video_to_text"])
        h_a = self.reduce(
            "audio", out["audio_to_audio"], out["text_to_audio"], out["video_to_audio"]
        )
        h_v = self.reduce(
            "video", out["video_to_video"], out["text_to_video"], out["audio_to_video"]
        )
        gate = self.ours.multimodal_gate.weight
        e_t, e_a, e_v = (torch.exp(h @ gate.T) for h in (h_t, h_a, h_v))
        total = e_t + e_a + e_v
        fused = (e_t * h_t + e_a * h_a + e_v * h_v) / total
        multimodal = {"text": e_t / total, "audio": e_a / total, "video": e_v / total}
        heads = self.ours.stream_heads
        logits = {
            "fused": self.ours.fused_head(fused),
            "text": heads["text"][2](h_t.clamp(min=0)),
            "audio": heads["audio"][2](h_a.clamp(min=0)),
            "video": heads["video"][2](h_v.clamp(min=0)),
        }
        return logits, seen, multimodal


def scrambled(**settings):
    """A small SDT none of whose parameters has a special value."""
    method = small_sdt(**settings).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return method


GATES = pytest.mark.parametrize("gate", ["learned", "identity"])


@GATES
@torch.no_grad()
def test_the_loop_equals_nine_encoders(gate):
    method, batch = scrambled(unimodal_gate=gate), dialogues([5, 1, 3])
    logits, seen, multimodal = Nine(method)(batch)
    predicted = method.predict(batch)["turn_emotion"]
    explained = method.explain(batch)
    mask = batch.inputs["text"].mask
    close(predicted[mask], logits["fused"][mask])
    assert not predicted[~mask].any()
    assert set(explained.attention) == set(seen) == set(explained.unimodal)
    for index, turns in enumerate([5, 1, 3]):
        for name, (_, gates, weights) in seen.items():
            close(explained.attention[name][index], weights[index, :, :turns, :turns])
            close(explained.unimodal[name][index], gates[index, :turns])
        for stream in STREAMS:
            close(explained.multimodal[stream][index], multimodal[stream][index, :turns])


@GATES
def test_the_losses_equal_double_loops_over_the_nine(gate):
    weights, tau = (0.5, 1.5, 1.25, 0.75), 3.0
    method = scrambled(unimodal_gate=gate, class_weights=weights, temperature=tau)
    batch = dialogues([5, 1, 3])
    batch.targets["turn_emotion"].values[0, 2] = UNLABELLED
    logits, _, _ = Nine(method)(batch)
    probability = {name: values.exp() for name, values in logits.items()}
    expected = {"fused": 0.0, "streams": 0.0, "distillation": 0.0}
    for dialogue, turns in enumerate([5, 1, 3]):
        for turn in range(turns):
            label = int(batch.targets["turn_emotion"].values[dialogue, turn])
            if label == UNLABELLED:
                continue
            for name, values in probability.items():
                p = values[dialogue, turn] / values[dialogue, turn].sum()
                term = "fused" if name == "fused" else "streams"
                expected[term] = expected[term] - weights[label] * p[label].log()
            teacher = (logits["fused"][dialogue, turn] / tau).softmax(0)
            for stream in STREAMS:
                student = (logits[stream][dialogue, turn] / tau).softmax(0)
                for p, q in zip(teacher, student, strict=True):
                    expected["distillation"] = expected["distillation"] + p * (p / q).log()
    sums = method(batch)
    for term, value in expected.items():
        close(sums[term], value, msg=term)
    # The sum of gradients too, through the teacher as in the released code.
    ours = torch.autograd.grad(sum(sums.values()), list(method.parameters()))
    theirs = torch.autograd.grad(sum(expected.values()), method.fused_head.weight)[0]
    names = [name for name, _ in method.named_parameters()]
    close(ours[names.index("fused_head.weight")], theirs)


def test_divergence_by_hand():
    # Teacher (4/5, 1/5), student (1/2, 1/2); with tau 2 the teacher is (2/3, 1/3).
    teacher, student = torch.tensor([[math.log(4), 0.0]]), torch.zeros(1, 2)
    cold = 0.8 * math.log(1.6) + 0.2 * math.log(0.4)
    warm = 2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3)
    close(divergence(student, teacher, 1.0), torch.tensor([cold]))
    close(divergence(student, teacher, 2.0), torch.tensor([warm]))
    close(divergence(teacher, teacher, 2.0), torch.zeros(1))


def test_a_detached_teacher_is_not_moved_by_its_students():
    batch = dialogues([4, 2])
    free, detached = scrambled(), scrambled(detach_teacher=True)
    values, teachers, students = [], [], []
    for method in (free, detached):
        value = method(batch)["distillation"]
        value.backward()
        values.append(value)
        teachers.append(method.fused_head.weight.grad)
        students.append(method.stream_heads["text"][2].weight.grad)
    close(values[0], values[1])
    close(students[0], students[1])
    assert teachers[0].any() and teachers[1] is None


@torch.no_grad()
def test_multimodal_gate_by_hand():
    config = SDTConfig(
        ("audio", "text"), (1, 1), num_classes=2, num_speakers=0, width=2, num_heads=1
    )
    method = SDT(config).eval()
    for parameter in method.parameters():
        parameter.zero_()
    # H_text = (ln 3, 0) and H_audio = (0, 0) whatever comes in; W is the identity.
    method.reduce["text"].bias.copy_(torch.tensor([math.log(3), 0.0]))
    method.multimodal_gate.weight.copy_(torch.eye(2))
    method.fused_head.weight.copy_(torch.eye(2))
    method.fused_head.bias.copy_(torch.tensor([0.0, 7.0]))
    audio, text = torch.ones(4, 1), torch.ones(4, 1)
    audio[[1, 3]], text[[2, 3]] = 0, 0  # both, text only, audio only, none
    batch = Batch(("a",), {"audio": Padded.stack([audio]), "text": Padded.stack([text])})
    logits = method.predict(batch)["turn_emotion"][0]
    ln3 = math.log(3)
    close(logits, torch.tensor([[0.75 * ln3, 7.0], [ln3, 7.0], [0.0, 7.0], [0.0, 7.0]]))
    gates = method.explain(batch).multimodal
    close(gates["text"][0], torch.tensor([[0.75, 0.5], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]))
    close(gates["audio"][0], torch.tensor([[0.25, 0.5], [0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]))


@torch.no_grad()
def test_batch_mates_and_padding_change_nothing():
    method, lengths = scrambled(), [7, 2, 4]
    batch = dialogues(lengths)
    together = method.predict(batch)["turn_emotion"]

    def cut(part, index, fill):
        """One dialogue alone, with three more steps of `fill`."""
        steps = part.item(index)
        padding = torch.full((3, *steps.shape[1:]), fill, dtype=steps.dtype)
        return Padded(torch.cat((steps, padding))[None], part.lengths[index : index + 1])

    total = dict.fromkeys(method.terms, 0.0)
    for index, turns in enumerate(lengths):
        alone = Batch(
            batch.keys[index : index + 1],
            {name: cut(part, index, float("nan")) for name, part in batch.inputs.items()},
            {name: cut(part, index, 3) for name, part in batch.targets.items()},
            {name: cut(part, index, 99) for name, part in batch.context.items()},
        )
        close(method.predict(alone)["turn_emotion"], together[index : index + 1, :turns])
        total = {term: total[term] + value for term, value in method(alone).items()}
    for term, value in method(batch).items():
        close(value, total[term])


def without(batch, streams, how):
    """The same dialogues; `streams` are missing in one of three ways."""
    inputs = dict(batch.inputs)
    for stream in streams:
        part = inputs.pop(stream)
        if how == "length 0":
            inputs[stream] = Padded(part.values, torch.zeros_like(part.lengths))
        elif how == "zeros":
            inputs[stream] = Padded(torch.zeros_like(part.values), part.lengths)
    return replace(batch, inputs=inputs)


@pytest.mark.parametrize("how", ["no input", "length 0", "zeros"])
@pytest.mark.parametrize("stream", STREAMS)
@torch.no_grad()
def test_one_stream_alone_equals_a_model_that_has_only_that(stream, how):
    method, alone = scrambled(), small_sdt([stream]).eval()
    state = {name: method.state_dict()[name].clone() for name in alone.state_dict()
             if not name.startswith("reduce")}  # fmt: skip
    place = method.config.streams.index(stream) * method.config.width
    state[f"reduce.{stream}.weight"] = method.reduce[stream].weight[:, place : place + 16]
    state[f"reduce.{stream}.bias"] = method.reduce[stream].bias
    alone.load_state_dict(state)
    batch = without(dialogues([3, 1, 6]), set(STREAMS) - {stream}, how)
    close(method.predict(batch), alone.predict(batch))
    close(method(batch), alone(batch))
    gates = method.explain(batch).multimodal
    assert all((gate == (name == stream)).all() for name in STREAMS for gate in gates[name])


@torch.no_grad()
def test_a_turn_without_a_stream_is_no_key_and_the_others_keep_their_places():
    method, batch = scrambled(), dialogues([5])
    batch.inputs["audio"].values[0, 2] = 0
    logits, seen, _ = Nine(method)(batch)
    predicted, explained = method.predict(batch)["turn_emotion"], method.explain(batch)
    others = [0, 1, 3, 4]
    close(predicted[0, others], logits["fused"][0, others])
    for name, (_, _, weights) in seen.items():
        attention = explained.attention[name][0]
        close(attention[:, others], weights[0][:, others])
        assert name.startswith("audio") == (not attention[:, :, 2].any())
        assert name.endswith("audio") == (not attention[:, 2].any())


@torch.no_grad()
def test_explanations_are_distributions_wherever_something_is_there():
    method, batch = scrambled(), random_dialogues(list(range(8)))
    explained = method.explain(batch)
    for dialogue, key in enumerate(batch.keys):
        there = {
            s: (part.values[dialogue, : dialogue + 1] != 0).any(-1)
            for s, part in batch.inputs.items()
        }
        for name, items in explained.attention.items():
            source, query = name.split("_to_")
            rows = there[query] & there[source].any()
            close(items[dialogue].sum(-1), rows.float().expand(2, -1), msg=key)
            assert torch.equal(explained.unimodal[name][dialogue].any(-1), rows)
        total = sum(explained.multimodal[stream][dialogue] for stream in STREAMS)
        close(total, torch.ones(dialogue + 1, 16))


@torch.no_grad()
def test_speakers_are_names():
    """Other numbers for the same speakers, with their embeddings, change nothing."""
    method, other, batch = scrambled(num_speakers=5), scrambled(num_speakers=5), dialogues([9, 4])
    number = torch.tensor([3, 0, 4, 1, 2])
    other.speaker.weight[number] = method.speaker.weight
    speakers = batch.context["turn_speaker"]
    renamed = replace(
        batch, context={"turn_speaker": Padded(number[speakers.values], speakers.lengths)}
    )
    close(method.predict(batch), other.predict(renamed))
    moved = method.predict(batch)["turn_emotion"] - method.predict(renamed)["turn_emotion"]
    assert moved.abs().max() > 1e-3


@torch.no_grad()
def test_an_unknown_speaker_has_no_embedding():
    method, batch = scrambled(), dialogues([4])
    nobody = Padded(torch.full((1, 4), UNLABELLED), torch.tensor([4]))
    missing = Padded(torch.zeros(1, 4, dtype=torch.int64), torch.tensor([0]))
    unknown = [
        method.predict(replace(batch, context={"turn_speaker": x})) for x in (nobody, missing)
    ]
    method.speaker.weight.zero_()
    for prediction in unknown:
        close(prediction, method.predict(batch))
    plain = small_sdt(num_speakers=0).eval()
    plain.load_state_dict(
        {name: value for name, value in method.state_dict().items() if name != "speaker.weight"}
    )
    close(plain.predict(replace(batch, context={})), method.predict(batch))


def test_balanced_weights_average_one_and_agree_with_dividing_by_the_sum_of_weights():
    # IEMOCAP's shares, the inverse weights of the released code.
    shares = (0.086747, 0.144406, 0.227883, 0.160585, 0.127711, 0.252668)
    weights = balanced_weights(shares)
    assert sum(s * w for s, w in zip(shares, weights, strict=True)) == pytest.approx(sum(shares))
    assert weights[0] / weights[5] == pytest.approx(0.252668 / 0.086747)
    # Where a batch has the shares of the training set, both ways to divide give the same.
    batch = dialogues([6])
    batch.targets["turn_emotion"].values[0] = torch.tensor([0, 1, 1, 2, 3, 0])
    method = scrambled(class_weights=balanced_weights([2, 2, 1, 1]))
    logits = method.predict(batch)["turn_emotion"][0]
    released = F.cross_entropy(
        logits, batch.targets["turn_emotion"].values[0], torch.tensor([0.5, 0.5, 1.0, 1.0])
    )
    close(method(batch)["fused"] / batch.count("turn_emotion"), released)


def test_parameters_of_the_papers_model():
    """79,687,704 are published for IEMOCAP. 19,456 of them never learn, and are not here.

    Each of nine encoders has a LayerNorm of 2 x 1024 for layers after the first, of which there are
    none; the embedding of a third speaker, 1024, stands for padding.
    """
    with torch.device("meta"):
        method = SDT(
            SDTConfig(("text", "audio", "video"), (1024, 1582, 342), num_classes=6, width=1024)
        )
    count = sum(parameter.numel() for parameter in method.parameters())
    assert count == 79_687_704 - 9 * 2 * 1024 - 1024


def test_dropout_is_on_in_training_only():
    method, batch = small_sdt(dropout=0.5), dialogues([5])
    first, second = (method.predict(batch)["turn_emotion"] for _ in range(2))
    assert not torch.equal(first, second)
    method.eval()
    first, second = (method.predict(batch)["turn_emotion"] for _ in range(2))
    assert torch.equal(first, second)


def test_wrong_batches_are_refused():
    method, batch = small_sdt(), dialogues([4, 3])
    speakers = batch.context["turn_speaker"]
    with pytest.raises(ValueError, match="no turn_speaker"):
        method(replace(batch, context={}))
    with pytest.raises(ValueError, match="turn_speaker 3: must be less than num_speakers, 3"):
        method(replace(batch, context={"turn_speaker": Padded(speakers.values + 3 - int(
            speakers.values.max()), speakers.lengths)}))  # fmt: skip
    with pytest.raises(ValueError, match=r"dialogue-1 has parts of \[2, 3\] turns"):
        short = Padded(batch.inputs["text"].values, torch.tensor([4, 2]))
        method(replace(batch, inputs={**batch.inputs, "text": short}))
    with pytest.raises(ValueError, match="none of the streams"):
        method(replace(batch, inputs={}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"streams": ("text", "text"), "input_widths": (5, 5)}, "each once"),
        ({"streams": ("smell",), "input_widths": (5,)}, "streams"),
        ({"streams": ("text",), "input_widths": (5, 6)}, "one for each"),
        ({"width": 30, "num_heads": 8}, "multiple of 8"),
        ({"num_classes": 3, "class_weights": (1.0, 2.0)}, "give 3"),
        ({"num_classes": 2, "class_weights": (1.0, 0.0)}, "above 0"),
        ({"temperature": 0.0}, "must be above 0"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        SDTConfig(**settings)


def test_sizes_come_from_the_data():
    with pytest.raises(ValueError, match="come from the data"):
        SDT(SDTConfig())
