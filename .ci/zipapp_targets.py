"""What the one-file program is built for: the Pythons, and the platforms with their names in wheels and in modules.

A platform's extension modules carry the version of Python and the platform in their file names, so those of several
Pythons stand side by side in one folder and each Python loads its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PYTHONS: Sequence[str] = ("3.11", "3.12", "3.13", "3.14")
"""The versions of CPython whose binary wheels go into the file, oldest first and without a gap."""


@dataclass(frozen=True)
class Target:
    """One platform."""

    title: str
    """As an error message says it."""
    wheel_platforms: Sequence[str]
    """Platform tags of wheels that run there."""
    module_suffix: str
    """The ending of its extension modules; {digits} stands for the version of Python, as in 311."""
    glibc: tuple[int, int] | None
    """The oldest C library that the wheels may ask for, where there is one to ask for."""
    sys_platform: str
    platform_system: str
    platform_machine: str
    """What ``sys.platform``, ``platform.system()`` and ``platform.machine()`` say there; requirements may ask."""

    def marker_environment(self, python: str) -> dict[str, str]:
        """The environment in which the markers of requirements are read for this platform and version of Python."""
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{python}.0",
            "os_name": "posix",
            "platform_machine": self.platform_machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": self.platform_system,
            "platform_version": "",
            "python_full_version": f"{python}.0",
            "python_version": python,
            "sys_platform": self.sys_platform,
        }


def _linux(machine: str) -> Target:
    modern = [f"manylinux_2_{minor}_{machine}" for minor in range(28, 16, -1)]
    return Target(
        title=f"Linux ({machine}, glibc 2.28 or newer)",
        wheel_platforms=[*modern, f"manylinux2014_{machine}"],
        module_suffix=f".cpython-{{digits}}-{machine}-linux-gnu.so",
        glibc=(2, 28),
        sys_platform="linux",
        platform_system="Linux",
        platform_machine=machine,
    )


def _macos(machine: str, oldest: str) -> Target:
    return Target(
        title=f"macOS ({machine}, {oldest} or newer)",
        wheel_platforms=[f"macosx_{oldest}_0_{machine}"],
        module_suffix=".cpython-{digits}-darwin.so",
        glibc=None,
        sys_platform="darwin",
        platform_system="Darwin",
        platform_machine=machine,
    )


TARGETS: dict[str, Target] = {
    "linux-x86_64": _linux("x86_64"),
    "linux-aarch64": _linux("aarch64"),
    "macos-arm64": _macos("arm64", "13"),
    "macos-x86_64": _macos("x86_64", "13"),
}
