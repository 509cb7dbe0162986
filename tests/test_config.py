"""Options: which source wins, and what is said about a wrong value."""

import re
from pathlib import Path

import pytest

from dsa110_contimg.cli.main import main
from dsa110_contimg.config import ImagingConfig, PipelineConfig, SelfCalConfig, SimulationConfig
from dsa110_contimg.errors import ConfigError

CLASSES = [ImagingConfig, PipelineConfig, SelfCalConfig, SimulationConfig]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    import os

    for name in [n for n in os.environ if n.upper().startswith("CONTIMG_")]:
        monkeypatch.delenv(name)


def toml(tmp_path, text):
    file = tmp_path / "options.toml"
    file.write_text(text)
    return file


def refusal(call, *args, **options):
    with pytest.raises(ConfigError) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_flags_before_environment_before_file_before_defaults(tmp_path, monkeypatch):
    file = toml(tmp_path, "robust = 1.0\nmin_snr = 7.0\nclean_sigma = 2.0\n")
    monkeypatch.setenv("CONTIMG_ROBUST", "-1")
    monkeypatch.setenv("CONTIMG_MIN_SNR", "8")
    config = SelfCalConfig.load(file, {"robust": 0.5, "size": None})
    assert config.robust == 0.5
    assert config.min_snr == 8.0
    assert config.clean_sigma == 2.0
    assert config.mask_sigma == SelfCalConfig.model_fields["mask_sigma"].default
    assert config.size is None


def test_lower_case_variables_win_over_the_file_too(tmp_path, monkeypatch):
    monkeypatch.setenv("contimg_min_snr", "8")
    assert SelfCalConfig.load(toml(tmp_path, "min_snr = 7.0\n")).min_snr == 8.0


def test_trap_2_seeding_is_on_wherever_it_is_asked():
    assert SelfCalConfig().use_nvss_seeding
    assert SelfCalConfig.load().use_nvss_seeding
    assert not SelfCalConfig.load(overrides={"use_nvss_seeding": False}).use_nvss_seeding


@pytest.mark.parametrize("value", ["0.1mJy", "1 mJy", "", "nan", "inf", "-1", "abc", "1,0"])
def test_trap_23_fluxes_that_are_no_numbers(monkeypatch, tmp_path, value):
    assert refusal(SelfCalConfig, nvss_min_mjy=value).startswith("nvss_min_mjy: ")
    monkeypatch.setenv("CONTIMG_NVSS_MIN_MJY", value)
    text = refusal(SelfCalConfig.load)
    assert text.startswith(f"CONTIMG_NVSS_MIN_MJY (nvss_min_mjy): {value!r} is not allowed; ")


def test_a_wrong_value_says_what_is_allowed():
    assert "greater than or equal to 64" in refusal(SelfCalConfig, size=3)
    assert "'natural', 'uniform' or 'briggs'" in refusal(ImagingConfig, weighting="robust")
    assert "allowed: auto, int, scan, inf or a positive number" in refusal(SelfCalConfig, solint="soon")
    assert "identifiers separated by commas" in refusal(SelfCalConfig, spw_map="0-3")


def test_a_wrong_value_names_its_variable_file_and_range(monkeypatch, tmp_path):
    file = toml(tmp_path, 'rollout = "half"\n')
    text = refusal(PipelineConfig.load, file)
    assert text.startswith(f"{file} (rollout): 'half' is not allowed; ")
    assert text.endswith("allowed: at least 0, at most 1")
    monkeypatch.setenv("CONTIMG_ROLLOUT", "1.5")
    text = refusal(PipelineConfig.load, file)
    assert text.startswith("CONTIMG_ROLLOUT (rollout): '1.5' is not allowed; ")
    assert "less than or equal to 1" in text
    assert refusal(PipelineConfig.load, file, {"rollout": "x"}).startswith("rollout: 'x' is not allowed; ")


def test_sources_of_values(monkeypatch, tmp_path):
    file = toml(tmp_path, "robust = 1.0\nmin_snr = 7.0\nclean_sigma = 2.0\n")
    monkeypatch.setenv("CONTIMG_ROBUST", "-1")
    monkeypatch.setenv("contimg_min_snr", "8")
    flags = {"robust": 0.5, "size": None}
    sources = PipelineConfig.sources(file, flags)
    assert set(sources) == set(PipelineConfig.model_fields)
    assert sources["robust"] == "flag"
    assert sources["min_snr"] == "contimg_min_snr"
    assert sources["clean_sigma"] == str(file)
    assert sources["size"] == sources["rollout"] == "default"
    # Each source says the truth: what load returns differs from the default just there.
    loaded = PipelineConfig.load(file, flags)
    changed = {k for k, i in PipelineConfig.model_fields.items() if getattr(loaded, k) != i.default}
    assert changed == {k for k, s in sources.items() if s != "default"}


@pytest.mark.parametrize(
    "name", ["clean_sigma", "mask_sigma", "memory_gb", "min_snr", "cell_arcsec", "robust"]
)
@pytest.mark.parametrize("value", ["inf", "nan"])
def test_numbers_are_finite(name, value):
    assert refusal(SelfCalConfig, **{name: value}).startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("auto", "auto"),
        (" inf ", "inf"),
        ("60", "60.0"),
        ("60s", "60.0"),
        (" 12.9 s", "12.9"),
        ("scan", "scan"),
    ],
)
def test_intervals(given, meant):
    config = SelfCalConfig(solint=given, amplitude_solint=given)
    assert (config.solint, config.amplitude_solint) == (meant, meant)
    assert config.with_options(min_snr=1.0).solint == meant


@pytest.mark.parametrize("given", ["0", "-5", "nan", "infs", "ints", "1e999", "60 min", ""])
def test_intervals_that_are_none(given):
    assert "allowed: auto" in refusal(SelfCalConfig, solint=given)


@pytest.mark.parametrize("given", ["0,²", "", "a", "-1", "0,,1"])
def test_window_maps_that_are_none(given):
    assert "identifiers separated by commas" in refusal(SelfCalConfig, spw_map=given)


def test_window_map_by_position():
    assert SelfCalConfig(spw_map="0, 0,2").spw_map_dict() == {0: 0, 1: 0, 2: 2}
    assert SelfCalConfig().spw_map_dict() == {}


@pytest.mark.parametrize(
    ("key", "said"), [("min_snrr", "did you mean 'min_snr'?"), ("zzz", "options: size, ")]
)
def test_unknown_options(tmp_path, key, said):
    file = toml(tmp_path, f"{key} = 1\n")
    text = refusal(SelfCalConfig.load, file)
    assert text.startswith(f"{file}: unknown option {key!r}; ")
    assert said in text
    assert said in refusal(SelfCalConfig, **{key: 1})
    assert said in refusal(SelfCalConfig().with_options, **{key: 1})


def test_files_that_cannot_be_used(tmp_path):
    assert "none.toml: cannot be read (No such file" in refusal(SelfCalConfig.load, tmp_path / "none.toml")
    assert "cannot be read" in refusal(SelfCalConfig.load, tmp_path)
    assert "is not valid TOML" in refusal(SelfCalConfig.load, toml(tmp_path, "robust = \n"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    assert "is not valid TOML" in refusal(SelfCalConfig.load, tmp_path / "binary")
    assert "unknown option 'selfcal'" in refusal(
        SelfCalConfig.load, toml(tmp_path, "[selfcal]\nrobust = 1\n")
    )


def test_unknown_variables_are_somebody_elses(monkeypatch):
    monkeypatch.setenv("CONTIMG_SOMETHING_ELSE", "1")
    SelfCalConfig.load()


def test_changed_copies_are_checked_and_the_original_stays():
    config = SelfCalConfig(robust=1.0)
    changed = config.with_options(size=512, catalog_dir="cat")
    assert (changed.size, changed.robust, changed.catalog_dir) == (512, 1.0, Path("cat"))
    assert config.size is None
    assert refusal(config.with_options, robust=9).startswith("robust: 9 is not allowed")
    with pytest.raises(ValueError, match="frozen"):
        config.robust = 0.0


def test_changed_copies_keep_what_was_given_whatever_the_environment(monkeypatch):
    config = SelfCalConfig(robust=1.0)
    monkeypatch.setenv("CONTIMG_ROBUST", "-1")
    monkeypatch.setenv("CONTIMG_MIN_SNR", "9")
    changed = config.with_options(size=512)
    assert (changed.robust, changed.min_snr) == (1.0, config.min_snr)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_option_is_documented_and_its_default_allowed(cls):
    for name, field in cls.model_fields.items():
        assert field.description, name
        assert not field.description.endswith("."), name
    assert cls(**cls().model_dump()) == cls()


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("0.1mJy", (0.0, 1e-4)),
        ("2e-4 Jy", (0.0, 2e-4)),
        ("50uJy", (0.0, 5e-5)),
        ("5sigma", (5.0, None)),
        ("5 Sigma", (5.0, None)),
        (None, (2.5, None)),
    ],
)
def test_trap_23_clean_depths(given, meant):
    sigma, depth = ImagingConfig(threshold=given, clean_sigma=2.5).depth()
    assert (sigma, depth) == (meant[0], None if meant[1] is None else pytest.approx(meant[1]))


@pytest.mark.parametrize(
    "given", ["", "5", "mJy", "-1mJy", "0sigma", "nansigma", "1e999Jy", "5 beams", "1..2Jy"]
)
def test_trap_23_clean_depths_that_are_none(given):
    assert "allowed: a positive number with a unit" in refusal(ImagingConfig, threshold=given)


def test_terms_need_channels():
    assert "at least as many channels_out" in refusal(ImagingConfig, spectral_terms=3, channels_out=2)
    assert ImagingConfig(spectral_terms=2, channels_out=2).spectral_terms == 2


def test_options_that_do_not_fit_together_are_named():
    with pytest.raises(ConfigError) as caught:
        ImagingConfig(channels_out=2, spectral_terms=5)
    said = str(caught.value)
    assert said.startswith("options: spectral_terms=5 needs at least as many channels_out")
    assert "{" not in said


def test_a_file_of_the_pipeline_serves_its_parts(tmp_path):
    file = toml(tmp_path, 'min_snr = 4.0\nworkers = 3\nmarker = ".done"\n')
    assert SelfCalConfig.load(file).min_snr == 4.0
    assert PipelineConfig.load(file).workers == 3
    assert set(SelfCalConfig.sources(file).values()) == {str(file), "default"}
    assert "'workrs'" in refusal(SelfCalConfig.load, toml(tmp_path, "workrs = 3\n"))


def test_a_template_is_a_file_of_all_options(tmp_path, capfd):
    assert main(["config", "template"]) == 0
    text = capfd.readouterr().out
    lines = re.findall(r"^#(\w+) =(.*)$", text, re.M)
    assert sorted(name for name, _ in lines) == sorted(PipelineConfig.model_fields)
    file = tmp_path / "contimg.toml"
    file.write_text("\n".join(f"{name} ={value}" for name, value in lines if value))
    assert PipelineConfig.load(file) == PipelineConfig()
    assert text.index("## Often needed") < text.index("## Solving") < text.index("## Workers")
