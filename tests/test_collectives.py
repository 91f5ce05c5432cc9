"""What programs of known traffic send, and texts in the forms that XLA prints."""

import pytest

from experiments import collectives

KNOWN = """
    import functools

    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import NamedSharding, PartitionSpec as P

    from experiments import collectives
    from ssl_jax import mesh

    grid = mesh.data_parallel(shards=2)


    def sent(function, shape, given, taken, dtype=jnp.float32):
        share = functools.partial(jax.shard_map, mesh=grid, check_vma=False, in_specs=given, out_specs=taken)
        program = jax.jit(share(function)).lower(jax.ShapeDtypeStruct(shape, dtype)).compile().as_text()
        return collectives.operand_bytes(program), collectives.ring_bytes(program, 8)


    both = ("data", "shard")
    # Each device holds 5 x 3 float32.
    share = 5 * 3 * 4
    assert sent(lambda x: jax.lax.psum(x, both), (40, 3), P(both), P()) == ({"all-reduce": share}, 2 * share * 7 // 8)
    assert sent(lambda x: jax.lax.psum(x, "shard"), (40, 3), P(both), P("data")) == ({"all-reduce": share}, share)
    gather = functools.partial(jax.lax.all_gather, tiled=True)
    assert sent(lambda x: gather(x, both), (40, 3), P(both), P()) == ({"all-gather": share}, 7 * share)
    assert sent(lambda x: gather(x, "data"), (40, 3), P(both), P("shard"))[1] == 3 * share
    scatter = functools.partial(jax.lax.psum_scatter, tiled=True)
    assert sent(lambda x: scatter(x, "shard"), (48, 3), P(both), P(both))[0] == {"reduce-scatter": 6 * 3 * 4}
    turn = [(i, (i + 1) % 4) for i in range(4)]
    assert sent(lambda x: jax.lax.ppermute(x, "data", turn), (40, 3), P(both), P(both)) == (
        {"collective-permute": share},
        share,
    )
    swap = functools.partial(jax.lax.all_to_all, axis_name=both, split_axis=0, concat_axis=0, tiled=True)
    assert sent(swap, (64, 3), P(both), P(both)) == ({"all-to-all": 96}, 96 * 7 // 8)
    # A loop's body counts as often as it runs.
    loop = lambda x: jax.lax.fori_loop(0, 6, lambda i, y: jax.lax.psum(y, "data") * 0.5, x)
    assert sent(loop, (40, 3), P(both), P("shard"))[0] == {"all-reduce": 6 * share}
    # Without any of it, nothing.
    assert sent(lambda x: x * 2, (40, 3), P(both), P(both)) == ({}, 0)
"""


def test_programs_of_known_traffic(child):
    child(KNOWN, devices=8)


PRINTED = """HloModule jit_step, is_scheduled=true, num_partitions=8

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  ROOT %sum = f32[] add(%a, %b)
}

%body (p: (s32[], f32[4,2])) -> (s32[], f32[4,2]) {
  %p = (s32[], f32[4,2]{1,0}) parameter(0)
  %x = f32[4,2]{1,0} get-tuple-element(%p), index=1
  %turned = f32[4,2]{1,0} collective-permute(%x), channel_id=5, source_target_pairs={{0,1},{1,0}}
  ROOT %t = (s32[], f32[4,2]{1,0}) tuple(%i, %turned)
}

ENTRY %main.1_spmd (in: bf16[8,3], /*index=1*/w: f32[16]) -> f32[16] {
  %in = bf16[8,3]{1,0:T(8,128)(2,1)} parameter(0)
  %w = f32[16]{0} parameter(1)
  %m = pred[7]{0} parameter(2)
  %pair = (f32[16], pred[7]{0}, /*index=2*/f32[16]{0}) all-reduce(%w, %m, %w), replica_groups=[2,4]<=[8], to_apply=%add
  %begun = (bf16[8,3]{1,0}, bf16[64,3]{1,0}) all-gather-start(bf16[8,3]{1,0} %in), replica_groups={{0,1,2,3,4,5,6,7}}
  %done = bf16[64,3]{1,0} all-gather-done(%begun)
  %axes = f32[16]{0} all-reduce(%w), replica_groups=mesh['a'=4,'b'=2] {'b','a':(1)2}, to_apply=%add
  %loop = (s32[], f32[4,2]{1,0}) while(%s), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"10"}}
  ROOT %out = f32[2]{0} reduce-scatter(%w), dimensions={0}, to_apply=%add
}
"""


def test_what_xla_prints():
    reduced, gathered, turned, scattered = 64 + 7 + 64, 48, 320, 64
    assert collectives.operand_bytes(PRINTED) == {
        "all-reduce": reduced + 64,
        "all-gather": gathered,
        "reduce-scatter": scattered,
        "collective-permute": turned,
    }
    # Groups of 4 devices, then of 2 x 2 by their names, and all 8 where none are named.
    sent = 2 * 3 / 4 * (reduced + 64) + 7 * gathered + turned + 7 / 8 * scattered
    assert collectives.ring_bytes(PRINTED, 8) == round(sent)


def test_another_text_is_refused():
    with pytest.raises(ValueError, match="no HLO module"):
        collectives.operand_bytes("step: 3")
