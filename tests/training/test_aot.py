"""What is read off the text of a compiled program, and the sizes of the presets."""

import math

import pytest

from jaxsmooth.bert.params import encoder_shapes
from jaxsmooth.training.aot import SIZES, Collective, count_collectives, what_it_needs

PROGRAM = """
HloModule jit_step
%body.1 (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %ag = bf16[4,8]{1,0:T(8,128)(2,1)} all-gather(%x), dimensions={0}
  %cp = (bf16[2]{0}, bf16[2]{0}) collective-permute-start(%y)
  %done = bf16[2]{0} collective-permute-done(%cp)
}
ENTRY %main (p0: f32[4]) -> f32[4] {
  %loop = (s32[], f32[8]) while(%init), condition=%cond.1, body=%body.1, backend_config={"known_trip_count":{"n":"12"}}
  %ar = (f32[10]{0}, /*index=1*/f32[2,5]{1,0}) all-reduce(%a, %b), to_apply=%add
}
"""


TWICE = """
%fused.1 (p: f32[4]) -> f32[8] {
  %ag.1 = f32[8]{0} all-gather(%p), channel_id=7, dimensions={0}
}
%fused.2 (p: f32[4]) -> f32[8] {
  %ag.2 = f32[8]{0} all-gather(%p), channel_id=7, dimensions={0}
}"""
"""One collective, in two computations."""


def test_collectives_are_counted_with_their_loops():
    assert count_collectives(PROGRAM) == [
        Collective("all-gather", 12, 12 * 64),
        Collective("all-reduce", 1, 80),
        Collective("collective-permute", 12, 12 * 4),
    ]


def test_asynchronous_ones_count_once_and_loops_run_over_the_layers():
    program = (
        TWICE
        + """
%body (p: f32[8]) -> f32[8] {
  %a = f32[8]{0} fusion(%p), kind=kCustom, calls=%fused.1
  %b = f32[8]{0} fusion(%a), kind=kCustom, calls=%fused.2
}
ENTRY %main (p: f32[8]) -> f32[8] {
  %loop = f32[8]{0} while(%p), condition=%cond, body=%body
}
"""
    )
    assert count_collectives(program, layers=6) == [Collective("all-gather", 6, 6 * 32)]


def test_a_reduce_scatter_of_the_tpu_compiler():
    program = """
%all-reduce-scatter.1 (input.1: bf16[256,256]) -> bf16[128,256] {
  %all-reduce.1 = bf16[256,256]{1,0:T(8,128)(2,1)} all-reduce(%input.1), channel_id=4, to_apply=%add
  ROOT %part = bf16[128,256]{1,0} dynamic-slice(%all-reduce.1, %place), dynamic_slice_sizes={128,256}
}
ENTRY %main (p: bf16[256,256]) -> bf16[128,256] {
  %fusion = bf16[128,256]{1,0} fusion(%p), kind=kCustom, calls=%all-reduce-scatter.1
}
"""
    assert count_collectives(program) == [Collective("reduce-scatter", 1, 128 * 256 * 2)]


def test_a_turn_taken_out_of_a_loop_is_one_more():
    """It keeps the channel of those that stay: a TPU compiler's first or last layer."""
    program = (
        TWICE
        + """
%body (p: f32[8]) -> f32[8] {
  %a = f32[8]{0} fusion(%p), kind=kCustom, calls=%fused.1
}
ENTRY %main (p: f32[8]) -> f32[8] {
  %first = f32[8]{0} fusion(%p), kind=kCustom, calls=%fused.2
  %loop = f32[8]{0} while(%first), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"11"}}
}
"""
    )
    assert count_collectives(program, layers=12) == [Collective("all-gather", 12, 12 * 32)]


def test_what_goes_to_another_slice_of_tpus():
    """Sent through the host: one line that sends and one that waits, a channel's state and a token beside the array."""
    program = """
%body (p: bf16[8,128]) -> bf16[8,128] {
  %send.1 = (bf16[8,128]{1,0:T(8,128)(2,1)}, u32[], token[]) send(%p, %after-all.1), channel_id=2, is_host_transfer=true
  %send-done.1 = token[] send-done(%send.1), channel_id=2, is_host_transfer=true
}
ENTRY %main (p: bf16[8,128]) -> bf16[8,128] {
  %loop = bf16[8,128]{1,0} while(%p), condition=%cond, body=%body
}
"""
    assert count_collectives(program, layers=6) == [Collective("send", 6, 6 * 8 * 128 * 2)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ran out of memory in memory space hbm. Used 20.5G of 15.75G hbm.", "it needs 20.5G of 15.75G HBM"),
        ("required for HLO temporaries (64.00G) exceeds available HBM (15.75G).", "it needs 64.00G of 15.75G HBM"),
        ("something\nelse", "something"),
    ],
)
def test_what_a_compiler_says_of_memory(text, expected):
    assert what_it_needs(text) == expected


def test_the_sizes_have_the_published_parameters():
    counts = {name: sum(map(math.prod, encoder_shapes(config).values())) for name, config in SIZES.items()}
    published = 149014272  # transformers' ModernBertModel, whose first block has no norm_attn, and which has no pooler
    assert counts == {
        "bert-base": 109482240,
        "bert-large": 335141888,
        "modernbert-base": published + 768 + (768 + 1) * 768,
    }
