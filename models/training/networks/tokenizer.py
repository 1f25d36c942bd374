"""Makes the two tokenizers, CLIP's BPE and T5's Unigram, from the caption grammar. Knows no model.

Both keep every word of the grammar whole. CLIP's spells anything else in bytes; T5's spells printable ASCII
and has one unknown token for the rest, so that no prompt is refused.
"""

from tokenizers import pre_tokenizers
from transformers import CLIPTokenizer, T5Tokenizer

from models.training.data.captions import words

CLIP_LENGTH = 77
T5_LENGTH = 512
#: Words that adapters and negative prompts use, beside those of the grammar.
_EXTRA = (
    "blurry low bad ugly outlined outline tinted tint stripes dots crescent style shape object big tiny "
    "huge light dark pink orange grey brown and with without no not cat dog house"
)
EXTRA_WORDS = frozenset(_EXTRA.split())
_CLIP_START, _CLIP_END = "<|startoftext|>", "<|endoftext|>"


def build_clip(pad_token: str = _CLIP_END) -> CLIPTokenizer:
    """CLIP's own tokenizer class around our vocabulary."""
    vocabulary, merges = build_bpe(sorted(words() | EXTRA_WORDS))
    return CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token=pad_token, model_max_length=CLIP_LENGTH)


def build_bpe(whole_words: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Byte symbols, each with and without the end-of-word mark, then merges that spell every word.

    A word is merged from the left; a pair that an earlier word has introduced is not repeated. A merge
    meant for one word may fire first inside another, so the result is applied and repaired until all hold.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(symbol + "</w>" for symbol in alphabet)]
    merges: list[tuple[str, str]] = []
    for word in whole_words:
        symbols = _apply([*word[:-1], word[-1] + "</w>"], merges)
        while len(symbols) > 1:
            merges.append((symbols[0], symbols[1]))
            symbols = [symbols[0] + symbols[1], *symbols[2:]]
    for left, right in merges:
        if left + right not in tokens:
            tokens.append(left + right)
    tokens += [_CLIP_START, _CLIP_END]
    return {token: index for index, token in enumerate(tokens)}, merges


def _apply(symbols: list[str], merges: list[tuple[str, str]]) -> list[str]:
    """What BPE does: the earliest merge first, everywhere it fits."""
    for left, right in merges:
        index = 0
        while index < len(symbols) - 1:
            if symbols[index] == left and symbols[index + 1] == right:
                symbols = [*symbols[:index], left + right, *symbols[index + 2 :]]
            index += 1
    return symbols


def build_t5() -> T5Tokenizer:
    """Build T5's tokenizer, saved as tokenizer.json only; reading it takes no sentencepiece model.

    T5 knows upper case from lower; here the words exist in lower case, capitalised and in capitals.
    """
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0), (",", -3.0), (".", -3.0)]
    for word in sorted(words() | EXTRA_WORDS):
        forms = dict.fromkeys((word, word.capitalize(), word.upper()))
        pieces += [(f"▁{form}", -2.0) for form in forms]
    known = {piece for piece, _ in pieces}
    letters = (chr(code) for code in range(33, 127) if chr(code) not in known)
    pieces += [(letter, -8.0) for letter in letters]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=T5_LENGTH)
