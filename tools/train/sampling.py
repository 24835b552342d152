"""Sampling with the trained parts, in diffusers: what the trainer's sheets and evaluate.py show."""
import numpy as np, torch
from PIL import Image
from diffusers import DPMSolverMultistepScheduler

SCHEDULER = dict(num_train_timesteps=1000, beta_schedule="scaled_linear", beta_start=.00085, beta_end=.012,
                 prediction_type="v_prediction", algorithm_type="dpmsolver++", solver_type="midpoint", solver_order=2,
                 timestep_spacing="trailing", lower_order_final=True)

PROMPTS = ["a glossy red apple, 3d", "apple, flat style", "a cat face", "dog", "a red car", "rocket", "a house with a garden", "pizza",
           "sunflower", "a blue fish, flat vector art", "birthday cake, 3d", "guitar", "butterfly", "umbrella with rain drops",
           "smiling face", "heart", "mushroom, soft gradient style", "penguin", "bicycle", "a cup of coffee", "crown, 3d render",
           "cactus", "soccer ball", "snowman", "airplane", "key", "octopus", "tree", "gift box, noto style", "camera, twemoji",
           "bank", "strawberry"]


@torch.no_grad()
def sample(model, text, steps=20, cfg=4., seed=0, scheduler=SCHEDULER, start=None):
    """Latents [B, C, 16, 16]. text: (cond [B, n, 384], its mask, empty [1, m, 384]). start: (latents, how many of the steps remain to
    be done from them, with noise added), in place of noise alone."""
    cond, mask, empty = text
    batch, n = mask.shape
    context = torch.zeros(2 * batch, n, cond.shape[-1])
    context[:batch, :empty.shape[1]], context[batch:] = empty, cond
    keep = torch.zeros(2 * batch, n)
    keep[:batch, :empty.shape[1]], keep[batch:] = 1, mask.float()
    solver = DPMSolverMultistepScheduler(**scheduler)
    solver.set_timesteps(steps)
    channels, side = model.config.in_channels, model.config.sample_size
    noise = lambda s: torch.randn(1, channels, side, side, generator=torch.Generator().manual_seed(s))
    x, timesteps = torch.cat([noise(seed + i) for i in range(batch)]), solver.timesteps
    if start:
        timesteps = timesteps[steps - start[1]:]
        solver.set_begin_index(steps - start[1])
        x = solver.add_noise(start[0], x, timesteps[:1].expand(batch))
    for t in timesteps:
        v = model(torch.cat([x, x]), context, t.expand(2 * batch), encoder_attention_mask=keep, return_dict=False)[0]
        empty_v, cond_v = v.chunk(2)
        x = solver.step(empty_v + cfg * (cond_v - empty_v), t, x).prev_sample
    return x


@torch.no_grad()
def decode(vae, latents):
    """uint8 [B, 128, 128, 4] premultiplied."""
    y = vae.decode(latents / vae.config.scaling_factor).sample.clamp(-1, 1)
    return ((y + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def sheet(icons, columns=8):
    """Premultiplied icons over a light and a dark half-checked ground, as one RGB picture."""
    ground = np.where((np.indices((128, 128)) // 16).sum(0)[..., None] % 2, 255., 236.)
    tiles = [i[..., :3] + ground * (1 - i[..., 3:] / 255.) for i in icons]
    tiles += [np.full((128, 128, 3), 255.)] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[i:i + columns], 1) for i in range(0, len(tiles), columns)]
    return Image.fromarray(np.concatenate(rows).clip(0, 255).astype(np.uint8))
