"""`pcl compare`, from a clone: python scripts/compare.py --help."""

from modeling_pcl.commands.main import main

if __name__ == "__main__":
    main("compare")
