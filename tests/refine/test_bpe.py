import hashlib
import subprocess
import sys
from pathlib import Path

from athena.refine.text.bpe import BPE_SHA256, END_OF_TEXT_ID, VOCABULARY_SIZE, load_tokenizer


def test_every_text_survives_the_round_trip():
    tokenizer = load_tokenizer()
    assert tokenizer.get_vocab_size() == VOCABULARY_SIZE
    for text in ("Plain English text, twice.", " two  spaces\t\n\n", "日本語 wörld ½ \x00 🦉", "12345 x's"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_text_cannot_forge_its_own_end():
    tokenizer = load_tokenizer()
    assert tokenizer.token_to_id("<|endoftext|>") == END_OF_TEXT_ID
    assert END_OF_TEXT_ID not in tokenizer.encode("before <|endoftext|> after").ids


def test_the_committed_model_is_what_the_script_trains(test_data, tmp_path):
    texts = test_data / "text"
    sources = [next(texts.glob(f"gutenberg-{number}-*")) for number in (1342, 1661, 2600, 2701, 14881)]
    sources += [texts / "nltk-inaugural.zip", texts / "nltk-state_union.zip"]
    script = Path(__file__).parents[2] / "scripts" / "train_bpe.py"
    subprocess.run([sys.executable, script, tmp_path / "bpe.json", *sources], check=True, capture_output=True)
    assert hashlib.sha256((tmp_path / "bpe.json").read_bytes()).hexdigest() == BPE_SHA256
