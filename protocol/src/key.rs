//! Slots: which of the 16,384 buckets a key belongs to.
//!
//! Place in the flow: step 4 (route), and every client that routes by the shard map.
//!
//! A slot is CRC-16/XMODEM (polynomial 0x1021, initial value 0, no reflection) of the key, or of its hash tag, modulo
//! 16,384, as the Redis Cluster specification defines it, so that cluster-aware Redis clients can route.

/// The number of slots.
pub const SLOT_COUNT: usize = 16_384;

/// `TABLES[n][b]` is the CRC of byte `b` followed by `n` zero bytes, so eight bytes take eight independent look-ups.
const TABLES: [[u16; 256]; 8] = tables();

const fn tables() -> [[u16; 256]; 8] {
    let mut tables = [[0_u16; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut zeros = 1;
    while zeros < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[zeros - 1][byte];
            tables[zeros][byte] = (before << 8) ^ tables[0][(before >> 8) as usize];
            byte += 1;
        }
        zeros += 1;
    }
    tables
}

/// CRC-16/XMODEM of `bytes`.
pub fn crc16(bytes: &[u8]) -> u16 {
    let mut crc = 0_u16;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let bytes = <&[u8; 8]>::try_from(chunk).expect("chunks of eight");
        crc = TABLES[7][usize::from(bytes[0] ^ (crc >> 8) as u8)]
            ^ TABLES[6][usize::from(bytes[1] ^ crc as u8)]
            ^ TABLES[5][usize::from(bytes[2])]
            ^ TABLES[4][usize::from(bytes[3])]
            ^ TABLES[3][usize::from(bytes[4])]
            ^ TABLES[2][usize::from(bytes[5])]
            ^ TABLES[1][usize::from(bytes[6])]
            ^ TABLES[0][usize::from(bytes[7])];
    }
    for &byte in chunks.remainder() {
        crc = (crc << 8) ^ TABLES[0][usize::from((crc >> 8) as u8 ^ byte)];
    }
    crc
}

/// The slot of `key`, in `0..SLOT_COUNT`: of the part between the first `{` and the next `}` where that is not empty
/// (the hash tag), else of the whole key.
#[inline]
pub fn slot(key: &[u8]) -> u16 {
    let hashed = if may_have_tag(key) { hash_tag(key).unwrap_or(key) } else { key };
    crc16(hashed) & (SLOT_COUNT as u16 - 1)
}

/// Whether `key` has a `{` (or, rarely, a byte above it whose neighbour makes it look like one): nearly no key has, and
/// eight bytes are asked at once, by the zero-byte test of Hacker's Delight, section 6-1.
#[inline]
fn may_have_tag(key: &[u8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let mut chunks = key.chunks_exact(8);
    for chunk in &mut chunks {
        let zero_where_open = u64::from_le_bytes(chunk.try_into().expect("chunks of eight")) ^ (ONES * 0x7B);
        if zero_where_open.wrapping_sub(ONES) & !zero_where_open & HIGHS != 0 {
            return true;
        }
    }
    chunks.remainder().contains(&b'{')
}

fn hash_tag(key: &[u8]) -> Option<&[u8]> {
    let open = key.iter().position(|&byte| byte == b'{')?;
    let tag = &key[open + 1..];
    let close = tag.iter().position(|&byte| byte == b'}')?;
    (close > 0).then(|| &tag[..close])
}

/// The shard of a slot, when `shard_count` shards divide the slots into equal, contiguous ranges.
pub fn shard_of_slot(slot: u16, shard_count: u16) -> u16 {
    ((u32::from(slot) * u32::from(shard_count)) / SLOT_COUNT as u32) as u16
}

/// The slots of a shard, `first..end`: the inverse of [`shard_of_slot`].
pub fn slots_of_shard(shard: u16, shard_count: u16) -> std::ops::Range<u16> {
    let boundary = |shard: u32| (shard * SLOT_COUNT as u32).div_ceil(u32::from(shard_count)) as u16;
    boundary(u32::from(shard))..boundary(u32::from(shard) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crc16_bit_by_bit(bytes: &[u8]) -> u16 {
        bytes.iter().fold(0, |crc, &byte| {
            (0..8).fold(
                crc ^ (u16::from(byte) << 8),
                |crc, _| {
                    if crc & 0x8000 == 0 {
                        crc << 1
                    } else {
                        (crc << 1) ^ 0x1021
                    }
                },
            )
        })
    }

    #[test]
    fn the_check_value_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(crc16(b""), 0);
    }

    #[test]
    fn slicing_equals_the_definition_at_every_length() {
        let bytes: Vec<u8> = (0..100_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for length in 0..bytes.len() {
            assert_eq!(crc16(&bytes[..length]), crc16_bit_by_bit(&bytes[..length]), "length {length}");
        }
    }

    #[test]
    fn hash_tags_route_together_and_an_empty_tag_is_no_tag() {
        assert_eq!(slot(b"{user1000}.following"), slot(b"{user1000}.followers"));
        assert_eq!(slot(b"{user1000}.following"), slot(b"user1000"));
        assert_eq!(slot(b"foo{}{bar}"), crc16(b"foo{}{bar}") & 0x3FFF);
        assert_eq!(slot(b"foo{{bar}}zap"), slot(b"{bar"));
        assert_eq!(slot(b"foo{bar}{zap}"), slot(b"bar"));
        assert_eq!(slot(b"foo{bar"), crc16(b"foo{bar") & 0x3FFF);
        // Known values of the Redis Cluster specification's algorithm.
        assert_eq!(slot(b"foo"), 12_182);
        assert_eq!(slot(b"bar"), 5_061);
    }

    #[test]
    fn a_tag_is_found_wherever_it_stands() {
        for before in 0..20 {
            let key = [&vec![b'x'; before][..], b"{tag}", &vec![b'|'; 20 - before]].concat();
            assert_eq!(slot(&key), slot(b"tag"), "after {before} bytes");
        }
    }

    #[test]
    fn shards_divide_the_slots_without_gap_or_overlap() {
        for shard_count in [1, 2, 3, 4, 7, 8, 12, 64, 1000, 4096, 16_384_u16] {
            let mut next = 0;
            for shard in 0..shard_count {
                let range = slots_of_shard(shard, shard_count);
                assert_eq!(range.start, next);
                assert!(range.clone().all(|slot| shard_of_slot(slot, shard_count) == shard));
                next = range.end;
            }
            assert_eq!(usize::from(next), SLOT_COUNT);
        }
    }
}
