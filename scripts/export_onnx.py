"""`pcl export`, from a clone: python scripts/export_onnx.py --help."""

from modeling_pcl.commands.main import main

if __name__ == "__main__":
    main("export")
