"""A cross-encoder small enough to be made in a test: it counts words that two texts share."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

__all__ = ["write_cross_encoder"]

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_OPSET = 17
_IR_VERSION = 10


def write_cross_encoder(
    directory: Path,
    words: dict[str, float],
    *,
    classes: int = 1,
    type_ids: bool = True,
) -> Path:
    """Writes a model whose logit is the sum of the weights of the second text's words.

    Args:
        directory: Where to.
        words: Words it knows with their weights; others weigh nothing.
        classes: Figures it gives for each pair; with two, the weights are those of the second.
        type_ids: Whether it is told which tokens are the second text's; else all tokens count.
    """
    directory.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: number for number, token in enumerate((*_SPECIAL, *words))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.save(str(directory / "tokenizer.json"))
    weights = np.zeros((len(vocabulary), classes), np.float32)
    weights[len(_SPECIAL) :, -1] = list(words.values())
    masks = ["attention_mask", *(["token_type_ids"] if type_ids else [])]
    nodes = [helper.make_node("Gather", ["weights", "input_ids"], ["weighed0"])]
    for number, mask in enumerate(masks):
        nodes += [
            helper.make_node("Cast", [mask], [f"{mask}_float"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", [f"{mask}_float", "last"], [f"{mask}_column"]),
            helper.make_node(
                "Mul", [f"weighed{number}", f"{mask}_column"], [f"weighed{number + 1}"]
            ),
        ]
    nodes.append(
        helper.make_node("ReduceSum", [f"weighed{len(masks)}", "tokens"], ["logits"], keepdims=0)
    )
    graph = helper.make_graph(
        nodes,
        "judge",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"])
            for name in ("input_ids", *masks)
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.array([-1]), "last"),
            numpy_helper.from_array(np.array([1]), "tokens"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
    model.ir_version = _IR_VERSION
    onnx.save(model, str(directory / "model.onnx"))
    return directory
