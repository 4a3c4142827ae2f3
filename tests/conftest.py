"""What is common to all tests."""

import pytest

# Where an assertion in there fails, it shows what it compared.
pytest.register_assert_rewrite("tests.support")
