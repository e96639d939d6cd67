"""The first code that runs in the one-file program: is this the right Python, does it stand alone, is there a cache?

Python 2.7 and every Python 3 must be able to read this file, because it is what tells them that they are the wrong one:
no f-strings, no annotations but comments.

shiv's bootstrap unpacks the packages on the first start. Later starts do without it: importing it takes as long as the
rest of ``--version``, it would run any ``.pth`` file among the packages, and it lets the environment choose another
entry point.

The program ignores what the host has installed. ``-I`` and ``-S`` do that completely, where cleaning ``sys.path``
afterwards could not: by then the host's ``.pth`` files and ``sitecustomize`` have run. The first line of the file asks
for both flags, and where it was started as ``python3 inferxgate.pyz`` this starts Python once more with them.
"""

import os
import sys


def main(pythons, module_suffixes, title, glibc, build_id):
    # type: (tuple[tuple[int, int], ...], tuple[str, ...], str, tuple[int, int] | None, str) -> None
    """Start the program, or say in one line on standard error why not and exit with 1."""
    problem = wrong_python(pythons, module_suffixes, title, glibc)
    if problem:
        stop(problem)
    stand_alone()
    try:
        sys.path.append(unpacked(build_id))
    except KeyboardInterrupt:
        sys.exit(130)
    from inferxgate.cli.main import main as program

    program()


def stop(problem):
    # type: (str) -> None
    sys.stderr.write("inferxgate: " + problem + "\n")
    sys.exit(1)


def wrong_python(pythons, module_suffixes, title, glibc):
    # type: (tuple[tuple[int, int], ...], tuple[str, ...], str, tuple[int, int] | None) -> str
    """What is wrong with the Python that runs this, in one line; empty when it is one of ours."""
    first, last = ["{}.{}".format(*version) for version in (pythons[0], pythons[-1])]
    here = "Python {}.{}.{}".format(*sys.version_info[:3])
    name = getattr(getattr(sys, "implementation", None), "name", "cpython")
    if name != "cpython":
        here += " (" + name + ")"
    if name == "cpython" and tuple(sys.version_info[:2]) in pythons:
        from importlib.machinery import EXTENSION_SUFFIXES

        if EXTENSION_SUFFIXES[0] in module_suffixes:
            return old_libc(glibc, title)
        advice = " whose binary modules end in " + EXTENSION_SUFFIXES[0]
    else:
        advice = "; start it as python" + last + " " + sys.argv[0]
    return "this file needs CPython " + first + " to " + last + " on " + title + ", and this is " + here + advice


def old_libc(glibc, title):
    # type: (tuple[int, int] | None, str) -> str
    """What is wrong with the C library, in one line; empty when nothing is, or when it will not say its version."""
    if glibc is None:
        return ""
    try:
        version = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()[-1]
        if tuple(int(part) for part in version.split(".")[:2]) < glibc:
            return "this file needs " + title + ", and this has glibc " + version
    except (ValueError, OSError, IndexError):
        pass
    return ""


def stand_alone():
    # type: () -> None
    """Start Python again without the host's packages and the PYTHON* variables, unless it was started so."""
    if sys.flags.isolated and sys.flags.no_site:
        return
    if not sys.executable:
        stop("this Python does not know its own path; start it with an absolute one, as in /usr/bin/python3")
    arguments = [sys.executable, "-I", "-S"]
    arguments.extend(sys.orig_argv[1:])
    os.execv(sys.executable, arguments)  # noqa: S606 - it is this very program, without a shell on purpose


def cache_folder():
    # type: () -> str
    """Where the packages are unpacked: INFERXGATE_CACHE_DIR, else SHIV_ROOT, else the platform's cache folder."""
    chosen = os.environ.get("INFERXGATE_CACHE_DIR") or os.environ.get("SHIV_ROOT")
    if chosen:
        return os.path.abspath(os.path.expanduser(chosen))
    if sys.platform == "darwin":
        caches = os.path.expanduser("~/Library/Caches")
    else:
        caches = os.environ.get("XDG_CACHE_HOME", "")
        if not os.path.isabs(caches):
            caches = os.path.expanduser("~/.cache")
    return os.path.join(caches, "inferxgate")


def unpacked(build_id):
    # type: (str) -> str
    """The folder of the packages, which are unpacked where that has not been done; nobody else can write there.

    What lies in that folder is run, so whoever can write there can be this program.
    """
    root = cache_folder()
    advice = "; set INFERXGATE_CACHE_DIR to a folder that only you can write"
    site_packages = os.path.join(
        root, os.path.basename(os.path.realpath(sys.argv[0])) + "_" + build_id, "site-packages"
    )
    try:
        if not os.path.isdir(root):
            os.makedirs(root, 0o700, exist_ok=True)
        state = os.stat(root)
        if state.st_mode & 0o022:
            stop("others can write the cache folder " + root + advice)
        if state.st_uid not in (0, os.geteuid()):
            stop("the cache folder " + root + " belongs to somebody else" + advice)
        if os.path.isdir(site_packages) and not os.environ.get("SHIV_FORCE_EXTRACT"):
            return site_packages
        if not os.access(root, os.W_OK | os.X_OK):
            stop("the cache folder " + root + " cannot be written" + advice)
        unpack(root)
    except OSError as error:
        stop("the cache folder " + root + " cannot be used (" + (error.strerror or str(error)) + ")" + advice)
    return site_packages


def unpack(root):
    # type: (str) -> None
    """Have shiv unpack; it does so under a lock and by renaming, so two that start at once see a whole folder."""
    import zipfile
    import zlib

    import _bootstrap

    before = os.umask(0o022)
    try:
        with _bootstrap.current_zipfile() as archive:
            environment = _bootstrap.Environment.from_json(archive.read("environment.json").decode())
            target = _bootstrap.cache_path(archive, root, environment.build_id)
            _bootstrap.extract_site_packages(archive, target, force=environment.force_extract)
    except (zipfile.BadZipFile, zlib.error, EOFError):
        stop("the file " + sys.argv[0] + " is damaged; fetch it again")
    finally:
        os.umask(before)
