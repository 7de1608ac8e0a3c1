"""Defaults that belong together: whole recipes, and methods that go with each of them."""

# What a recipe changes of the published defaults. Measured on two CPU cores: `hub_cards/recipe_search.csv`.
RECIPES = {
    "published": {},
    "small": {
        # Two disjoint windows of 0.4 keep the loss above chance level for the first 900 iterations.
        "face_views": "random_resized_crop",
        "crop_area_min": 0.5,
        "face_mirror_probability": 0.5,
        "face_temperature": 0.2,
        "pose_temperature": 0.2,
        "mixing_alpha": 0.0,
        # A small model does not learn through gradient-magnitude views for its first half million images.
        "gradient_probability": 0.0,
        "disentangling_images": 16,
        "pose_images": 4,
        "pose_negatives_per_image": 16,
        "pose_negatives": ["geometric"],
        "disentangling_weight": 0.2,
        "pose_contrast_weight": 0.2,
        "decoder_size": 64,
        "schedule": "joint",
        "keep_zero_gradients": False,
        "dynamic_weight_averaging": False,
        # The encoder has no normalisation, and Adam is slow on it.
        "optimizer": "muon",
        "learning_rate": 0.02,
        "weight_decay": 0.0,
        "warmup_steps": 20,
    },
}
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
