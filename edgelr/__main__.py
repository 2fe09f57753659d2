"""``python -m edgelr``."""

from edgelr.cli import main

if __name__ == "__main__":
    main()
