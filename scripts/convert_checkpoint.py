"""`pcl convert`, from a clone: python scripts/convert_checkpoint.py --help."""

from modeling_pcl.commands.main import main

if __name__ == "__main__":
    main("convert")
