def pytest_runtest_logreport(report):
    if report.failed:
        print(
            "FAILED",
            report.nodeid,
            "\n".join(report.longreprtext.splitlines()[-25:])[-1800:],
            flush=True,
        )
