"""Usage: buckets that never overlap, and the sums that clients know."""

from __future__ import annotations

from inferxgate.canonical.usage import BUCKETS, Usage


def test_every_bucket_is_on_one_side_and_counted_once() -> None:
    usage = Usage(**{bucket: 10**place for place, bucket in enumerate(BUCKETS)})
    assert usage.total_tokens == 1_111_111_111
    assert usage.prompt_tokens + usage.completion_tokens == usage.total_tokens
    output = Usage(output_tokens=1, reasoning_tokens=2, audio_output_tokens=4, image_output_tokens=8)
    assert (output.prompt_tokens, output.completion_tokens) == (0, 15)


def test_two_usages_are_added_bucket_by_bucket() -> None:
    one = Usage(**{bucket: 10**place for place, bucket in enumerate(BUCKETS)})
    assert one + one == Usage(**{bucket: 2 * 10**place for place, bucket in enumerate(BUCKETS)})
    assert one + Usage() == one
