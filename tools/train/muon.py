"""Muon: momentum whose step is orthogonalised, for the hidden matrices of a transformer (Jordan et al. 2024).

Matrices of one shape are stacked and orthogonalised together; f32, since bf16 GEMMs are slower than f32 on the CPUs at hand.
"""
import torch


def orthogonalise(g, steps=5):
    """Newton-Schulz iteration on [K, m, n]: singular values to about 1."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = g.shape[1] > g.shape[2]
    x = g.mT if tall else g
    x = x / (x.norm(dim=(1, 2), keepdim=True) * 1.02 + 1e-7)
    for _ in range(steps):
        s = x @ x.mT
        x = a * x + (b * s + c * s @ s) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """lr is in the units of Adam's: the step's root mean square is 0.2 lr."""
    def __init__(self, params, lr=1e-3, momentum=.95, weight_decay=0., steps=5):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay, steps=steps))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            shapes = {}
            for p in group["params"]:
                if p.grad is not None:
                    shapes.setdefault(p.shape, []).append(p)
            for shape, params in shapes.items():
                self.update(group, shape, params)

    def update(self, group, shape, params):
        directions = []
        for p in params:
            m = self.state[p].setdefault("momentum", torch.zeros_like(p))
            m.lerp_(p.grad, 1 - group["momentum"])
            directions.append(p.grad.lerp(m, group["momentum"]))
        steps = orthogonalise(torch.stack(directions), group["steps"])
        size = .2 * max(shape) ** .5 * group["lr"]
        for p, d in zip(params, steps):
            p.mul_(1 - group["lr"] * group["weight_decay"]).add_(d, alpha=-size)
