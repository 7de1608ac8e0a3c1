"""Which rows of a corpus are frames of one video."""

import numpy as np
from datasets import Dataset

NO_VIDEO = -1


class VideoIndex:
    """The other frames of every row's video.

    Args:
        corpus: A map-style dataset with a column `video`, null where a row is of no video; where there is a column
            `subject`, videos are numbered within their subject.

    Raises:
        ValueError: If there is no column `video`, or no video has two frames.
    """

    def __init__(self, corpus: Dataset):
        if "video" not in corpus.column_names:
            raise ValueError(
                f"Views of other frames need a column `video`; the corpus has {corpus.column_names}. Leave "
                "`--pose_negatives video` and `--face_positives same_video` out, or add the column."
            )
        names = ["video", *(["subject"] if "subject" in corpus.column_names else [])]
        labels = corpus.select_columns(names).with_format(None).to_pandas()
        # A subject that is not known may still have videos: `dropna` is of both columns.
        numbers = labels.groupby(names, dropna=False, sort=False).ngroup()
        self.video_of_row = numbers.where(labels["video"].notna(), NO_VIDEO).to_numpy()
        # Rows sorted by video, and for each video where its rows begin in that order. Arrays, not a dictionary: workers
        # share them with this process, while counting references to objects would copy those.
        self.rows = np.argsort(self.video_of_row, kind="stable")
        videos = self.video_of_row.max(initial=NO_VIDEO) + 1
        self.starts = np.searchsorted(self.video_of_row[self.rows], np.arange(videos + 1))
        if not (np.diff(self.starts) > 1).any():
            raise ValueError("No video of the corpus has two frames: there are no other frames to take views from.")

    def others(self, row: int) -> np.ndarray:
        """The rows of the other frames of a row's video, ascending; none where it is of no video."""
        video = self.video_of_row[row]
        if video == NO_VIDEO:
            return np.empty(0, dtype=np.int64)
        rows = self.rows[self.starts[video] : self.starts[video + 1]]
        return rows[rows != row]
