"""An index of the rows of a corpus by video."""

import numpy as np
from datasets import Dataset

NO_VIDEO = -1


class VideoIndex:
    """Index that finds the other frames of the video of a row.

    Args:
        corpus: Map-style dataset with a column `video`, which is null for rows that are not from a video. If there is a
            column `subject`, the values of `video` need only be unique within a subject.

    Raises:
        ValueError: If there is no column `video`, or no video has two frames.
    """

    def __init__(self, corpus: Dataset):
        if "video" not in corpus.column_names:
            raise ValueError(
                f"Views of other frames need a column `video`; the corpus has {corpus.column_names}. Omit "
                "`--pose_negatives video` and `--face_positives same_video`, or add the column."
            )
        names = ["video", *(["subject"] if "subject" in corpus.column_names else [])]
        labels = corpus.select_columns(names).with_format(None).to_pandas()
        # `dropna` would also drop rows without a subject, but these may have a video.
        numbers = labels.groupby(names, dropna=False, sort=False).ngroup()
        self.video_of_row = numbers.where(labels["video"].notna(), NO_VIDEO).to_numpy()
        # `rows` is sorted by video, and `starts` is the position of the first row of each video in it. These are arrays
        # and not a dictionary, so that workers share their memory: reference counts of objects would copy it.
        self.rows = np.argsort(self.video_of_row, kind="stable")
        videos = self.video_of_row.max(initial=NO_VIDEO) + 1
        self.starts = np.searchsorted(self.video_of_row[self.rows], np.arange(videos + 1))
        if not (np.diff(self.starts) > 1).any():
            raise ValueError("No video of the corpus has two frames: there are no other frames to take views from.")

    def find_other_frames(self, row: int) -> np.ndarray:
        """Find the rows of the other frames of a row's video, ascending; empty if the row is not from a video."""
        video = self.video_of_row[row]
        if video == NO_VIDEO:
            return np.empty(0, dtype=np.int64)
        rows = self.rows[self.starts[video] : self.starts[video + 1]]
        return rows[rows != row]
