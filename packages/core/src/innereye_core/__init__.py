"""InnerEye Deploy's core: from a training run to a registered model, every step a hook."""
