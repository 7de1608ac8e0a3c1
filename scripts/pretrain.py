"""`pcl pretrain`, from a clone: python scripts/pretrain.py --help."""

from modeling_pcl.commands.main import main

if __name__ == "__main__":
    main("pretrain")
