"""What is written equals what transformers' generate writes, whatever the batch."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from llmtune.config.sections.generation import Sampling
from llmtune.data import tokenizer as tokenizers
from llmtune.generation.prompts import Prompts
from llmtune.generation.writer import Writer

TEXTS = ["a film about rain", "Größe 字 wird 🙂 gemessen", "the end. the end. the start\n\nof it"]
SIZES = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "max_position_embeddings": 64}
PLAIN = {
    "max_new_tokens": 20,
    "temperature": 0.0,
    "top_k": None,
    "top_p": 1.0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "seed": 0,
}


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizers.train("bpe", family="gpt", vocab_size=300, min_frequency=1, lowercase=False, texts=TEXTS * 3)


def gpt2(size: int) -> GPT2LMHeadModel:
    return GPT2LMHeadModel(GPT2Config(vocab_size=size, n_layer=2, n_embd=32, n_head=4, n_positions=64))


def llama(size: int) -> LlamaForCausalLM:
    sizes = SIZES | {"num_key_value_heads": 2, "intermediate_size": 48}
    return LlamaForCausalLM(LlamaConfig(vocab_size=size, **sizes, initializer_range=0.2))


def mistral(size: int) -> MistralForCausalLM:
    sizes = SIZES | {"num_key_value_heads": 2, "intermediate_size": 48, "sliding_window": 8}
    return MistralForCausalLM(MistralConfig(vocab_size=size, **sizes, initializer_range=0.2))


@pytest.fixture(scope="module", params=[gpt2, llama, mistral], ids=lambda make: make.__name__)
def model(request: pytest.FixtureRequest, tokenizer):
    torch.manual_seed(1)
    made = request.param(len(tokenizer)).eval()
    made.generation_config.eos_token_id = None
    return made


def addressed(tokenizer, *, window: int | None = 64, ends=()) -> Prompts:
    return Prompts(tokenizer, window=window, ends=ends, chat=None, is_bare=True, start=0)


def writer(model, tokenizer, *, window: int | None = 64, ends=(), slides: bool = True, **how) -> Writer:
    sampling = Sampling(**{**PLAIN, "stop": (), **how})
    return Writer(model, addressed(tokenizer, window=window, ends=ends), sampling, slides=slides)


def prompts_of(tokenizer, lengths=(3, 11, 1, 7, 20)) -> list[list[int]]:
    ids = tokenizer(" ".join(TEXTS))["input_ids"]
    return [ids[i : i + length] for i, length in enumerate(lengths)]


def generated(model, prompt: list[int], **options) -> list[int]:
    made = model.generate(torch.tensor([prompt]), do_sample=False, pad_token_id=0, **options)
    return made[0, len(prompt) :].tolist()


def test_greedy_text_is_that_of_generate_in_any_batch(model, tokenizer):
    prompts = prompts_of(tokenizer)
    expected = [tokenizer.decode(generated(model, p, max_new_tokens=20), skip_special_tokens=True) for p in prompts]
    for size in (1, 2, 5):
        found = writer(model, tokenizer).answers(prompts, keys=range(5), batch_size=size)
        assert [answer.text for answer in found] == expected
        assert {answer.finish_reason for answer in found} == {"length"}


def test_a_repetition_penalty_is_that_of_generate(model, tokenizer):
    prompts = prompts_of(tokenizer)
    options = {"max_new_tokens": 20, "repetition_penalty": 1.7}
    expected = [tokenizer.decode(generated(model, p, **options), skip_special_tokens=True) for p in prompts]
    found = writer(model, tokenizer, repetition_penalty=1.7).answers(prompts, keys=range(5), batch_size=5)
    assert [answer.text for answer in found] == expected


def test_a_text_ends_at_any_end_token_and_the_others_go_on(model, tokenizer):
    prompts = prompts_of(tokenizer)
    alone = [generated(model, p, max_new_tokens=20) for p in prompts]
    ends = {alone[0][4], alone[1][2]}
    expected = []
    for tokens in alone:
        place = next((i for i, token in enumerate(tokens) if token in ends), None)
        expected.append((tokenizer.decode(tokens[:place], skip_special_tokens=True), "length" if place is None else "stop"))
    found = writer(model, tokenizer, ends=ends).answers(prompts, keys=range(5), batch_size=5)
    assert [(answer.text, answer.finish_reason) for answer in found] == expected
    assert expected[0][1] == expected[1][1] == "stop"


def test_draws_depend_on_seed_and_row_alone(model, tokenizer):
    prompts, how = prompts_of(tokenizer), {"temperature": 1.3, "top_p": 0.9}
    one, many = (writer(model, tokenizer, **how).answers(prompts, keys=range(5), batch_size=n) for n in (1, 5))
    assert one == many
    turned = writer(model, tokenizer, **how).answers(prompts[::-1], keys=[4, 3, 2, 1, 0], batch_size=2)
    assert turned[::-1] == one
    assert writer(model, tokenizer, **how, seed=1).answers(prompts, keys=range(5), batch_size=5) != one
    same = writer(model, tokenizer, **how).answers([prompts[0]] * 3, keys=range(3), batch_size=3)
    assert len({answer.text for answer in same}) == 3


def test_a_full_window_ends_a_text_or_slides(model, tokenizer):
    prompts = prompts_of(tokenizer, (5, 15, 17))
    stopped = writer(model, tokenizer, window=16, slides=False).answers(prompts, keys=range(3), batch_size=3)
    assert [(a.finish_reason, a.num_tokens) for a in stopped] == [("window", 12), ("window", 2), ("window", 0)]
    slid = writer(model, tokenizer, window=16, max_new_tokens=30)
    found = slid.answers(prompts, keys=range(3), batch_size=3)
    assert [a.finish_reason for a in found] == ["length"] * 3 and slid.num_slid == 3
    for prompt, answer in zip(prompts, found, strict=True):
        tokens = list(prompt)
        start = 0
        while len(tokens) < len(prompt) + 30:
            if len(tokens) - start > 16:
                start = len(tokens) - max(16 - (len(prompt) + 30 - len(tokens)), 8)
            logits = model(torch.tensor([tokens[start:]])).logits[0, -1]
            tokens.append(int(logits.argmax()))
        assert answer.text == tokenizer.decode(tokens[len(prompt) :], skip_special_tokens=True)


def test_reading_along_gives_the_same_text(model, tokenizer):
    prompts = prompts_of(tokenizer)
    how = {"temperature": 2.0, "max_new_tokens": 40}
    expected = writer(model, tokenizer, **how).answers(prompts, keys=range(5), batch_size=5)
    along = writer(model, tokenizer, **how)
    for key, prompt in enumerate(prompts):
        pieces: list[str] = []
        answer = along.answer(prompt, key=key, show=pieces.append)
        assert answer == expected[key] and "".join(pieces) == answer.text


def test_what_was_read_is_not_read_again(model, tokenizer):
    (prompt,) = prompts_of(tokenizer, (20,))
    along = writer(model, tokenizer)
    lengths = []
    hook = model.get_input_embeddings().register_forward_hook(lambda m, args, out: lengths.append(args[0].shape[-1]))
    first = along.answer(prompt, key=0, show=lambda piece: None)
    read = prompt + tokenizer(first.text)["input_ids"]
    for other in (prompt, read + [5, 6], prompt[:7] + [9, 9], [1], prompt):
        before = len(lengths)
        again = along.answer(other, key=0, show=lambda piece: None)
        assert again == writer(model, tokenizer).answers([other], keys=[0], batch_size=1)[0]
        if other is prompt and model.config.model_type != "mistral":
            assert lengths[before] <= 20
    hook.remove()
    assert lengths[0] == 20


def test_an_answer_can_be_interrupted(model, tokenizer):
    shown: list[str] = []
    found = writer(model, tokenizer, max_new_tokens=50).answer(
        [3, 4], key=0, show=shown.append, is_stopping=lambda: len(shown) >= 5
    )
    assert found.finish_reason == "interrupted" and found.num_tokens < 50 and "".join(shown) == found.text


def test_a_batch_without_room_is_halved(model, tokenizer, monkeypatch):
    prompts = prompts_of(tokenizer)
    expected = writer(model, tokenizer).answers(prompts, keys=range(5), batch_size=5)
    forward = type(model).forward

    def small(self, input_ids, **inputs):
        if len(input_ids) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return forward(self, input_ids=input_ids, **inputs)

    small.__signature__ = __import__("inspect").signature(forward)
    monkeypatch.setattr(type(model), "forward", small)
    assert writer(model, tokenizer).answers(prompts, keys=range(5), batch_size=5) == expected
