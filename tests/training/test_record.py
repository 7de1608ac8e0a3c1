import torch

from modeling_pcl.training.record import describe_run


def test_a_record_names_options_versions_and_revisions():
    record = describe_run({"seed": 3, "corpus": "orl"}, data_revision="abc")
    assert record["options"] == {"seed": 3, "corpus": "orl"}
    assert record["data_revision"] == "abc"
    assert torch.__version__.startswith(record["versions"]["torch"])  # torch adds what it was built for
    assert record["git_revision"] is None or len(record["git_revision"].removesuffix("-dirty")) == 40
