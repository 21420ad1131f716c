import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from athena.errors import BadInput
from athena.protocol import DatasetRef
from athena.train.lineage import summarize_lineage
from athena.train.tokens import LINEAGE_SCHEMA

ALICE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
REFERENCE = DatasetRef(location="hf:alice/set", revision="a" * 40, root="b" * 64)


def documents(folder, reference):
    row = {"hotkey": ALICE, "task_id": "0" * 32, "dataset": reference, "warc_offset": 0, "warc_length": 1}
    row |= {"record_id": "r", "url": "u"}
    rows = [row | {"warc_path": path, "tokens": tokens} for path, tokens in (("b", 2), ("a", 3), ("b", 5))]
    pq.write_table(pa.Table.from_pylist(rows, schema=LINEAGE_SCHEMA), folder / "documents.parquet")
    return folder / "documents.parquet"


def test_tokens_are_summed_by_dataset_and_file(tmp_path):
    (entry,) = summarize_lineage(documents(tmp_path, str(REFERENCE)))
    assert (entry.hotkey, entry.dataset, entry.tokens, entry.documents) == (ALICE, REFERENCE, 10, 3)
    assert entry.tokens_by_warc == {"a": 3, "b": 7}
    assert (entry.dataset.scheme, entry.dataset.repository) == ("hf", "alice/set")


@pytest.mark.parametrize("reference", ["", "hf:alice/set", "hf:alice/set@main#root", f"ftp:{str(REFERENCE)[3:]}"])
def test_a_damaged_reference_is_refused(tmp_path, reference):
    with pytest.raises(BadInput, match="dataset reference"):
        summarize_lineage(documents(tmp_path, reference))
