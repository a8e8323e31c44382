"""Where each weight of a model stands: word vectors first, then layer by layer, the head last; adapters by themselves."""

from torch import nn

EMBEDDINGS, HEAD, ADAPTERS = "embeddings", "head", "adapters"
ADAPTER_NAMES = ("lora_", "ia3_l", "prompt_encoder")  # how a part of the name of each weight begins that peft adds


def of(model: nn.Module) -> dict[str, list[str]]:
    """The names of all weights by their place, places in order; those that a model lacks are left out.

    A layer is what has the same first number in its name, as `encoder.layer.3`; the two directions of an LSTM share it. What
    stands in the body before its layers, and every table of vectors, counts as embeddings; what comes after them, such as a
    pooler or the last norm, as part of the head. A head that shares its weights with the word vectors is an embedding.
    """
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    body = {id(p) for p in plain.base_model.parameters()}
    tables = {id(p) for module in plain.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    found: dict[str | int, list[str]] = {EMBEDDINGS: [], HEAD: [], ADAPTERS: []}
    is_behind = False
    for name, parameter in model.named_parameters():
        if any(part.startswith(ADAPTER_NAMES) for part in name.split(".")):
            found[ADAPTERS].append(name)
        elif id(parameter) in tables:
            found[EMBEDDINGS].append(name)
        elif id(parameter) not in body:
            found[HEAD].append(name)
        elif (number := next((int(part) for part in name.split(".") if part.isdigit()), None)) is not None:
            found.setdefault(number, []).append(name)
            is_behind = True
        else:
            found[HEAD if is_behind else EMBEDDINGS].append(name)
    numbers = sorted(key for key in found if isinstance(key, int))
    layers = {f"layer {i}": found[number] for i, number in enumerate(numbers)}
    ordered = {EMBEDDINGS: found[EMBEDDINGS], **layers, HEAD: found[HEAD], ADAPTERS: found[ADAPTERS]}
    return {place: names for place, names in ordered.items() if names}
