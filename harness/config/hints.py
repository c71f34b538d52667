"""What may have been meant by a key, a choice or a word that is none: the part of an error line that says the fix."""

from __future__ import annotations

import dataclasses
import math
import re
import sys
import unicodedata
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from harness.config.errors import ConfigError, closest, nearest
from harness.config.fields import Section, decimal
from harness.config.registry import CONF, KINDS, group_files, kind
from harness.config.schema import Config

_GRAMMAR = "https://hydra.cc/docs/advanced/override_grammar/basic"
_WORDS = {  # of other programs
    "learning_rate": "optimizer.lr", "max_lr": "optimizer.lr", "wd": "optimizer.weight_decay",
    "bs": "trainer.batch_size", "max_epochs": "trainer.epochs", "gpu": "trainer.device",
    "max_grad_norm": "optimizer.clip", "clip_grad": "optimizer.clip", "gradient_clip_val": "optimizer.clip",
    "accumulate_grad_batches": "optimizer.accumulate", "gradient_accumulation_steps": "optimizer.accumulate",
    "amp": "trainer.precision", "data_dir": "dataset.root", "output_dir": "hydra.run.dir", "save_dir": "hydra.run.dir",
    "cycle_decay": "scheduler.decay", "cycle_mul": "scheduler.t_mult", "min_lr": "scheduler.eta_min", "warmup_epochs": "scheduler.warmup",
}  # fmt: skip
_OWN = {  # choices that are no files of conf/
    "model": "; other classifiers of torchvision: model=torchvision model.arch=NAME",
    "dataset": "; your own images: dataset=image_folder dataset.root=PATH",
    "arm": "; your own: conf/arm/NAME.yaml, or FOLDER/arm/NAME.yaml with --config-dir FOLDER",
}
_SIZES = ("val_size", "train_size", "test_size")  # below 1 they are shares
_TORCHVISION = (
    r"(alex|dense|efficient|google|mnas|mobile|reg|shuffle|squeeze)net|convnext|inception|maxvit|"
    r"resnet(34|50|101|152)$|resnext|swin|vgg|vit|wide_resnet"
)
_INSTEAD = {  # of options that other programs have
    "resume": "a run goes on with hydra.run.dir=FOLDER, a sweep with hydra.sweep.dir=FOLDER",
    "dry_run": "python scripts/preview.py shows what would be trained",
}
_TYPED = str.maketrans("、“”‘’–—−", """,""''---""")
_REWRITTEN = (  # in a word that cannot be read: what is found there, what to write, why
    (r"=~", "=$HOME", "the shell leaves ~ as it is behind ="),
    (r"==+", "=", "= is written once"),
    (r"^([\w./]+):([^=]+)$", r"\1=\2", "a value is given with ="),
    (r"[;|]", ",", "values are separated by commas"),
    (r"^(\w+)=(\w+),(\w+=.*)$", r"\1=\2 \1.\3", "a key of a group is a word of its own"),
    (r"^([^\[]*?|.*?\]),+$", r"\1", "ends with a comma"),
)
_SAID = (  # what Hydra and YAML say, mostly of a file of conf/, and what to write there
    (r"In '((\w+)/\w+)': Could not (?:override|find) '\2/(\w+)",
     r"\1.yaml: a group is written with a slash, - override /\3: CHOICE, and the first line is # @package _global_"),
    (r"In '(.+?)': Could not override '(\w+)@", r"\1.yaml: chooses a \2, so its first line must be # @package _global_"),
    (r"In '(.+?)': Could not load '\w+/(override /\w+)[:=](\w+)'", r"\1.yaml: a space follows the colon; write - \2: \3"),
    (r"Invalid defaults list in '(.+?)'", r"\1.yaml: defaults is a list, each line with a dash; write - override /GROUP: CHOICE"),
    (r"Multiple values for (\S+)\. .*: (\S+?)'", r"\1: is chosen by two files; in the later one write - override /\1: \2"),
    (r".*found character '\\t'.* in \"(.+?)\", line (\d+)", r"\1, line \2: begins with a tab; YAML takes spaces"),
    (r"mapping values are not allowed here in \"(.+?)\", line (\d+)",
     r"\1, line \2: is indented further than the line above it, or has a second colon"),
    (r"field '(\w+)' is not Optional", r"has no keys below it; keys of a section are indented by spaces"),
    (r"Could not delete '(\w+)=", r"\1: a run needs one; choose another with \1=NAME"),
    (r"Only one of (--.*) can be specified", r"give one of \1"),
    (r"Additional config directory '(.+?)' not found", r"--config-dir \1: there is no such folder"),
)  # fmt: skip
_ARMS = "make arms: a file conf/arm/NAME.yaml for each, then arm=A,B (README, “Your own arms”)"


def _names(section: type[Section]) -> list[str]:
    return [f.name for f in dataclasses.fields(section)]


def _keys() -> Iterator[str]:
    """Yield all keys of all kinds of sections, as `optimizer.lr`."""
    for group, kinds in KINDS.items():
        for node in kinds.values():
            yield from (f"{group}.{name}" for name in _names(node))


def _fields(key: str) -> list[dataclasses.Field[Any]]:
    """Return the fields that `key` may be, one for each kind of its section that has it."""
    section, _, name = key.rpartition(".")
    kinds = KINDS.get(section, {}).values() if section else [Config]
    return [f for node in kinds for f in dataclasses.fields(node) if f.name == name]


def _groups_with(choice: str) -> list[str]:
    """Return the groups that have a file of this name, whole set-ups last."""
    found = [group for group, names in group_files().items() if choice in names]
    return sorted(found, key=lambda group: group in ("arm", "experiment"))


def _key_elsewhere(name: str) -> str | None:
    """Return the first key of a section whose last part is `name`, or that means what other programs call so."""
    own = (key for key in _keys() if key.rpartition(".")[2] == name.lower())
    return _WORDS.get(name.lower()) or next(own, None)


def unknown_key(section: type[Section], name: str, given: str = "") -> str:
    """Return the message about a key that `section` does not have; `given` is the override that has it."""
    names, meant = _names(section), _key_elsewhere(name)
    if section is Config:
        if name in group_files():
            return f"has no keys of its own; a file of conf/{name}/ begins with # @package _global_"
        if "." in name:
            group, _, rest = name.partition(".")
            return f"a file writes it in two lines, {group}: and, indented below it, {rest}: VALUE"
        known = sorted({*names, *group_files()})
        meant = meant or closest(name, known) or closest(name, list(dict.fromkeys(_keys())))
        hint = f"did you mean {meant}? " if meant else ""
        return f"is neither a key nor a group; {hint}choose from {', '.join(known)}"
    group = section.section
    if group not in KINDS:
        return f"is not a key of an entry; {nearest(name, names)}"
    keys = _keys_of_choices(group)
    swept = [choice for choice in keys if choice in _swept(group)]
    having = [choice for choice, of in keys.items() if name in of]
    if swept and {*swept} <= {*having}:
        # Hydra composes the defaults with all that is not swept before it composes any job.
        return f"is a key of all that are swept, but not of the {group} {kind(section)}; write ++{given}"
    if some := ", ".join(choice for choice in swept if choice in having):
        lacking = ", ".join(choice for choice in swept if choice not in having)
        return f"is a key of {some}, and not of {lacking}; {_ARMS}"
    own = f"is not a key of {', '.join(swept) or f'the {group} {kind(section)}'}"
    names = list(dict.fromkeys(key for choice in swept for key in keys[choice])) or names
    if having and _swept("arm"):
        return f"{own}, but of {', '.join(having)}; an arm sets its own keys in its file conf/arm/NAME.yaml"
    if having:
        return f"{own}, but of {', '.join(having)}" + f"; choose from {', '.join(names)}" * bool(
            names
        )
    has = nearest(name, names) if names else "it has none"
    if meant and not closest(name, names):
        return f"{own}; did you mean {meant}? {has}"
    return f"{own}; {has}"


def _swept(group: str) -> list[str]:
    """Return the words in the values of a group that this command sweeps over; none if it does not."""
    values = (word.partition("=")[2] for word in sys.argv if word.startswith(f"{group}="))
    several = (value for value in values if re.match(r"[^[{]*[,(]", value))
    return [word for value in several for word in re.findall(r"\w+", value)]


def _keys_of_choices(group: str) -> dict[str, list[str]]:
    """Return the names of the keys of each choice of a group."""
    found = {}
    for choice in group_files()[group]:
        node = KINDS[group].get(choice)
        if (file := CONF / group / f"{choice}.yaml").exists():
            schema = re.search(rf"/schema/{group}/(\w+)@", file.read_text())
            node = KINDS[group].get(schema[1]) if schema else None
        if node:
            found[choice] = _names(node)
    return found


def refuse_lists(overrides: Sequence[str]) -> None:
    """Raise `ConfigError` for `GROUP=[A,B]`, where Hydra would merge the files of A and B."""
    for given in overrides:
        listed = re.fullmatch(r"(\w+)=\[([^][]*)\]", given)
        if listed and listed[1] in KINDS:
            names = listed[2].replace(" ", "") or "NAME"
            several = "-m " * ("," in names and listed[1] not in ("tracking", "store", "ledger"))
            one = names if several else names.partition(",")[0]
            raise ConfigError(
                f"{given}: a choice has no brackets; write {several}{listed[1]}={one}"
            )


def unknown_choice(group: str, name: str, options: Sequence[str]) -> str:
    """Return the message about `GROUP=NAME`, of which the `options` are there."""
    kinds = KINDS.get(group, {}).values()
    fields = (f for node in kinds for f in dataclasses.fields(node))
    keys = [f"{group}.{f.name}" for f in fields if name in f.metadata.get("choices", ())]
    meant = keys or ([] if name in ("none", "default") else _groups_with(name))
    if group == "model" and re.match(_TORCHVISION, name):
        meant = ["model=torchvision model.arch"]
    if meant and name not in options:
        hint = f"did you mean {meant[0]}={name}? choose from {', '.join(sorted(options))}"
    else:
        hint = nearest(name, sorted(options))
    return f"{group}={name}: {hint}{_OWN.get(group, '')}"


def instead_of(text: str) -> str | None:
    """Return what to say in place of a `text` of Hydra, OmegaConf or YAML; None for texts that say enough."""
    overridden = re.match(r"In '(.+?)': Could not override '(\w+)'", text)
    if overridden and overridden[2] not in group_files():
        file, group = overridden.groups()
        return f"{file}.yaml: /{group}: is no group; {nearest(group, [*group_files()])}"
    if found := re.match(r"Merge error: \w+ is not a subclass of (\w+)\. value: (.*)", text):
        sections = {node.__name__: group for group, of in KINDS.items() for node in of.values()}
        if found[1] in sections:
            return _value_of_section(sections[found[1]], found[2])
    matches = ((re.match(pattern, text), fix) for pattern, fix in _SAID)
    return next((found.expand(fix) for found, fix in matches if found), None)


def _value_of_section(group: str, value: str) -> str:
    """Return the message about a line `GROUP: VALUE` of a file."""
    if pair := re.fullmatch(r"(\w+)[:=](\S+)", value):
        return f"{group}: {value}: a space follows the colon; write {pair[1]}: {pair[2]}"
    if value in group_files().get(group, ()):
        return (
            f"{group}: {value}: a file is chosen below defaults:, with - override /{group}: {value}"
        )
    return f"{group}: {value}: must be keys and values, indented below {group}:"


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
    plain = unicodedata.normalize("NFKC", given).translate(_TYPED)
    if plain != given:
        return f"{given}: has full-width or typographic characters; write {plain}"
    for pattern, written, why in _REWRITTEN:
        if (fixed := re.sub(pattern, written, given)) != given:
            return f"{given}: {why}; write {fixed}"
    if "=" not in given:
        if groups := _groups_with(given):
            choices = " or ".join(f"{group}={given}" for group in groups)
            return f"{given}: is a choice without its group; write {choices}"
        file = re.fullmatch(r"(?:conf/)?(\w+)[./](\w+?)(?:\.yaml)?", given)
        if file and file[2] in group_files().get(file[1], ()):
            return f"{given}: is chosen by {file[1]}={file[2]}"
        if re.fullmatch(r"\w+", given) and given not in group_files() and not _fields(given):
            return f"{given}: is no KEY=VALUE; a value with spaces needs quotes; see --help"
        if re.fullmatch(r"[A-Za-z_~@./]+[\w./@]*", given):
            return f"{given}: has no value; give one with {given}=VALUE"
    return (
        f"{given}: cannot be read; brackets must close, special characters need quotes: {_GRAMMAR}"
    )


def options_in_one_line(parser: ArgumentParser) -> None:
    """Let `parser`, of a program that takes the keys of `conf/`, raise `ConfigError` in place of its usage."""

    def refuse(message: str) -> NoReturn:
        if valued := re.match(r"argument (\S+): ignored explicit argument '(.*)'", message):
            raise ConfigError(f"{valued[1]}: takes no value; leave ={valued[2]} out")
        if unknown := re.match(r"unrecognized arguments: .*?(-\S*)", message):
            raise ConfigError(unknown_option(unknown[1], [*parser._option_string_actions]))
        raise ConfigError(f"{message.removeprefix('argument ')}; see --help")

    parser.error = refuse  # type: ignore[method-assign]


def unknown_option(word: str, options: Sequence[str]) -> str:
    """Return the message about `--word`, which is none of the `options` of a program."""
    name, _, value = word.lstrip("-").replace("-", "_").partition("=")
    known = {*group_files(), *_names(Config), *_keys()}
    key = name if name in known else _key_elsewhere(name)
    if name in _INSTEAD:
        return f"{word}: is no option; {_INSTEAD[name]}"
    meant = f"{key}={value or 'VALUE'}" if key else closest(word, options, cutoff=0.75)
    other = "keys are given as KEY=VALUE, without dashes; see --help"
    return f"{word}: is no option; " + (f"did you mean {meant}?" if meant else other)


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
    key, _, values = given.lstrip("+").partition("=")
    if re.fullmatch(r"\w+", key) and not _fields(key) and key not in group_files():
        return f"{given}: {unknown_key(Config, key)}"
    takes_list = any(str(f.type).startswith(("list", "Any")) for f in _fields(key))
    brackets = f"; a list needs brackets, {key}=[{values}]" * takes_list
    return f"{given}: several values need -m{brackets}{_decimal_comma(given)}"


def _decimal_comma(given: str) -> str:
    """Return the fix for `KEY=0,1` where the key takes a fraction; else nothing."""
    comma = re.fullmatch(r"(.+)=0,(\d+)", given)
    fraction = comma and any(str(f.type).startswith("float") for f in _fields(comma[1]))
    return f"; a fraction has a point, 0.{comma[2]}" if comma and fraction else ""


def half_of_fraction(text: str) -> str:
    """Return the fix for a `text` about `KEY=0` of a sweep that was given as `KEY=0,1`; else nothing."""
    key = re.match(r"(\S+)=0: must be", text)
    return "".join(
        _decimal_comma(word) for word in sys.argv if key and word.startswith(f"{key[1]}=0,")
    )


def _percent(key: str, f: dataclasses.Field[Any], number: float) -> str:
    """Return what to write in place of `number` percent."""
    bounds = f.metadata.get("bounds", {})
    if key == "claim.margin":
        return "; points have no %"
    if min(bounds.get("<", math.inf), bounds.get("≤", math.inf)) <= 1 or f.name in _SIZES:
        return f"; {decimal(number)} % is {decimal(number / 100)}"
    return "; durations count epochs, not percent" * key.startswith("scheduler.")


def about_value(key: str, f: dataclasses.Field[Any], value: object) -> str:
    """Return what to write in place of a `value` that the field `f` does not take; empty if unknown."""
    text = str(value).strip()
    ends = re.fullmatch(r"(\d+) ?(?:\.\.+|-|:) ?(\d+)", text)
    if ends and f.type == "int":
        return f"; {ends[1]} to {ends[2]} is -m '{key}=range({ends[1]},{int(ends[2]) + 1})'"
    if percent := re.fullmatch(r"(\d+(?:\.\d+)?) ?%", text):
        return _percent(key, f, float(percent[1]))
    if comma := re.fullmatch(r"(\d+),(\d+)", text):
        return f"; a fraction has a point, {comma[1]}.{comma[2]}"
    if several := re.fullmatch(r"\[(.+)\]|([\d.]+(?: [\d.]+)+)", text):
        values = (several[1] or several[2].replace(" ", ",")).replace(", ", ",")
        listed = str(f.type).startswith("list")
        return f"; write {key}=[{values}]" if listed else f"; for each of them -m {key}={values}"
    if isinstance(value, float) and value.is_integer():
        return f"; write {decimal(value)}"
    if text in ("range", "choice", "interval"):
        return f"; brackets need quotes, as in '{key}=range(0,10)'"
    return ""
