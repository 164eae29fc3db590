"""What the scripts for nnU-Net's networks share: how nnU-Net builds them, and which tensors count."""

from torch import nn


def keep(name):
    # The layers of a block, and the encoder, once more.
    return ".all_modules." not in name and not name.startswith("decoder.encoder.")


def outputs(module, x):
    skips = module.encoder(x)
    heads = module.decoder(skips)
    return {"out": heads[0], **{f"levels.{i}": skips[i + 1] for i in range(3)},
            **{f"out{i + 1}": head for i, head in enumerate(heads) if i > 0}}


def make(network, channels, outputs, norm=nn.InstanceNorm3d, bias=True, **arguments):
    module = network(
        channels, len(arguments["strides"]), conv_op=nn.Conv3d, num_classes=outputs,
        conv_bias=bias, norm_op=norm, norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True}, deep_supervision=True, **arguments)
    module.apply(module.initialize)
    return module


def builder(network, **arguments):
    return lambda image, channels: make(network, channels, 3, **arguments)
