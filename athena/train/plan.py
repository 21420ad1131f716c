"""What a training run does besides its data: sizes, schedule, optimizer, losses, checkpoints. No torch here."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from athena.protocol import Noun

Precision = Literal["auto", "float32", "bfloat16"]
NOT_OF_THE_COURSE = frozenset(
    {
        "micro_windows",
        "compile",
        "activation_checkpointing",
        "checkpoint_every",
        "keep_last",
        "milestones",
        "branch_from",
    }
)
"""Fields that change how a run is computed and kept, but not what it learns, up to rounding."""


class Plan(Noun):
    """Everything about a run that is not its data.

    A trunk has decay_steps = 0, and its `steps` may grow; a branch begins at `branch_from` and anneals to zero.
    """

    seed: int = 0
    steps: Annotated[int, Field(ge=1)]
    batch_windows: Annotated[int, Field(ge=1)]
    """Windows of one optimizer step, over all processes and micro-batches."""
    ramp_from: Annotated[int, Field(ge=1)] | None = None
    """Windows of the first step; they grow evenly to `batch_windows` in `ramp_steps`."""
    ramp_steps: Annotated[int, Field(ge=0)] = 0
    micro_windows: Annotated[int, Field(ge=1)]
    """Windows that go through the model at a time on each process."""
    lr: Annotated[float, Field(gt=0)]
    warmup_steps: Annotated[int, Field(ge=0)]
    decay_steps: Annotated[int, Field(ge=0)]
    branch_from: str | None = None
    """A trunk's checkpoint folder: where the run begins while it has no checkpoint of its own."""
    optimizer: Literal["muon", "adamw"] = "muon"
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    losses: dict[str, float] = Field(default_factory=lambda: {"cross_entropy": 1.0}, min_length=1)
    """Names in athena.nn.losses and their factors."""
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    skip_above: Annotated[float, Field(gt=1)] = 10.0
    """A step whose gradient norm is this many times the median of the last 128 is not taken."""
    precision: Precision = "auto"
    """auto: bfloat16 on GPUs and on processors with instructions for it, else float32."""
    compile: bool = False
    activation_checkpointing: bool = False
    checkpoint_every: Annotated[int, Field(ge=1)]
    keep_last: Annotated[int, Field(ge=1)] = 2
    milestones: tuple[int, ...] = ()
    """Steps whose checkpoints are kept for good."""

    @model_validator(mode="after")
    def _phases_fit(self) -> Self:
        if self.warmup_steps + self.decay_steps > self.steps:
            raise ValueError("warmup and decay are longer than the run")
        if (self.ramp_from is None) != (self.ramp_steps == 0):
            raise ValueError("a ramp has ramp_from and ramp_steps")
        if self.branch_from is not None and self.decay_steps == 0:
            raise ValueError("a branch anneals: it has decay_steps")
        return self

    def windows_of(self, step: int) -> int:
        """Windows of the batch at `step` (0-based), over all processes."""
        if self.ramp_from is None or step >= self.ramp_steps:
            return self.batch_windows
        return self.ramp_from + (self.batch_windows - self.ramp_from) * step // self.ramp_steps

    def windows_before(self, step: int) -> int:
        """Windows of all batches before `step`."""
        ramp = min(step, self.ramp_steps)
        return sum(map(self.windows_of, range(ramp))) + (step - ramp) * self.batch_windows

    def saves(self, step: int) -> bool:
        """Whether a checkpoint is left after `step` steps."""
        return step % self.checkpoint_every == 0 or step == self.steps or step in self.milestones

    def course(self) -> dict[str, Any]:
        """The fields that decide what the run learns. A trunk's length is none: it may grow."""
        left_out = NOT_OF_THE_COURSE | ({"steps"} if self.decay_steps == 0 else frozenset())
        return self.model_dump(mode="json", exclude=set(left_out))
