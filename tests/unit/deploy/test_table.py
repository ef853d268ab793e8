from deploy.table import figure, markdown_table, with_spread


def test_a_table_is_aligned_and_its_cells_stay_cells() -> None:
    table = markdown_table(("run", "ε"), [("a|b", "1.0"), ("two\nlines", "\x1b[31m2")])
    assert table.splitlines() == [
        "| run | ε |",
        "| --- | ---: |",
        "| a\\|b | 1.0 |",
        "| two lines | \N{REPLACEMENT CHARACTER}[31m2 |",
    ]


def test_figures_and_spreads() -> None:
    assert figure(0.12345, 3) == "0.123"
    assert figure(None, 3) == "–"
    assert with_spread(0.97344, 0.00123) == "0.9734 ± 0.0012"
    assert with_spread(0.97344, None) == "0.9734"
    assert with_spread(None, None) == "–"
    assert with_spread(0.5, 0.25, 1) == "0.5 ± 0.2"
