"""The command line: typed flags over YAML over presets, with unknown names refused and explained."""

from __future__ import annotations

import difflib
import logging
import sys
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ActionYesNo, ArgumentParser

from training.config import COMMANDS, PRESETS
from training.config.base import CommandConfig
from training.errors import ConfigError, TrainingInterrupted
from training.exit_codes import exit_code
from training.processes import is_first

ALIASES = {"--val_images_dir": "--validation_image_dir", "--prompt": "--validation_prompts"}
INTERRUPTED = 143
# Under a launcher the first process runs these alone; the others share the work of the rest.
SINGLE = ("validate", "export")
PURPOSES = {
    "validate": "report what is usable in a data set, and why the rest is not",
    "stage1": "train the gain-map VAE on captioned photos",
    "triples": "turn photos into Text-SDR-GM triples with that VAE",
    "stage2": "train the gain-map UNet on the triples",
    "export": "write files that the ComfyUI nodes load",
    "generate": "text or pictures to HDR without ComfyUI",
    "smoke": "all of the above on tiny models (a self-test of the installation)",
}
USAGE = (
    "usage: python -m training <command> [--config FILE] [--flag VALUE ...]\n\ncommands:\n"
    + "".join(f"  {command:10} {purpose}\n" for command, purpose in PURPOSES.items())
    + "\n`python -m training <command> --help` lists a command's flags; `--print_config` prints its settings."
)

ConfigT = TypeVar("ConfigT", bound=CommandConfig)


def build_parser(command: str, config_type: type[CommandConfig]) -> ArgumentParser:
    """A parser whose flags are the fields of `config_type`."""
    parser = ArgumentParser(
        prog=f"python -m training {command}", description=PURPOSES[command], exit_on_error=False
    )
    parser.add_argument("--config", action="config", help="YAML file with any of the settings below")
    hints = get_type_hints(config_type)
    for item in fields(config_type):
        _add_flag(parser, item, hints[item.name])
    return parser


def parse_config(command: str, config_type: type[ConfigT], argv: Sequence[str]) -> ConfigT:
    """Resolve preset, then YAML files in their order, then flags, wherever they stand on the line.

    Raises: ConfigError for unknown names (with the nearest known one) and for bad values.
    """
    known = [item.name for item in fields(config_type)]
    arguments = _files_first(_with_aliases(argv))
    _refuse_unknown(command, known, arguments)
    _refuse_scalars(config_type, arguments)
    parser = build_parser(command, config_type)
    parser.set_defaults(PRESETS[_preset(arguments)].get(command, {}))
    try:
        namespace = parser.parse_args(arguments)
    except ArgumentError as error:
        raise ConfigError(f"{command}: {error}") from error
    return config_type(**{name: namespace[name] for name in known})


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the process's exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S"
    )
    try:
        return exit_code(lambda: run_command(arguments[0], arguments[1:]))
    except TrainingInterrupted as stop:
        logging.getLogger(__name__).warning("%s", stop)
        return INTERRUPTED


def run_command(command: str, argv: Sequence[str]) -> int:
    """Dispatch to the module that implements `command`; heavy imports happen only here."""
    runners: dict[str, Callable[[Any], int | None]] = {
        "validate": lambda config: _imported("training.validate").run(config),
        "stage1": lambda config: _imported("training.stage1.trainer").run(config),
        "triples": lambda config: _imported("training.triples").run(config),
        "stage2": lambda config: _imported("training.stage2.trainer").run(config),
        "export": lambda config: _imported("training.export").run(config),
        "generate": lambda config: _imported("training.generate").run(config),
    }
    if command == "smoke":
        return _imported("training.smoke").main(argv)
    if command not in runners:
        raise ConfigError(f"unknown command {command!r}{_suggestion(command, [*runners, 'smoke'])}")
    config = parse_config(command, COMMANDS[command], argv)
    if command in SINGLE and not is_first():
        return 0
    return runners[command](config) or 0


def _imported(module: str) -> Any:
    import importlib

    return importlib.import_module(module)


def _add_flag(parser: ArgumentParser, item: Field[Any], hint: Any) -> None:
    required = item.default is MISSING and item.default_factory is MISSING
    default = item.default_factory() if item.default_factory is not MISSING else item.default
    common: dict[str, Any] = {"help": item.metadata["help"]}
    if required:
        common["required"] = True
    else:
        common["default"] = default
    if hint is bool:
        parser.add_argument(f"--{item.name}", action=ActionYesNo, nargs="?", **common)
    elif get_origin(hint) is list:
        parser.add_argument(f"--{item.name}", type=get_args(hint)[0], nargs="+", **common)
    else:
        parser.add_argument(f"--{item.name}", type=hint, **common)


def _with_aliases(argv: Sequence[str]) -> list[str]:
    renamed = []
    for argument in argv:
        flag, separator, value = argument.partition("=")
        renamed.append(ALIASES.get(flag, flag) + separator + value)
    return renamed


def _files_first(argv: Sequence[str]) -> list[str]:
    """The same arguments in the order of their weight: the parser lets what stands later win."""
    files: list[str] = []
    others: list[str] = []
    is_value = False
    for argument in argv:
        is_file = is_value or argument == "--config" or argument.startswith("--config=")
        (files if is_file else others).append(argument)
        is_value = argument == "--config" and not is_value
    return files + others


def _refuse_unknown(command: str, known: Sequence[str], argv: Sequence[str]) -> None:
    accepted = {"config", "print_config", "help", *known}
    for argument in argv:
        name = argument[2:].partition("=")[0]
        if not argument.startswith("--") or name.removeprefix("no_") in accepted:
            continue
        raise ConfigError(f"{command} has no flag --{name}{_suggestion(name, known)}")
    for path, content in _yaml_files(argv):
        for name in content:
            if name not in accepted:
                raise ConfigError(f"{path}: unknown key {name!r}{_suggestion(str(name), known)}")


def _refuse_scalars(config_type: type[CommandConfig], argv: Sequence[str]) -> None:
    """A list of one is easily written as a single value, about which the parser is not clear."""
    lists = [name for name, hint in get_type_hints(config_type).items() if get_origin(hint) is list]
    for path, content in _yaml_files(argv):
        for name in lists:
            value = content.get(name)
            if value is not None and not isinstance(value, list):
                raise ConfigError(f"{path}: {name} is {value!r}, expected a list, such as [{value}]")


def _preset(argv: Sequence[str]) -> str:
    in_files = [content["preset"] for _, content in _yaml_files(argv) if "preset" in content]
    preset = str(["improved", *in_files, *_flag_values(argv, "--preset")][-1])
    if preset not in PRESETS:
        raise ConfigError(f"preset is {preset!r}{_suggestion(preset, list(PRESETS))}")
    return preset


def _yaml_files(argv: Sequence[str]) -> list[tuple[Path, dict[str, Any]]]:
    return [(Path(path), _yaml_content(path)) for path in _flag_values(argv, "--config")]


def _yaml_content(path: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the configuration {path}: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds {type(content).__name__}, expected a mapping of settings")
    return content


def _flag_values(argv: Sequence[str], flag: str) -> list[str]:
    """Every value that a flag is given, in order."""
    values = []
    for position, argument in enumerate(argv):
        if argument == flag and position + 1 < len(argv):
            values.append(argv[position + 1])
        elif argument.startswith(f"{flag}="):
            values.append(argument.partition("=")[2])
    return values


def _suggestion(name: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else f"; known: {', '.join(sorted(known))}"
