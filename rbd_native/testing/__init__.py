"""What tests of this package, and of what others build on it, have in common. Needs pytest."""

import pytest

pytest.register_assert_rewrite("rbd_native.testing.contract")
