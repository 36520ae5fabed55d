from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.interfaces.serving import serving

schemathesis = pytest.importorskip("schemathesis")
checks = pytest.importorskip("schemathesis.specs.openapi.checks")
# A JSON schema cannot say that a frequency is known, or that one value of a list is not null.
EXCLUDED = [checks.positive_data_acceptance]
EXAMPLES = 25


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    with serving(folder, "--fine-tunes", folder / "jobs") as (_, address):
        yield schemathesis.openapi.from_url(f"{address}/openapi.json")


def test_the_service_does_what_its_description_says(described):
    operations = [result.ok() for result in described.get_all_operations()]
    assert len(operations) == 14
    for operation in operations:

        @seed(1)
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def conforms(case):
            case.call_and_validate(timeout=60, excluded_checks=EXCLUDED)

        conforms()
