import json

import torch

from modeling_pcl.training.record import describe_run, write_record


def test_a_record_names_options_versions_and_revisions(tmp_path):
    write_record(tmp_path, describe_run({"seed": 3, "corpus": "orl"}, data_revision="abc"))
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["options"] == {"seed": 3, "corpus": "orl"}
    assert record["data_revision"] == "abc"
    assert torch.__version__.startswith(record["versions"]["torch"])  # torch adds what it was built for
    assert record["git_revision"] is None or len(record["git_revision"].removesuffix("-dirty")) == 40
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
