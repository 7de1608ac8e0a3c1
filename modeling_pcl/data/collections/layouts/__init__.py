"""Raw collections as they are downloaded: a layout's name to the function that reads it."""

from collections.abc import Callable

from . import action_units, attributes, expression, folders, genki, pair_lists, pose
from .action_units import read_bp4d, read_disfa
from .attributes import read_celeba, read_utkface
from .base import Collection, LayoutError
from .expression import read_fer2013, read_rafdb
from .folders import read_folders, read_voxceleb
from .genki import read_genki4k
from .pair_lists import read_calfw, read_cplfw, read_lfw
from .pose import read_300wlp, read_aflw2000, read_biwi, read_fsanet

LAYOUTS: dict[str, Callable[..., Collection]] = {
    "folders": read_folders,
    "voxceleb": read_voxceleb,
    "lfw": read_lfw,
    "cplfw": read_cplfw,
    "calfw": read_calfw,
    "fer2013": read_fer2013,
    "rafdb": read_rafdb,
    "300wlp": read_300wlp,
    "aflw2000": read_aflw2000,
    "fsanet": read_fsanet,
    "biwi": read_biwi,
    "disfa": read_disfa,
    "bp4d": read_bp4d,
    "genki4k": read_genki4k,
    "utkface": read_utkface,
    "celeba": read_celeba,
}

# Of these, and of collections that have no layout of their own.
TERMS = {
    "affectnet": "for research, under an agreement with its authors",
    "orl": "the AT&T (Olivetti) Database of Faces; to be used with credit to AT&T Laboratories Cambridge",
    "ytf": "YouTube Faces; for research, frames of videos that belong to their owners",
    **action_units.TERMS,
    **attributes.TERMS,
    **expression.TERMS,
    **folders.TERMS,
    **genki.TERMS,
    **pair_lists.TERMS,
    **pose.TERMS,
}

__all__ = ["LAYOUTS", "TERMS", "Collection", "LayoutError"]
