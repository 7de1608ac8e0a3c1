import csv

import pytest
from PIL import Image

from modeling_pcl.probes.search_arguments import TableArguments
from modeling_pcl.probes.search_table import SCORES, tabulate_search

YAW = {("small-0", "trunk"): 0.3, ("small-1", "trunk"): 0.5, ("plain-0", "trunk"): 0.2, ("small-0", "pose"): 0.4}


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "scores.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["name", "side", "feature", *SCORES])
        writer.writeheader()
        for (name, feature), yaw in YAW.items():
            row = dict.fromkeys(SCORES, 0.25) | {"name": name, "side": 64, "feature": feature, "yaw_r2": yaw}
            writer.writerow(row | ({"mirror_movement": ""} if name == "small-1" else {}))
    return path


def test_variants_have_mean_and_spread_over_their_seeds(table):
    text = tabulate_search(TableArguments(table=str(table)))
    titles, _, *lines = (line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|"))
    rows = [dict(zip(map(str.strip, titles), map(str.strip, line))) for line in lines]
    assert [(row["variant"], row["seeds"]) for row in rows] == [("small", "2"), ("plain", "1")]
    assert [row["yaw R², trunk ↑"] for row in rows] == ["0.400 ± 0.141", "0.200"]
    assert [row["yaw R², pose ↑"] for row in rows] == ["0.400", ""]
    assert [row["expression accuracy ↑"] for row in rows] == ["0.250 ± 0.000", "0.250"]
    with Image.open(table.with_suffix(".png")) as picture:
        assert min(picture.size) > 300


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "name,side,feature,yaw_r2\n"])
def test_what_is_no_table_of_scores_is_refused(tmp_path, content):
    (tmp_path / "other.csv").write_text(content)
    with pytest.raises(ValueError, match="must be a table that `pcl search run` wrote"):
        tabulate_search(TableArguments(table=str(tmp_path / "other.csv")))
