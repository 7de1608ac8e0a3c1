"""Layouts of raw collections as they are downloaded, and the functions that read them."""

from collections.abc import Callable

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

# Terms of use, also of collections that have no layout. The pages of the owners are binding; these lines only say where
# to look.
TERMS = {
    "affectnet": "for research, under an agreement with its authors",
    "orl": "the AT&T (Olivetti) Database of Faces; to be used with credit to AT&T Laboratories Cambridge",
    "ytf": "YouTube Faces; for research, frames of videos that belong to their owners",
    "bp4d": "for research, under a licence of Binghamton University",
    "disfa": "for research, under an agreement with its authors",
    "celeba": "for non-commercial research; the images are not its authors' property",
    "utkface": "for non-commercial research; the images belong to their owners",
    "fer2013": "of a Kaggle competition, images found by web search; subject to its rules",
    "rafdb": "for non-commercial research, under an agreement with its authors",
    "voxceleb": "VoxCeleb; lists under CC BY 4.0, frames of videos that belong to their owners",
    "genki4k": "The MPLab GENKI Database, GENKI-4K subset; images from the web, for research",
    "calfw": "Cross-Age LFW; images of LFW's people, for research",
    "cplfw": "Cross-Pose LFW; images of LFW's people, for research",
    "lfw": "Labeled Faces in the Wild; news photographs, for research on face verification, no licence stated",
    "300wlp": "300W-LP; derived from AFW, HELEN, LFPW and others, for non-commercial research",
    "aflw2000": "AFLW2000-3D; images of AFLW, for non-commercial research",
    "biwi": "Biwi Kinect Head Pose; for research only",
    "fsanet": "300W-LP, AFLW2000-3D and BIWI as prepared for FSA-Net; subject to their terms",
}

__all__ = ["LAYOUTS", "TERMS", "Collection", "LayoutError"]
