"""What the machine has."""

import os
from pathlib import Path

MEMINFO = Path("/proc/meminfo")


def free_memory() -> int | None:
    """Return the bytes a process can still take without swapping, or None if no system says.

    On Linux what the kernel estimates as available, file caches that it would drop included;
    elsewhere the unused pages, where they are counted.
    """
    if MEMINFO.is_file():
        lines = dict(line.split(":") for line in MEMINFO.read_text("utf-8").splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    if "SC_AVPHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None
