"""Builds a wheel, installs it in a fresh virtual environment, uses it from an empty folder: make wheel-check.

Dependencies are taken from the environment that runs this script, so nothing is downloaded.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "empty").mkdir()
        pip = [sys.executable, "-m", "pip"]
        source = folder / "source"
        shutil.copytree(
            ROOT, source, ignore=shutil.ignore_patterns(".*", "runs", "build", "*.egg-info", "__pycache__")
        )
        subprocess.run([*pip, "wheel", "-q", "--no-deps", "-w", folder, source], check=True)
        (wheel,) = folder.glob("*.whl")
        venv.create(folder / "venv", with_pip=False)
        python = folder / "venv" / "bin" / "python"
        subprocess.run([*pip, "--python", python, "install", "-q", "--no-deps", wheel], check=True)
        site = next((folder / "venv" / "lib").glob("python*")) / "site-packages"
        (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
        for command in (
            ["scenarios"],
            ["validate", "quickstart"],
            ["validate", "magent_256", "world.opponent=iql"],
            ["profiles"],
            ["run", "quickstart", "duration.episodes=1", "--quiet"],
        ):
            print("f2a2-sim", *command, flush=True)
            subprocess.run(
                [folder / "venv" / "bin" / "f2a2-sim", *command],
                check=True,
                cwd=folder / "empty",
                stdout=subprocess.PIPE,
            )
        where = (
            "import f2a2_sim, network, devices; print(f2a2_sim.__file__, network.__file__, devices.__file__)"
        )
        shown = subprocess.run(
            [python, "-c", where], check=True, cwd=folder / "empty", stdout=subprocess.PIPE, text=True
        ).stdout
        assert all(file.startswith(str(site)) for file in shown.split()), shown
    print("the wheel works")


if __name__ == "__main__":
    main()
