"""What holds for all tests."""

from hypothesis import HealthCheck, settings

# No test judges time: on a busy machine a slow example is no mistake. Speed is what the benchmarks are for.
settings.register_profile("inferxgate", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("inferxgate")
