"""``python -m f2a2_sim`` is the command ``f2a2-sim``."""

from f2a2_sim.cli import main

if __name__ == "__main__":
    main()
