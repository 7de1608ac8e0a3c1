import pickle
import struct

import numpy as np
import pytest
import scipy.io

from modeling_pcl.data.collections.layouts import matlab
from modeling_pcl.data.collections.layouts.matlab import read_matlab, read_npz


class CreatesAFile:
    """Object that creates the file `path` when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


VALUES = {"pose": np.array([[0.1, 0.2, 0.3]]), "points": np.arange(8, dtype=np.int16).reshape(2, 4), "note": "a text"}


def save_matlab(path, values=VALUES, compressed=True):
    scipy.io.savemat(path, values, do_compression=compressed)
    return path


@pytest.fixture(params=[True, False], ids=["compressed", "plain"])
def compressed(request):
    return request.param


def test_only_the_wanted_variables_are_read(tmp_path, compressed):
    arrays = read_matlab(save_matlab(tmp_path / "a.mat", compressed=compressed), ["points", "pose"])
    assert list(arrays) == ["points", "pose"]
    np.testing.assert_array_equal(arrays["points"], VALUES["points"])
    assert arrays["points"].dtype == np.int16
    np.testing.assert_array_equal(arrays["pose"], VALUES["pose"])


def test_an_optional_variable_may_be_missing(tmp_path):
    assert list(read_matlab(save_matlab(tmp_path / "a.mat"), ["pose"], optional=["points", "roi"])) == [
        "pose",
        "points",
    ]


def test_a_missing_variable_is_named_with_what_there_is(tmp_path):
    with pytest.raises(ValueError, match="lacks `roi`; it has `note`, `points`, `pose`"):
        read_matlab(save_matlab(tmp_path / "a.mat"), ["pose", "roi"])


NOT_NUMBERS = {
    "cell": np.array([np.ones(2), "text"], dtype=object),
    "struct": {"field": 1},
    "char": "text",
    "sparse": scipy.sparse.csc_array(np.eye(3)),
}


@pytest.mark.parametrize("kind", NOT_NUMBERS)
def test_what_is_not_an_array_of_numbers_is_refused(tmp_path, kind, compressed):
    path = save_matlab(tmp_path / "a.mat", {"pose": NOT_NUMBERS[kind], "other": 1.0}, compressed)
    with pytest.raises(ValueError, match=f"`pose` must be an array of real numbers, and is of MATLAB's kind `{kind}`"):
        read_matlab(path, ["pose"])
    assert read_matlab(path, ["other"])["other"] == 1


@pytest.mark.parametrize(("number", "kind"), [(3, "`object`"), (16, "`function`"), (99, "`class 99`")])
def test_an_object_or_function_of_matlab_is_refused(tmp_path, number, kind):
    path = save_matlab(tmp_path / "a.mat", {"pose": np.ones((1, 7))}, compressed=False)
    content = bytearray(path.read_bytes())
    assert content[144] == 6  # The class byte of the first variable, after 128 bytes of header and two tags: double.
    content[144] = number
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"`pose` must be an array of real numbers, and is of MATLAB's kind {kind}"):
        read_matlab(path, ["pose"])


def pack_element(kind: int, data: bytes) -> bytes:
    return struct.pack("<2I", kind, len(data)) + data + bytes(-len(data) % 8)


def pack_matrix(kind: int, *elements: bytes) -> bytes:
    return pack_element(14, pack_element(6, struct.pack("<2I", kind, 0)) + b"".join(elements))


HEADER = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"


def test_a_newer_object_of_matlab_is_refused_and_others_are_read_beside_it(tmp_path):
    table = pack_matrix(
        17, pack_element(1, b"pose"), pack_element(1, b"MCOS"), pack_element(1, b"table"), pack_matrix(13)
    )
    number = pack_matrix(
        6, pack_element(5, struct.pack("<2i", 1, 1)), pack_element(1, b"other"), pack_element(9, struct.pack("<d", 2.5))
    )
    (tmp_path / "a.mat").write_bytes(HEADER + table + number)
    with pytest.raises(ValueError, match="`pose` must be an array of real numbers, and is of MATLAB's kind `object`"):
        read_matlab(tmp_path / "a.mat", ["pose"])
    assert read_matlab(tmp_path / "a.mat", ["other"])["other"].tolist() == [[2.5]]


def test_values_of_an_unknown_type_are_refused(tmp_path):
    shape_and_name = pack_element(5, struct.pack("<2i", 1, 1)), pack_element(1, b"pose")
    (tmp_path / "a.mat").write_bytes(HEADER + pack_matrix(6, *shape_and_name, pack_element(200, bytes(8))))
    with pytest.raises(ValueError, match="the values of `pose` have the type 200"):
        read_matlab(tmp_path / "a.mat", ["pose"])


@pytest.mark.parametrize("shape", [(1, 6), (-1, -7), (7,) * 40, (0, 0), ()])
def test_values_that_do_not_fill_the_shape_are_refused(tmp_path, shape):
    parts = (
        pack_element(5, struct.pack(f"<{len(shape)}i", *shape)),
        pack_element(1, b"pose"),
        pack_element(9, bytes(56)),
    )
    (tmp_path / "a.mat").write_bytes(HEADER + pack_matrix(6, *parts))
    with pytest.raises(ValueError, match="`pose` has 7 values for the shape"):
        read_matlab(tmp_path / "a.mat", ["pose"])


TYPES = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", "?"]


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_and_shape_is_read_as_scipy_reads_it(tmp_path, kind, compressed):
    generator = np.random.default_rng(0)
    shapes = {"row": (1, 3), "column": (5, 1), "table": (3, 4), "cube": (2, 3, 4), "one": (1, 1), "none": (0, 3)}
    values = {name: (200 * generator.random(shape)).astype(kind) for name, shape in shapes.items()}
    path = save_matlab(tmp_path / "a.mat", values, compressed)
    arrays, expected = read_matlab(path, list(shapes)), scipy.io.loadmat(path)
    for name, shape in shapes.items():
        assert arrays[name].shape == shape
        np.testing.assert_array_equal(arrays[name], expected[name])


def test_complex_numbers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="is of MATLAB's kind `complex`"):
        read_matlab(save_matlab(tmp_path / "a.mat", {"pose": np.ones(3) * 1j}), ["pose"])


def test_a_pickle_in_a_matlab_file_stays_bytes(tmp_path):
    trap = pickle.dumps(CreatesAFile(tmp_path / "created"))
    values = {"pose": np.frombuffer(trap, np.uint8), "cell": np.array([trap.hex(), 1], dtype=object)}
    path = save_matlab(tmp_path / "a.mat", values)
    assert read_matlab(path, ["pose"])["pose"].tobytes() == trap
    with pytest.raises(ValueError, match="kind `cell`"):
        read_matlab(path, ["cell"])
    assert not (tmp_path / "created").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"not a file of MATLAB at all", "is not a MATLAB 5 file"),
        (bytes(500), "is not a MATLAB 5 file"),
        (b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512), "MATLAB 7.3 .*save -v7"),
        (
            b"MATLAB 5.0 MAT-file".ljust(126) + b"MI" + b"garbage" * 9,
            "from a machine with another byte order",
        ),
        (HEADER, "lacks `pose`; it has nothing"),
        (HEADER + b"garbage" * 9, "is damaged: an element is cut off"),
        (HEADER + pack_element(9, bytes(8)), "is damaged: an element has the type 9"),
        (HEADER + pack_element(15, bytes(8)), "is damaged: Error -3"),
        (HEADER + pack_element(14, b""), "is damaged: a variable is cut off"),
    ],
)
def test_a_file_that_is_no_matlab_5_file_is_refused(tmp_path, content, reason):
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        read_matlab(tmp_path / "a.mat", ["pose"])


def test_a_missing_file_and_a_folder_are_value_errors(tmp_path):
    with pytest.raises(ValueError, match="No such file"):
        read_matlab(tmp_path / "a.mat", ["pose"])
    with pytest.raises(ValueError, match="is not a file"):
        read_matlab(tmp_path, ["pose"])


def test_every_truncation_is_a_value_error(tmp_path, compressed):
    content = save_matlab(tmp_path / "a.mat", {"pose": np.arange(7.0)}, compressed).read_bytes()
    for length in range(len(content)):
        (tmp_path / "b.mat").write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"."):
            read_matlab(tmp_path / "b.mat", ["pose"])


def test_a_damaged_byte_gives_numbers_or_a_value_error(tmp_path, compressed):
    content = save_matlab(tmp_path / "a.mat", {"pose": np.arange(7.0)}, compressed).read_bytes()
    refused = 0
    for place in range(124, len(content)):
        for value in (0, 1, 3, 16, 128, 255):
            damaged = bytearray(content)
            damaged[place] = value
            (tmp_path / "b.mat").write_bytes(damaged)
            try:
                assert read_matlab(tmp_path / "b.mat", ["pose"])["pose"].dtype.kind in "iuf"
            except ValueError:
                refused += 1
    assert refused > 100


def test_a_variable_that_unpacks_to_too_much_is_refused_and_others_are_not_unpacked(tmp_path, monkeypatch):
    path = save_matlab(tmp_path / "a.mat", {"pose": np.zeros((100, 100)), "other": 1.0})
    assert path.stat().st_size < 1000
    monkeypatch.setattr(matlab, "MAX_MATLAB_BYTES", 80_000)
    with pytest.raises(ValueError, match="`pose` unpacks to more than 80000 bytes"):
        read_matlab(path, ["pose"])
    assert read_matlab(path, ["other"])["other"] == 1
    monkeypatch.setattr(matlab, "MAX_MATLAB_BYTES", 100)
    with pytest.raises(ValueError, match="has more than 100 bytes"):
        read_matlab(path, ["other"])


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_arrays_of_an_archive_are_read_by_name(tmp_path, write):
    write(tmp_path / "a.npz", pose=VALUES["pose"], points=VALUES["points"], size=64)
    arrays = read_npz(tmp_path / "a.npz", ["points", "pose"])
    assert list(arrays) == ["points", "pose"]
    np.testing.assert_array_equal(arrays["points"], VALUES["points"])
    with pytest.raises(ValueError, match="lacks `roi`; it has `points`, `pose`, `size`"):
        read_npz(tmp_path / "a.npz", ["roi"])


def test_an_array_of_objects_is_refused_and_not_unpickled(tmp_path):
    trap = np.array([CreatesAFile(tmp_path / "created")], dtype=object)
    np.savez(tmp_path / "a.npz", pose=trap, points=VALUES["points"])
    with pytest.raises(ValueError, match="Object arrays cannot be loaded"):
        read_npz(tmp_path / "a.npz", ["points", "pose"])
    assert not (tmp_path / "created").exists()
    np.load(tmp_path / "a.npz", allow_pickle=True)["pose"]
    assert (tmp_path / "created").exists()  # Unpickling creates the file, so the test above would notice it.


def test_a_pickle_in_place_of_an_archive_is_refused_and_not_unpickled(tmp_path):
    (tmp_path / "a.npz").write_bytes(pickle.dumps(CreatesAFile(tmp_path / "created")))
    with pytest.raises(ValueError, match=r"is not a `\.npz` file"):
        read_npz(tmp_path / "a.npz", ["pose"])
    assert not (tmp_path / "created").exists()


@pytest.mark.parametrize("values", [np.array(["text"]), np.zeros(2, dtype=[("x", "f4")]), np.ones(2) * 1j])
def test_an_array_of_something_else_than_numbers_is_refused(tmp_path, values):
    np.savez(tmp_path / "a.npz", pose=values)
    with pytest.raises(ValueError, match="`pose` must be real numbers"):
        read_npz(tmp_path / "a.npz", ["pose"])


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_a_truncated_or_damaged_archive_is_a_value_error(tmp_path, write):
    write(tmp_path / "a.npz", pose=np.random.default_rng(0).random(100))
    content = (tmp_path / "a.npz").read_bytes()
    for damaged in (content[:-1], content[: len(content) // 2], content[:300] + b"damage" + content[306:]):
        (tmp_path / "b.npz").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"is not a `\.npz` file|cannot be read"):
            read_npz(tmp_path / "b.npz", ["pose"])


def test_the_unpacked_size_of_an_archive_is_limited(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", pose=np.zeros(10_000), other=np.zeros(2))
    monkeypatch.setattr(matlab, "MAX_NPZ_BYTES", 80_000)
    with pytest.raises(ValueError, match="its arrays take 80128 bytes, more than 80000"):
        read_npz(tmp_path / "a.npz", ["pose"])
    assert read_npz(tmp_path / "a.npz", ["other"])["other"].shape == (2,)
