"""What each kind of token costs, where that is from, and newer prices from a file."""

from __future__ import annotations

import csv
import io
import stat
from pathlib import Path

import orjson
import pytest

from tests.support.terminal import CommandLine, without_colour

CONFIG = """
[providers.openai]
api_key = "k"
[providers.gemini]
api_key = "k"
[providers.local]
type = "openai"
base_url = "http://127.0.0.1:1/v1"
models = ["llama", "unknown"]
[models.smart]
targets = ["openai/gpt-4o"]
[pricing."openai/gpt-4o"]
discount = 0.15
[pricing."local/llama"]
input = 0.2
output = 0.6
reasoning = 0.7
audio_input = 1
audio_output = 2
image_input = 3
image_output = 4
cache_read = 0.02
cache_write = 0.25
cache_write_1h = 0.4
request = 0.005
"""


@pytest.fixture
def configured(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path, config=CONFIG)


def write_prices(folder: Path, *, dollars: float = 123, provider: str = "openai") -> Path:
    prices = {"input_mtok": dollars, "output_mtok": 2 * dollars}
    models = [{"id": "gpt-4o", "match": {"equals": "gpt-4o"}, "context_window": 9, "prices": prices}]
    file = folder / "data.json"
    file.write_bytes(orjson.dumps([{"id": provider, "models": models}]))
    return file


def test_every_bucket_of_one_model(configured: CommandLine) -> None:
    page = configured.well("models", "prices", "llama").out.splitlines()
    assert [line.split("  ")[0] for line in page][:2] == ["Name", "Goes to"]
    amounts = [line.removesuffix(" per million tokens").split()[-1] for line in page if "per million" in line]
    assert " ".join(amounts) == "$0.20 $0.02 $0.25 $0.40 $0.60 $0.70 $1.00 $2.00 $3.00 $4.00"
    assert "Each request        $0.005" in page
    assert page[-1].startswith("Price from          config:")


def test_tiers_are_told(configured: CommandLine) -> None:
    page = configured.well("models", "prices", "gemini-2.5-pro").out
    assert "Input               $1.25 per million tokens, $2.50 where the prompt has more than 200,000\n" in page
    done = configured.well("models", "prices", "gemini/gemini-2.5-pro*")
    rows = [line.split() for line in done.out.splitlines()]
    assert rows[2][:3] == ["above", "200,000", "$2.50"]
    assert "A row that begins with 'above'" in done.err


def test_a_discount_and_its_source(configured: CommandLine) -> None:
    [shown] = configured.well("models", "prices", "smart", "--json").json
    assert (shown["id"], shown["target"], shown["request"]) == ("smart", "openai/gpt-4o", 0)
    assert shown["version"].startswith("genai-prices ")
    assert ", config:" in shown["version"]
    assert (shown["tiers"][0]["input"], shown["tiers"][0]["cache_read"]) == (2.125, 1.0625)


def test_a_pattern_fits_names_and_targets(configured: CommandLine) -> None:
    shown = configured.well("models", "prices", "local/*", "--json").json
    assert [entry["id"] for entry in shown] == ["llama", "unknown"]
    assert (shown[1]["version"], shown[1]["tiers"], shown[1]["request"]) == (None, None, None)
    assert "No listed model is called like 'nobody/*'" in configured.fails("models", "prices", "nobody/*")
    assert "unknown; 'inferxgate models show' says why" in configured.well("models", "prices", "local/unknown").out


def test_csv_has_a_row_for_each_tier(configured: CommandLine) -> None:
    rows = [*csv.DictReader(io.StringIO(configured.well("models", "prices", "--csv").out))]
    by_id = {(row["id"], row["above_prompt_tokens"]): row for row in rows}
    assert by_id["gemini-2.5-pro", "200000"]["output"] == "15"
    assert by_id["llama", "0"]["request"] == "0.005"
    assert by_id["unknown", ""]["input"] == ""
    assert by_id["echo", "0"]["version"] == "free"


def test_eighty_columns_are_enough(configured: CommandLine) -> None:
    with configured.on_terminal("models", "prices", "g*", columns=80) as terminal:
        assert terminal.end() == 0
        lines = without_colour(terminal.seen).splitlines()
    assert all(len(line) <= 80 for line in lines if "$" in line)
    assert "No room for: " in " ".join(lines)


def test_a_file_of_prices_is_used_and_taken_back(configured: CommandLine, tmp_path: Path) -> None:
    before = configured.well("models", "prices", "gpt-4o", "--json").json
    done = configured.well("models", "prices", "--update-from", str(write_prices(tmp_path)))
    first, second = done.out.splitlines()
    assert first.startswith("Installed 1 provider with 1 model as prices.json ")
    assert second.startswith("Against genai-prices ")
    assert second.endswith(" gone, 1 with another price")
    assert "It has no prices of google: what gemini costs is unknown with it" in done.err
    [shown] = configured.well("models", "prices", "gpt-4o", "--json").json
    assert shown["version"].startswith("prices.json ")
    assert shown["tiers"][0]["input"] == 123 * 0.85
    assert configured.well("models", "show", "gpt-4o", "--json").json["context_window"] == 9
    assert "nowhere: prices.json " in configured.well("models", "show", "gemini/gemini-2.5-pro").out
    assert stat.S_IMODE((configured.data_dir / "prices.json").stat().st_mode) == 0o600
    assert configured.well("models", "prices", "--reset").out.startswith("Prices are those of genai-prices ")
    assert configured.well("models", "prices", "gpt-4o", "--json").json == before
    assert configured.well("models", "prices", "--reset").out.startswith("No price file is installed")


def test_what_is_no_price_file_changes_nothing(configured: CommandLine, tmp_path: Path) -> None:
    configured.well("models", "prices", "--update-from", str(write_prices(tmp_path)))
    installed = (configured.data_dir / "prices.json").read_bytes()
    line = configured.fails("models", "prices", "--update-from", str(write_prices(tmp_path, dollars=-1)))
    assert "input_mtok has to be an amount of dollars" in line
    assert line.endswith("; nothing was changed")
    assert "cannot read" in configured.fails("models", "prices", "--update-from", str(tmp_path / "absent"))
    assert (configured.data_dir / "prices.json").read_bytes() == installed


def test_a_damaged_file_stops_and_can_be_taken_back(configured: CommandLine) -> None:
    configured.data_dir.mkdir()
    (configured.data_dir / "prices.json").write_text("[")
    for command in (("models", "list"), ("models", "prices"), ("chat", "hello"), ("serve",)):
        line = configured.fails(*command)
        assert "cannot be used: it is not JSON" in line
        assert "--reset" in line
    configured.well("models", "prices", "--reset")
    assert configured.well("models", "prices", "echo", "--json").json[0]["version"] == "free"


def test_a_damaged_file_can_be_replaced(configured: CommandLine, tmp_path: Path) -> None:
    configured.data_dir.mkdir()
    (configured.data_dir / "prices.json").write_text("[")
    out = configured.well("models", "prices", "--update-from", str(write_prices(tmp_path))).out
    assert out.startswith("Installed 1 provider with 1 model")


@pytest.mark.parametrize(
    "arguments",
    [("--json", "--csv"), ("--reset", "gpt-4o"), ("--reset", "--update-from", "x"), ("--update-from", "x", "--json")],
)
def test_what_makes_no_sense_together(configured: CommandLine, arguments: tuple[str, ...]) -> None:
    assert configured.run("models", "prices", *arguments).code == 2
