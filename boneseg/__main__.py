"""``python -m boneseg``."""

from boneseg.cli import main

main()
