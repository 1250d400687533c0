"""The free memory against psutil, and where the system says less."""

import os

import pytest

from meristem_core import _memory, free_memory


def test_free_memory_is_what_psutil_finds():
    psutil = pytest.importorskip("psutil")
    found = free_memory()
    assert found == pytest.approx(psutil.virtual_memory().available, rel=0.2)


def test_kibibytes_are_read_as_bytes(tmp_path, monkeypatch):
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:       3 kB\n")
    monkeypatch.setattr(_memory, "MEMINFO", tmp_path / "meminfo")
    assert free_memory() == 3072


def test_without_meminfo_pages_are_counted_or_nothing_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(_memory, "MEMINFO", tmp_path / "none")
    pages = {"SC_AVPHYS_PAGES": 7, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    monkeypatch.setattr(os, "sysconf_names", pages)
    assert free_memory() == 7 * 4096
    monkeypatch.setattr(os, "sysconf_names", {})
    assert free_memory() is None
