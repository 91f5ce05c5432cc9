"""Whatever changes in a file that was noted is named."""

import hashlib
import json

import pytest

from ssl_jax import digests


@pytest.fixture
def noted(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "a").write_bytes(b"first")
    (tmp_path / "in" / "b").write_bytes(bytes(range(256)) * 5000)
    (tmp_path / "times").write_bytes(b"now")
    digests.write(tmp_path, without=("times",))
    return tmp_path


def test_what_is_noted_is_the_sha256_by_name(noted):
    found = json.loads((noted / digests.NAME).read_text())
    assert found == {name: hashlib.sha256((noted / name).read_bytes()).hexdigest() for name in ("a", "in/b")}


def test_files_left_as_they_were_are_whole(noted):
    (noted / "times").write_bytes(b"later")
    (noted / "new").write_bytes(b"came later")
    assert digests.verify(noted) is True


@pytest.mark.parametrize("name", ["a", "in/b", digests.NAME])
@pytest.mark.parametrize("harm", ["flip", "truncate", "delete"])
def test_harm_is_named(noted, name, harm):
    path, content = noted / name, bytearray((noted / name).read_bytes())
    content[len(content) // 2] ^= harm == "flip"
    if harm == "delete":
        path.unlink()
    else:
        path.write_bytes(content if harm == "flip" else content[:-1])
    if name == digests.NAME and harm == "delete":
        assert digests.verify(noted) is False
    elif name == digests.NAME and harm == "truncate":
        assert digests.verify(noted) is True  # the last byte is the line's end
    else:
        with pytest.raises(ValueError, match=rf"^its file ({name}|a|in/b|digests\.json) is (missing|not as it was)"):
            digests.verify(noted)


def test_single_files_are_compared_alone(noted):
    (noted / "a").write_bytes(b"other")
    assert digests.verify(noted, ("in/b", "never noted"))
    with pytest.raises(ValueError, match="its file a is not"):
        digests.verify(noted, ("a",))


def test_one_more_file_is_noted_later(noted, tmp_path_factory):
    (noted / "c").write_bytes(b"third")
    digests.add(noted, "c")
    assert digests.verify(noted)
    (noted / "c").write_bytes(b"3rd")
    with pytest.raises(ValueError, match="its file c"):
        digests.verify(noted)
    bare = tmp_path_factory.mktemp("bare")
    (bare / "c").write_bytes(b"third")
    digests.add(bare, "c")
    assert digests.verify(bare) is False and not (bare / digests.NAME).exists()
