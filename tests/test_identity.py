"""What is in a run's key, and what is not."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from conftest import make_config
from PIL import Image
from test_store import fingerprint, tiny
from torch import nn

from harness.choices.optimizers import SGD
from harness.config.errors import ConfigError
from harness.config.fields import added, number
from harness.config.registry import KINDS
from harness.config.schema import Config
from harness.config.values import from_dict, to_dict
from harness.runs.context import PhaseTimer
from harness.runs.setup import prepare
from harness.store.identity import weights_sha256

MODEL = ("model=torchvision", "model.arch=resnet18", "model.stem=small")


MOVES: dict[str, tuple[tuple[str, ...], str]] = {
    "model/resnet.depth": ((), "model.depth=14"),
    "model/resnet.width": ((), "model.width=4"),
    "model/torchvision.arch": (MODEL, "model.arch=resnet34"),
    "model/torchvision.stem": ((*MODEL, "dataset.image_size=32"), "model.stem=imagenet"),
    "dataset/synthetic.val_size": ((), "dataset.val_size=0.3"),
    "dataset/synthetic.test_size": ((), "dataset.test_size=0.3"),
    "dataset/synthetic.train_size": ((), "dataset.train_size=80"),
    "dataset/synthetic.split_seed": ((), "dataset.split_seed=1"),
    "dataset/synthetic.crop": ((), "dataset.crop=0"),
    "dataset/synthetic.flip": ((), "dataset.flip=true"),
    "dataset/synthetic.images": ((), "dataset.images=200"),
    "dataset/synthetic.image_size": ((), "dataset.image_size=8"),
    "dataset/synthetic.channels": ((), "dataset.channels=3"),
    "dataset/synthetic.classes": ((), "dataset.classes=5"),
    "dataset/synthetic.noise": ((), "dataset.noise=2"),
    "dataset/synthetic.resized_crop": (("dataset.crop=0",), "dataset.resized_crop=0.3"),
    "dataset/synthetic.rand_augment": ((), "dataset.rand_augment=9"),
    "dataset/synthetic.erase": ((), "dataset.erase=0.25"),
    "dataset/digits.val_size": (("dataset=digits",), "dataset.val_size=0.3"),
    "dataset/digits.test_size": (("dataset=digits",), "dataset.test_size=0.3"),
    "dataset/digits.train_size": (("dataset=digits",), "dataset.train_size=200"),
    "dataset/digits.split_seed": (("dataset=digits",), "dataset.split_seed=1"),
    "dataset/digits.crop": (("dataset=digits",), "dataset.crop=2"),
    "dataset/digits.flip": (("dataset=digits",), "dataset.flip=true"),
    "dataset/digits.resized_crop": (
        ("dataset=digits", "dataset.crop=0"), "dataset.resized_crop=0.3",
    ),
    "dataset/digits.rand_augment": (("dataset=digits",), "dataset.rand_augment=9"),
    "dataset/digits.erase": (("dataset=digits",), "dataset.erase=0.25"),
    "optimizer/sgd.weight_decay": ((), "optimizer.weight_decay=1e-3"),
    "optimizer/sgd.momentum": ((), "optimizer.momentum=0.5"),
    "optimizer/sgd.nesterov": ((), "optimizer.nesterov=true"),
    "optimizer/adamw.weight_decay": (("optimizer=adamw",), "optimizer.weight_decay=1e-3"),
    "optimizer/adamw.beta1": (("optimizer=adamw",), "optimizer.beta1=0.8"),
    "optimizer/adamw.beta2": (("optimizer=adamw",), "optimizer.beta2=0.9"),
    "optimizer/adamw.eps": (("optimizer=adamw",), "optimizer.eps=1e-6"),
    "trainer/default.batch_size": ((), "trainer.batch_size=8"),
    "trainer/default.label_smoothing": ((), "trainer.label_smoothing=0.1"),
    "trainer/default.precision": ((), "trainer.precision=bf16"),
    "seed": ((), "seed=1"),
}  # fmt: skip


GROUPS = "optimizer.groups=[{params: head.*, lr_factor: 2}]"
OF_EVERY_OPTIMIZER = {
    "no_decay": "optimizer.no_decay=norm_bias", "groups": GROUPS,
    "accumulate": "optimizer.accumulate=2", "clip": "optimizer.clip=1",
}  # fmt: skip
MOVES |= {
    f"optimizer/{kind}.{name}": ((f"optimizer={kind}",), change)
    for kind in KINDS["optimizer"]
    for name, change in OF_EVERY_OPTIMIZER.items()
}


STAYS: dict[str, tuple[tuple[str, ...], str]] = {
    "trainer/default.epochs": ((), "trainer.epochs=8"),
    "trainer/default.device": ((), "trainer.device=cpu"),
    "trainer/default.deterministic": ((), "trainer.deterministic=true"),
    "trainer/default.compile": ((), "trainer.compile=default"),
    "trainer/default.channels_last": ((), "trainer.channels_last=false"),
    "trainer/default.evals_per_epoch": ((), "trainer.evals_per_epoch=2"),
    "trainer/default.log_every": ((), "trainer.log_every=5"),
    "trainer/default.checkpoint_every": ((), "trainer.checkpoint_every=1"),
    "store/default.dir": ((), "store.dir=elsewhere"),
    "store/default.keep": ((), "store.keep=last"),
    "store/default.wait": ((), "store.wait=true"),
    "claim/default.factor": ((), "claim.factor=scheduler.t_mult"),
    "claim/default.baseline": ((), "claim.baseline=1"),
    "claim/default.treatments": ((), "claim.treatments=[2]"),
    "claim/default.metric": ((), "claim.metric=test/acc"),
    "claim/default.margin": ((), "claim.margin=0.5"),
    "claim/default.level": ((), "claim.level=0.01"),
    "claim/default.rivals": ((), "claim.rivals=[2]"),
    "claim/default.tuned_over": ((), "claim.tuned_over=optimizer.lr"),
    "claim/default.until": ((), "claim.until=decided"),
    "claim/default.most": (("claim.until=decided",), "claim.most=20"),
    "claim/default.looks": (("claim.until=decided",), "claim.looks=[6,8]"),
    "claim/default.decide": (("claim.until=decided",), "claim.decide=margin"),
    "claim/default.tune": (("claim.grid=[1,2]", "claim.tune=optimizer.lr"), "claim.tune=seed"),
    "claim/default.grid": (("claim.grid=[1,2]", "claim.tune=optimizer.lr"), "claim.grid=[1,3]"),
    "claim/default.tuning_seeds": ((), "claim.tuning_seeds=3"),
    "claim/default.title": ((), "claim.title=Doubling"),
    "averages/default.ema": ((), "averages.ema=[0.9]"),
    "averages/default.cycle_ends": ((), "averages.cycle_ends=[2]"),
    "averages/default.tail": ((), "averages.tail=[0.5]"),
    "ledger/default.path": ((), "ledger.path=elsewhere.jsonl"),
    "tracking/wandb.mode": (("tracking=wandb",), "tracking.mode=offline"),
    "tracking/wandb.project": (("tracking=wandb",), "tracking.project=other"),
    "tracking/wandb.entity": (("tracking=wandb",), "tracking.entity=someone"),
    "tracking/wandb.tags": (("tracking=wandb",), "tracking.tags=[a]"),
    "metrics": ((), "metrics=[]"),  # their code is, test_extensions
    "extensions": (
        (),
        "extensions=[]",
    ),  # their code is, of the sections that they have (test_extensions)
    "reuse": ((), "reuse=false"),
    "retry": ((), "retry=true"),
}


IN_THE_PLAN = {  # they move the LR, which is the other part of the key
    "optimizer/sgd.lr", "optimizer/adamw.lr",
    *(f"scheduler/{kind}.{f.name}" for kind, node in KINDS["scheduler"].items() for f in dataclasses.fields(node)),
}  # fmt: skip


BY_CONTENT = {  # data sets that are not here: their content and their own split are hashed
    *(f"dataset/{kind}.{f.name}" for kind in ("torchvision", "image_folder")
      for f in dataclasses.fields(KINDS["dataset"][kind])),
}  # fmt: skip


SMALL = (
    "trainer.batch_size=32", "trainer.epochs=3", "dataset=synthetic", "dataset.images=400", "dataset.classes=4",
    "model.width=4", "scheduler=cosine_warm", "scheduler.t_0=1",
)  # fmt: skip
BEFORE = {  # run ids by the code of 3bc0094, before extensions, groups, averages and augmentation image by image
    (): "53d7fe9ba10d9013",
    ("scheduler.interval=epoch",): "460bea437475fdd1",
    ("trainer.precision=bf16",): "3f82f8d8b01c311c",
    ("trainer.label_smoothing=0.1", "trainer.deterministic=true"): "b07a91106e51ba40",
    ("optimizer.nesterov=true", "optimizer.weight_decay=1e-3"): "5bafec21bb15ba10",
    ("optimizer=adamw", "optimizer.lr=1e-3"): "1cdd72881c0ba30d",
    ("dataset.crop=1", "dataset.flip=true", "dataset.channels=3"): "ef01ba69b41e70c8",
    ("dataset.train_size=100", "dataset.split_seed=3", "seed=7"): "aab859bc62913b74",
    ("scheduler=wsd", "scheduler.cooldown=1"): "22df5baac678f9a0",
}


@pytest.mark.parametrize("change", BEFORE, ids=" ".join)
def test_runs_are_named_as_before(change: tuple[str, ...]) -> None:
    """So the stores of before hold them: test_golden has a store, and records of whole runs."""
    words = [word for word in SMALL if "scheduler=wsd" not in change or "scheduler" not in word]
    config = make_config(*words, *change)
    assert prepare(config, PhaseTimer()).identity.run_id == BEFORE[change]


@pytest.mark.parametrize(
    ("base", "change", "moves"),
    [
        pytest.param(base, change, moves, id=field)
        for table, moves in ((MOVES, True), (STAYS, False))
        for field, (base, change) in table.items()
    ],
)
def test_the_fingerprint_holds_what_shapes_the_weights_and_nothing_else(
    base: tuple[str, ...], change: str, moves: bool
) -> None:
    before, after = tiny(*base), tiny(*base, change)
    assert (fingerprint(before) != fingerprint(after)) == moves


def test_the_order_of_groups_makes_no_other_run() -> None:
    groups = ["{params: head.*, lr_factor: 2}", "{params: stem.*, lr_factor: 3}"]
    one, other = (tiny(f"optimizer.groups=[{', '.join(own)}]") for own in (groups, groups[::-1]))
    assert fingerprint(one) == fingerprint(other)


def test_every_field_is_classified() -> None:
    fields = {
        f"{group}/{kind}.{f.name}"
        for group, kinds in KINDS.items()
        for kind, node in kinds.items()
        for f in dataclasses.fields(node)
    }
    fields |= {f.name for f in dataclasses.fields(Config)} - set(KINDS)
    assert fields == {*MOVES, *STAYS, *IN_THE_PLAN, *BY_CONTENT}


@dataclasses.dataclass
class LaterSGD(SGD):
    """SGD as it may become."""

    centred: float = added(0.0, number(at_least=0))
    averaged: bool = added(False)
    warm: int | None = added(None)


@pytest.mark.parametrize(
    ("given", "same"),
    [
        pytest.param({}, True, id="all as before"),
        pytest.param({"centred": 1.0}, False, id="another number"),
        pytest.param({"averaged": True}, False, id="another truth"),
        pytest.param({"warm": 0}, False, id="zero, which is not null"),
    ],
)
def test_a_key_that_is_added_later_costs_no_checkpoint_while_it_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], same: bool
) -> None:
    before = tiny()
    recorded, known = to_dict(before), fingerprint(before)
    monkeypatch.setitem(KINDS["optimizer"], "sgd", LaterSGD)
    read = from_dict(recorded)
    assert read.optimizer == LaterSGD(
        **vars(before.optimizer), centred=0.0, averaged=False, warm=None
    )
    after = dataclasses.replace(read, optimizer=dataclasses.replace(read.optimizer, **given))
    assert (fingerprint(after) == known) == same


def test_a_key_that_is_added_later_is_checked_like_others() -> None:
    sgd = vars(tiny().optimizer)
    with pytest.raises(ConfigError, match=r"optimizer\.centred=-1: must be a number ≥ 0"):
        LaterSGD(**sgd, centred=-1, averaged=False, warm=None)
    with pytest.raises(ConfigError, match=r"optimizer\.averaged: has no value"):
        LaterSGD(**sgd, centred=0, warm=None)


def test_one_changed_image_in_a_folder_moves_the_key(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for label in "ab":
            (tmp_path / part / label).mkdir(parents=True)
            for shade in range(4):
                Image.new("RGB", (8, 8), (60 * shade, 0, 0)).save(
                    tmp_path / part / label / f"{shade}.png"
                )
    settings = tiny(
        "dataset=image_folder",
        f"dataset.root={tmp_path}",
        "dataset.image_size=8",
        "dataset.val_size=2",
        "dataset.workers=0",
    )
    before = fingerprint(settings)
    assert fingerprint(settings) == before
    Image.new("RGB", (8, 8), (1, 0, 0)).save(tmp_path / "train/a/0.png")
    assert fingerprint(settings) != before


CHANGES: dict[str, Any] = {
    "the last weight": lambda network: network[0].weight.data[-1, -1].add_(1e-3),
    "a buffer": lambda network: network[1].running_var[0].add_(1e-3),
    "its type": lambda network: network.double(),
    "a name": lambda network: network.add_module("1", network[0]),
    "a shape": lambda network: setattr(network[0].weight, "data", network[0].weight.data.T),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_hash_of_weights_is_of_all_of_them(change: Any) -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    before = weights_sha256(network.state_dict())
    assert weights_sha256(network.state_dict()) == before
    change(network)
    assert weights_sha256(network.state_dict()) != before
