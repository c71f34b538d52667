"""What may have been meant by a key, a choice or a word that is none: the part of an error line that says the fix."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Iterator, Sequence

from harness.config.errors import closest, nearest
from harness.config.fields import Section, decimal
from harness.config.registry import CONF, KINDS, group_files, kind
from harness.config.schema import Config

_GRAMMAR = "https://hydra.cc/docs/advanced/override_grammar/basic"
_WORDS = {  # of other programs
    "learning_rate": "optimizer.lr", "max_lr": "optimizer.lr", "wd": "optimizer.weight_decay",
    "bs": "trainer.batch_size", "max_epochs": "trainer.epochs", "gpu": "trainer.device",
    "amp": "trainer.precision", "data_dir": "dataset.root", "output_dir": "hydra.run.dir", "save_dir": "hydra.run.dir",
}  # fmt: skip
_OWN = {  # choices that are no files of conf/
    "model": "; other classifiers of torchvision: model=torchvision model.arch=NAME",
    "dataset": "; your own images: dataset=image_folder dataset.root=PATH",
    "arm": "; your own: conf/arm/NAME.yaml, or FOLDER/arm/NAME.yaml with --config-dir FOLDER",
}
_ARMS = "make arms: a file conf/arm/NAME.yaml for each, then arm=A,B (README, “Your own arms”)"


def _names(section: type[Section]) -> list[str]:
    return [f.name for f in dataclasses.fields(section)]


def _keys() -> Iterator[str]:
    """Yield all keys of all kinds of sections, as `optimizer.lr`."""
    for group, kinds in KINDS.items():
        for node in kinds.values():
            yield from (f"{group}.{name}" for name in _names(node))


def _key_elsewhere(name: str) -> str | None:
    """Return the first key of a section whose last part is `name`, or that means what other programs call so."""
    own = (key for key in _keys() if key.rpartition(".")[2] == name.lower())
    return _WORDS.get(name.lower()) or next(own, None)


def unknown_key(section: type[Section], name: str) -> str:
    """Return the message about a key that `section` does not have."""
    names, meant = _names(section), _key_elsewhere(name)
    if section is Config:
        if name in group_files():
            return f"has no keys of its own; a file of conf/{name}/ begins with # @package _global_"
        known = sorted({*names, *group_files()})
        meant = meant or closest(name, known) or closest(name, list(dict.fromkeys(_keys())))
        hint = f"did you mean {meant}? " if meant else ""
        return f"is neither a key nor a group; {hint}choose from {', '.join(known)}"
    group = section.section
    own = f"is not a key of the {group} {kind(section)}"
    has = nearest(name, names) if names else "it has none"
    if others := _choices_with(group, name):
        return f"{own}, but of {', '.join(others)}" + f"; choose from {', '.join(names)}" * bool(
            names
        )
    if meant and not closest(name, names):
        return f"{own}; did you mean {meant}? {has}"
    return f"{own}; {has}"


def _choices_with(group: str, name: str) -> list[str]:
    """Return the choices of a group that have the key `name`."""
    found = []
    for choice in group_files().get(group, []):
        text = (CONF / group / f"{choice}.yaml").read_text()
        schema = re.search(rf"/schema/{group}/(\w+)@", text)
        node = KINDS[group].get(schema[1]) if schema else None
        found += [choice] * (node is not None and name in _names(node))
    return found


def make_arms(given: str) -> str:
    """Return what to do about the key of the override `given` if its group is swept; else nothing."""
    group = given.lstrip("+").partition(".")[0]
    return (
        _ARMS
        if any(re.match(rf"{re.escape(group)}=[^[{{]*[,(]", word) for word in sys.argv)
        else ""
    )


def unknown_choice(group: str, name: str, options: Sequence[str]) -> str:
    """Return the message about `GROUP=NAME`, of which the `options` are there."""
    groups = [other for other, names in group_files().items() if name in names]
    kinds = KINDS.get(group, {}).values()
    fields = (f for node in kinds for f in dataclasses.fields(node))
    keys = [f"{group}.{f.name}" for f in fields if name in f.metadata.get("choices", ())]
    meant = keys or ([] if name in ("none", "default") else groups)
    if meant and name not in options:
        hint = f"did you mean {meant[0]}={name}? choose from {', '.join(sorted(options))}"
    else:
        hint = nearest(name, sorted(options))
    return f"{group}={name}: {hint}{_OWN.get(group, '')}"


def file_of_choices(text: str) -> str | None:
    """Return the message about a file of `conf/` whose defaults Hydra refuses with `text`; None for other texts."""
    if inside := re.match(r"In '(.+?)': Could not override '(.+?)@", text):
        return f"{inside[1]}.yaml: chooses a {inside[2]}, so its first line must be # @package _global_"
    if twice := re.match(r"Multiple values for (\S+)\. .*: (\S+?)'", text):
        return f"{twice[1]}: is chosen by two files; in the later one write - override /{twice[1]}: {twice[2]}"
    return None


def unreadable(given: str) -> str:
    """Return the message about a word of the command line that Hydra cannot read."""
    joined = _joined(given, sys.argv[1:])
    if joined != given:
        return f"{given}: values are written without spaces around = and commas; write {joined}"
    if given.startswith("--"):
        return unknown_option(given, [])
    if given[:1] in ("–", "—"):
        plain = given.lstrip("–—")
        return f"{given}: begins with a long dash; write {plain if '=' in plain else f'-{plain}'}"
    if given.endswith(",") and given.count("[") == given.count("]"):
        return f"{given}: ends with a comma; write {given.rstrip(',')}"
    if "=~" in given:
        return (
            f"{given}: the shell leaves ~ as it is behind =; write {given.replace('=~', '=$HOME')}"
        )
    if "=" not in given:
        if groups := [group for group, names in group_files().items() if given in names]:
            return f"{given}: is a choice without its group; write {groups[0]}={given}"
        if file := re.fullmatch(r"conf/(\w+)/(\w+)\.yaml", given):
            return f"{given}: is chosen by {file[1]}={file[2]}"
        if re.fullmatch(r"[A-Za-z_~@./]+[\w./@]*", given):
            return f"{given}: has no value; give one with {given}=VALUE"
    return (
        f"{given}: cannot be read; brackets must close, special characters need quotes: {_GRAMMAR}"
    )


def unknown_option(word: str, options: Sequence[str]) -> str:
    """Return the message about `--word`, which is none of the `options` of `python train.py`."""
    name, _, value = word.lstrip("-").replace("-", "_").partition("=")
    known = {*group_files(), *_names(Config), *_keys()}
    key = name if name in known else _key_elsewhere(name)
    meant = f"{key}={value or 'VALUE'}" if key else closest(word, options)
    return f"{word}: is no option; did you mean {meant or 'KEY=VALUE, without dashes'}?"


def _joined(given: str, words: Sequence[str]) -> str:
    """Return `given` with the words around it that spaces have parted from it."""
    if given not in words:
        return given
    first = last = list(words).index(given)

    def parted(before: str, after: str) -> bool:
        value_follows = before.endswith(("=", ",")) and "=" not in after and after[:1] != "-"
        return value_follows or after[:1] == "," or (after[:1] == "=" and "=" not in before)

    while first > 0 and parted(words[first - 1], words[first]):
        first -= 1
    while last + 1 < len(words) and parted(words[last], words[last + 1]):
        last += 1
    return "".join(words[first : last + 1])


def several_values(given: str) -> str:
    """Return the message about the values of an override that only a sweep takes."""
    comma = re.fullmatch(r".*=0,(0\d+|\d\d+)", given)
    point = f"; a fraction has a point, 0.{comma[1]}" if comma else ""
    return f"{given}: several values need -m; a list needs brackets, KEY=[A,B]{point}"


def about_value(key: str, value: object) -> str:
    """Return what to write in place of a `value` that is no number, as `1..3` and `20%`; empty if unknown."""
    text = str(value).strip()
    if ends := re.fullmatch(r"(\d+) ?(?:\.\.+|-|:) ?(\d+)", text):
        return f"; for all of them -m '{key}=range({ends[1]},{int(ends[2]) + 1})'"
    if percent := re.fullmatch(r"(\d+(?:\.\d+)?) ?%", text):
        points = key.endswith("margin")
        number = float(percent[1]) / (1 if points else 100)
        return f"; {percent[1]} % is {decimal(number)}" if not points else "; points have no %"
    if several := re.fullmatch(r"\[(.+)\]|([\d.]+(?: [\d.]+)+)", text):
        values = (several[1] or several[2].replace(" ", ",")).replace(", ", ",")
        return f"; for each of them -m {key}={values}"
    if isinstance(value, float) and value.is_integer():
        return f"; write {decimal(value)}"
    if text in ("range", "choice", "interval"):
        return f"; brackets need quotes, as in '{key}=range(0,10)'"
    return ""
