"""Parameters that several methods have: each type carries its range and its help text."""

import typing as t

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from encoders import objectives, views

Body = t.Annotated[
    t.Literal["mlp", "conv"],
    Field(description="Networks: perceptrons (mlp), or strided convolutions for colour images (conv)."),
]
Hidden = t.Annotated[PositiveInt, Field(description="Units of each hidden layer.")]
Classes = t.Annotated[PositiveInt, Field(description="Number of classes of the dataset.")]
Labels = t.Annotated[
    PositiveInt | None,
    Field(description="Number of training images whose label is used, equally many per class; null: all."),
]

Epochs = t.Annotated[NonNegativeInt, Field(description="Passes over the training images; 0 trains nothing.")]
BatchSize = t.Annotated[PositiveInt, Field(description="Images per step.")]
LearningRate = t.Annotated[PositiveFloat, Field(description="Step size of the optimiser.")]
DecayingLearningRate = t.Annotated[
    PositiveFloat, Field(description="Step size of Adam; it decays to 1 % over the second half of training.")
]
DiscriminatorLearningRate = t.Annotated[
    PositiveFloat | None, Field(description="Step size for the discriminator; null: learning_rate.")
]
AdversarialLearningRate = t.Annotated[
    PositiveFloat,
    Field(description="Step size for discriminator and encoder as adversaries; it decays like learning_rate."),
]
AdversaryLearningRate = t.Annotated[
    PositiveFloat | None, Field(description="Step size for the discriminator; null: adversarial_learning_rate.")
]
Beta1 = t.Annotated[NonNegativeFloat, Field(description="Decay rate of Adam's mean gradient, below 1.")]
WeightDecay = t.Annotated[
    NonNegativeFloat, Field(description="L2 penalty: this times each weight is added to its gradient.")
]

GeneratorLoss = t.Annotated[
    objectives.GeneratorLoss,
    Field(
        description="Loss of the generator: the divergence's bound (minimax), or one that keeps its slope where the "
        "discriminator is certain (non_saturating)."
    ),
]
Pi = t.Annotated[
    float,
    Field(gt=0, lt=1, description="Weight of the real data, between 0 and 1; only for weighted_jensen_shannon."),
]
Alpha = t.Annotated[float, Field(description="Order of the divergence; only for the objective alpha.")]

ConvWidth = t.Annotated[
    PositiveInt, Field(description="Channels of the first convolution; each one after it has twice as many.")
]
ConvLayers = t.Annotated[PositiveInt, Field(description="Maximum number of convolutions; small images have fewer.")]
PixelNoise = t.Annotated[
    NonNegativeFloat, Field(description="Standard deviation of the Gaussian noise on pixels in [0, 1].")
]
CriticSteps = t.Annotated[PositiveInt, Field(description="Steps of the critic before each step of the generator.")]

PooledBody = t.Annotated[
    t.Literal["resnet18", "small", "conv"],
    Field(
        description="Network: ResNet-18 with a 3x3 stem (resnet18; 555 million multiply-adds at 32x32x3), residual "
        "blocks for a processor (small; 16 million), or plain strided convolutions (conv; 18 million)."
    ),
]
Views = t.Annotated[
    views.Preset | None,
    Field(
        description="How the two views of an image are made; null: the source's for colour images, digits for grey "
        "ones. What each changes stands in encoders/views.py."
    ),
]
ProjectorHidden = t.Annotated[PositiveInt, Field(description="Units of each hidden layer of the projector.")]
ProjectorOutputs = t.Annotated[PositiveInt, Field(description="Units of the projector's last layer.")]
PairBatchSize = t.Annotated[int, Field(ge=2, description="Images per step, at least 2: a loss compares them.")]
Momentum = t.Annotated[float, Field(ge=0, lt=1, description="Decay rate of the mean gradient of SGD.")]
TeacherMomentum = t.Annotated[
    float,
    Field(ge=0, lt=1, description="Decay rate of the teacher's weights at first; it rises to 1 like half a cosine."),
]
Temperature = t.Annotated[
    PositiveFloat,
    Field(description="What cosines in -1..1 are divided by; a small one looks at the most similar images only."),
]
Warmup = t.Annotated[
    float,
    Field(
        gt=0, lt=1, description="Share of the training in which the step size rises; it falls like a cosine after it."
    ),
]
LARSLearningRate = t.Annotated[
    PositiveFloat, Field(description="Step size of LARS for batches of 256; the source scales it with batch_size.")
]
