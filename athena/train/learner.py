"""A causal language model together with its losses: what is sharded, compiled and stepped as one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from athena.nn.attention import boundaries
from athena.nn.losses import IGNORED, head_losses
from athena.train.plan import Plan
from athena.train.tokens import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Learner(nn.Module):
    """Tokens to losses, for a transformers model that attends by athena.nn.attention.

    Its parameters are the model's own, so what transformers saves and loads is what is trained.
    """

    def __init__(self, model: PreTrainedModel, plan: Plan) -> None:
        super().__init__()
        self.model = model
        self._losses = dict(plan.losses)
        self._compiled = False
        if plan.activation_checkpointing:
            model.activation_checkpointing_enable()

    def compile_parts(self, *, sharded: bool) -> None:
        """Lets torch.compile at the model as a whole, 1.1 times as fast on a core as layer by layer; where it is to be
        sharded at each layer, since shards are gathered in between."""
        for part in self.layers if sharded else (self.model.base_model,):
            part.compile()
        self._compiled = True

    @property
    def layers(self) -> nn.ModuleList:
        layers = self.model.base_model.layers
        assert isinstance(layers, nn.ModuleList)
        return layers

    def forward(
        self, inputs: Tensor, positions: Tensor, labels: Tensor, bounds: Tensor, counted: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The weighted sum of all losses over the labels, and each loss alone, unweighted [losses].

        int64 [windows, length] but for `bounds`, which `boundaries` gives of the positions, and `counted`, where in the
        flattened labels there is one: the head is not computed elsewhere.
        """
        hidden = self.model.base_model(
            input_ids=inputs.view(1, -1),
            position_ids=positions.view(1, -1),
            use_cache=False,
            document_bounds=bounds,
            longest_document=inputs.shape[1],
        ).last_hidden_state
        head = self.model.get_output_embeddings().weight
        return head_losses(hidden[0].index_select(0, counted), head, labels.flatten()[counted], self._losses)

    def losses_of(self, batch: Batch, device: torch.device) -> tuple[Tensor, Tensor]:
        """`forward` of a batch that was read."""
        positions = torch.from_numpy(batch.positions)
        bounds = boundaries(positions)
        if self._compiled:
            torch._dynamo.mark_dynamic(bounds, 0)  # the number of documents differs from batch to batch
        labels = torch.from_numpy(batch.labels)
        counted = (labels.flatten() != IGNORED).nonzero().flatten()
        moved = (torch.from_numpy(batch.inputs), positions, labels, bounds, counted)
        losses: tuple[Tensor, Tensor] = self(*(tensor.to(device, non_blocking=True) for tensor in moved))
        return losses
