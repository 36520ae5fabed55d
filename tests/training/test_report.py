from llamacast.training.report import Report


def test_a_report_is_silent_unless_asked(capsys):
    for progress in (None, False):
        Report(progress).line("[bold]something")
    assert capsys.readouterr().err == ""
    report = Report(True)
    report.line("[bold]something")
    report.row({"step": 3, "minutes": 0.5, "loss": 0.25, "learning_rate": 1e-3})
    told = capsys.readouterr().err
    assert "[bold]something" in told
    assert "step 3  minutes 0.50  loss 0.2500" in told
