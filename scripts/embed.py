"""`pcl embed`, from a clone: python scripts/embed.py --help."""

from modeling_pcl.commands.main import main

if __name__ == "__main__":
    main("embed")
