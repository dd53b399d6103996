"""Modules that have moved, whose earlier place passes their names on."""

#: for each earlier place, the modules that have the names
MOVED = {
    "imgops.data.colours": ["imgops.data.pictures.colors"],
    "imgops.data.crops": ["imgops.data.datasets.crops"],
    "imgops.data.flow": ["imgops.data.video.flow"],
    "imgops.data.folder": ["imgops.data.datasets.folder"],
    "imgops.data.samples": ["imgops.data.datasets.sample_set", "imgops.data.pictures.samples"],
    "imgops.data.textures": ["imgops.data.datasets.textures"],
    "imgops.models.adain_decoder": ["imgops.models.style.adain_decoder"],
    "imgops.models.googlenet": ["imgops.models.encoders.googlenet"],
    "imgops.models.inception_v3": ["imgops.models.encoders.inception_v3"],
    "imgops.models.stylegan2.mapping": ["imgops.nn.mapping"],
    "imgops.models.style_weights": ["imgops.models.style.weights"],
    "imgops.models.tiling": ["imgops.models.encoders.tiling"],
    "imgops.models.transform_net": ["imgops.models.style.transform_net"],
    "imgops.models.vgg": ["imgops.models.encoders.vgg"],
    "imgops.models.weights": ["imgops.models.encoders.weights", "imgops.models.weight_files"],
    "imgops.style.arbitrary": ["imgops.style.adain"],
    "imgops.training.encoder": [
        *("imgops.style.encoder_data", "imgops.style.encoder_recipe", "imgops.style.encoder_training"),
    ],
}
