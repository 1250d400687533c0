import errno
import hashlib
import os
import resource
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from meristem_core import sha256_of, write_atomic
from meristem_core._files import replacing, temporaries_in

MIB = 2**20
NOBODY = 65534  # a user who owns nothing


@pytest.fixture
def tiny_disk(tmp_path):
    """A folder on a file system of 64 KiB; needs the right to mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "meristem-test", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small tmpfs needs root on Linux")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def file_size_limit():
    """Files of this process may not grow beyond one MiB."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, old[1]))
    yield MIB
    resource.setrlimit(resource.RLIMIT_FSIZE, old)


@pytest.mark.parametrize("data", ["", "text, β and 😀\n", b"", b"\x00\xff"])
def test_the_file_holds_exactly_the_data(tmp_path, data):
    write_atomic(tmp_path / "a", data)
    expected = data.encode() if isinstance(data, str) else data
    assert (tmp_path / "a").read_bytes() == expected
    assert temporaries_in(tmp_path) == []


def test_a_string_path_and_a_long_name_work(tmp_path):
    path = str(tmp_path / ("n" * 255))
    write_atomic(path, "x")
    assert Path(path).read_text() == "x"


def test_permissions_of_the_old_file_are_kept_and_new_ones_follow_the_umask(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("1")
    old.chmod(0o640)
    mask = os.umask(0o027)
    try:
        write_atomic(old, "2")
        write_atomic(new, "2")
    finally:
        os.umask(mask)
    assert stat.S_IMODE(old.stat().st_mode) == 0o640
    assert stat.S_IMODE(new.stat().st_mode) == 0o640


def test_a_symbolic_link_stays_a_link(tmp_path):
    (tmp_path / "real").write_text("1")
    (tmp_path / "link").symlink_to("real")
    write_atomic(tmp_path / "link", "2")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "2"


def test_a_full_disk_leaves_the_old_file(tiny_disk):
    path = tiny_disk / "result.json"
    write_atomic(path, "old")
    with pytest.raises(OSError, match=r"result\.json was not written .*unchanged; free space") as e:
        write_atomic(path, b"x" * MIB)
    assert e.value.errno == errno.ENOSPC
    assert path.read_text() == "old"
    assert temporaries_in(tiny_disk) == []


def test_a_write_cut_by_the_file_size_limit_leaves_the_old_file(tmp_path, file_size_limit):
    path = tmp_path / "a"
    write_atomic(path, "old")
    with pytest.raises(OSError, match=r"a was not written \(File too large\).*ulimit -f") as error:
        write_atomic(path, b"x" * (file_size_limit + 1))
    assert error.value.errno == errno.EFBIG
    assert path.read_text() == "old"
    assert temporaries_in(tmp_path) == []


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no/a was not written .*; create the folder"):
        write_atomic(tmp_path / "no" / "a", "x")


@pytest.fixture
def forbidden_folder():
    """A folder that this process may enter and not write, root or not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    yield folder
    os.seteuid(user)
    shutil.rmtree(folder)


def test_a_folder_without_permission_is_named(forbidden_folder):
    with pytest.raises(PermissionError, match=r"a was not written .*; choose a folder you may"):
        write_atomic(forbidden_folder / "a", "x")


def test_a_folder_or_device_is_never_replaced(tmp_path):
    with pytest.raises(IsADirectoryError, match="it is a folder"):
        write_atomic(tmp_path, "x")
    with pytest.raises(OSError, match="it is not a regular file"):
        write_atomic("/dev/null", "x")
    assert Path("/dev/null").is_char_device()


def test_half_a_surrogate_pair_is_refused_before_anything_is_touched(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(tmp_path / "a", "\ud800")
    assert (tmp_path / "a").read_text() == "old"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_any_error_inside_the_block_removes_the_temporary_file(tmp_path, error):
    def half() -> None:
        with replacing(tmp_path / "a") as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        half()
    assert list(tmp_path.iterdir()) == []


def test_sha256_agrees_with_hashlib(tmp_path):
    data = np.random.default_rng(3).bytes(3 * MIB + 7)
    (tmp_path / "a").write_bytes(data)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(data).hexdigest()


WRITER = """
import sys
import tempfile
from meristem_core import write_atomic
path, size = sys.argv[1], int(sys.argv[2])
print("ready", flush=True)
for n in range(10**9):
    write_atomic(path, bytes([65 + n % 26]) * size)
"""


@pytest.mark.parametrize("seed", range(6))
def test_a_kill_at_a_drawn_moment_leaves_the_old_or_the_new_content(tmp_path, seed):
    size, path = 200_000, tmp_path / "a"
    path.write_bytes(b"Z" * size)
    delay = np.random.default_rng(seed).uniform(0.0, 0.05)
    command = [sys.executable, "-c", WRITER, str(path), str(size)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        try:
            child.wait(delay)
        except subprocess.TimeoutExpired:
            child.kill()
    content = path.read_bytes()
    assert len(content) == size, f"torn: {len(content)} of {size} bytes after {delay:.4f} s"
    assert len(set(content)) == 1, f"mixed contents {set(content)} after {delay:.4f} s"
