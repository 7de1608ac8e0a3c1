import pytest
from datasets import ClassLabel, Dataset, Features, Value

from modeling_pcl.data.video_index import VideoIndex


def test_videos_are_numbered_within_their_subject():
    corpus = Dataset.from_dict({"subject": ["a", "a", "b", "b", "a"], "video": [0, 1, 0, 0, 0]})
    index = VideoIndex(corpus)
    assert [index.find_other_frames(row).tolist() for row in range(5)] == [[4], [], [3], [2], [0]]


@pytest.mark.parametrize(
    ("feature", "videos"),
    [
        (Value("string"), ["x", None, "y", "x", None]),
        (Value("int64"), [7, None, 3, 7, None]),
        (ClassLabel(names=["x", "y"]), [0, None, 1, 0, None]),
    ],
)
def test_rows_without_a_video_have_no_other_frames(feature, videos):
    index = VideoIndex(Dataset.from_dict({"video": videos}, features=Features({"video": feature})))
    assert [index.find_other_frames(row).tolist() for row in range(5)] == [[3], [], [], [0], []]


def test_a_subject_that_is_not_known_may_still_have_videos():
    corpus = Dataset.from_dict({"subject": [None, None, "a"], "video": ["x", "x", "x"]})
    assert VideoIndex(corpus).find_other_frames(0).tolist() == [1]
