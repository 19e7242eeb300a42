"""The optimizer of the student: AdamW, its learning rate warmed up and then lowered along a cosine."""

import keras

from training.ssd.params import SsdParams


def make_optimizer(params: SsdParams, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """AdamW over ``params.epochs`` epochs; batch normalisation and biases do not decay.

    The learning rate rises linearly for ``params.warmup_epochs`` and then falls along half a cosine to 0
    (Loshchilov & Hutter 2017, SGDR, equation 5, without restarts).
    """
    total_steps = params.epochs * steps_per_epoch
    warmup_steps = min(round(params.warmup_epochs * steps_per_epoch), total_steps - 1)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0 if warmup_steps else params.learning_rate,
        total_steps - warmup_steps,
        warmup_target=params.learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )
    optimizer = keras.optimizers.AdamW(
        schedule,
        weight_decay=params.weight_decay,
        global_clipnorm=params.clip_norm,
        use_ema=params.ema_decay > 0,
        ema_momentum=params.ema_decay or 0.99,
    )
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    return optimizer
