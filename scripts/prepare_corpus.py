"""`pcl prepare`, from a clone: python scripts/prepare_corpus.py --help."""

from modeling_pcl.commands.main import main

if __name__ == "__main__":
    main("prepare")
