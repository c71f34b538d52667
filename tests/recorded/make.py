"""Make the folders beside this file with the libraries themselves: `make.py lightning|timm|hugging_face|tensorboard`.

README.md says with which versions they were made. What is there of the kind is replaced.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml  # type: ignore[import-untyped]
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

HERE = Path(__file__).parent
ARMS = [(t_mult, seed) for t_mult in (1, 2) for seed in (0, 1)]


def data(seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(32, 4, generator=generator)
    return TensorDataset(x, (x.sum(1) > 0).long())


def lightning(logger: str = "CSVLogger", folder: Path = HERE / "lightning") -> None:
    """Train the four runs, of three epochs of four steps, with a logger of Lightning."""
    import lightning as L
    from lightning.pytorch import loggers

    class Module(L.LightningModule):
        def __init__(self, lr: float, t_mult: int, seed: int, betas: Any, activation: Any) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net = nn.Linear(4, 2)

        def training_step(self, batch: Any) -> torch.Tensor:
            loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
            self.log("train_loss", loss)
            return loss

        def validation_step(self, batch: Any) -> None:
            right = self.net(batch[0]).argmax(1) == batch[1]
            self.log("val_acc", right.float().mean())

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=float(self.hparams["lr"]))

    for t_mult, seed in ARMS:
        L.seed_everything(seed)
        trainer = L.Trainer(
            accelerator="cpu", max_epochs=3, log_every_n_steps=2, logger=getattr(loggers, logger)(folder),
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        module = Module(0.1, t_mult, seed, (0.9, 0.999), nn.ReLU)
        trainer.fit(module, DataLoader(data(seed), 8), DataLoader(data(seed + 9), 8))


def timm(folder: Path = HERE / "timm") -> None:
    """Write what timm's train.py writes, by its `update_summary`; every second epoch of `seed=1` is not evaluated."""
    from timm.utils.summary import update_summary

    for t_mult, seed in ARMS:
        run = folder / f"train/{t_mult}-{seed}"
        run.mkdir(parents=True)
        args = {"model": "resnet18", "epochs": 4, "seed": seed, "lr": 0.1, "lr_cycle_mul": float(t_mult),
                "sched": "cosine", "lr_noise": None, "mean": None, "aug_splits": 0}  # fmt: skip
        (run / "args.yaml").write_text(yaml.safe_dump(args, default_flow_style=False))
        for epoch in range(4):
            evaluated = {"loss": 2.0 - epoch / 4, "top1": 50.0 + epoch + t_mult, "top5": 90.0}
            update_summary(  # type: ignore[no-untyped-call]
                epoch, {"loss": 2.5 - epoch / 4}, None if seed == 1 and epoch % 2 else evaluated,
                str(run / "summary.csv"), lr=0.1 / (epoch + 1),
            )  # fmt: skip


def hugging_face(folder: Path = HERE / "hugging_face") -> None:
    """Train the four runs with the Trainer of transformers, and keep `trainer_state.json` only."""
    from transformers import Trainer, TrainingArguments  # type: ignore[import-not-found]

    class Rows(Dataset[Any]):
        def __init__(self, seed: int) -> None:
            self.x, self.y = data(seed).tensors

        def __len__(self) -> int:
            return len(self.x)

        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            return {"x": self.x[index], "labels": self.y[index]}

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            logits = self.net(x)
            return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    for t_mult, seed in ARMS:
        torch.manual_seed(seed)
        run = folder / f"t_mult={t_mult},seed={seed}"
        arguments = TrainingArguments(
            output_dir=str(run), num_train_epochs=2, per_device_train_batch_size=8, seed=seed, use_cpu=True,
            logging_steps=2, eval_strategy="epoch", save_strategy="epoch", report_to=[], disable_tqdm=True,
        )  # fmt: skip
        trainer = Trainer(
            model=Net(), args=arguments, train_dataset=Rows(seed), eval_dataset=Rows(seed + 9),
            compute_metrics=lambda p: {"accuracy": float((p.predictions.argmax(1) == p.label_ids).mean())},
        )  # fmt: skip
        trainer.train()
        trainer.save_state()
    for path in [*folder.rglob("*")]:
        if path.is_file() and path.name != "trainer_state.json":
            path.unlink()


def tensorboard(folder: Path = HERE / "tensorboard") -> None:
    """Train the four runs of `lightning` with its TensorBoardLogger, and name its files after no machine."""
    lightning("TensorBoardLogger", folder)
    for path in sorted(folder.rglob("events.out.tfevents.*")):
        path.rename(path.with_name(f"{'.'.join(path.name.split('.')[:4])}.host.1.0"))


if __name__ == "__main__":
    (kind,) = sys.argv[1:]
    shutil.rmtree(HERE / kind, ignore_errors=True)
    made: dict[str, Callable[[], None]] = {
        "lightning": lightning, "timm": timm, "hugging_face": hugging_face, "tensorboard": tensorboard,
    }  # fmt: skip
    made[kind]()
