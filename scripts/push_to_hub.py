"""`pcl push`, from a clone: python scripts/push_to_hub.py --help."""

from modeling_pcl.commands.main import main

if __name__ == "__main__":
    main("push")
