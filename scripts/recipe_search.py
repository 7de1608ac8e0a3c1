"""`pcl search`, from a clone: python scripts/recipe_search.py --help."""

from modeling_pcl.commands.main import main

if __name__ == "__main__":
    main("search")
