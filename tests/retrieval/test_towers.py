"""Text towers against twins in loops; a caption's vector does not depend on how far it is filled up."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import naive
from blocks import HALF, randomised
from ssan.errors import ModelError, UsageError
from ssan.retrieval.towers import TOWERS, MaxOverWords, TransformerTower, build_tower, word_embedding

RECURRENT = ["gru", "bigru", "lstm"]
WORDS = torch.tensor([[1, 5, 12, 5, 2], [4, 0, 0, 0, 0], [7, 7, 3, 0, 0]])


def tower(name: str, num_features: int = 6) -> nn.Module:
    made = randomised(build_tower(name, word_embedding(num_rows=13, word_dim=7), num_features=num_features).double())
    with torch.no_grad():
        made.words.weight[0] = 0
    return made


@pytest.mark.parametrize("name", RECURRENT)
def test_the_last_state_equals_the_loops(name: str) -> None:
    made = tower(name)
    params = {name: tensor.numpy() for name, tensor in made.cell.state_dict().items()}
    table = made.words.weight.detach().numpy()
    for words, found in zip(WORDS, made(WORDS).detach(), strict=True):
        vectors = table[words[words > 0].numpy()]
        kind = "lstm" if name == "lstm" else "gru"
        states = [naive.recurrent(vectors, params, kind=kind)]
        if name == "bigru":
            states.append(naive.recurrent(vectors, params, kind=kind, backwards=True))
        torch.testing.assert_close(found, torch.from_numpy(np.concatenate(states)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", RECURRENT)
def test_the_last_state_is_that_of_the_captions_own_end(name: str) -> None:
    """Filled up to 11 words or to 17, and beside longer captions or alone, a caption gives the same."""
    made = tower(name)
    found = [made(F.pad(WORDS, (0, max_words - 5))) for max_words in (5, 11, 17)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[1], found[2])
    torch.testing.assert_close(made(WORDS[1:2]), found[0][1:2], rtol=0, atol=1e-12)


def plain(made: MaxOverWords, words_bl: Tensor) -> Tensor:
    """Reference 22's form: the layer over every place."""
    return F.relu(made.fc(made.words(words_bl))).max(dim=1).values


def test_the_maximum_over_words_equals_the_loops() -> None:
    made = tower("maxpool")
    vectors = made.words.weight.detach().numpy()[WORDS.numpy()]
    expected = naive.max_over_words(vectors, made.fc.weight.detach().numpy(), made.fc.bias.detach().numpy())
    torch.testing.assert_close(made(WORDS).detach(), torch.from_numpy(expected), rtol=0, atol=1e-12)


def test_the_maximum_over_words_and_its_gradients_equal_those_of_the_plain_form() -> None:
    words_bl = torch.randint(0, 101, (53, 11), generator=torch.Generator().manual_seed(3))
    d_out = torch.randn(53, 19, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    made = randomised(MaxOverWords(word_embedding(num_rows=101, word_dim=7), num_features=19).double())
    with torch.no_grad():
        made.words.weight[0] = 0
    found = []
    for form in (made, lambda words_bl: plain(made, words_bl)):
        out = form(words_bl)
        found.append((out.detach(), *torch.autograd.grad(out, list(made.parameters()), d_out)))
    for fast, slow in zip(*found, strict=True):
        torch.testing.assert_close(fast, slow, rtol=0, atol=1e-12)
        assert fast.abs().max() > 0


def test_padding_takes_part_in_the_maximum() -> None:
    """One word of vector -1, W = 1, c = 2: alone relu(-1 + 2) = 1; filled up with a zero vector relu(c) = 2 wins."""
    made = MaxOverWords(word_embedding(matrix=np.array([[0.0], [-1.0]])), num_features=1)
    nn.init.ones_(made.fc.weight)
    nn.init.constant_(made.fc.bias, 2.0)
    assert made(torch.tensor([[1]])).item() == 1
    assert made(torch.tensor([[1, 0]])).item() == 2
    assert made(torch.tensor([[1, 0, 0, 0]])).item() == 2
    nn.init.constant_(made.fc.bias, -3.0)
    assert made(torch.tensor([[1]])).item() == 0


@pytest.mark.parametrize("name", TOWERS)
def test_a_caption_without_words_gives_finite_numbers_and_gradients(name: str) -> None:
    made = tower(name)
    out_bf = made(torch.tensor([[0, 0, 0], [1, 2, 0]]))
    out_bf.sum().backward()
    assert torch.isfinite(out_bf).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in made.parameters())
    assert made(torch.zeros(0, 3, dtype=torch.int64)).shape == (0, 6)


@pytest.mark.parametrize("name", TOWERS)
def test_every_weight_has_a_gradient_and_padding_has_none(name: str) -> None:
    made = tower(name)
    out_bf = made(WORDS)
    assert out_bf.shape == (3, made.num_features) == (3, 6)
    (out_bf * torch.randn(3, 6, dtype=torch.float64)).sum().backward()
    for key, parameter in made.named_parameters():
        assert parameter.grad.abs().max() > 0, key
    reached = set((made.words.weight.grad.abs().sum(dim=1) > 0).nonzero().flatten().tolist())
    there = set(WORDS.flatten().tolist()) - {0}
    assert reached <= there if name == "maxpool" else reached == there  # a word may be nowhere the largest


@pytest.mark.parametrize("name", TOWERS)
@pytest.mark.parametrize(("dtype", "tolerance"), HALF)
def test_in_half_precision_a_tower_stays_close_to_single(name: str, dtype: torch.dtype, tolerance: float) -> None:
    made = tower(name).float()
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype, enabled=enabled):
            out = made(WORDS)
        found.append((out.detach().float(), *torch.autograd.grad(out.float().sum(), list(made.parameters()))))
    for single, half in zip(*found, strict=True):
        assert (single - half).abs().max() < 2 * tolerance * single.abs().max()


def test_the_order_of_words_matters_to_recurrent_towers_alone() -> None:
    for name in TOWERS:
        made = tower(name)
        same = torch.allclose(made(torch.tensor([[1, 2, 3]])), made(torch.tensor([[3, 2, 1]])))
        assert same == (name == "maxpool")


def test_given_word_vectors_are_frozen_or_trained_and_padding_stays_zero() -> None:
    matrix = np.vstack([np.zeros((1, 3)), np.ones((2, 3))]).astype(np.float32)
    for trained in (True, False):
        words = word_embedding(matrix=matrix, trained=trained)
        assert words.weight.requires_grad == trained
        assert torch.equal(words.weight.detach(), torch.from_numpy(matrix))
    words = word_embedding(num_rows=5, word_dim=3)
    assert words.weight.requires_grad
    assert torch.equal(words.weight[0], torch.zeros(3))
    words(torch.tensor([0, 1])).sum().backward()
    assert words.weight.grad[0].abs().max() == 0


def test_the_given_matrix_is_not_changed_by_training() -> None:
    matrix = np.array([[0.0], [1.0]], np.float32)
    words = word_embedding(matrix=matrix)
    with torch.no_grad():
        words.weight.add_(1)
    assert matrix.tolist() == [[0.0], [1.0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "need num_rows and word_dim; got None and None"),
        ({"num_rows": 1, "word_dim": 3}, "got 1 and 3"),
        ({"num_rows": 5, "word_dim": 3, "trained": False}, "cannot be frozen"),
        ({"matrix": np.zeros((3, 2)), "word_dim": 2}, "give one or the other"),
        ({"matrix": np.ones((3, 2))}, "a row of zeros for padding"),
        ({"matrix": np.zeros(3)}, r"shape \(3,\)"),
    ],
)
def test_words_that_cannot_be_had_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        word_embedding(**options)


def test_unknown_towers_and_odd_sizes_are_refused() -> None:
    words = word_embedding(num_rows=5, word_dim=3)
    with pytest.raises(UsageError, match=r"unknown text tower 'gur'\. Did you mean 'gru'"):
        build_tower("gur", words)
    with pytest.raises(UsageError, match="num_features is 7; expected a multiple of 2"):
        build_tower("bigru", words, num_features=7)


# ---------------------------------------------------------------------------------------------------- transformers


@pytest.fixture(scope="module")
def clip(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP with random weights; the end of a text is the last token of its vocabulary, as in the published."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    folder = tmp_path_factory.mktemp("clip")
    words = ["[PAD]", "[CLS]", "[UNK]", "a", "man", "walks", "left", "right", "[END]"]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [END]", special_tokens=[("[CLS]", 1), ("[END]", 8)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", eos_token="[END]"
    ).save_pretrained(folder)
    tower = {"hidden_size": 10, "intermediate_size": 7, "num_hidden_layers": 1, "num_attention_heads": 2,
             "projection_dim": 6}  # fmt: skip
    config = transformers.CLIPConfig(
        text_config={**tower, "vocab_size": 9, "max_position_embeddings": 11, "eos_token_id": 8, "bos_token_id": 1},
        vision_config={**tower, "image_size": 8, "patch_size": 4},
        projection_dim=6,
    )
    torch.manual_seed(6)
    transformers.CLIPModel(config).save_pretrained(folder)
    return folder


CAPTIONS = ["a man walks left", "man", ""]


@pytest.mark.slow
def test_a_transformer_reads_captions_with_its_own_tokeniser(bert: Path) -> None:
    made = TransformerTower(bert).eval()
    assert made.encode(CAPTIONS, 7).tolist() == [[2, 5, 6, 7, 8, 3, 0], [2, 6, 3, 0, 0, 0, 0], [2, 3, 0, 0, 0, 0, 0]]
    assert made.encode(CAPTIONS, 4).tolist()[0] == [2, 5, 6, 3]
    assert made.num_features == 10
    with pytest.raises(UsageError, match="max_words is 14; this text model takes 1 to 13 tokens"):
        made.encode(CAPTIONS, 14)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_a_transformers_vector_is_that_of_the_caption_alone(bert: Path, pooling: str) -> None:
    """Given the caption's own tokens and nothing else, the model's last layer, pooled by hand."""
    import transformers

    made = TransformerTower(bert, pooling=pooling).double().eval()
    alone = transformers.BertModel.from_pretrained(bert).double().eval()
    with torch.no_grad():
        found = made(torch.from_numpy(made.encode(CAPTIONS, 11)))
        for row, tokens in zip(found, [[1, 4, 5, 6, 7, 2], [1, 5, 2], [1, 2]], strict=True):
            hidden_lf = alone(input_ids=torch.tensor([tokens])).last_hidden_state[0]
            expected = {"mean": hidden_lf.mean(dim=0), "cls": hidden_lf[0], "last": hidden_lf[-1]}[pooling]
            torch.testing.assert_close(row, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("pooling", ["auto", "mean", "cls", "last", "eos"])
def test_a_row_of_padding_alone_is_finite_in_a_transformer(bert: Path, pooling: str) -> None:
    assert torch.isfinite(TransformerTower(bert, pooling=pooling)(torch.zeros(2, 5, dtype=torch.int64))).all()


def test_a_transformer_is_frozen_when_told_to(bert: Path) -> None:
    assert all(parameter.requires_grad for parameter in TransformerTower(bert).parameters())
    assert not any(parameter.requires_grad for parameter in TransformerTower(bert, trained=False).parameters())


def test_a_frozen_transformer_drops_nothing_out_while_the_rest_trains(bert: Path) -> None:
    made = TransformerTower(bert, trained=False)
    assert made.model.config.hidden_dropout_prob > 0
    words_bl = torch.from_numpy(made.encode(CAPTIONS, 7))
    found = [around.train()[0](words_bl) for around in [nn.Sequential(made, nn.Dropout(0.5))] for _ in range(3)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], made.eval()(words_bl))
    trained = nn.Sequential(TransformerTower(bert)).train()
    assert not torch.equal(trained(words_bl), trained(words_bl))


def test_of_a_model_of_images_and_texts_the_projection_of_the_texts_end_is_taken(clip: Path) -> None:
    import transformers

    whole = transformers.CLIPModel.from_pretrained(clip).double().eval()
    made = TransformerTower(clip).double().eval()
    assert (made.pooling, made.num_features) == ("eos", 6)
    texts = made.encode(CAPTIONS, 8)
    assert texts.tolist()[1] == [2, 5, 9, 0, 0, 0, 0, 0]
    with torch.no_grad():
        found = made(torch.from_numpy(texts))
        for row, tokens in zip(found, [[1, 3, 4, 5, 6, 8], [1, 4, 8], [1, 8]], strict=True):
            expected = whole.get_text_features(input_ids=torch.tensor([tokens]))
            torch.testing.assert_close(row, getattr(expected, "pooler_output", expected)[0], rtol=0, atol=1e-9)
    plain = TransformerTower(clip, pooling="mean")
    assert (plain.num_features, plain.projection) == (10, None)


def test_a_text_model_that_was_saved_by_itself_keeps_its_projection(clip: Path, tmp_path: Path) -> None:
    import transformers

    for file in clip.iterdir():
        if file.name.startswith("tokenizer"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    transformers.CLIPTextModelWithProjection.from_pretrained(clip).save_pretrained(tmp_path)
    whole, alone = TransformerTower(clip).eval(), TransformerTower(tmp_path).eval()
    words_bl = torch.from_numpy(whole.encode(CAPTIONS, 8))
    torch.testing.assert_close(alone(words_bl), whole(words_bl), rtol=0, atol=1e-6)


def test_pickled_weights_of_a_transformer_are_not_read(bert: Path, tmp_path: Path) -> None:
    for file in bert.iterdir():
        if file.name != "model.safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"cannot read it as a text model .*safetensors"):
        TransformerTower(tmp_path)


def test_code_that_comes_with_a_transformer_is_not_run(bert: Path, tmp_path: Path) -> None:
    for file in bert.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    made = tmp_path / "made"
    (tmp_path / "evil.py").write_text(f"open({str(made)!r}, 'w')\nclass Config: pass\nclass Model: pass\n")
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="without code of its own") as caught:
        TransformerTower(tmp_path)
    assert len(str(caught.value).splitlines()) == 1
    assert not made.exists()


def test_a_network_of_images_is_no_text_model(bert: Path, tmp_path: Path) -> None:
    import transformers

    for file in bert.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=7, image_size=32
    )
    transformers.ViTModel(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="ViTModel is no encoder of text"):
        TransformerTower(tmp_path)


def test_no_folder_no_transformers_and_no_such_pooling_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="no text model there"):
        TransformerTower("bert-base-uncased")
    with pytest.raises(UsageError, match="unknown pooling 'median'"):
        TransformerTower(tmp_path, pooling="median")
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UsageError, match=r"pip install 'ssan\[text\]'"):
        TransformerTower(tmp_path)
