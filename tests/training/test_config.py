"""Configuration: presets, YAML, flags, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from training.cli import PURPOSES, main, parse_config
from training.config import COMMANDS, Stage1Config, Stage2Config
from training.errors import ConfigError
from training.stage2.validation import read_prompts

REQUIRED = {
    "stage1": ["--pretrained_model_name_or_path", "m", "--train_metadata", "a", "--output_dir", "o"],
    "stage2": ["--pretrained_model_name_or_path", "m", "--train_metadata", "a", "--output_dir", "o"],
    "triples": ["--source", "a", "--output_dir", "o", "--gain_source", "analytic"],
    "validate": ["--source", "a", "--output_dir", "o"],
    "export": ["--stage2", "a", "--output_dir", "o"],
    "generate": ["--pretrained_model_name_or_path", "m", "--unet_ckpt", "u", "--sdr_input_path", "p"],
}

# The commands of the paper's README, with the paths shortened.
README_STAGE1 = (
    "--pretrained_model_name_or_path m --train_metadata a.parquet b.parquet --dataset_cache_dir c "
    "--bright_tmo fix_mulog_tmo --clip_pixel --train_batch_size 8 --gradient_accumulation_steps 2 "
    "--output_dir o --resume_from_checkpoint latest --seed 1"
)
README_STAGE2 = (
    "--pretrained_model_name_or_path m --train_metadata a.parquet --dataset_cache_dir c --train_batch_size 8 "
    "--gradient_accumulation_steps 2 --output_dir o --validation_prompts one two "
    "--validation_prompt_file p.txt --validation_image_dir i --scheduler_config s --seed 1"
)
README_GENERATE = (
    "--pretrained_model_name_or_path m --unet_ckpt u --sdr_input_path p --output_dir o "
    "--seed 7 --resolution 512"
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_its_flags(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert "--output_dir" in said and PURPOSES[command] in said


@pytest.mark.parametrize("command", COMMANDS)
def test_print_config_is_a_configuration(
    command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit):
        main([command, *REQUIRED[command], "--print_config"])
    file = tmp_path / "config.yaml"
    file.write_text(capsys.readouterr().out, encoding="utf-8")
    again = parse_config(command, COMMANDS[command], ["--config", str(file)])
    assert again == parse_config(command, COMMANDS[command], REQUIRED[command])


@pytest.mark.parametrize(
    "command, flags",
    [("stage1", README_STAGE1), ("stage2", README_STAGE2), ("generate", README_GENERATE)],
)
@pytest.mark.parametrize("preset", ["improved", "paper"])
def test_flags_of_the_papers_readme_work_as_written(command: str, flags: str, preset: str) -> None:
    config = parse_config(command, COMMANDS[command], [*flags.split(), "--preset", preset])
    assert config.seed in (1, 7)
    if command == "stage1":
        assert isinstance(config, Stage1Config)
        assert config.clip_pixel and config.train_metadata == ["a.parquet", "b.parquet"]


def test_flags_override_yaml_and_yaml_overrides_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "preset": "paper",
                "pretrained_model_name_or_path": "m",
                "train_metadata": ["a"],
                "output_dir": "o",
                "train_batch_size": 3,
                "learning_rate": 2e-5,
            }
        )
    )
    config = parse_config("stage1", Stage1Config, ["--config", str(file), "--learning_rate", "1e-6"])
    assert (config.preset, config.qmax, config.train_batch_size, config.learning_rate) == (
        "paper",
        49.0,
        3,
        1e-6,
    )


def test_of_several_files_the_later_wins_and_flags_win_wherever_they_stand(tmp_path: Path) -> None:
    (tmp_path / "first.yaml").write_text("{qmax: 12, learning_rate: 1.0e-3}", encoding="utf-8")
    (tmp_path / "second.yaml").write_text("{preset: paper, learning_rate: 2.0e-3}", encoding="utf-8")
    (tmp_path / "wrong.yaml").write_text("{qmx: 12}", encoding="utf-8")
    files = [f"--config={tmp_path / 'first.yaml'}", "--config", str(tmp_path / "second.yaml")]
    config = parse_config("stage1", Stage1Config, ["--seed", "7", *files, *REQUIRED["stage1"]])
    assert (config.qmax, config.learning_rate, config.seed) == (12, 2e-3, 7)
    assert config.preset == "paper" and config.alternate_updates
    flags = ["--qmax", "7", "--preset", "paper", "--preset", "improved"]
    config = parse_config("stage1", Stage1Config, [*flags, *files, *REQUIRED["stage1"]])
    assert (config.qmax, config.preset, config.alternate_updates) == (7, "improved", False)
    with pytest.raises(ConfigError, match=r"wrong\.yaml: unknown key 'qmx'; did you mean 'qmax'"):
        parse_config("stage1", Stage1Config, [*files, "--config", str(tmp_path / "wrong.yaml")])


def test_the_saved_configuration_reads_back(tmp_path: Path) -> None:
    config = parse_config("stage2", Stage2Config, [*REQUIRED["stage2"], "--snr_gamma", "null"])
    config.save(tmp_path / "config.yaml")
    assert parse_config("stage2", Stage2Config, ["--config", str(tmp_path / "config.yaml")]) == config


@pytest.mark.parametrize(
    "flag, suggestion", [("--lerning_rate", "learning_rate"), ("--train_batchsize=3", "train_batch_size")]
)
def test_an_unknown_flag_is_refused_with_the_nearest_one(flag: str, suggestion: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean '{suggestion}'"):
        parse_config("stage2", Stage2Config, [*REQUIRED["stage2"], flag])


def test_an_unknown_yaml_key_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("resolutoin: 512\n")
    with pytest.raises(ConfigError, match="run.yaml.*did you mean 'resolution'"):
        parse_config("stage2", Stage2Config, ["--config", str(file)])


def test_text_that_is_not_utf_8_is_named_by_its_file(tmp_path: Path) -> None:
    file = tmp_path / "latin.yaml"
    file.write_bytes("output_dir: café".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.yaml: 'utf-8' codec"):
        parse_config("stage2", Stage2Config, ["--config", str(file)])
    with pytest.raises(ConfigError, match=r"prompt file .*latin\.yaml is not UTF-8"):
        read_prompts([], str(file))


def test_prompts_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("\ufeffa lamp\n\nthe sun\n", encoding="utf-8")
    assert read_prompts(["first"], str(tmp_path / "prompts.txt")) == ["first", "a lamp", "the sun"]


@pytest.mark.parametrize("value", ["photos", "3", "{a: b}"])
def test_a_single_value_in_place_of_a_list_is_named_with_its_file(tmp_path: Path, value: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"train_metadata: {value}\n")
    with pytest.raises(ConfigError, match=r"run\.yaml: train_metadata is .* expected a list"):
        parse_config("stage2", Stage2Config, ["--config", str(file)])


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--bright_tmo", "mulog"], "fix_mulog_tmo"),
        (["--preset", "papper"], "did you mean 'paper'"),
        (["--resolution", "500"], "multiple of 8"),
        (["--schema_version", "2"], "schema_version is 2"),
        (["--train_batch_size", "many"], "train_batch_size"),
        (["--max_train_steps", "0"], "max_train_steps is 0, expected at least 1"),
        (["--adam_beta1", "1"], "adam_beta1 is 1.0, expected at least 0 and below 1"),
        (["--max_grad_norm", "0"], "max_grad_norm is 0.0, expected above 0"),
        (["--seed", "-1"], "seed is -1, expected at least 0"),
        (["--discr_width", "4"], "discr_width is 4, too few for discr_depth 6"),
        (["--resolution", "64"], "discr_depth is 6: nothing is left of a resolution of 64"),
        (["--gain_log2_max", "6"], "gain_log2_max is 6, of which gain_encoding linear makes nothing"),
        (["--config", "/nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_bad_values_are_named(flags: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config("stage1", Stage1Config, [*REQUIRED["stage1"], *flags])


def test_errors_end_the_process_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stge1"]) == 1
    assert capsys.readouterr().err == "error: unknown command 'stge1'; did you mean 'stage1'?\n"


@pytest.mark.parametrize("command", ["validate", "stage1", "triples"])
def test_an_output_folder_that_cannot_be_made_is_named(
    command: str, base: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    given = "--train_metadata" if command == "stage1" else "--source"
    flags = [given, str(photos), "--output_dir", str(tmp_path / "file" / "out")]
    if command == "stage1":
        flags += ["--pretrained_model_name_or_path", str(base), "--lora_rank", "2"]
    if command == "triples":
        flags += ["--gain_source", "analytic"]
    assert main([command, *flags]) == 1
    assert f"error: {tmp_path / 'file' / 'out'}: Not a directory" in capsys.readouterr().err


def test_no_configuration_holds_a_secret() -> None:
    names = {name for kind in COMMANDS.values() for name in kind.__dataclass_fields__}
    assert not [name for name in names if "token" in name or "key" in name or "password" in name]
