"""What the comparisons share: finding the programs, running one to its end, and its largest resident set."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent


class Usage(Exception):
    """The environment names something that is not there."""


class Failed(Exception):
    """A process that did not do its work."""


class NotInstalled(Failed):
    """A process that lacks a Python package."""


def say(message):
    print(f"{pathlib.Path(sys.argv[0]).name}: {message}", file=sys.stderr, flush=True)


def execute(command):
    """Runs a command to its end; returns its output and the most memory it held, in MB."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        except OSError as error:
            raise Failed(f"cannot start {command[0]}: {error.strerror}") from error
        try:
            # Not process.wait(): only wait4 tells the memory of this one process.
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        output, errors = out.read().decode(errors="replace"), err.read().decode(errors="replace")
    if process.returncode != 0:
        missing = re.search(r"^ModuleNotFoundError: No module named '([\w.]+)'", errors, re.MULTILINE)
        if missing:
            raise NotInstalled(f"the Python package {missing[1]} is missing in {command[0]}")
        said = "\n".join(errors.strip().splitlines()[-6:]) or "it said nothing"
        raise Failed(f"`{' '.join(command)}` ended with {process.returncode}:\n{said}")
    # Linux counts in KiB, macOS in bytes.
    return output, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def measure(command):
    """Runs a command whose last line of output is a JSON object; returns that and its memory in MB."""
    output, memory = execute(command)
    try:
        return json.loads(output.strip().splitlines()[-1]), memory
    except (IndexError, ValueError):
        raise Failed(f"`{' '.join(command)}` printed no JSON: {output.strip()[-200:]!r}") from None


def find_limbeck():
    named = os.environ.get("LIMBECK")
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or HERE.parent / "target")
    # Absolute, or a name without a folder would be looked for on the PATH.
    binary = pathlib.Path(named or target / "release" / "limbeck").absolute()
    if not os.access(binary, os.X_OK) or binary.is_dir():
        advice = "LIMBECK names no program" if named else "build it with `cargo build --release`, or name one with LIMBECK"
        raise Usage(f"no limbeck at {binary}: {advice}")
    return str(binary)


def find_pythons():
    """The interpreters of the peers, by the variable that names them."""
    pythons = {}
    for variable in ("PEER_PYTHON", "PEER_PYTHON_ALIBI"):
        named = os.environ.get(variable)
        if named:
            pythons[variable] = shutil.which(named)
            if pythons[variable] is None:
                raise Usage(f"{variable} names no program: {named}")
    if "PEER_PYTHON" in pythons:
        pythons.setdefault("PEER_PYTHON_ALIBI", pythons["PEER_PYTHON"])
    else:
        say("PEER_PYTHON is not set: the peers that need it are left out; benches/README.md says what to install")
    return pythons


def positive(kind):
    def parse(text):
        value = kind(text)
        if not 0 < value < float("inf"):
            raise ValueError
        return value

    parse.__name__ = f"positive {kind.__name__}"
    return parse
