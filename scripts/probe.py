"""`pcl probe`, from a clone: python scripts/probe.py --help."""

from modeling_pcl.commands.main import main

if __name__ == "__main__":
    main("probe")
