"""``python -m innereye_core`` does what ``innereye`` does."""

from innereye_core.cli import main

main()
