"""Hugging Face PEFT's LoRA on the same timm backbone: one adapter a task, mixed batches by adapter names."""

import copy

import torch
from torch import Tensor, nn

from ship.backbone import Backbone

__all__ = ["LoraTasks"]

RANK = 8


class LoraTasks(nn.Module):
    """Adapters of rank 8 on every block's queries, keys and values, and a head for each task.

    Args:
        backbone: Backbone; copied, for PEFT modifies the model.
        num_tasks: Number of adapters and heads.
        num_classes: Number of classes of every head.

    Raises:
        ImportError: PEFT is not installed.
    """

    def __init__(self, backbone: Backbone, num_tasks: int, num_classes: int = 10) -> None:
        from peft import LoraConfig, get_peft_model

        super().__init__()
        self.backbone = backbone
        config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["qkv"], init_lora_weights=False)
        self.names = [f"task-{task}" for task in range(num_tasks)]
        self.model = get_peft_model(copy.deepcopy(backbone.vit), config, adapter_name=self.names[0])
        for name in self.names[1:]:
            self.model.add_adapter(name, config)
        self.model.to(backbone.device, backbone.dtype).eval()
        width, device = backbone.info.width, backbone.device
        self.heads_TCD = nn.Parameter(torch.randn(num_tasks, num_classes, width, device=device) * 0.02)

    def infer(self, images_BCHW: Tensor, tasks: list[int]) -> Tensor:
        """Scores ``B,C``, each row by the adapter and head of its task."""
        images_BCHW = self.backbone.normalise(images_BCHW).to(self.backbone.dtype)
        features_BD = self.model(images_BCHW, adapter_names=[self.names[task] for task in tasks])
        heads_BCD = self.heads_TCD[torch.tensor(tasks, device=features_BD.device)]
        return (heads_BCD @ features_BD.float().unsqueeze(-1)).squeeze(-1).cpu()

    def train_first(self) -> list[nn.Parameter]:
        """Activate the first task's adapter for training; returns the parameters to train."""
        self.model.set_adapter(self.names[0])
        return [*(weight for weight in self.model.parameters() if weight.requires_grad), self.heads_TCD]

    def loss(self, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        """Cross-entropy of the first task's adapter."""
        features_BD = self.model(self.backbone.normalise(images_BCHW).to(self.backbone.dtype))
        return nn.functional.cross_entropy(features_BD.float() @ self.heads_TCD[0].T, labels_B)
