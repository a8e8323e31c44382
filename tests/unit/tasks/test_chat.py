"""Which tokens of a conversation are the answers', under every kind of template and tokenizer."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from llmtune.data import tokenizer as tokenizers
from llmtune.errors import ConfigError, DataError, ModelError
from llmtune.tasks import chat_templates
from llmtune.tasks.chat import Chat
from llmtune.tasks.chat_templates import TEMPLATES

TEXTS = ["hello world", "User: Assistant: ### Instruction: Response", "你好 😀 wörld\n\n\n", "  a  b.", "yes"]
TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "hello 😀"},
    {"role": "assistant", "content": "wörld 你好.\nyes"},
    {"role": "user", "content": "a\n\nb?"},
    {"role": "assistant", "content": "x"},
]
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}:{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}"
    "{% endgeneration %}{% else %}{{ m['content'] }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant:{% endif %}"
)
ENDLESS = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def tokenizer(kind: str = "bpe", template: str | None = None, *, lowercase: bool = False):
    made = tokenizers.train(kind, family="gpt", vocab_size=600, min_frequency=1, lowercase=lowercase, texts=TEXTS)
    chat_templates.add_tokens(made, "chatml")
    chat_templates.add_tokens(made, "llama3")
    made.chat_template = template
    return made


@pytest.fixture(scope="module")
def by_bytes():
    return tokenizer()


def answers_of(chat: Chat, written) -> list[str]:
    pairs = zip(written.answers[::2], written.answers[1::2], strict=True)
    return [chat.tokenizer.decode(written.ids[start:end]) for start, end in pairs]


@pytest.mark.parametrize("name", TEMPLATES)
def test_our_templates_end_each_answer_with_a_token(by_bytes, name):
    by_bytes.chat_template = TEMPLATES[name].source
    chat = Chat(by_bytes)
    [written] = chat.write([TURNS])
    space = " " if name == "plain" else ""
    end = {"chatml": "<|im_end|>", "llama3": "<|eot_id|>"}.get(name, "<|endoftext|>")
    assert answers_of(chat, written) == [f"{space}wörld 你好.\nyes{end}", f"{space}x{end}"]
    assert chat.tokenizer.decode([chat.end_ids[0]]) == end and by_bytes.eos_token_id in chat.end_ids
    assert written.answers[-1] == len(written.ids)
    assert chat.tokenizer.decode(written.ids) == chat.spans(TURNS)[0].rstrip("\n")


@pytest.mark.parametrize("template", [*(t.source for t in TEMPLATES.values()), MARKED, ENDLESS])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(asked=st.text(min_size=1, max_size=8), answer=st.text(alphabet="\n a.😀你1", min_size=1, max_size=8))
def test_training_reads_what_a_model_reads_before_it_answers(by_bytes, template, asked, answer):
    """The tokens before an answer are those of the prompt, whatever the answer begins with, and the rest is the answer's."""
    by_bytes.chat_template = template
    chat = Chat(by_bytes)
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    [written] = chat.write([turns])
    first, behind = written.answers
    assert written.ids[:first] == chat.prompt_ids(turns[:1]) and behind == len(written.ids)
    learned = chat.tokenizer.decode(written.ids[first:])
    end = chat.tokenizer.decode([chat.end_ids[0]])
    assert learned.endswith(end) and learned.removesuffix(end).strip() == answer.strip()


def test_the_last_answer_alone(by_bytes):
    for template in (TEMPLATES["chatml"].source, MARKED):
        by_bytes.chat_template = template
        chat = Chat(by_bytes, answers="last")
        [written] = chat.write([TURNS])
        assert answers_of(chat, written) == ["x<|im_end|>"]


def test_marks_of_a_template_decide_and_the_end_is_learned(by_bytes):
    by_bytes.chat_template = MARKED
    chat = Chat(by_bytes)
    assert answers_of(chat, chat.write([TURNS])[0]) == ["wörld 你好.\nyes<|im_end|>", "x<|im_end|>"]


def test_a_template_without_an_end_gets_one_behind_the_last_answer(by_bytes):
    by_bytes.chat_template = ENDLESS
    chat = Chat(by_bytes)
    [written] = chat.write([TURNS])
    assert answers_of(chat, written) == ["wörld 你好.\nyes\n", "x\n<|endoftext|>"]
    assert chat.end_ids == (by_bytes.eos_token_id,)


def test_other_kinds_of_tokenizers():
    for kind, learned in {"word": "wörld 你 好. yes", "char": "wörld 你好.\nyes", "wordpiece": "wörld 你 好. yes"}.items():
        chat = Chat(tokenizer(kind, TEMPLATES["chatml"].source))
        found = chat.tokenizer.decode(chat.write([TURNS])[0].ids[slice(*chat.write([TURNS])[0].answers[:2])])
        assert "".join(found.split()) == "".join(f"{learned}<|im_end|>".split()), kind


def test_a_tokenizer_that_writes_a_space_before_each_text():
    """As those of Llama 2: an answer in the middle of a text begins with its own space and gets no other."""
    vocab = {token: i for i, token in enumerate(["<s>", "</s>", "<unk>", "▁", *"[]/ISTNabc", "▁a", "▁b"])}
    made = Tokenizer(models.BPE(vocab=vocab, merges=[("▁", "a"), ("▁", "b")], unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    made.decoder = decoders.Metaspace()
    fast = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    fast.chat_template = (
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
        "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
    )
    chat = Chat(fast)
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    [written] = chat.write([turns])
    first, behind = written.answers
    assert fast.convert_ids_to_tokens(written.ids[first:behind]) == ["▁b", "</s>"]
    assert written.ids[:first] == chat.prompt_ids(turns[:1])


def test_the_system_prompt_is_for_conversations_that_have_none(by_bytes):
    by_bytes.chat_template = TEMPLATES["plain"].source
    chat = Chat(by_bytes, system_prompt="Be kind.")
    assert chat.prompt(TURNS[1:2]) == "Be kind.\nUser: hello 😀\nAssistant:"
    assert chat.prompt(TURNS[:2]) == "Be brief.\nUser: hello 😀\nAssistant:"


def test_a_template_that_rewrites_earlier_turns(by_bytes):
    by_bytes.chat_template = (
        "{% for m in messages %}{{ m['role'] + ':' }}{% if m['role'] == 'user' or loop.last %}{{ m['content'] }}{% endif %}"
        "<|im_end|>{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    )
    with pytest.raises(DataError, match="writes turn 3 otherwise") as refused:
        Chat(by_bytes).write([TURNS[1:3], TURNS])
    assert refused.value.where == "1" and "task.answers=last" in refused.value.remedy
    last = Chat(by_bytes, answers="last")
    assert answers_of(last, last.write([TURNS])[0]) == ["x<|im_end|>"]


def test_a_template_can_refuse_and_can_do_nothing_else(by_bytes):
    by_bytes.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(DataError, match="refuses the conversation: roles must alternate"):
        Chat(by_bytes).prompt(TURNS)
    by_bytes.chat_template = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    with pytest.raises(DataError, match="refuses"):
        Chat(by_bytes).prompt(TURNS)
    for odd in ("{{ 1 / 0 }}", "{{ messages[0]['content'] + 1 }}", "{{ messages[9]['role'] }}", "{% for %}"):
        by_bytes.chat_template = odd
        with pytest.raises(DataError, match="refuses"):
            Chat(by_bytes).prompt(TURNS)
    by_bytes.chat_template = "{% generation %}{% endgeneration %}{{ messages[0]['content'] }}"
    with pytest.raises(DataError, match="marks no token"):
        Chat(by_bytes).write([TURNS])
    by_bytes.chat_template = "{% set _ = messages.append(1) %}"
    with pytest.raises(DataError, match="refuses"):
        Chat(by_bytes).prompt(TURNS)


def test_which_template_a_tokenizer_gets(by_bytes):
    by_bytes.chat_template = None
    assert chat_templates.install(by_bytes, "auto") == "chatml"
    assert chat_templates.install(by_bytes, "auto") is None and chat_templates.install(by_bytes, "own") is None
    assert chat_templates.install(by_bytes, "alpaca") == "alpaca"
    bare = tokenizers.train("bpe", family="gpt", vocab_size=300, min_frequency=1, lowercase=False, texts=TEXTS)
    with pytest.raises(ModelError, match="has no chat template"):
        chat_templates.install(bare, "own")
    with pytest.raises(ConfigError, match="llama3 needs .*eot_id.*use alpaca or plain"):
        chat_templates.install(bare, "llama3")
    assert chat_templates.install(bare, "auto") == "plain"


def test_a_tokenizer_without_an_end():
    made = tokenizer("bpe", ENDLESS)
    made.eos_token = None
    with pytest.raises(ModelError, match="no token that could end"):
        Chat(made).end_ids  # noqa: B018
