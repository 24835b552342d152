#!/usr/bin/env python3
"""The denoiser: diffusers' PixArt transformer with the ladder residual.

    model.py        checks: ladder off equals diffusers bit for bit; the recurrence against scalars; save and load

Modules run in the order self-attention, cross-attention, feed-forward of block 0, then block 1, ... Module i reads the
stream of module i-2 and adds to the stream of module i-1 (arXiv 2501.06589):

    x_i = x_{i-1} + h_i(x_{i-2}),   x_{-1} = x_{-2} = embedded patches

h_i holds its norm, modulation and gate as in PixArt (cross-attention has none of them). The last stream is the output.
With "ladder": false in config.json every module reads x_{i-1}: PixArt itself. Parameter names are PixArt's.
"""
import torch
from diffusers import PixArtTransformer2DModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.modeling_outputs import Transformer2DModelOutput


def block_modules(block, modulation, text, text_bias):
    """The three h_i of a BasicTransformerBlock of norm_type ada_norm_single, each a function of a stream [B, N, C]."""
    shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = (
        block.scale_shift_table[None] + modulation.reshape(len(modulation), 6, -1)).chunk(6, dim=1)
    return (lambda x: gate_a * block.attn1(block.norm1(x) * (1 + scale_a) + shift_a),
            lambda x: block.attn2(x, encoder_hidden_states=text, attention_mask=text_bias),
            lambda x: gate_f * block.ff(block.norm2(x) * (1 + scale_f) + shift_f))


def residual_chain(x, modules, ladder):
    """Run h_0, h_1, ... over the embedding x; returns the last stream."""
    newest = stale = x
    for h in modules:
        newest, stale = h(stale if ladder else newest) + newest, newest
    return newest


class LadderTransformer2DModel(PixArtTransformer2DModel):
    @register_to_config
    def __init__(self, num_attention_heads=8, attention_head_dim=32, in_channels=8, out_channels=8, num_layers=8,
                 dropout=0.0, norm_num_groups=32, cross_attention_dim=256, attention_bias=True, sample_size=16,
                 patch_size=2, activation_fn="gelu-approximate", num_embeds_ada_norm=1000, upcast_attention=False,
                 norm_type="ada_norm_single", norm_elementwise_affine=False, norm_eps=1e-6, interpolation_scale=None,
                 use_additional_conditions=False, caption_channels=384, attention_type="default", ladder=True):
        shared = {k: v for k, v in locals().items() if k not in ("self", "ladder", "__class__")}
        super().__init__(**shared)          # by name: diffusers takes what came by position for a default, and forgets it

    def forward(self, hidden_states, encoder_hidden_states=None, timestep=None, added_cond_kwargs=None,
                cross_attention_kwargs=None, attention_mask=None, encoder_attention_mask=None, return_dict=True):
        """hidden_states [B, C, H, W]; encoder_hidden_states [B, n, 384]; timestep [B]; encoder_attention_mask [B, n], 1 = a token."""
        batch, _, height, width = hidden_states.shape
        patch, out = self.config.patch_size, self.config.out_channels
        bias = encoder_attention_mask
        if bias is not None and bias.ndim == 2:
            bias = ((1 - bias.to(hidden_states.dtype)) * -10000.0).unsqueeze(1)
        x = self.pos_embed(hidden_states)
        modulation, time = self.adaln_single(timestep, added_cond_kwargs, batch_size=batch, hidden_dtype=x.dtype)
        text = self.caption_projection(encoder_hidden_states).view(batch, -1, x.shape[-1])

        modules = (h for block in self.transformer_blocks for h in block_modules(block, modulation, text, bias))
        x = residual_chain(x, modules, self.config.ladder)

        shift, scale = (self.scale_shift_table[None] + time[:, None]).chunk(2, dim=1)
        x = self.proj_out(self.norm_out(x) * (1 + scale) + shift)
        x = x.reshape(batch, height // patch, width // patch, patch, patch, out)
        x = torch.einsum("nhwpqc->nchpwq", x).reshape(batch, out, height, width)
        return Transformer2DModelOutput(sample=x) if return_dict else (x,)


def initialise(model):
    """PixArt's training start: xavier matrices; gates, cross-attention outputs and the last layer give zero."""
    for name, p in model.named_parameters():
        if p.ndim == 2 and "scale_shift_table" not in name:
            torch.nn.init.xavier_uniform_(p)
        elif name.endswith("bias"):
            torch.nn.init.zeros_(p)
    torch.nn.init.xavier_uniform_(model.pos_embed.proj.weight.view(model.inner_dim, -1))
    for linear in (model.adaln_single.emb.timestep_embedder.linear_1, model.adaln_single.emb.timestep_embedder.linear_2,
                   model.adaln_single.linear):
        torch.nn.init.normal_(linear.weight, std=.02)
    for block in model.transformer_blocks:
        torch.nn.init.zeros_(block.attn2.to_out[0].weight)
    torch.nn.init.zeros_(model.proj_out.weight)
    return model


def test():
    import tempfile
    torch.manual_seed(0)
    model = LadderTransformer2DModel(num_layers=3).eval()
    config = {k: v for k, v in model.config.items() if not k.startswith("_") and k != "ladder"}
    pixart = PixArtTransformer2DModel(**config).eval()
    pixart.load_state_dict(model.state_dict())
    x, text, t = torch.randn(2, 8, 16, 16), torch.randn(2, 7, 384), torch.tensor([3, 999])
    mask = torch.tensor([[1] * 7, [1] * 3 + [0] * 4])
    kwargs = dict(encoder_hidden_states=text, timestep=t, encoder_attention_mask=mask, return_dict=False)
    with torch.no_grad():
        reference, ladder = pixart(x, **kwargs)[0], model(x, **kwargs)[0]
        model.register_to_config(ladder=False)
        assert torch.equal(model(x, **kwargs)[0], reference)
        assert not torch.allclose(ladder, reference)
        model.register_to_config(ladder=True)
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            again = LadderTransformer2DModel.from_pretrained(folder).eval()
            assert again.config.ladder and torch.equal(again(x, **kwargs)[0], ladder)
    small = LadderTransformer2DModel(num_attention_heads=2, cross_attention_dim=64, num_layers=1)
    assert LadderTransformer2DModel.from_config(small.config).inner_dim == 64
    scalars = [lambda x, k=k: k * x for k in (.5, .2, -.4, .1)]
    assert abs(residual_chain(1., scalars, True) - 1.27) < 1e-12 and abs(residual_chain(1., scalars, False) - 1.188) < 1e-12
    print("ok")


if __name__ == "__main__":
    test()
