"""The reader of MAT-files, on a file that SciPy wrote and on bytes worked by hand."""

from __future__ import annotations

import base64
import struct
import zlib

import pytest
from matlab import read_structures
from matlab_file import HEADER, array, element, structures

from seqba.errors import UserError

# scipy.io.savemat(..., {"synsets": array of (4, 1) with the fields of ImageNet's meta.mat}, do_compression=True)
COMPRESSED = base64.b64decode(
    """
TUFUTEFCIDUuMCBNQVQtZmlsZSBQbGF0Zm9ybTogcG9zaXgsIENyZWF0ZWQgb246IFdlZCBOb3YgMjUgMDM6MDA6MTMgMjAyNgAA
AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABSU0PAAAAoQEAAHic1ZPfTsIwFMaLIoIm
BO+47AN4saFkcMUSNYHEGKMJXi51lK1h68xagryBd974Er6FiS/EI9iygWOZGa4mhpOcdecs369/9rUOAIA1ACpirIrcA1EcxHVZ
ZCnOQ5FsThnmTHwvg5O4/yJycH0/vLtoaXrLGlxKwMNNNK5jFoQjlmw4XsA2GnTqW7ZLvFGI6bKxUawYFHPLxcRxeSzhISLUIj5y
MAN10eyA7/1UUvspJVJGLe5HsehJvZnQlzP0tYS+EddUa+l61+h0477k9HM4zRRH1hPC4Th4PoXDqfeEGfSRHQacsG3WVU/xZM18
5HnQCfFcYoHi+UR6LUcPUvqVTnXewvrbN1NxflPFF5pmnLUT+8jjZP3HK+p4hLlQXD6Ow+04jRRHJqJwhXoMMR7tph+ie/p/fqgq
+EE32rpx3kmcQxEOwwgyiib4F5yjFOdYpI3Gn+8J0m76Aaj9T1U/9F8V/CBC+EH74RyyOJUUR9aYcsLnxXwga+4iDmcusd3sdRS5
H/0c/X5K31zrF734xVw+P8I/ua8q/vgCJlpvSA==
"""
)


def test_a_file_that_scipy_wrote() -> None:
    first, second, third, fourth = read_structures(COMPRESSED, "synsets", "meta.mat")
    assert first == {
        "ILSVRC2012_ID": [1.0],
        "WNID": "n02119789",
        "words": "kit fox, Vulpes macrotis",
        "gloss": "small grey fox",
        "num_children": [0.0],
        "children": [],
        "wordnet_height": [0.0],
        "num_train_images": [1300.0],
    }
    assert [second["WNID"], third["WNID"]] == ["n02100735", "n01751748"]
    assert third["gloss"] == "café snake"
    assert fourth["children"] == [1.0, 2.0, 300.0]


@pytest.mark.parametrize("compressed", [True, False])
def test_bytes_worked_by_hand(compressed: bool) -> None:
    wanted = structures(
        "wanted",
        ["id", "name", "other"],
        *(array(6, (1, 1), "", element(2, b"\x07")), array(4, (1, 2), "", element(4, "né".encode("utf-16-le")))),
        array(1, (1, 1), "", array(6, (0, 0), "")),  # a cell
        *(array(6, (1, 2), "", element(9, struct.pack("<2d", 0.5, -2))), array(4, (0, 0), ""), element(14, b"")),
    )
    other = structures("other", ["id"], array(6, (0, 0), "", element(9, b"")))
    number = array(6, (1, 1), "wanted2", element(9, struct.pack("<d", 1)))
    body = [other, number, wanted]
    if compressed:  # these follow each other without filling
        body = [struct.pack("<II", 15, len(packed)) + packed for packed in map(zlib.compress, body)]
    assert read_structures(HEADER + b"".join(body), "wanted", "a.mat") == [
        {"id": [7], "name": "né", "other": None},
        {"id": [0.5, -2.0], "name": "", "other": []},
    ]


def test_an_array_that_is_not_there() -> None:
    with pytest.raises(UserError, match=r"^meta\.mat has no array of structures 'classes'"):
        read_structures(COMPRESSED, "classes", "meta.mat")


@pytest.mark.parametrize("data", [b"", COMPRESSED[:100], b"\x89HDF\r\n\x1a\n" + bytes(1000)])
def test_another_kind_of_file(data: bytes) -> None:
    with pytest.raises(UserError, match=r"^meta\.mat is not a MAT-file of version 5"):
        read_structures(data, "synsets", "meta.mat")


@pytest.mark.parametrize("kept", [130, 140, 300, -1])
def test_a_damaged_file(kept: int) -> None:
    with pytest.raises(UserError, match=r"^meta\.mat is damaged \("):
        read_structures(COMPRESSED[:kept], "synsets", "meta.mat")


def test_any_byte_may_be_wrong() -> None:
    """Whatever happens to a file, it is one clear line or some other content, never a traceback."""
    plain = structures("wanted", ["id"], array(6, (1, 1), "", element(9, struct.pack("<d", 1))))
    for place in range(len(plain)):
        for value in (0, 1, 127, 255):
            wrong = bytearray(HEADER + plain)
            wrong[len(HEADER) + place] = value
            try:
                found = read_structures(bytes(wrong), "wanted", "a.mat")
            except UserError:
                continue
            assert isinstance(found, list)
