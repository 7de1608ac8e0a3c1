"""Defaults that belong together: whole recipes, and methods that go with each of them."""

# What a recipe changes of the published defaults. Measured on two CPU cores, what the search kept of it in
# `hub_cards/recipe_search.csv`; another seed moves verification and yaw as much as most of these values do.
RECIPES = {
    "published": {},
    "small": {
        # Two disjoint windows of 0.4 keep the loss above chance level for the first 900 iterations. Larger crops favour
        # identity (0.8: AUC up by 0.008, expression down by 0.013 at 100 px), a low temperature expression.
        "face_views": "random_resized_crop",
        "crop_area_min": 0.65,
        "face_mirror_probability": 0.5,
        "face_temperature": 0.1,
        "pose_temperature": 0.2,
        "mixing_alpha": 0.0,
        # A small model does not learn through gradient-magnitude views for its first half million images.
        "gradient_probability": 0.0,
        # On images with noise of 0.4 the decoder learns to draw those, and of images without any it draws none.
        "noise_std": 0.0,
        # The decoder and the pose contrast see few images, and weigh little: they add a third to the time.
        "disentangling_images": 8,
        "disentangling_weight": 0.2,
        "decoder_size": 64,
        "pose_images": 4,
        "pose_negatives_per_image": 8,
        "pose_contrast_weight": 0.2,
        # Turned images beside mirrors, half of them out of the plane: yaw is read better from the trunk than SimCLR's,
        # on average over three seeds.
        "pose_negatives": ["geometric"],
        "turn_out_of_plane_deg": 35.0,
        # Half of it costs Muon an eighth of the time.
        "projection_hidden_size": 256,
        "schedule": "joint",
        "keep_zero_gradients": False,
        "dynamic_weight_averaging": False,
        # The encoder has no normalisation, and Adam is slow on it. Small batches make more steps of as many images.
        "batch_size": 128,
        "optimizer": "muon",
        "learning_rate": 0.02,
        # Without decay Muon lets the weights grow: after half a million images nothing is learned any more, and float16
        # cannot hold the features.
        "weight_decay": 0.1,
        "warmup_steps": 40,
    },
}
# Where Adam or AdamW is asked for beside a recipe with Muon.
OF_ADAM = {"learning_rate": 1e-3, "weight_decay": 0.0}
METHODS = {
    "pcl": {},
    "simclr": {
        "disentangling_weight": 0.0,
        "pose_contrast_weight": 0.0,
        "face_views": "random_resized_crop",
        "face_mirror_probability": 0.5,
        "mixing_alpha": 0.0,
    },
}
