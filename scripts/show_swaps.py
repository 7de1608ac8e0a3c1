"""`pcl swaps`, from a clone: python scripts/show_swaps.py --help."""

from modeling_pcl.commands.main import main

if __name__ == "__main__":
    main("swaps")
